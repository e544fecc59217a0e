"""Ordering candidates by what a cross-encoder thinks of them."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp

from services.rag.core.ranking.candidate import Candidate

__all__ = ["RERANK_WEIGHT", "likelihood", "rerank"]

RERANK_WEIGHT = 0.7
"""Weight of the cross-encoder's belief against the fused score, which guards against its whims."""


def likelihood(logit: float) -> float:
    """Returns the logistic function of a logit, 0 to 1."""
    if logit >= 0:
        return 1.0 / (1.0 + exp(-logit))
    return exp(logit) / (1.0 + exp(logit))


def rerank(candidates: Sequence[Candidate], logits: Sequence[float | None]) -> list[Candidate]:
    """Orders the candidates that were scored; the others keep their places.

    Args:
        candidates: Best first.
        logits: For as many of the first of them; None where one was not scored.
    """
    ordered = list(candidates)
    places = [place for place, logit in enumerate(logits) if logit is not None]
    scored = [
        _believed(candidates[place], likelihood(logit))
        for place, logit in enumerate(logits)
        if logit is not None
    ]
    scored.sort(key=lambda each: (-each.relevance, each.ranking.chunk_id))
    for place, candidate in zip(places, scored, strict=True):
        ordered[place] = candidate
    return ordered


def _believed(candidate: Candidate, belief: float) -> Candidate:
    return Candidate(
        candidate.passage,
        replace(candidate.ranking, rerank_score=belief),
        RERANK_WEIGHT * belief + (1.0 - RERANK_WEIGHT) * candidate.ranking.score,
    )
