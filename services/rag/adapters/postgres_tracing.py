"""Connections whose statements have spans: what they do to which tables, never with what values."""

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
from opentelemetry.trace import SpanKind, Tracer, get_current_span
from opentelemetry.util.types import AttributeValue

from services.common.tracing import SERVER_ADDRESS, SERVER_PORT, mark_failed
from services.rag.adapters.postgres_session import SessionConnection

__all__ = ["Statement", "database_attributes", "statement_of", "traced_connection"]

T = TypeVar("T")

# Texts differ by the parts of a filter, and by the number of a collection with an index of its own.
_MOST_TEXTS = 512
_MOST_TABLES = 3
_PORT = 5432
_VERBS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "COMMIT"})
_FIRST_WORD = re.compile(r"\s*(\w+)")
_CHANGE = re.compile(r"\b(?:(INSERT)\s+INTO|(UPDATE)\s+rag\.|(DELETE)\s+FROM)\b", re.IGNORECASE)
_TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+rag\.(\w+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement does.

    Attributes:
        operation: Its verb.
        summary: The verb with the tables it is about.
    """

    operation: str
    summary: str


@lru_cache(maxsize=_MOST_TEXTS)
def statement_of(text: str) -> Statement | None:
    """Returns what a statement does; None for one that only begins a transaction or sets it up."""
    first = _FIRST_WORD.match(text)
    operation = first[1].upper() if first is not None else ""
    if operation == "WITH":
        change = _CHANGE.search(text)
        operation = change[change.lastindex or 0].upper() if change is not None else "SELECT"
    if operation not in _VERBS:
        return None
    tables = list(dict.fromkeys(_TABLE.findall(text)))[:_MOST_TABLES]
    return Statement(operation, " ".join((operation, *tables)))


def traced_connection(tracer: Tracer, dsn: str) -> type[SessionConnection]:
    """Makes a class of connections whose statements have spans where they are part of a trace.

    What loops ask for is part of none.

    Args:
        tracer: Makes the spans.
        dsn: The address of the database.
    """
    database = database_attributes(dsn)

    class TracedConnection(SessionConnection):
        __slots__ = ()

        async def execute(self, query: str, *args: Any, **options: Any) -> str:
            return await _traced(query, super().execute(query, *args, **options))

        async def executemany(self, command: str, args: Any, **options: Any) -> None:
            await _traced(command, super().executemany(command, args, **options))

        async def fetch(self, query: str, *args: Any, **options: Any) -> Any:
            return await _traced(query, super().fetch(query, *args, **options))

        async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
            return await _traced(query, super().fetchrow(query, *args, **options))

        async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
            return await _traced(query, super().fetchval(query, *args, **options))

        async def copy_records_to_table(self, table_name: str, **options: Any) -> str:
            text = f"INSERT INTO rag.{table_name}"
            return await _traced(text, super().copy_records_to_table(table_name, **options))

    async def _traced(text: str, work: Coroutine[Any, Any, T]) -> T:
        statement = statement_of(text)
        if statement is None or not get_current_span().get_span_context().is_valid:
            return await work
        span = tracer.start_span(
            statement.summary,
            kind=SpanKind.CLIENT,
            attributes={
                **database,
                "db.operation.name": statement.operation,
                "db.query.summary": statement.summary,
            },
        )
        try:
            return await work
        except asyncio.CancelledError:
            span.set_attribute("app.cancelled", True)  # noqa: FBT003 - the name says it
            raise
        except Exception as error:
            mark_failed(span, error)
            if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
                span.set_attribute("db.response.status_code", error.sqlstate)
            raise
        finally:
            span.end()

    return TracedConnection


def database_attributes(dsn: str) -> dict[str, AttributeValue]:
    """Returns what is known of a database beforehand.

    Args:
        dsn: Its address. Of several servers nobody knows yet which one answers, and what cannot be
            read is for those to complain of who connect.
    """
    known: dict[str, AttributeValue] = {"db.system.name": "postgresql"}
    try:
        address = urlsplit(dsn)
        host, port = address.hostname, address.port if "," not in address.netloc else None
    except ValueError:
        return known
    if address.path.strip("/"):
        known["db.namespace"] = address.path.strip("/")
    if host and "," not in address.netloc:
        known[SERVER_ADDRESS] = host
        known[SERVER_PORT] = port or _PORT
    return known
