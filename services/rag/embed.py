"""Turns texts into vectors: the cache first, the balancer second."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from services.common.errors import PeerUnavailable
from services.rag.core.errors import EmbeddingModelChanged
from services.rag.core.model import Vector
from services.rag.ports import CachePort, ModelFacts, ModelsPort

__all__ = ["EmbeddingSource", "EmbeddingsFound"]


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


class EmbeddingSource:
    """Gets vectors from where they are cheapest.

    Args:
        cache: The cache.
        models: The balancer.
    """

    def __init__(self, *, cache: CachePort, models: ModelsPort) -> None:
        self._cache = cache
        self._models = models

    async def embed(
        self,
        model: ModelFacts,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None = None,
        bypass_cache: bool = False,
    ) -> EmbeddingsFound:
        """Finds or computes the vectors of texts.

        Args:
            model: The embedding model.
            texts: 1 to 512 texts.
            time_limit_seconds: Longest time of the computation.
            bypass_cache: Whether to neither ask the cache nor tell it.

        Raises:
            PeerUnavailable: The balancer cannot be asked.
            RelayedError: The balancer could not embed.
            EmbeddingModelChanged: The fleet serves another version of the model than it listed.
        """
        known: dict[str, Vector] = {}
        degraded, outcome = False, "unavailable"
        distinct = list(dict.fromkeys(texts))
        if bypass_cache:
            outcome = "bypassed"
        else:
            try:
                lookups = await self._cache.lookup_embeddings(model.digest, distinct)
            except PeerUnavailable:
                degraded = True
            else:
                degraded, outcome = lookups.degraded, lookups.outcome
                known = {
                    text: vector
                    for text, vector in zip(distinct, lookups.vectors, strict=True)
                    if vector is not None
                }
        missing = [text for text in distinct if text not in known]
        if missing:
            known |= await self._compute(
                model, missing, time_limit_seconds, store=outcome not in ("unavailable", "bypassed")
            )
        return EmbeddingsFound(
            vectors=tuple(known[text] for text in texts),
            computed_count=len(missing),
            cache_outcome=outcome,
            cache_degraded=degraded,
        )

    async def _compute(
        self,
        model: ModelFacts,
        texts: Sequence[str],
        time_limit_seconds: float | None,
        *,
        store: bool,
    ) -> dict[str, Vector]:
        embedded = await self._models.embed(
            model.name, texts, time_limit_seconds=time_limit_seconds
        )
        if embedded.model_digest != model.digest:
            raise EmbeddingModelChanged(
                model.name, listed=model.digest, served=embedded.model_digest
            )
        if store:
            # The vectors are here; that they were not kept shows at the next look-up.
            with suppress(PeerUnavailable):
                await self._cache.store_embeddings(model.digest, texts, embedded.vectors)
        return dict(zip(texts, embedded.vectors, strict=True))
