"""Fusing the vector arm and the keyword arm, of one or several wordings, into one ranking.

Convex combination of min-max normalised scores is the default: it beats reciprocal ranks on most
public collections. Reciprocal rank fusion needs no comparable scores and stays selectable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.rag.core.passages import FusedChunk, ScoredChunk

__all__ = [
    "DEFAULT_RANK_CONSTANT",
    "DEFAULT_VECTOR_WEIGHT",
    "Fused",
    "FusionMethod",
    "Hits",
    "fuse",
    "fuse_convex",
    "fuse_reciprocal_ranks",
]

DEFAULT_VECTOR_WEIGHT = 0.5
DEFAULT_RANK_CONSTANT = 60


class FusionMethod(StrEnum):
    """How ranked lists become one."""

    CONVEX = "convex"
    RECIPROCAL_RANK = "reciprocal_rank"


@dataclass(frozen=True, slots=True)
class Hits:
    """What the arms found for one wording of a question.

    Attributes:
        vector: Hits of the vector arm, scored by cosine similarity; empty without it.
        keyword: Hits of the keyword arm, scored by BM25; empty without it.
        weight: What the wording counts beside the question itself, which counts 1.
    """

    vector: Sequence[ScoredChunk] = ()
    keyword: Sequence[ScoredChunk] = ()
    weight: float = 1.0


# Rank and score in an arm.
_Place = tuple[int, float]


@dataclass(frozen=True, slots=True)
class Fused:
    """What came of fusing.

    Attributes:
        best: The chunks, best first, as many as were asked for.
        total_count: How many there are in all.
    """

    best: list[FusedChunk]
    total_count: int


def fuse(
    method: FusionMethod,
    question: Hits,
    variants: Sequence[Hits] = (),
    *,
    vector_weight: float = DEFAULT_VECTOR_WEIGHT,
    limit: int | None = None,
) -> Fused:
    """Fuses by the given method; only the convex one uses the weight of the vector arm.

    Ranks and scores of the arms are those of the question itself; a chunk that only other wordings
    found has none.

    Args:
        method: How.
        question: What was found for the question.
        variants: What was found for other wordings.
        vector_weight: See `fuse_convex`.
        limit: Most chunks to return; None for all.
    """
    wordings = (question, *variants)
    scores = (
        fuse_convex(wordings, vector_weight=vector_weight)
        if method is FusionMethod.CONVEX
        else fuse_reciprocal_ranks(wordings)
    )
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:limit]
    vector, keyword = _places(question.vector), _places(question.keyword)
    best = [
        _describe(chunk_id, score, vector.get(chunk_id), keyword.get(chunk_id))
        for chunk_id, score in ordered
    ]
    return Fused(best, len(scores))


def fuse_convex(
    wordings: Sequence[Hits], *, vector_weight: float = DEFAULT_VECTOR_WEIGHT
) -> dict[int, float]:
    """Fuses by a weighted mean of min-max normalised scores; a missing chunk counts 0.

    BM25 scores are normalised from their theoretical minimum 0, cosine similarities from the
    lowest one in the list.

    Args:
        wordings: What was found for each wording.
        vector_weight: Weight of the vector arm, 0 to 1. An arm that is alone counts whole: half of
            every score would be missing otherwise.

    Returns:
        A score from 0 to 1 for each chunk.
    """
    total = sum(each.weight for each in wordings)
    scores: dict[int, float] = {}
    for each in wordings:
        weight = vector_weight
        if not each.vector or not each.keyword:
            weight = 1.0 if each.vector else 0.0
        lowest = min((hit.score for hit in each.vector), default=0.0)
        _add(scores, _min_max(each.vector, lowest), weight * each.weight / total)
        _add(scores, _min_max(each.keyword, 0.0), (1.0 - weight) * each.weight / total)
    return scores


def fuse_reciprocal_ranks(
    wordings: Sequence[Hits], *, k: int = DEFAULT_RANK_CONSTANT
) -> dict[int, float]:
    """Fuses by the sum of 1 / (k + rank); a list without the chunk adds nothing.

    The sum is divided by its greatest possible value, so that scores lie between 0 and 1.
    Source: Cormack, Clarke and Büttcher, Reciprocal Rank Fusion (2009).

    Args:
        wordings: What was found for each wording.
        k: How little the first ranks stand out.

    Returns:
        A score from 0 to 1 for each chunk.
    """
    greatest = sum(2.0 * each.weight for each in wordings) / (k + 1)
    scores: dict[int, float] = {}
    for each in wordings:
        for hits in (each.vector, each.keyword):
            parts = {chunk_id: 1.0 / (k + rank) for chunk_id, (rank, _) in _places(hits).items()}
            _add(scores, parts, each.weight / greatest)
    return scores


def _add(scores: dict[int, float], parts: Mapping[int, float], factor: float) -> None:
    for chunk_id, part in parts.items():
        scores[chunk_id] = scores.get(chunk_id, 0.0) + factor * part


def _places(hits: Sequence[ScoredChunk]) -> dict[int, _Place]:
    ordered = sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
    return {hit.chunk_id: (rank, hit.score) for rank, hit in enumerate(ordered, start=1)}


def _min_max(hits: Sequence[ScoredChunk], lowest: float) -> dict[int, float]:
    spread = max((hit.score for hit in hits), default=lowest) - lowest
    if spread <= 0.0:
        return {hit.chunk_id: 1.0 for hit in hits}
    return {hit.chunk_id: (hit.score - lowest) / spread for hit in hits}


def _describe(
    chunk_id: int, score: float, vector: _Place | None, keyword: _Place | None
) -> FusedChunk:
    return FusedChunk(
        chunk_id=chunk_id,
        score=min(score, 1.0),
        vector_rank=vector[0] if vector else None,
        vector_score=vector[1] if vector else None,
        keyword_rank=keyword[0] if keyword else None,
        keyword_score=keyword[1] if keyword else None,
    )
