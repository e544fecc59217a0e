"""Turns texts into vectors: the cache first, the balancer second."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import log2

from services.common.errors import PeerUnavailable
from services.common.identity import current_identity
from services.rag.cache_port import CachePort
from services.rag.coalesce import Coalescer
from services.rag.core.documents import Vector
from services.rag.core.errors import EmbeddingModelChanged
from services.rag.ports import ModelFacts, ModelsPort

__all__ = ["CachedVectors", "EmbeddingSource", "EmbeddingsFound"]

_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingsFound:
    """Vectors in the order of their texts.

    Attributes:
        vectors: One per text.
        computed_count: Vectors the balancer computed now.
        cache_outcome: `hit_local`, `hit_shared`, `miss`, `bypassed` or `unavailable`.
        cache_degraded: Whether the cache or its store could not be asked.
    """

    vectors: tuple[Vector, ...]
    computed_count: int
    cache_outcome: str
    cache_degraded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedVectors:
    """What the cache knows of texts.

    Attributes:
        vectors: By text; absent where it knows nothing.
        outcome: As `EmbeddingsFound.cache_outcome`.
        degraded: Whether the cache or its store could not be asked.
    """

    vectors: Mapping[str, Vector]
    outcome: str
    degraded: bool = False

    @property
    def keeps(self) -> bool:
        """Whether the cache is to be told of vectors that are made now."""
        return self.outcome not in ("unavailable", "bypassed")


class EmbeddingSource:
    """Gets vectors from where they are cheapest.

    Args:
        cache: The cache.
        models: The balancer.
    """

    def __init__(self, *, cache: CachePort, models: ModelsPort) -> None:
        self._cache = cache
        self._models = models
        self._flights: Coalescer[EmbeddingsFound] = Coalescer()

    async def embed_question(
        self, model: ModelFacts, question: str, *, time_limit_seconds: float
    ) -> EmbeddingsFound:
        """Finds or computes the vector of a question, once for all who ask it at the same time.

        Arguments and errors are those of `embed`. The limit is that of the first, so only those
        share who have about as much time.
        """
        patience = round(log2(max(time_limit_seconds, _LEAST_SECONDS)))
        key = (current_identity.get().tenant_id, model.digest, question, patience)
        return await self._flights.run(
            key, lambda: self.embed(model, [question], time_limit_seconds=time_limit_seconds)
        )

    async def embed(
        self,
        model: ModelFacts,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None = None,
        bypass_cache: bool = False,
        urgent: bool = True,
    ) -> EmbeddingsFound:
        """Finds or computes the vectors of texts.

        Args:
            model: The embedding model.
            texts: 1 to 512 texts.
            time_limit_seconds: Longest time of the computation.
            bypass_cache: Whether to neither ask the cache nor tell it.
            urgent: Whether a person waits for it.

        Raises:
            PeerUnavailable: The balancer cannot be asked.
            RelayedError: The balancer could not embed.
            EmbeddingModelChanged: The fleet serves another version of the model than it listed.
        """
        distinct = list(dict.fromkeys(texts))
        if bypass_cache:
            cached = CachedVectors(vectors={}, outcome="bypassed")
        else:
            cached = await self.look_up(model, distinct)
        missing = [text for text in distinct if text not in cached.vectors]
        computed: Mapping[str, Vector] = {}
        if missing:
            computed = await self.compute(
                model, missing, time_limit_seconds=time_limit_seconds, urgent=urgent
            )
            if cached.keeps:
                await self.keep(model, computed)
        known = {**cached.vectors, **computed}
        return EmbeddingsFound(
            vectors=tuple(known[text] for text in texts),
            computed_count=len(missing),
            cache_outcome=cached.outcome,
            cache_degraded=cached.degraded,
        )

    async def look_up(self, model: ModelFacts, texts: Sequence[str]) -> CachedVectors:
        """Asks the cache alone.

        Args:
            model: The embedding model.
            texts: 1 to 512 different texts.
        """
        try:
            lookups = await self._cache.lookup_embeddings(model.digest, texts)
        except PeerUnavailable:
            return CachedVectors(vectors={}, outcome="unavailable", degraded=True)
        return CachedVectors(
            vectors={
                text: vector
                for text, vector in zip(texts, lookups.vectors, strict=True)
                if vector is not None
            },
            outcome=lookups.outcome,
            degraded=lookups.degraded,
        )

    async def compute(
        self,
        model: ModelFacts,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None,
        urgent: bool,
    ) -> Mapping[str, Vector]:
        """Has the balancer embed different texts; arguments and errors are those of `embed`."""
        embedded = await self._models.embed(
            model.name, texts, time_limit_seconds=time_limit_seconds, urgent=urgent
        )
        if embedded.model_digest != model.digest:
            raise EmbeddingModelChanged(
                model.name, listed=model.digest, served=embedded.model_digest
            )
        return dict(zip(texts, embedded.vectors, strict=True))

    async def keep(self, model: ModelFacts, vectors: Mapping[str, Vector]) -> None:
        """Tells the cache of vectors; that they were not kept shows at the next look-up."""
        with suppress(PeerUnavailable):
            await self._cache.store_embeddings(model.digest, list(vectors), list(vectors.values()))
