"""Queries, usage and budgets in PostgreSQL."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg

from services.rag.adapters.postgres_pool import Connection, PostgresPool
from services.rag.adapters.postgres_query_log import (
    COLUMNS,
    page_of,
    profiled_query_of,
    record_values,
)
from services.rag.core.budget import Budget, Period, Spending
from services.rag.core.query_record import QueryFilter, QueryPage
from services.rag.core.usage import (
    AMOUNTS,
    Amounts,
    Usage,
    UsageBucket,
    UsageDimension,
    UsageRow,
)
from services.rag.usage_port import Batch, ProfiledQuery, Retention, UsageSpan

__all__ = ["PostgresUsageStore"]

_LOCK_KEY = 7_267_003_153
# Sums stop here instead of failing: whoever counts beyond does so to break something.
_MOST = 9_000_000_000_000_000_000
_SWEEP_COUNT = 5000
_BATCH_SECONDS = 86_400.0
_TRACKED_SECONDS = 7 * 86_400.0

_NOTE_BATCH = """
INSERT INTO rag.usage_batch (batch_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true
"""
_NOTE_TRACKED = """
INSERT INTO rag.tracked_call (tenant_id, idempotency_key) VALUES ($1, $2)
ON CONFLICT DO NOTHING RETURNING true
"""


def _added(table: str, names: Iterable[str]) -> str:
    return ", ".join(
        f"{name} = least({table}.{name}::numeric + excluded.{name}, {_MOST})" for name in names
    )


_KEY_TYPES = ("text", "timestamptz", "text", "text", "text", "text")
_ADD_USAGE = f"""
INSERT INTO rag.usage_hour AS kept
    (tenant_id, hour, user_id, mode, model, kind, {", ".join(AMOUNTS)})
SELECT * FROM unnest({
    ", ".join(
        f"${number}::{kind}[]"
        for number, kind in enumerate((*_KEY_TYPES, *("bigint" for _ in AMOUNTS)), start=1)
    )
})
ON CONFLICT (tenant_id, hour, user_id, mode, model, kind) DO UPDATE SET {_added("kept", AMOUNTS)}
"""  # noqa: S608 - of names in the code alone
_ADD_DAYS = f"""
INSERT INTO rag.usage_day AS kept (tenant_id, day, cost_nanos, token_count)
SELECT * FROM unnest($1::text[], $2::date[], $3::bigint[], $4::bigint[])
ON CONFLICT (tenant_id, day) DO UPDATE SET {_added("kept", ("cost_nanos", "token_count"))}
"""  # noqa: S608 - of names in the code alone
_FIND = f"SELECT {', '.join(COLUMNS)} FROM rag.query_log WHERE tenant_id = $1 AND query_id = $2"  # noqa: S608 - of names in the code alone
_LIST = f"""
SELECT {", ".join(COLUMNS)} FROM rag.query_log
WHERE tenant_id = $1
    AND ($2::timestamptz IS NULL OR (started_at, query_id) < ($2, $3::text))
    AND ($4::timestamptz IS NULL OR started_at >= $4)
    AND ($5::double precision IS NULL OR duration_seconds > $5)
    AND (NOT $6 OR cardinality(degradations) > 0)
    AND (NOT $7 OR outcome = 'error')
    AND ($8 = '' OR mode = $8)
ORDER BY started_at DESC, query_id DESC LIMIT $9
"""  # noqa: S608 - of names in the code alone
_SUMS = ", ".join(f"least(coalesce(sum({name}), 0), {_MOST})::bigint AS {name}" for name in AMOUNTS)
_SPAN = "tenant_id = $1 AND hour >= $2 AND hour < $3"
_TOTAL = f"SELECT {_SUMS} FROM rag.usage_hour WHERE {_SPAN}"  # noqa: S608 - of names in the code alone
_PERIODS = {
    UsageBucket.TOTAL: "to_timestamp(0)",
    UsageBucket.HOUR: "hour",
    UsageBucket.DAY: "date_trunc('day', hour, 'UTC')",
}
_SPENT = """
    coalesce(sum(kept.cost_nanos) FILTER (WHERE day = {day}), 0) AS daily_cost_spent,
    coalesce(sum(kept.cost_nanos), 0) AS monthly_cost_spent,
    coalesce(sum(kept.token_count) FILTER (WHERE day = {day}), 0) AS daily_tokens_spent,
    coalesce(sum(kept.token_count), 0) AS monthly_tokens_spent
"""
_BUDGETS = f"""
SELECT budget.*, {_SPENT.format(day="$1")}
FROM rag.budget AS budget
LEFT JOIN rag.usage_day AS kept ON kept.tenant_id = budget.tenant_id AND day BETWEEN $2 AND $1
GROUP BY budget.tenant_id
"""  # noqa: S608 - of names in the code alone
_GET_BUDGET = "SELECT * FROM rag.budget WHERE tenant_id = $1"
_SPENT_OF_TENANT = f"""
SELECT {_SPENT.format(day="$1")}
FROM rag.usage_day AS kept WHERE tenant_id = $3 AND day BETWEEN $2 AND $1
"""  # noqa: S608 - of names in the code alone
_PUT_BUDGET = """
INSERT INTO rag.budget (tenant_id, daily_cost_nanos, monthly_cost_nanos, daily_token_count,
    monthly_token_count)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id) DO UPDATE SET daily_cost_nanos = $2, monthly_cost_nanos = $3,
    daily_token_count = $4, monthly_token_count = $5
