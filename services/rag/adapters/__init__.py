"""The rag service's way to PostgreSQL."""
