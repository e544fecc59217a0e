"""Finds passages: by meaning and by words at the same time, then fused."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.common.errors import ServiceError
from services.rag.core.analysis import analyse_query
from services.rag.core.errors import CollectionNotFound, EmbeddingModelChanged
from services.rag.core.fusion import fuse
from services.rag.core.model import CollectionStats, FusedChunk, RankedPassage, ScoredChunk, Vector
from services.rag.core.options import RetrievalOptions
from services.rag.core.profile import DegradationReason
from services.rag.embed import EmbeddingSource
from services.rag.models import ModelCatalogue, split_identity
from services.rag.ports import DocumentStore
from services.rag.recorder import Recorder

__all__ = ["Retriever", "Search"]

# A document that is replaced between search and load takes its chunks along; a second search
# finds the new ones.
_SEARCH_COUNT = 2
# What embedding may take of the time left, so that words can be searched and told of.
_EMBEDDING_SHARE_RATIO = 0.5


@dataclass(slots=True, kw_only=True)
class Search:
    """One question on its way to passages.

    Attributes:
        tenant_id: Owner of the collection.
        collection: Where to look.
        question: The question.
        options: How to search.
        recorder: Receives stages and degradations.
        bypass_cache: Whether to compute the question's vector without asking the cache.
        cache_is_away: Whether the cache did not answer; it is then not waited for again.
        embedding: The question's vector, or why there is none; None while it is not known.
    """

    tenant_id: str
    collection: CollectionStats
    question: str
    options: RetrievalOptions
    recorder: Recorder
    bypass_cache: bool = False
    cache_is_away: bool = False
    embedding: Vector | ServiceError | None = None

    @property
    def vector(self) -> Vector | None:
        """The question's vector, if there is one."""
        return None if isinstance(self.embedding, ServiceError) else self.embedding


