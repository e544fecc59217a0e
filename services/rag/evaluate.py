"""Searches for queries whose answers are known, and measures what is found."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.rag.core.evaluation import (
    RANKING_DEPTH,
    JudgedQuery,
    Report,
    SearchResult,
    Variant,
    summarise,
)
from services.rag.core.retrieved import Retrieved
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever

__all__ = ["Evaluation", "EvaluationProgress", "EvaluationTask"]

# Passages asked for: several of one document count as one.
_PASSAGE_COUNT = 2 * RANKING_DEPTH


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTask:
    """What to evaluate.

    Attributes:
        collection: Where to search.
        queries: What to search for.
        variants: How to search.
        depth: Depth of nDCG, precision and the like.
        concurrency: Searches at the same time.
    """

    collection: str
    queries: Sequence[JudgedQuery]
    variants: Sequence[Variant]
    depth: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """How many of all searches are done."""

    done_count: int
    total_count: int


class Evaluation:
    """Measures how good searches are.

    Args:
        retriever: Searches.
        make_recorder: Makes what receives the stages of one search.
        clock: Measures.
    """

    def __init__(
        self, *, retriever: Retriever, make_recorder: Callable[[], Recorder], clock: Clock
    ) -> None:
        self._retriever = retriever
        self._make_recorder = make_recorder
        self._clock = clock

    async def run(
        self, tenant_id: str, task: EvaluationTask
    ) -> AsyncGenerator[EvaluationProgress | Report, None]:
        """Evaluates; progress comes after every search that was waited for, the report last.

        One way of searching is finished before the next begins, so that their times compare.

        Args:
            tenant_id: Owner of the collection.
            task: What to evaluate.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            StoreUnavailable: It cannot be looked up.
        """
        # A collection that is not there is told of before each search would fail of it.
        await self._retriever.look_up(tenant_id, task.collection, self._make_recorder())
        total_count = len(task.queries) * len(task.variants)
        results: dict[str, list[SearchResult]] = {}
        for variant in task.variants:
            found: list[SearchResult] = []
            before_count = len(results) * len(task.queries)
            async with aclosing(self._search_all(tenant_id, task, variant, found)) as counts:
                async for done_count in counts:
                    yield EvaluationProgress(before_count + done_count, total_count)
            results[variant.name] = found
        yield await asyncio.to_thread(summarise, task.queries, results, depth=task.depth)

    async def _search_all(
        self, tenant_id: str, task: EvaluationTask, variant: Variant, found: list[SearchResult]
    ) -> AsyncGenerator[int, None]:
        """Searches for all queries; yields how many are done, and in the end adds the results."""
        slots = asyncio.Semaphore(task.concurrency)

        async def search(query: JudgedQuery) -> SearchResult:
            async with slots:
                return await self._search(tenant_id, task.collection, query, variant)

        searches = [asyncio.create_task(search(query)) for query in task.queries]
        try:
            for done_count, search_done in enumerate(asyncio.as_completed(searches), start=1):
                await search_done
                yield done_count
            found.extend(each.result() for each in searches)
        finally:
            for each in searches:
                each.cancel()
            await asyncio.wait(searches)

    async def _search(
        self, tenant_id: str, collection: str, query: JudgedQuery, variant: Variant
    ) -> SearchResult:
        recorder = self._make_recorder()
        options = replace(variant.options, passage_count=_PASSAGE_COUNT)
        started = self._clock.monotonic()
        try:
            retrieved = await self._retriever.retrieve(
                tenant_id, collection, query.text, options, recorder
            )
        except ServiceError as error:
            seconds = self._clock.monotonic() - started
            return SearchResult(document_ids=(), seconds=seconds, failure_reason=error.error_reason)
        return SearchResult(
            document_ids=_documents(retrieved),
            seconds=self._clock.monotonic() - started,
            confidence=retrieved.confidence.score,
            degraded=bool(recorder.degradations),
        )


def _documents(retrieved: Retrieved) -> tuple[str, ...]:
    ids = dict.fromkeys(each.passage.document_id for each in retrieved.passages)
    return tuple(ids)[:RANKING_DEPTH]