"""
_DELETE_BUDGET = "DELETE FROM rag.budget WHERE tenant_id = $1"
_SWEEP = """
DELETE FROM rag.{table} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM rag.{table}
    WHERE {column} < clock_timestamp() - make_interval(secs => $1) LIMIT $2
))
"""


class PostgresUsageStore:
    """Keeps queries, usage and budgets.

    Args:
        pool: Connections to a migrated database.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def apply(self, batch: Batch) -> None:
        """Writes a batch, unless it has been written before."""
        async with self._pool.system() as connection:
            if not await connection.fetchval(_NOTE_BATCH, UUID(batch.batch_id)):
                return
            if batch.queries:
                await connection.copy_records_to_table(
                    "query_log",
                    schema_name="rag",
                    columns=COLUMNS,
                    records=[record_values(each) for each in batch.queries],
                )
            await _add(connection, batch.usage)

    async def find_query(self, tenant_id: str, query_id: str) -> ProfiledQuery | None:
        """Returns a query; None where there is none."""
        async with self._pool.reading(tenant_id) as connection:
            row = await connection.fetchrow(_FIND, tenant_id, query_id)
        return None if row is None else profiled_query_of(row)

    async def list_queries(
        self,
        tenant_id: str,
        wanted: QueryFilter,
        *,
        page_size: int,
        after: tuple[float, str] | None,
    ) -> QueryPage:
        """Returns queries, the latest first, from after an arrival and id on."""
        time, query_id = (_time(after[0]), after[1]) if after is not None else (None, "")
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(
                _LIST,
                tenant_id,
                time,
                query_id,
                None if wanted.since_seconds is None else _time(wanted.since_seconds),
                wanted.slower_than_seconds,
                wanted.degraded_only,
                wanted.failed_only,
                wanted.mode,
                page_size + 1,
            )
        return page_of(rows, page_size)

    async def sum_usage(
        self, tenant_id: str, span: UsageSpan, *, page_size: int, offset_row: UsageRow | None
    ) -> tuple[UsageRow, ...]:
        """Returns sums by period and by what is told apart, those that come after a row."""
        names = [each.value for each in UsageDimension]
        chosen = {each.value for each in span.group_by}
        columns = ", ".join(
            f"""{name if name in chosen else "''"} COLLATE "C" AS {name}""" for name in names
        )
        keys = f"period, {', '.join(names)}"
        statement = f"""
            SELECT {keys}, {_SUMS} FROM (
                SELECT {_PERIODS[span.bucket]} AS period, {columns}, {", ".join(AMOUNTS)}
                FROM rag.usage_hour WHERE {_SPAN}
            ) AS told
            WHERE $4::timestamptz IS NULL OR ({keys}) > ($4, $5::text, $6::text, $7::text, $8::text)
            GROUP BY {keys} ORDER BY {keys} LIMIT $9
        """  # noqa: S608 - of names in the code alone
        last: tuple[object, ...] = (None, "", "", "", "")
        if offset_row is not None:
            last = (
                _time(offset_row.start_seconds or 0),
                *(getattr(offset_row, name) for name in names),
            )
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(
                statement,
                tenant_id,
                _time(span.start_seconds),
                _time(span.end_seconds),
                *last,
                page_size,
            )
        return tuple(
            UsageRow(
                start_seconds=(
                    None if span.bucket is UsageBucket.TOTAL else round(row["period"].timestamp())
                ),
                **{name: row[name] for name in names},
                amounts=_amounts(row),
            )
            for row in rows
        )

    async def total_usage(self, tenant_id: str, span: UsageSpan) -> Amounts:
        """Returns the sum of all."""
        async with self._pool.reading(tenant_id) as connection:
            row = await connection.fetchrow(
                _TOTAL, tenant_id, _time(span.start_seconds), _time(span.end_seconds)
            )
        return _amounts(row)

    async def track(self, usage: Usage, *, idempotency_key: str) -> bool:
        """Counts usage at once; returns False where one of that key has been counted before."""
        tenant_id = usage.key.tenant_id
        async with self._pool.writing(tenant_id) as connection:
            if idempotency_key and not await connection.fetchval(
                _NOTE_TRACKED, tenant_id, idempotency_key
            ):
                return False
            await _add(connection, (usage,))
        return True

    async def load_budgets(self, period: Period) -> Mapping[str, tuple[Budget, Spending]]:
        """Returns all budgets by tenant, with what is spent in a period."""
        async with self._pool.system() as connection:
            rows = await connection.fetch(_BUDGETS, *_days(period))
        return {row["tenant_id"]: (_budget(row), _spending(row)) for row in rows}

    async def load_budget(self, tenant_id: str, period: Period) -> tuple[Budget, Spending]:
        """Returns the budget of a tenant, with what is spent in a period."""
        async with self._pool.reading(tenant_id) as connection:
            budget = await connection.fetchrow(_GET_BUDGET, tenant_id)
            spent = await connection.fetchrow(_SPENT_OF_TENANT, *_days(period), tenant_id)
        return Budget() if budget is None else _budget(budget), _spending(spent)

    async def put_budget(self, tenant_id: str, budget: Budget) -> None:
        """Sets the budget of a tenant; one without limits removes it."""
        async with self._pool.writing(tenant_id) as connection:
            if budget.is_empty:
                await connection.execute(_DELETE_BUDGET, tenant_id)
                return
            await connection.execute(
                _PUT_BUDGET,
                tenant_id,
                budget.daily_cost_nanos,
                budget.monthly_cost_nanos,
                budget.daily_token_count,
                budget.monthly_token_count,
            )

    async def sweep(self, retention: Retention) -> None:
        """Removes what has had its time, unless another process is doing so."""
        for table, column, seconds in (
            ("query_log", "started_at", retention.queries),
            ("feedback", "updated_at", retention.queries),
            ("usage_hour", "hour", retention.usage),
            ("usage_batch", "created_at", _BATCH_SECONDS),
            ("tracked_call", "created_at", _TRACKED_SECONDS),
        ):
            statement = _SWEEP.format(table=table, column=column)
            while True:
                async with self._pool.system() as connection:
                    if not await connection.fetchval(
                        "SELECT pg_try_advisory_xact_lock($1)", _LOCK_KEY
                    ):
                        return
                    done = await connection.execute(statement, seconds, _SWEEP_COUNT)
                if int(done.rpartition(" ")[2]) < _SWEEP_COUNT:
                    break