class Retriever:
    """Finds passages of a collection.

    Args:
        store: The documents.
        embeddings: Vectors of questions.
        models: Models of the fleet.
        embedding_time_limit_seconds: Longest time to embed a question.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        embeddings: EmbeddingSource,
        models: ModelCatalogue,
        embedding_time_limit_seconds: float,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._store = store
        self._embeddings = embeddings
        self._models = models
        self._embedding_time_limit_seconds = embedding_time_limit_seconds
        self._remaining_seconds = remaining_seconds

    async def retrieve(
        self,
        tenant_id: str,
        collection: str,
        question: str,
        options: RetrievalOptions,
        recorder: Recorder,
    ) -> tuple[RankedPassage, ...]:
        """Finds the passages that match a question, best first.

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
        return await self.find(await self.open(tenant_id, collection, question, options, recorder))

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
        with recorder.stage("collection"):
            stats = await self._store.get_collection(tenant_id, collection)
        return Search(
            tenant_id=tenant_id,
            collection=stats,
            question=question,
            options=options,
            recorder=recorder,
        )

    async def embed(self, search: Search) -> None:
        """Sets the vector of a search's question, or why there is none."""
        if search.embedding is None:
            search.embedding = await self._embed(search)

    async def find(self, search: Search) -> tuple[RankedPassage, ...]:
        """Finds the passages that match, best first; errors are those of `retrieve`."""
        passages: tuple[RankedPassage, ...] = ()
        for _ in range(_SEARCH_COUNT):
            async with asyncio.TaskGroup() as group:
                by_words = group.create_task(self._search_words(search))
                await self.embed(search)
                meaning = await self._search_meaning(search)
            fused = _fuse(search, meaning, by_words.result())
            passages = await self._load(search, fused)
            if len(passages) == len(fused):
                break
        return passages

    async def _embed(self, search: Search) -> Vector | ServiceError:
        identity = search.collection.embedding_model
        if identity is None:
            # Nothing was ever stored in it.
            return CollectionNotFound(search.collection.name)
        name, digest = split_identity(identity)
        try:
            with search.recorder.stage("embed_question") as stage:
                model = await self._models.embedding_model(name)
                if model.digest != digest:
                    raise EmbeddingModelChanged(name, listed=digest, served=model.digest)
                limit = self._embedding_limit_seconds()
                if search.bypass_cache or search.cache_is_away:
                    found = await self._embeddings.embed(
                        model, [search.question], time_limit_seconds=limit, bypass_cache=True
                    )
                else:
                    found = await self._embeddings.embed_question(
                        model, search.question, time_limit_seconds=limit
                    )
                    search.cache_is_away = found.cache_outcome == "unavailable"
                stage.cache_outcome = "unavailable" if search.cache_is_away else found.cache_outcome
        except ServiceError as error:
            search.recorder.degrade(
                DegradationReason.EMBEDDING_UNAVAILABLE, "embed_question", error.message
            )
            return error
        if found.cache_degraded:
            search.recorder.degrade(
                DegradationReason.CACHE_UNAVAILABLE, "embed_question", "the cache did not answer"
            )
        return found.vectors[0]

    def _embedding_limit_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return self._embedding_time_limit_seconds
        return min(self._embedding_time_limit_seconds, remaining * _EMBEDDING_SHARE_RATIO)

    async def _search_meaning(self, search: Search) -> Sequence[ScoredChunk] | ServiceError:
        if isinstance(search.embedding, ServiceError):
            return search.embedding
        vector = search.vector
        assert vector is not None  # noqa: S101 - the question was embedded before
        try:
            with search.recorder.stage("vector_search") as stage:
                hits = await self._store.search_vector(
                    search.tenant_id,
                    search.collection.name,
                    model=search.collection.embedding_model or "",
                    vector=vector,
                    limit=search.options.candidate_count,
                )
                stage.item_count = len(hits)
        except ServiceError as error:
            search.recorder.degrade(
                DegradationReason.SEARCH_ARM_FAILED, "vector_search", error.message
            )
            return error
        return hits

    async def _search_words(self, search: Search) -> Sequence[ScoredChunk] | ServiceError:
        try:
            with search.recorder.stage("keyword_search") as stage:
                matches = await self._store.search_keyword(
                    search.tenant_id,
                    search.collection.name,
                    terms=analyse_query(search.question),
                    limit=search.options.candidate_count,
                )
                stage.item_count = len(matches.hits)
        except ServiceError as error:
            search.recorder.degrade(
                DegradationReason.SEARCH_ARM_FAILED, "keyword_search", error.message
            )
            return error
        return matches.hits

    async def _load(self, search: Search, fused: Sequence[FusedChunk]) -> tuple[RankedPassage, ...]:
        if not fused:
            return ()
        with search.recorder.stage("load_passages") as stage:
            passages = await self._store.load_passages(
                search.tenant_id, [each.chunk_id for each in fused]
            )
            stage.item_count = len(passages)
        return tuple(
            RankedPassage(passages[each.chunk_id], each)
            for each in fused
            if each.chunk_id in passages
        )


def _fuse(
    search: Search,
    meaning: Sequence[ScoredChunk] | ServiceError,
    words: Sequence[ScoredChunk] | ServiceError,
) -> Sequence[FusedChunk]:
    """Merges what the arms found; with one arm alone its ranking is kept.

    Raises:
        ServiceError: What kept the words from being searched, where meaning could not be either.
    """
    if isinstance(words, ServiceError) and isinstance(meaning, ServiceError):
        raise words
    vector_hits = () if isinstance(meaning, ServiceError) else meaning
    keyword_hits = () if isinstance(words, ServiceError) else words
    weight = search.options.vector_weight_ratio
    if not vector_hits or not keyword_hits:
        # Half of every score would be missing.
        weight = 1.0 if vector_hits else 0.0
    with search.recorder.stage("fuse") as stage:
        fused = fuse(search.options.fusion, vector_hits, keyword_hits, vector_weight=weight)
        best = fused[: search.options.passage_count]
        stage.item_count = len(best)
    return best
