"""Searches for one wording of a question: by meaning and by words at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from services.common.errors import ServiceError
from services.rag.core.analysis import analyse_query
from services.rag.core.documents import CollectionStats, Vector
from services.rag.core.errors import CollectionNotFound, EmbeddingModelChanged, StoreUnavailable
from services.rag.core.expansion import Variant
from services.rag.core.fusion import Hits
from services.rag.core.options import Mode, RetrievalOptions, SearchArms
from services.rag.core.passages import KeywordMatches, ScoredChunk, TermStatistics
from services.rag.core.profile import DegradationReason
from services.rag.early import BegunEarly
from services.rag.embed import EmbeddingsFound, EmbeddingSource
from services.rag.models import ModelCatalogue, split_identity
from services.rag.ports import ModelFacts
from services.rag.recorder import Recorder
from services.rag.store_port import DocumentStore
from services.rag.store_wait import waiting_for_store

__all__ = ["Found", "Search", "Searcher", "TimeLimits"]

T = TypeVar("T")

# What one step may take of the time left, so that what comes after it can still be done.
_STEP_SHARE_RATIO = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Longest times of the steps of a search, in seconds.

    Attributes:
        embedding: To embed a question.
        arm: Of one statement that searches.
        reranking: To judge the candidates.
        remaining: Returns what is left of the running call's deadline; None where there is none.
    """

    embedding: float
    arm: float
    reranking: float
    remaining: Callable[[], float | None]

    def now(self, limit: float = inf) -> float:
        """Returns what a step may take now: its limit, and half of the time left at the most."""
        remaining = self.remaining()
        return limit if remaining is None else min(limit, remaining * _STEP_SHARE_RATIO)

    def reading(self) -> AbstractAsyncContextManager[None]:
        """Bounds what is read by key in the block; raises `StoreUnavailable` where it is late."""
        return waiting_for_store(self.remaining())


@dataclass(slots=True, kw_only=True)
class Search:
    """One question on its way to passages.

    Attributes:
        tenant_id: Owner of the collection.
        collection: Where to look.
        question: The question.
        options: How to search.
        recorder: Receives stages and degradations.
        keyword_text: What is searched for by words; empty for the question.
        mode: How the question will be answered; DEEP takes more trouble.
        bypass_cache: Whether to compute the question's vector without asking the cache.
        cache_is_away: Whether the cache did not answer; it is then not waited for again.
        embedding: The question's vector, or why there is none; None while it is not known.
        early: The embedding that was begun before it was asked for; None where none was.
    """

    tenant_id: str
    collection: CollectionStats
    question: str
    options: RetrievalOptions
    recorder: Recorder
    keyword_text: str = ""
    mode: Mode = Mode.RAG
    bypass_cache: bool = False
    cache_is_away: bool = False
    embedding: Vector | ServiceError | None = None
    early: "asyncio.Task[EmbeddingsFound | ServiceError] | None" = None

    @property
    def vector(self) -> Vector | None:
        """The question's vector, if there is one."""
        return None if isinstance(self.embedding, ServiceError) else self.embedding

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that are searched for."""
        return self.terms_of(self.keyword_text or self.question)

    def terms_of(self, text: str) -> tuple[str, ...]:
        """Returns the terms of a wording, in the languages of the collection."""
        return analyse_query(text, languages=self.collection.languages)

    def terms_in(self, language: str) -> tuple[str, ...]:
        """Returns those of the terms that a passage in one of the languages can hold."""
        if language not in self.collection.languages or self.collection.languages == (language,):
            return self.terms
        return analyse_query(self.keyword_text or self.question, languages=(language,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the arms found for one wording.

    Attributes:
        hits: The chunks.
        statistics: How common its terms are; None where the keyword arm did not answer.
        terms: The terms that count.
        by_meaning: Whether the vector arm answered.
    """

    hits: Hits
    statistics: TermStatistics | None = None
    terms: tuple[str, ...] = ()
    by_meaning: bool = False


