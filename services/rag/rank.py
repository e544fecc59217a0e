"""Turns fused candidates into the passages a caller gets."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from services.common.errors import ServiceError
from services.rag.core.documents import Vector
from services.rag.core.options import Mode, RerankPolicy, RetrievalOptions
from services.rag.core.passages import Passage, RankedPassage, TextSpan
from services.rag.core.profile import DegradationReason
from services.rag.core.ranking.candidate import Candidate
from services.rag.core.ranking.duplicates import without_near_duplicates
from services.rag.core.ranking.neighbors import Run, fill_places, gaps_of, join
from services.rag.core.ranking.recency import newest_first_among_equals
from services.rag.core.ranking.reranking import rerank
from services.rag.core.ranking.variety import choose_varied, spread_documents
from services.rag.core.retrieved import Band
from services.rag.ports import Reranker, RerankerUnavailable
from services.rag.search import Search, TimeLimits
from services.rag.store_port import DocumentStore

__all__ = ["Ranker"]

# Candidates for each place: near duplicates and passages of one document leave places empty.
_CANDIDATES_PER_PLACE = 3
# More of them take longer to compare than the event loop should stand still.
_MOST_AT_ONCE = 48


class Ranker:
    """Orders, thins out and joins candidates.

    Args:
        store: The documents.
        reranker: Judges passages; None where nothing is configured for it.
        rerank_count: Candidates that are judged at the most.
        limits: Longest times.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        reranker: Reranker | None,
        rerank_count: int,
        limits: TimeLimits,
    ) -> None:
        self._store = store
        self._reranker = reranker
        self._rerank_count = rerank_count
        self._limits = limits

    def candidate_count(self, search: Search) -> int:
        """Returns how many of the fused candidates are worth loading."""
        count = _CANDIDATES_PER_PLACE * search.options.passage_count
        if self._reranker is None or search.options.rerank is RerankPolicy.OFF:
            return count
        return max(count, self._rerank_count)

    async def rerank(
        self, search: Search, candidates: Sequence[Candidate], band: Band
    ) -> list[Candidate]:
        """Has the best candidates judged where that is wanted; what fails becomes a degradation.

        Args:
            search: The question.
            candidates: Best first.
            band: How far the candidates can be relied on as they are.
        """
        if not candidates or not self._is_wanted(search, band):
            return list(candidates)
        if self._reranker is None:
            search.recorder.degrade(
                DegradationReason.RERANK_UNAVAILABLE, "rerank", "none is configured"
            )
            return list(candidates)
        judged = candidates[: self._rerank_count]
        try:
            with search.recorder.stage("rerank") as stage:
                logits = await self._reranker.score(
                    search.question,
                    [_text(each.passage) for each in judged],
                    time_limit_seconds=self._limits.now(self._limits.reranking),
                )
                scored = [each for each in logits if each is not None]
                stage.item_count = len(scored)
                stage.model = self._reranker.name
                stage.span.set_attributes(
                    {"app.rerank.model": self._reranker.name, "app.rerank.in": len(judged)}
                )
                if scored:
                    stage.span.set_attribute("app.rerank.top_score", max(scored))
        except RerankerUnavailable as error:
            search.recorder.degrade(DegradationReason.RERANK_UNAVAILABLE, "rerank", error)
            return list(candidates)
        if len(scored) < len(judged):
            search.recorder.degrade(
                DegradationReason.RERANK_BUDGET_EXCEEDED,
                "rerank",
                f"{len(scored)} of {len(judged)} passages were judged in time",
            )
        return rerank(candidates, logits)

    async def choose(
        self, search: Search, candidates: Sequence[Candidate]
    ) -> tuple[RankedPassage, ...]:
        """Chooses the passages to return, best first.

        Args:
            search: The question.
            candidates: Best first.
        """
        options = search.options
        vectors: Mapping[int, Vector] = {}
        if options.relevance_weight_ratio is not None and candidates:
            vectors = await self._vectors(search, candidates)
        with search.recorder.stage("diversify") as stage:
            if len(candidates) > _MOST_AT_ONCE:
                runs = await asyncio.to_thread(_arrange, candidates, vectors, options)
            else:
                runs = _arrange(candidates, vectors, options)
            stage.item_count = len(runs)
        gaps = gaps_of(runs)
        texts = await self._gap_texts(search, gaps) if gaps else {}
        joined = [passage for run in runs for passage in join(run, texts.get)]
        return tuple(joined[: options.passage_count])

    def _is_wanted(self, search: Search, band: Band) -> bool:
        policy = search.options.rerank
        if policy is not RerankPolicy.AUTO:
            return policy is RerankPolicy.ON
        return self._reranker is not None and (search.mode is Mode.DEEP or band is not Band.HIGH)

    async def _vectors(
        self, search: Search, candidates: Sequence[Candidate]
    ) -> Mapping[int, Vector]:
        """Loads the vectors of candidates; without them their words are compared."""
        try:
            with search.recorder.stage("load_vectors"):
                async with self._limits.reading():
                    return await self._store.load_vectors(
                        search.tenant_id,
                        search.collection.name,
                        [each.ranking.chunk_id for each in candidates],
                    )
        except ServiceError:
            return {}

    async def _gap_texts(self, search: Search, gaps: Sequence[TextSpan]) -> Mapping[TextSpan, str]:
        """Reads what stands between passages; without it they are not joined."""
        try:
            with search.recorder.stage("merge_neighbors") as stage:
                async with self._limits.reading():
                    texts = await self._store.load_spans(
                        search.tenant_id, gaps, access=search.options.access
                    )
                stage.item_count = len(texts)
        except ServiceError:
            return {}
        return texts


def _arrange(
    candidates: Sequence[Candidate], vectors: Mapping[int, Vector], options: RetrievalOptions
) -> list[Run]:
    """Chooses what becomes of each place."""
    arranged: Iterable[Candidate] = without_near_duplicates(candidates)
    if options.relevance_weight_ratio is not None:
        distinct = list(arranged)
        arranged = choose_varied(
            distinct,
            vectors,
            relevance_weight_ratio=options.relevance_weight_ratio,
            limit=len(distinct),
        )
    arranged = spread_documents(arranged, places=options.passage_count)
    if options.prefer_recent:
        arranged = newest_first_among_equals(list(arranged))
    return fill_places(
        arranged, places=options.passage_count, join_neighbors=options.merge_neighbors
    )


def _text(passage: Passage) -> str:
    return f"{passage.header}\n{passage.text}" if passage.header else passage.text
