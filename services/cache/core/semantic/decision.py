"""What may be done with an answer to a similar question."""

from dataclasses import dataclass
from enum import Enum

from services.cache.core.semantic.budget import Standing

__all__ = ["Reason", "SemanticOutcome", "SemanticPolicy", "reason_to_doubt"]


class SemanticOutcome(Enum):
    """What a semantic lookup comes to; the values are the labels it is counted under."""

    EXACT = "exact"
    SIMILAR = "similar"
    CANDIDATE = "candidate"
    MISS = "miss"
    BYPASSED = "bypassed"


class Reason(Enum):
    """Why a match is a candidate and not a hit."""

    UNPROVEN = "unproven"
    OVER_BUDGET = "over_budget"
    COLLECTION_CHANGED = "collection_changed"
    BELOW_THRESHOLD = "below_threshold"


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticPolicy:
    """When answers to similar questions are given.

    Attributes:
        threshold: Least cosine similarity, [0.95, 1].
        error_budget_ratio: Share of wrong answers that hits may have, (0, 1).
        verification_ratio: Share of matches that callers are asked to verify, [0, 1].
    """

    threshold: float
    error_budget_ratio: float
    verification_ratio: float


_DOUBTS = {
    Standing.PROVEN: None,
    Standing.UNPROVEN: Reason.UNPROVEN,
    Standing.OVER_BUDGET: Reason.OVER_BUDGET,
}


def reason_to_doubt(
    standing: Standing | None, *, similar_enough: bool, created_ms: int, changed_ms: int
) -> Reason | None:
    """Returns why a match is a candidate only; None where its answer may be given.

    Args:
        standing: What is known of matches as similar as it; None for the same words.
        similar_enough: Whether its similarity reaches the threshold.
        created_ms: When its answer was made.
        changed_ms: When the collections it comes from last changed.
    """
    if changed_ms >= created_ms:
        return Reason.COLLECTION_CHANGED
    if not similar_enough:
        return Reason.BELOW_THRESHOLD
    return None if standing is None else _DOUBTS[standing]