class Searcher:
    """Runs the arms.

    Args:
        store: The documents.
        embeddings: Vectors of questions.
        models: Models of the fleet.
        limits: Longest times.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        embeddings: EmbeddingSource,
        models: ModelCatalogue,
        limits: TimeLimits,
    ) -> None:
        self._store = store
        self._embeddings = embeddings
        self._models = models
        self._limits = limits

    async def embed(self, search: Search) -> None:
        """Sets the vector of a search's question, or why there is none."""
        if search.embedding is not None:
            return
        if search.collection.embedding_model is None:
            search.embedding = CollectionNotFound(search.collection.name)
        else:
            search.embedding = _noted(search, await (search.early or self._embed(search)))

    @asynccontextmanager
    async def embedding_early(self, search: Search) -> AsyncIterator[None]:
        """Embeds a search's question beside what is done in the block.

        What comes of it counts from when it is asked for with `embed`, in the block.

        Args:
            search: The search, whose collection is as it was known last. Whoever learns that
                another model embeds it now sets `early` to None.
        """
        async with BegunEarly(self._embed(search)) as search.early:
            yield

    async def search(self, search: Search) -> Found | ServiceError:
        """Searches for the question, by words while it is being embedded.

        Returns:
            What was found; an error where no arm could search, most likely `StoreUnavailable`.
        """
        arms, terms = search.options.arms, search.terms
        # Without a model nothing of the collection has a vector yet.
        has_vectors = search.collection.embedding_model is not None
        async with asyncio.TaskGroup() as group:
            words = (
                group.create_task(self._search_words(search, terms))
                if arms is not SearchArms.VECTOR
                else None
            )
            near: Sequence[ScoredChunk] | ServiceError | None = None
            if arms is not SearchArms.KEYWORD and has_vectors:
                await self.embed(search)
                near = (
                    search.embedding
                    if isinstance(search.embedding, ServiceError)
                    else await self._search_meaning(search, _vector(search))
                )
        matches = words.result() if words is not None else None
        outcomes = [each for each in (matches, near) if each is not None]
        failures = [each for each in outcomes if isinstance(each, ServiceError)]
        if failures and len(failures) == len(outcomes):
            return failures[0]
        return _found(matches, near, terms, weight=1.0)

    async def search_variants(self, search: Search, variants: Sequence[Variant]) -> list[Found]:
        """Searches for other wordings, all at the same time; what cannot be searched finds nothing.

        Args:
            search: The question's search.
            variants: The wordings.
        """
        vectors = await self._embed_variants(search, [each.text for each in variants])
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._search_variant(search, variant, vector))
                for variant, vector in zip(variants, vectors, strict=True)
            ]
        return [task.result() for task in tasks]

    async def _search_variant(
        self, search: Search, variant: Variant, vector: Vector | None
    ) -> Found:
        by_words = search.options.arms is not SearchArms.VECTOR and not variant.by_meaning_only
        terms = search.terms_of(variant.text)
        async with asyncio.TaskGroup() as group:
            words = group.create_task(self._search_words(search, terms)) if by_words else None
            meaning = (
                group.create_task(self._search_meaning(search, vector))
                if vector is not None
                else None
            )
        return _found(
            words.result() if words is not None else None,
            meaning.result() if meaning is not None else None,
            terms,
            weight=variant.weight,
        )

    async def _embed_variants(
        self, search: Search, texts: Sequence[str]
    ) -> Sequence[Vector | None]:
        if search.options.arms is SearchArms.KEYWORD or search.vector is None:
            return [None] * len(texts)
        try:
            with search.recorder.stage("embed_variants") as stage:
                model = await self._model(search)
                found = await self._embeddings.embed(
                    model,
                    texts,
                    time_limit_seconds=self._limits.now(self._limits.embedding),
                    bypass_cache=search.bypass_cache or search.cache_is_away,
                )
                stage.cache_outcome = found.cache_outcome
        except ServiceError as error:
            search.recorder.degrade(
                DegradationReason.EXPANSION_SKIPPED, "embed_variants", error.message
            )
            return [None] * len(texts)
        return found.vectors

    async def _model(self, search: Search) -> ModelFacts:
        """Finds the model that embedded the collection.

        Raises:
            ServiceError: The fleet does not have it as it was.
        """
        identity = search.collection.embedding_model
        if identity is None:
            # Nothing was ever stored in it.
            raise CollectionNotFound(search.collection.name)
        name, digest = split_identity(identity)
        model = await self._models.embedding_model(name)
        if model.digest != digest:
            raise EmbeddingModelChanged(name, listed=digest, served=model.digest)
        return model

    async def _embed(self, search: Search) -> EmbeddingsFound | ServiceError:
        try:
            with search.recorder.stage("embed_question") as stage:
                found = await self._vector_of(search, await self._model(search))
                stage.cache_outcome = "unavailable" if search.cache_is_away else found.cache_outcome
        except ServiceError as error:
            return error
        return found

    async def _vector_of(self, search: Search, model: ModelFacts) -> EmbeddingsFound:
        limit = self._limits.now(self._limits.embedding)
        if search.bypass_cache or search.cache_is_away:
            return await self._embeddings.embed(
                model, [search.question], time_limit_seconds=limit, bypass_cache=True
            )
        found = await self._embeddings.embed_question(
            model, search.question, time_limit_seconds=limit
        )
        search.cache_is_away = found.cache_outcome == "unavailable"
        return found

    async def _search_meaning(
        self, search: Search, vector: Vector
    ) -> Sequence[ScoredChunk] | ServiceError:
        async def statement() -> tuple[Sequence[ScoredChunk], Sequence[ScoredChunk]]:
            hits = await self._store.search_vector(
                search.tenant_id,
                search.collection.name,
                model=search.collection.embedding_model or "",
                vector=vector,
                limit=search.options.candidate_count,
                filter=search.options.filter,
                access=search.options.access,
            )
            return hits, hits

        return await self._run_arm(search, "vector_search", statement())

    async def _search_words(
        self, search: Search, terms: Sequence[str]
    ) -> KeywordMatches | ServiceError:
        async def statement() -> tuple[KeywordMatches, Sequence[ScoredChunk]]:
            matches = await self._store.search_keyword(
                search.tenant_id,
                search.collection.name,
                terms=terms,
                limit=search.options.candidate_count,
                filter=search.options.filter,
                access=search.options.access,
            )
            return matches, matches.hits

        return await self._run_arm(search, "keyword_search", statement())

    async def _run_arm(
        self,
        search: Search,
        name: str,
        statement: Coroutine[Any, Any, tuple[T, Sequence[ScoredChunk]]],
    ) -> T | ServiceError:
        """Runs one arm within its time; what fails becomes a degradation."""
        failure: ServiceError
        try:
            with search.recorder.stage(name) as stage:
                async with asyncio.timeout(self._limits.now(self._limits.arm)):
                    result, hits = await statement
                stage.item_count = len(hits)
                stage.span.set_attribute("app.retrieval.k", search.options.candidate_count)
                if hits:
                    stage.span.set_attribute("app.retrieval.top_score", hits[0].score)
                return result
        except TimeoutError:
            failure = StoreUnavailable("the search took too long")
        except ServiceError as error:
            failure = error
        search.recorder.degrade(DegradationReason.SEARCH_ARM_FAILED, name, failure.message)
        return failure


