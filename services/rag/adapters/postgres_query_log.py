"""Rows of the query log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import asyncpg

from services.rag.core.profile import DegradationReason
from services.rag.core.query_record import CacheEntry, QueryPage, QueryRecord
from services.rag.core.usage import Amounts
from services.rag.usage_port import ProfiledQuery

__all__ = ["COLUMNS", "page_of", "profiled_query_of", "record_values"]

_SAME = (
    *("tenant_id", "query_id", "user_id", "call", "mode", "collection", "model", "outcome"),
    *("error_reason", "origin", "quality", "duration_seconds", "first_text_seconds", "trace_id"),
)
_TEXTS = ("question", "answer")
_AMOUNTS = (
    *("call_count", "estimated_call_count", "prompt_token_count", "completion_token_count"),
    *("cost_nanos", "saved_token_count", "saved_cost_nanos"),
)
COLUMNS = (
    *_SAME,
    *_TEXTS,
    *_AMOUNTS,
    *("started_at", "degradations", "variants", "cache_entry", "bottleneck", "profile"),
)
"""Columns in the order of `record_values`."""

_CACHED = ("cached", "cached_similar")


def record_values(query: ProfiledQuery) -> tuple[Any, ...]:
    """Returns a query as a row."""
    record = query.record
    return (
        *(getattr(record, name) for name in _SAME),
        *(getattr(record, name).replace("\0", "\ufffd") for name in _TEXTS),
        *(getattr(record.amounts, name) for name in _AMOUNTS),
        datetime.fromtimestamp(record.started_seconds, UTC),
        [each.value for each in record.degradations],
        json.dumps(dict(record.variants)),
        None if record.cache_entry is None else json.dumps(asdict(record.cache_entry)),
        query.bottleneck,
        query.profile,
    )


def profiled_query_of(row: asyncpg.Record) -> ProfiledQuery:
    """Reads a row."""
    entry = row["cache_entry"]
    known = {each.value: each for each in DegradationReason}
    record = QueryRecord(
        **{name: row[name] for name in (*_SAME, *_TEXTS)},
        started_seconds=row["started_at"].timestamp(),
        # Another release may know others.
        degradations=tuple(known[each] for each in row["degradations"] if each in known),
        variants=json.loads(row["variants"]),
        cache_entry=None if entry is None else _cache_entry_of(json.loads(entry)),
        amounts=Amounts(
            query_count=1,
            failed_query_count=int(row["outcome"] != "success"),
            cached_query_count=int(row["origin"] in _CACHED),
            **{name: row[name] for name in _AMOUNTS},
        ),
    )
    return ProfiledQuery(record, row["bottleneck"], row["profile"])


def _cache_entry_of(values: Mapping[str, Any]) -> CacheEntry:
    # Another release may say more.
    known = {each.name for each in fields(CacheEntry)}
    return CacheEntry(**{name: value for name, value in values.items() if name in known})


def page_of(rows: Sequence[asyncpg.Record], page_size: int) -> QueryPage:
    """Makes a page of rows, of which there is one more where there is another page."""
    found = [profiled_query_of(row) for row in rows[:page_size]]
    return QueryPage(tuple((each.record, each.bottleneck) for each in found), len(rows) > page_size)
