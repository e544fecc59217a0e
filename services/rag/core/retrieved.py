"""What a search found, and how far it can be relied on."""

from dataclasses import dataclass
from enum import Enum

from services.rag.core.passages import RankedPassage

__all__ = ["NOTHING_FOUND", "Band", "Confidence", "Retrieved"]


class Band(Enum):
    """How far the passages found can be relied on; the values label metrics."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How likely the passages found hold the answer, from what the searches say alone.

    Attributes:
        score: The estimate, 0 to 1.
        band: What it means for the question.
        keyword_ratio: Best BM25 score as a share of what a passage with all the terms could have,
            0 to 1; None without the keyword arm.
        coverage_ratio: Share of the question's terms, weighted by rarity, that the best passages
            hold, 0 to 1; None without the keyword arm.
        vector_percentile: Share of chance pairs of passages that are less alike than the question
            and the best passage, 0 to 1; None without the vector arm.
        agreement_ratio: Share of the first ten that both arms agree on, 0 to 1; None without both.
        rerank_ratio: The cross-encoder's belief in the best passage, 0 to 1; None where it was not
            asked.
    """

    score: float
    band: Band
    keyword_ratio: float | None = None
    coverage_ratio: float | None = None
    vector_percentile: float | None = None
    agreement_ratio: float | None = None
    rerank_ratio: float | None = None


NOTHING_FOUND = Confidence(score=0.0, band=Band.LOW)
"""The confidence in a search that found nothing."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What a search found.

    Attributes:
        passages: The passages, best first.
        confidence: How likely they hold the answer.
        expansions: Other wordings that were searched for as well.
    """

    passages: tuple[RankedPassage, ...]
    confidence: Confidence
    expansions: tuple[str, ...] = ()
