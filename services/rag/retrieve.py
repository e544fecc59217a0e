"""Finds passages: by meaning and by words at the same time, fused, judged and thinned out.

One search takes these steps, of which most do nothing unless they are asked for or needed: the arms
search, their hits are fused, the best are loaded, it is estimated how likely they hold the answer;
where that leaves doubt other wordings are searched for as well and a cross-encoder judges; near
duplicates are left out, and what follows each other in a document is joined.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opentelemetry.trace import use_span

from services.common.errors import ServiceError
from services.common.metrics import Metrics
from services.common.tracing import mark_failed
from services.rag.core.analysis import analyse_document
from services.rag.core.confidence import Likeness, coverage_ratio, estimate
from services.rag.core.documents import CollectionStats
from services.rag.core.errors import StoreUnavailable
from services.rag.core.expansion import Variant
from services.rag.core.fusion import DEFAULT_RANK_CONSTANT, FusionMethod, fuse
from services.rag.core.options import ExpansionPolicy, Mode, RetrievalOptions, SearchArms
from services.rag.core.passages import FusedChunk, Passage
from services.rag.core.profile import DegradationReason
from services.rag.core.ranking.candidate import Candidate, candidates_of
from services.rag.core.retrieved import Band, Confidence, Retrieved
from services.rag.known_collections import KnownCollections
from services.rag.likeness import LikenessSource
from services.rag.meter import current_meter, current_mode, mode_label
from services.rag.ports import Expander
from services.rag.rank import Ranker
from services.rag.recorder import Recorder
from services.rag.search import Found, Search, Searcher, TimeLimits
from services.rag.stage_spans import GEN_AI_OPERATION
from services.rag.store_port import DocumentStore

__all__ = ["Retriever", "Search"]

# A document that is replaced between search and load takes its chunks along; a second search
# finds the new ones.
_SEARCH_COUNT = 2
# Share of a collection's chunks without vectors from which on finding by meaning misses too much.
_PENDING_SHARE_RATIO = 0.05
# Share of a search's candidates from which on it does.
_MISSING_SHARE_RATIO = 0.1
# As traces call them.
_FUSIONS = {FusionMethod.CONVEX: "convex", FusionMethod.RECIPROCAL_RANK: "rrf"}


@dataclass(slots=True, kw_only=True)
class _Round:
    """What one search over all arms came to.

    Attributes:
        found: What the arms found.
        likeness: How alike passages of the collection are; None where that is not known.
        passages: Those loaded so far, by chunk id.
        candidates: The best, best first.
        is_complete: Whether every candidate was still there when it was loaded.
    """

    found: Found
    likeness: Likeness | None
    passages: dict[int, Passage]
    candidates: list[Candidate]
    is_complete: bool = True


class Retriever:
    """Finds passages of a collection.

    Args:
        store: The documents.
        searcher: Runs the arms.
        ranker: Orders what they find.
        expander: Words questions otherwise; None where no model can.
        limits: Longest times.
        metrics: Receives how far searches can be relied on.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        searcher: Searcher,
        ranker: Ranker,
        expander: Expander | None,
        limits: TimeLimits,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._searcher = searcher
        self._ranker = ranker
        self._expander = expander
        self._limits = limits
        self._metrics = metrics
        self._likeness = LikenessSource(store)
        self._collections = KnownCollections(store, limits)

    async def retrieve(
        self,
        tenant_id: str,
        collection: str,
        question: str,
        options: RetrievalOptions,
        recorder: Recorder,
    ) -> Retrieved:
        """Finds the passages that match a question.

        Args:
            tenant_id: Owner of the collection.
            collection: Its name.
            question: The question.
            options: How to search.
            recorder: Receives stages and degradations.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            ServiceError: Neither arm could search; most likely `StoreUnavailable`.
        """
        async with self.begun(tenant_id, collection, question, options, recorder) as search:
            return await self.find(search)

    async def open(
        self,
        tenant_id: str,
        collection: str,
        question: str,
        options: RetrievalOptions,
        recorder: Recorder,
    ) -> Search:
        """Begins a search; arguments are those of `retrieve`.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            StoreUnavailable: It cannot be looked up.
        """
        return Search(
            tenant_id=tenant_id,
            collection=await self._look_up(tenant_id, collection, recorder),
            question=question,
            options=options,
            recorder=recorder,
        )

    @asynccontextmanager
    async def begun(
        self,
        tenant_id: str,
        collection: str,
        question: str,
        options: RetrievalOptions,
        recorder: Recorder,
        *,
        bypass_cache: bool = False,
        cache_is_away: bool = False,
        is_final: bool = True,
    ) -> AsyncIterator[Search]:
        """Begins a search, and lends it for the block.

        Which model embeds a collection hardly ever changes, so that a question about one that is
        known is embedded while the collection is looked up. Arguments and errors are those of
        `open` and of `Search`; `is_final` is whether the question is searched for in these words.
        """
        known = None
        if is_final and options.arms is not SearchArms.KEYWORD:
            known = self._collections.recall(tenant_id, collection)
        search = Search(
            tenant_id=tenant_id,
            collection=known or await self._look_up(tenant_id, collection, recorder),
            question=question,
            options=options,
            recorder=recorder,
            bypass_cache=bypass_cache,
            cache_is_away=cache_is_away,
        )
        if known is None:
            yield search
            return
        async with self._searcher.embedding_early(search):
            search.collection = await self._look_up(tenant_id, collection, recorder)
            if search.collection.embedding_model != known.embedding_model:
                search.early = None
            yield search

    async def _look_up(
        self, tenant_id: str, collection: str, recorder: Recorder
    ) -> CollectionStats:
        try:
            return await self.look_up(tenant_id, collection, recorder)
        except StoreUnavailable:
            self._count("error")
            raise

    async def look_up(self, tenant_id: str, collection: str, recorder: Recorder) -> CollectionStats:
        """Returns the facts of a collection, for which nothing counts as a search.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            StoreUnavailable: It cannot be looked up, or not in a quarter of the time left.
        """
        return await self._collections.look_up(tenant_id, collection, recorder)

    async def embed(self, search: Search) -> None:
        """Sets the vector of a search's question, or why there is none."""
        await self._searcher.embed(search)

    async def find(self, search: Search) -> Retrieved:
        """Finds the passages that match; errors are those of `retrieve`."""
        recorder = search.recorder
        span = recorder.start_span(
            # Without the collection's name, which callers choose: each name would be one more for
            # whoever counts spans by theirs.
            "retrieval",
            {
                GEN_AI_OPERATION: "retrieval",
                "gen_ai.data_source.id": search.collection.name,
                "gen_ai.retrieval.top_k": search.options.passage_count,
            },
        )
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                retrieved = await self._find(search)
        except asyncio.CancelledError:
            span.set_attribute("app.cancelled", True)  # noqa: FBT003 - the name says it
            raise
        except Exception as error:
            mark_failed(span, error.error_reason if isinstance(error, ServiceError) else error)
            self._count("error")
            raise
        else:
            span.set_attributes(
                {
                    "app.retrieval.returned": len(retrieved.passages),
                    "app.retrieval.confidence": retrieved.confidence.score,
                    "app.retrieval.band": retrieved.confidence.band.value,
                }
            )
            self._note(retrieved)
            return retrieved
        finally:
            recorder.end_span(span)

    def _count(self, outcome: str) -> None:
        """Counts a search by what came of it."""
        self._metrics.count("rag_retrievals_total", mode_label(current_mode()), outcome)
        result = "error" if outcome == "error" else "success"
        self._metrics.count("rag_agent_invocations_total", "retriever", result)

    def _note(self, retrieved: Retrieved) -> None:
        """Counts a search that has come to its end."""
        self._count("success" if retrieved.passages else "empty")
        if current_meter.get() is not None:
            # What is searched for to check or to measure says nothing of what callers get.
            confidence = retrieved.confidence
            self._metrics.count("rag_searches_total", confidence.band.value)
            self._metrics.observe("rag_retrieval_confidence", confidence.score)

    async def _find(self, search: Search) -> Retrieved:
        round_ = await self._search(search)
        for _ in range(_SEARCH_COUNT - 1):
            if round_.is_complete:
                break
            round_ = await self._search(search)
        await self._note_pending_vectors(search, round_)
        confidence = _estimate(search, round_)
        variants = await self._expand(search, confidence.band)
        if variants:
            await self._widen(search, round_, variants)
            confidence = _estimate(search, round_)
        round_.candidates = await self._ranker.rerank(search, round_.candidates, confidence.band)
        if any(each.ranking.rerank_score is not None for each in round_.candidates):
            confidence = _estimate(search, round_)
        return Retrieved(
            passages=await self._ranker.choose(search, round_.candidates),
            confidence=confidence,
            expansions=tuple(each.text for each in variants),
        )

    async def _search(self, search: Search) -> _Round:
        async with asyncio.TaskGroup() as group:
            likeness = group.create_task(self._measure(search))
            found = await self._searcher.search(search)
        if isinstance(found, ServiceError):
            raise found
        round_ = _Round(found=found, likeness=likeness.result(), passages={}, candidates=[])
        await self._load(search, round_, self._fuse(search, found))
        return round_

    async def _measure(self, search: Search) -> Likeness | None:
        if search.options.arms is SearchArms.KEYWORD or search.collection.embedding_model is None:
            return None
        try:
            async with asyncio.timeout(self._limits.now(self._limits.arm)):
                return await self._likeness.measure(search.tenant_id, search.collection)
        except (ServiceError, TimeoutError):
            # The estimate does without; the arms say what is wrong with the store.
            return None

    async def _load(self, search: Search, round_: _Round, best: Sequence[FusedChunk]) -> None:
        """Loads what was fused as candidates, as far as that is still to be done."""
        missing = [each.chunk_id for each in best if each.chunk_id not in round_.passages]
        if missing:
            with search.recorder.stage("load_passages") as stage:
                async with self._limits.reading():
                    loaded = await self._store.load_passages(
                        search.tenant_id, missing, access=search.options.access
                    )
                stage.item_count = len(loaded)
            round_.passages.update(loaded)
        round_.is_complete = all(chunk_id in round_.passages for chunk_id in missing)
        round_.candidates = candidates_of(best, round_.passages)

    async def _note_pending_vectors(self, search: Search, round_: _Round) -> None:
        """Says where too much could not be found by meaning, since it has no vectors yet."""
        collection = search.collection
        pending_count = collection.pending_vector_count
        if search.options.arms is SearchArms.KEYWORD or not pending_count:
            return
        missing_count = await self._count_without_vectors(search, round_)
        if (
            pending_count >= _PENDING_SHARE_RATIO * collection.chunk_count
            or missing_count > _MISSING_SHARE_RATIO * len(round_.candidates)
        ):
            search.recorder.degrade(
                DegradationReason.VECTORS_PENDING,
                "vector_search",
                f"{pending_count} of {collection.chunk_count} passages have no vector yet, "
                f"{missing_count} of the {len(round_.candidates)} best",
            )

    async def _count_without_vectors(self, search: Search, round_: _Round) -> int:
        """Counts the candidates without vectors: a filter may choose what has just come in."""
        found_by_words = [
            each.ranking.chunk_id for each in round_.candidates if each.ranking.vector_rank is None
        ]
        if not found_by_words:
            return 0
        try:
            async with self._limits.reading():
                vectors = await self._store.load_vectors(
                    search.tenant_id, search.collection.name, found_by_words
                )
        except ServiceError:
            return 0
        return len(found_by_words) - len(vectors)

    async def _expand(self, search: Search, band: Band) -> tuple[Variant, ...]:
        """Has the question worded otherwise where that is wanted."""
        kind = search.options.expansion
        if kind is ExpansionPolicy.NONE:
            return ()
        if kind is ExpansionPolicy.AUTO:
            if search.mode is not Mode.DEEP or band is Band.HIGH or self._expander is None:
                return ()
            kind = ExpansionPolicy.MULTI_QUERY
        if self._expander is None:
            search.recorder.degrade(
                DegradationReason.EXPANSION_SKIPPED, "expand", "no model words questions otherwise"
            )
            return ()
        return await self._expander.expand(
            search.question,
            kind,
            search.recorder,
            time_limit_seconds=self._limits.now(),
        )

    async def _widen(self, search: Search, round_: _Round, variants: Sequence[Variant]) -> None:
        """Searches for other wordings as well; what the question itself found is kept."""
        with search.recorder.stage("search_variants") as stage:
            found = await self._searcher.search_variants(search, variants)
            stage.item_count = sum(len(each.hits.vector) + len(each.hits.keyword) for each in found)
        await self._load(search, round_, self._fuse(search, round_.found, found))

    def _fuse(
        self, search: Search, found: Found, variants: Sequence[Found] = ()
    ) -> list[FusedChunk]:
        """Returns the best of what the arms have found, as many as are worth loading."""
        with search.recorder.stage("fuse") as stage:
            fused = fuse(
                search.options.fusion,
                found.hits,
                [each.hits for each in variants if each.hits.vector or each.hits.keyword],
                vector_weight=search.options.vector_weight_ratio,
                limit=self._ranker.candidate_count(search),
            )
            stage.item_count = fused.total_count
            stage.span.update_name(f"fuse.{_FUSIONS[search.options.fusion]}")
            if search.options.fusion is FusionMethod.RECIPROCAL_RANK:
                stage.span.set_attribute("app.rrf.k", DEFAULT_RANK_CONSTANT)
        return fused.best


def _estimate(search: Search, round_: _Round) -> Confidence:
    found = round_.found
    best = round_.candidates[0] if round_.candidates else None
    terms, coverage = found.terms, None
    if found.statistics is not None and best is not None:
        passage = best.passage
        # A word has a form in each language; the forms of the others are not missing in this one.
        known = set(found.terms)
        terms = tuple(term for term in search.terms_in(passage.language) if term in known)
        held = analyse_document(f"{passage.header}\n{passage.text}", language=passage.language)
        coverage = coverage_ratio(terms, found.statistics, held.counts)
    return estimate(
        found.hits,
        terms=terms,
        statistics=found.statistics,
        likeness=round_.likeness if found.by_meaning else None,
        coverage=coverage,
        rerank_ratio=best.ranking.rerank_score if best is not None else None,
    )
