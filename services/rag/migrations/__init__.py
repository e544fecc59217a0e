"""Numbered SQL files, applied in order by `services.rag.adapters.postgres_migrations`."""
