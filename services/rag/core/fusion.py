"""Fusing the vector arm and the keyword arm into one ranking.

Convex combination of min-max normalised scores is the default: it beats reciprocal ranks on most
public collections. Reciprocal rank fusion needs no comparable scores and stays selectable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.rag.core.model import FusedChunk, ScoredChunk

__all__ = [
    "DEFAULT_RANK_CONSTANT",
    "DEFAULT_VECTOR_WEIGHT",
    "FusionMethod",
    "fuse",
    "fuse_convex",
    "fuse_reciprocal_ranks",
]

DEFAULT_VECTOR_WEIGHT = 0.5
DEFAULT_RANK_CONSTANT = 60


class FusionMethod(StrEnum):
    """How two ranked lists become one."""

    CONVEX = "convex"
    RECIPROCAL_RANK = "reciprocal_rank"


@dataclass(frozen=True, slots=True)
class _Place:
    rank: int
    score: float


def fuse_convex(
    vector: Sequence[ScoredChunk],
    keyword: Sequence[ScoredChunk],
    *,
    vector_weight: float = DEFAULT_VECTOR_WEIGHT,
) -> list[FusedChunk]:
    """Fuses by a weighted sum of min-max normalised scores; a missing chunk counts 0.

    BM25 scores are normalised from their theoretical minimum 0, cosine similarities from the
    lowest one in the list.

    Args:
        vector: Hits of the vector arm, scored by cosine similarity.
        keyword: Hits of the keyword arm, scored by BM25.
        vector_weight: Weight of the vector arm, 0 to 1. With one arm gone, pass 0 or 1.
    """
    lowest = min((hit.score for hit in vector), default=0.0)
    normal_vector = _min_max(vector, lowest)
    normal_keyword = _min_max(keyword, 0.0)

    def score(chunk_id: int) -> float:
        from_vector = normal_vector.get(chunk_id, 0.0)
        from_keyword = normal_keyword.get(chunk_id, 0.0)
        return vector_weight * from_vector + (1.0 - vector_weight) * from_keyword

    return _rank(_places(vector), _places(keyword), score)


def fuse_reciprocal_ranks(
    vector: Sequence[ScoredChunk],
    keyword: Sequence[ScoredChunk],
    *,
    k: int = DEFAULT_RANK_CONSTANT,
) -> list[FusedChunk]:
    """Fuses by the sum of 1 / (k + rank); an arm without the chunk adds nothing.

    The sum is divided by its greatest possible value, so that scores lie between 0 and 1.
    Source: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion (2009).
    """
    vector_places, keyword_places = _places(vector), _places(keyword)

    def score(chunk_id: int) -> float:
        found = (places.get(chunk_id) for places in (vector_places, keyword_places))
        total = sum(1.0 / (k + place.rank) for place in found if place is not None)
        return total * (k + 1) / 2.0

    return _rank(vector_places, keyword_places, score)


def fuse(
    method: FusionMethod,
    vector: Sequence[ScoredChunk],
    keyword: Sequence[ScoredChunk],
    *,
    vector_weight: float = DEFAULT_VECTOR_WEIGHT,
) -> list[FusedChunk]:
    """Fuses by the given method; only the convex one uses the weight, see `fuse_convex`."""
    if method is FusionMethod.CONVEX:
        return fuse_convex(vector, keyword, vector_weight=vector_weight)
    return fuse_reciprocal_ranks(vector, keyword)


def _places(hits: Sequence[ScoredChunk]) -> dict[int, _Place]:
    ordered = sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
    return {hit.chunk_id: _Place(rank, hit.score) for rank, hit in enumerate(ordered, start=1)}


def _min_max(hits: Sequence[ScoredChunk], lowest: float) -> dict[int, float]:
    spread = max((hit.score for hit in hits), default=lowest) - lowest
    if spread <= 0.0:
        return {hit.chunk_id: 1.0 for hit in hits}
    return {hit.chunk_id: (hit.score - lowest) / spread for hit in hits}


def _rank(
    vector: Mapping[int, _Place], keyword: Mapping[int, _Place], score: Callable[[int], float]
) -> list[FusedChunk]:
    fused = [
        _describe(chunk_id, score(chunk_id), vector.get(chunk_id), keyword.get(chunk_id))
        for chunk_id in vector.keys() | keyword.keys()
    ]
    fused.sort(key=lambda chunk: (-chunk.score, chunk.chunk_id))
    return fused


def _describe(
    chunk_id: int, score: float, vector: _Place | None, keyword: _Place | None
) -> FusedChunk:
    return FusedChunk(
        chunk_id=chunk_id,
        score=score,
        vector_rank=vector.rank if vector else None,
        vector_score=vector.score if vector else None,
        keyword_rank=keyword.rank if keyword else None,
        keyword_score=keyword.score if keyword else None,
    )