def _noted(search: Search, embedded: EmbeddingsFound | ServiceError) -> Vector | ServiceError:
    """Returns the vector of a question, or why there is none, and notes what is amiss."""
    if isinstance(embedded, ServiceError):
        search.recorder.degrade(
            DegradationReason.EMBEDDING_UNAVAILABLE, "embed_question", embedded.message
        )
        return embedded
    if embedded.cache_degraded:
        search.recorder.degrade(
            DegradationReason.CACHE_UNAVAILABLE, "embed_question", "the cache did not answer"
        )
    return embedded.vectors[0]


def _vector(search: Search) -> Vector:
    vector = search.vector
    assert vector is not None  # noqa: S101 - the question was embedded before
    return vector


def _found(
    matches: KeywordMatches | ServiceError | None,
    near: Sequence[ScoredChunk] | ServiceError | None,
    terms: Sequence[str],
    *,
    weight: float,
) -> Found:
    vector_hits = None if isinstance(near, ServiceError) else near
    if matches is None or isinstance(matches, ServiceError):
        return Found(
            hits=Hits(vector=vector_hits or (), weight=weight), by_meaning=vector_hits is not None
        )
    return Found(
        hits=Hits(vector=vector_hits or (), keyword=matches.hits, weight=weight),
        statistics=matches.statistics,
        terms=tuple(term for term in terms if term not in matches.pruned_terms),
        by_meaning=vector_hits is not None,
    )