async def _add(connection: Connection, usage: tuple[Usage, ...]) -> None:
    """Adds to the sums of hours and days."""
    if not usage:
        return
    rows = [
        (
            each.key.tenant_id,
            _time(each.key.hour_seconds),
            each.key.user_id,
            each.key.mode,
            each.key.model,
            each.key.kind.value,
            *(min(value, _MOST) for value in each.amounts.values()),
        )
        for each in usage
    ]
    await connection.execute(_ADD_USAGE, *zip(*rows, strict=True))
    days: defaultdict[tuple[str, date], list[int]] = defaultdict(lambda: [0, 0])
    for each in usage:
        spent = days[each.key.tenant_id, _time(each.key.hour_seconds).date()]
        spent[0] += each.amounts.cost_nanos
        spent[1] += each.amounts.token_count
    told = [
        (*key, *(min(value, _MOST) for value in spent))
        for key, spent in sorted(days.items())
        if any(spent)
    ]
    if told:
        await connection.execute(_ADD_DAYS, *zip(*told, strict=True))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _days(period: Period) -> tuple[date, date]:
    day = date.fromisoformat(period.day)
    return day, day.replace(day=1)


def _amounts(row: asyncpg.Record | None) -> Amounts:
    assert row is not None  # noqa: S101 - sums are always one row
    return Amounts(**{name: row[name] for name in AMOUNTS})


def _budget(row: asyncpg.Record) -> Budget:
    return Budget(**{name: row[name] for name in Budget.__slots__})


def _spending(row: asyncpg.Record | None) -> Spending:
    assert row is not None  # noqa: S101 - sums are always one row
    return Spending(
        daily_cost_nanos=int(row["daily_cost_spent"]),
        monthly_cost_nanos=int(row["monthly_cost_spent"]),
        daily_token_count=int(row["daily_tokens_spent"]),
        monthly_token_count=int(row["monthly_tokens_spent"]),
    )
