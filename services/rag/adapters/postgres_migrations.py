"""Bringing the database's schema up to this release.

Each migration runs in a transaction of its own, together with the note that it ran. An advisory
lock lets several replicas start at once: one migrates, the others wait and find nothing to do.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import asyncpg

from services.rag.core.errors import StoreSchemaTooNew

__all__ = ["Migration", "apply_migrations", "load_migrations"]

_PACKAGE = "services.rag.migrations"
_FILE_NAME = re.compile(r"(?P<version>\d{4})_(?P<name>\w+)\.sql")
_LOCK_KEY = 7_267_003_151

_PREPARE = """
CREATE SCHEMA IF NOT EXISTS rag;
CREATE TABLE IF NOT EXISTS rag.schema_migration (
    version integer PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema's history."""

    version: int
    name: str
    sql: str


def load_migrations() -> tuple[Migration, ...]:
    """Returns the migrations of this release, oldest first."""
    found = [
        Migration(int(matched["version"]), matched["name"], entry.read_text("utf-8"))
        for entry in resources.files(_PACKAGE).iterdir()
        if (matched := _FILE_NAME.fullmatch(entry.name))
    ]
    return tuple(sorted(found, key=lambda migration: migration.version))


async def apply_migrations(
    connection: asyncpg.Connection, migrations: Sequence[Migration]
) -> tuple[Migration, ...]:
    """Applies the migrations that the database lacks, and return them.

    Args:
        connection: Outside any transaction; its role may create schemas and extensions.
        migrations: The whole history that this release knows, oldest first.

    Raises:
        StoreSchemaTooNew: A newer release has migrated the database.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
    try:
        await connection.execute(_PREPARE)
        stored = await connection.fetchval(
            "SELECT coalesce(max(version), 0) FROM rag.schema_migration"
        )
        known = max((migration.version for migration in migrations), default=0)
        if stored > known:
            raise StoreSchemaTooNew(stored, known)
        missing = tuple(migration for migration in migrations if migration.version > stored)
        for migration in missing:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO rag.schema_migration (version, name) VALUES ($1, $2)",
                    migration.version,
                    migration.name,
                )
        return missing
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)
