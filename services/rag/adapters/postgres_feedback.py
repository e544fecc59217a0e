"""What users think of answers, in PostgreSQL, and what it says of variants."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import asyncpg

from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.experiment_report import FeedbackCounts, Sample, VariantFigures
from services.rag.core.feedback import Feedback, FeedbackPage

__all__ = ["PostgresFeedbackStore"]

_PUT = """
INSERT INTO rag.feedback (tenant_id, query_id, user_id, rating, reasons, comment, corrected_answer,
    relevant_passage_ids, mode, model, variants)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (tenant_id, query_id, user_id) DO UPDATE SET rating = $4, reasons = $5, comment = $6,
    corrected_answer = $7, relevant_passage_ids = $8, updated_at = clock_timestamp()
"""
_LIST = """
SELECT * FROM rag.feedback
WHERE tenant_id = $1 AND ($2::smallint IS NULL OR rating = $2)
    AND ($3::timestamptz IS NULL OR updated_at >= $3)
    AND ($4::timestamptz IS NULL OR (updated_at, query_id, user_id) < ($4, $5::text, $6::text))
ORDER BY updated_at DESC, query_id DESC, user_id DESC LIMIT $7
"""
_COUNT = """
SELECT rating, count(*) AS count FROM rag.feedback
WHERE tenant_id = $1 AND ($2::timestamptz IS NULL OR updated_at >= $2)
    AND ($3::timestamptz IS NULL OR updated_at < $3)
GROUP BY rating
"""
_COMPARE = """
SELECT variants->>$2 AS variant, count(*) AS query_count,
    count(*) FILTER (WHERE outcome <> 'success') AS failed_count,
    count(*) FILTER (WHERE cardinality(degradations) > 0) AS degraded_count,
    count(*) FILTER (WHERE origin IN ('cached', 'cached_similar')) AS cached_count,
    count(quality) AS quality_count, avg(quality) AS mean, var_samp(quality) AS variance,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY duration_seconds)
        FILTER (WHERE outcome = 'success') AS durations,
    least(sum(cost_nanos), 9000000000000000000)::bigint AS cost_nanos
FROM rag.query_log
WHERE tenant_id = $1 AND variants ? $2 AND ($3::timestamptz IS NULL OR started_at >= $3)
GROUP BY 1
"""
_COMPARE_RATINGS = """
SELECT variants->>$2 AS variant, rating, count(*) AS count FROM rag.feedback
WHERE tenant_id = $1 AND variants ? $2 AND ($3::timestamptz IS NULL OR updated_at >= $3)
GROUP BY 1, 2
"""


class PostgresFeedbackStore:
    """Keeps what users think of answers.

    Args:
        pool: Connections to a migrated database.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def put_feedback(self, tenant_id: str, feedback: Feedback) -> None:
        """Keeps what a user says; it replaces what the user said of the same answer before."""
        async with self._pool.writing(tenant_id) as connection:
            await connection.execute(
                _PUT,
                tenant_id,
                feedback.query_id,
                feedback.user_id,
                feedback.rating,
                list(feedback.reasons),
                _storable(feedback.comment),
                _storable(feedback.corrected_answer),
                list(feedback.relevant_passage_ids),
                feedback.mode,
                feedback.model,
                json.dumps(dict(feedback.variants)),
            )

    async def list_feedback(
        self,
        tenant_id: str,
        *,
        rating: int | None,
        since_seconds: float | None,
        page_size: int,
        after: tuple[float, str, str] | None,
    ) -> FeedbackPage:
        """Returns what users said, the latest first, from after a time, query and user on."""
        time, query_id, user_id = (_time(after[0]), *after[1:]) if after else (None, "", "")
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(
                _LIST,
                tenant_id,
                rating,
                _time(since_seconds),
                time,
                query_id,
                user_id,
                page_size + 1,
            )
        return FeedbackPage(
            tuple(_feedback(row) for row in rows[:page_size]), len(rows) > page_size
        )

    async def count_feedback(
        self, tenant_id: str, *, start_seconds: float | None, end_seconds: float | None
    ) -> FeedbackCounts:
        """Counts ratings given in a time."""
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(
                _COUNT, tenant_id, _time(start_seconds), _time(end_seconds)
            )
        return _counts(rows)

    async def compare_variants(
        self, tenant_id: str, experiment: str, *, since_seconds: float | None
    ) -> Sequence[VariantFigures]:
        """Returns what the log knows of each variant of an experiment."""
        async with self._pool.reading(tenant_id) as connection:
            since = _time(since_seconds)
            rows = await connection.fetch(_COMPARE, tenant_id, experiment, since)
            ratings = await connection.fetch(_COMPARE_RATINGS, tenant_id, experiment, since)
        by_variant: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
        for row in ratings:
            by_variant[row["variant"]].append(row)
        return [_figures(row, _counts(by_variant[row["variant"]])) for row in rows]


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _storable(text: str) -> str:
    """Replaces the one character that PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd")


def _counts(rows: Sequence[asyncpg.Record]) -> FeedbackCounts:
    counts = {row["rating"]: row["count"] for row in rows}
    return FeedbackCounts(counts.get(1, 0), counts.get(0, 0), counts.get(-1, 0))


def _figures(row: asyncpg.Record, feedback: FeedbackCounts) -> VariantFigures:
    durations = row["durations"] or (None, None)
    return VariantFigures(
        variant=row["variant"],
        query_count=row["query_count"],
        failed_count=row["failed_count"],
        degraded_count=row["degraded_count"],
        cached_count=row["cached_count"],
        quality=(
            Sample(row["quality_count"], row["mean"], row["variance"] or 0.0)
            if row["quality_count"]
            else None
        ),
        duration_p50_seconds=durations[0],
        duration_p95_seconds=durations[1],
        feedback=feedback,
        cost_nanos=row["cost_nanos"],
    )


def _feedback(row: asyncpg.Record) -> Feedback:
    return Feedback(
        query_id=row["query_id"],
        user_id=row["user_id"],
        rating=row["rating"],
        reasons=tuple(row["reasons"]),
        comment=row["comment"],
        corrected_answer=row["corrected_answer"],
        relevant_passage_ids=tuple(row["relevant_passage_ids"]),
        mode=row["mode"],
        model=row["model"],
        variants=json.loads(row["variants"]),
        updated_seconds=row["updated_at"].timestamp(),
    )
