"""Takes what users think of answers, and keeps bad answers from being given again."""

from collections.abc import Awaitable
from dataclasses import replace

from services.common.errors import PeerUnavailable
from services.common.identity import Identity
from services.common.metrics import Metrics
from services.rag.books import Books
from services.rag.cache_port import CachePort
from services.rag.core.bookkeeping_errors import QueryUnknown
from services.rag.core.feedback import Feedback
from services.rag.core.query_record import CacheEntry, QueryRecord
from services.rag.core.reuse import Verdict
from services.rag.semantic_port import Judge, SemanticCachePort, SemanticPartition
from services.rag.usage_port import FeedbackStore, UsageStore

__all__ = ["FeedbackDesk"]

_RATINGS = {-1: "negative", 0: "neutral", 1: "positive"}


class FeedbackDesk:
    """Takes feedback.

    Args:
        books: Know the latest queries.
        queries: Knows the others.
        feedback: Keeps it.
        answers: Forgets answers.
        cache: Learns of answers that are wrong.
        metrics: Receives ratings.
    """

    def __init__(
        self,
        *,
        books: Books,
        queries: UsageStore,
        feedback: FeedbackStore,
        answers: CachePort,
        cache: SemanticCachePort,
        metrics: Metrics,
    ) -> None:
        self._books = books
        self._queries = queries
        self._feedback = feedback
        self._answers = answers
        self._cache = cache
        self._metrics = metrics

    async def submit(self, caller: Identity, feedback: Feedback) -> bool:
        """Keeps what a user says of an answer.

        Args:
            caller: Who says it.
            feedback: What is said; the rest is filled in.

        Returns:
            Whether the cache has been told to give the answer to nobody again.

        Raises:
            QueryUnknown: The tenant has asked no such query.
            StoreUnavailable: It cannot be kept.
        """
        record = await self._record(caller.tenant_id, feedback.query_id)
        await self._feedback.put_feedback(
            caller.tenant_id,
            replace(
                feedback,
                user_id=caller.user_id,
                mode=record.mode,
                model=record.model,
                variants=record.variants,
            ),
        )
        self._metrics.count("rag_feedback_total", _RATINGS[feedback.rating])
        if feedback.rating >= 0 or record.cache_entry is None:
            return False
        entry = record.cache_entry
        # Each is worth doing without the other.
        forgotten = await _done(self._forget(entry))
        reported = await _done(self._report(entry, record.mode))
        return forgotten and reported

    async def _record(self, tenant_id: str, query_id: str) -> QueryRecord:
        recent = self._books.find_recent(tenant_id, query_id)
        if recent is not None:
            return recent.record
        kept = await self._queries.find_query(tenant_id, query_id)
        if kept is None:
            raise QueryUnknown(query_id)
        return kept.record

    async def _forget(self, entry: CacheEntry) -> None:
        if entry.question_digest:
            await self._answers.forget_answers(entry.question_digest)

    async def _report(self, entry: CacheEntry, mode: str) -> None:
        if not entry.entry_id:
            return
        await self._cache.report(
            SemanticPartition(
                embedding_model_digest=entry.embedding_model_digest,
                model_digest=entry.model_digest,
                access_fingerprint=entry.access_fingerprint,
                configuration_fingerprint=entry.configuration_fingerprint,
                namespace=entry.namespace,
            ),
            entry,
            Verdict.WRONG,
            Judge.PERSON,
            served=False,
            mode=mode,
        )


async def _done(told: Awaitable[None]) -> bool:
    """Says whether the cache could be told."""
    try:
        await told
    except PeerUnavailable:
        return False
    return True
