"""Finds passages: by meaning and by words at the same time, then fused."""

import asyncio
from collections.abc import Sequence

from services.common.errors import ServiceError
from services.rag.core.analysis import analyse_query
from services.rag.core.errors import EmbeddingModelChanged, StoreUnavailable
from services.rag.core.fusion import fuse
from services.rag.core.model import (
    CollectionStats,
    KeywordMatches,
    RankedPassage,
    ScoredChunk,
    TermStatistics,
)
from services.rag.core.options import RetrievalOptions
from services.rag.core.profile import DegradationReason
from services.rag.embed import EmbeddingSource
from services.rag.models import ModelCatalogue, split_identity
from services.rag.ports import DocumentStore
from services.rag.recorder import Recorder

__all__ = ["Retriever"]

_NO_MATCHES = KeywordMatches(
    hits=(),
    statistics=TermStatistics(chunk_count=0, average_length=0.0, document_frequencies={}),
)


class Retriever:
    """Finds passages of a collection.

    Args:
        store: The documents.
        embeddings: Vectors of questions.
        models: Models of the fleet.
        embedding_time_limit_seconds: Longest time to embed a question.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        embeddings: EmbeddingSource,
        models: ModelCatalogue,
        embedding_time_limit_seconds: float,
    ) -> None:
        self._store = store
        self._embeddings = embeddings
        self._models = models
        self._embedding_time_limit_seconds = embedding_time_limit_seconds

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
            StoreUnavailable: Neither arm could search.
        """
        with recorder.stage("collection"):
            stats = await self._store.get_collection(tenant_id, collection)
        async with asyncio.TaskGroup() as group:
            by_meaning = group.create_task(
                self._search_vector(tenant_id, stats, question, options, recorder)
            )
            by_words = group.create_task(
                self._search_keyword(tenant_id, stats, question, options, recorder)
            )
        vector_hits, keyword = by_meaning.result(), by_words.result()
        if isinstance(vector_hits, StoreUnavailable) and isinstance(keyword, StoreUnavailable):
            raise keyword
        if isinstance(vector_hits, StoreUnavailable):
            recorder.degrade(
                DegradationReason.SEARCH_ARM_FAILED, "vector_search", vector_hits.message
            )
            vector_hits = ()
        if isinstance(keyword, StoreUnavailable):
            recorder.degrade(DegradationReason.SEARCH_ARM_FAILED, "keyword_search", keyword.message)
            keyword = _NO_MATCHES
        return await self._load(tenant_id, vector_hits, keyword.hits, options, recorder)

    async def _search_vector(
        self,
        tenant_id: str,
        stats: CollectionStats,
        question: str,
        options: RetrievalOptions,
        recorder: Recorder,
    ) -> Sequence[ScoredChunk] | StoreUnavailable:
        if stats.embedding_model is None:
            return ()
        name, digest = split_identity(stats.embedding_model)
        try:
            with recorder.stage("embed_question") as stage:
                model = await self._models.embedding_model(name)
                if model.digest != digest:
                    raise EmbeddingModelChanged(name, listed=digest, served=model.digest)
                found = await self._embeddings.embed(
                    model, [question], time_limit_seconds=self._embedding_time_limit_seconds
                )
                stage.cache_outcome = found.cache_outcome
        except ServiceError as error:
            recorder.degrade(
                DegradationReason.EMBEDDING_UNAVAILABLE, "embed_question", error.message
            )
            return ()
        if found.cache_degraded:
            recorder.degrade(
                DegradationReason.CACHE_UNAVAILABLE, "embed_question", "the cache did not answer"
            )
        try:
            with recorder.stage("vector_search") as stage:
                hits = await self._store.search_vector(
                    tenant_id,
                    stats.name,
                    model=stats.embedding_model,
                    vector=found.vectors[0],
                    limit=options.candidate_count,
                )
                stage.item_count = len(hits)
        except StoreUnavailable as error:
            return error
        return hits

    async def _search_keyword(
        self,
        tenant_id: str,
        stats: CollectionStats,
        question: str,
        options: RetrievalOptions,
        recorder: Recorder,
    ) -> KeywordMatches | StoreUnavailable:
        try:
            with recorder.stage("keyword_search") as stage:
                matches = await self._store.search_keyword(
                    tenant_id,
                    stats.name,
                    terms=analyse_query(question),
                    limit=options.candidate_count,
                )
                stage.item_count = len(matches.hits)
        except StoreUnavailable as error:
            return error
        return matches

    async def _load(
        self,
        tenant_id: str,
        vector_hits: Sequence[ScoredChunk],
        keyword_hits: Sequence[ScoredChunk],
        options: RetrievalOptions,
        recorder: Recorder,
    ) -> tuple[RankedPassage, ...]:
        weight = options.vector_weight_ratio
        if not vector_hits or not keyword_hits:
            # With one ranking alone, half of every score would be missing.
            weight = 1.0 if vector_hits else 0.0
        with recorder.stage("fuse") as stage:
            fused = fuse(options.fusion, vector_hits, keyword_hits, vector_weight=weight)[
                : options.passage_count
            ]
            stage.item_count = len(fused)
        if not fused:
            return ()
        with recorder.stage("load_passages") as stage:
            passages = await self._store.load_passages(tenant_id, [each.chunk_id for each in fused])
            stage.item_count = len(passages)
        # A document deleted since the search is simply no longer there.
        return tuple(
            RankedPassage(passages[each.chunk_id], each)
            for each in fused
            if each.chunk_id in passages
        )
