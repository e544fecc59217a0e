"""How good an answer is, found out without asking a second model.

The figure is 0.35 of the confidence in the retrieval, 0.40 of the groundedness, 0.15 of the
citations' precision and 0.10 of their coverage, times what each degradation leaves of it, and no
more than the worst of them allows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from services.rag.core.profile import DegradationReason
from services.rag.core.verification import SentenceSupport, SupportStatus

__all__ = [
    "CAPS",
    "FACTORS",
    "HARMLESS",
    "LEAST_KEPT_SCORE",
    "CheckedCitations",
    "Quality",
    "degraded_score",
    "is_good_enough",
    "quality_of",
]

LEAST_KEPT_SCORE = 0.8
"""Answers below it are not kept for others."""

_CONFIDENCE_WEIGHT = 0.35
_GROUNDEDNESS_WEIGHT = 0.40
_PRECISION_WEIGHT = 0.15
_COVERAGE_WEIGHT = 0.10
_PARTIAL_WORTH = 0.5

FACTORS: Mapping[DegradationReason, float] = MappingProxyType(
    {
        DegradationReason.EMBEDDING_UNAVAILABLE: 0.85,
        DegradationReason.SEARCH_ARM_FAILED: 0.85,
        DegradationReason.RERANK_UNAVAILABLE: 0.95,
        DegradationReason.RERANK_BUDGET_EXCEEDED: 0.98,
        DegradationReason.REWRITE_SKIPPED: 0.97,
        DegradationReason.EXPANSION_SKIPPED: 0.97,
        DegradationReason.WEB_SEARCH_UNAVAILABLE: 0.9,
        DegradationReason.CONTEXT_TRUNCATED: 0.8,
        DegradationReason.DEADLINE_TRUNCATED: 0.8,
        DegradationReason.VECTORS_PENDING: 0.95,
        DegradationReason.VERIFICATION_REDUCED: 0.95,
        DegradationReason.TOOL_FAILED: 0.95,
        DegradationReason.CACHE_UNAVAILABLE: 1.0,
        DegradationReason.STORE_UNAVAILABLE: 1.0,
        DegradationReason.MODEL_UNAVAILABLE: 1.0,
        DegradationReason.BUDGET_EXCEEDED: 1.0,
        DegradationReason.GENERATION_INTERRUPTED: 1.0,
        DegradationReason.SERVED_STALE: 1.0,
        DegradationReason.UNGROUNDED: 1.0,
    }
)
"""What is left of an answer's quality after each degradation."""

CAPS: Mapping[DegradationReason, float] = MappingProxyType(
    {
        DegradationReason.MODEL_UNAVAILABLE: 0.45,
        DegradationReason.BUDGET_EXCEEDED: 0.45,
        DegradationReason.GENERATION_INTERRUPTED: 0.3,
        DegradationReason.SERVED_STALE: 0.5,
        DegradationReason.UNGROUNDED: 0.2,
    }
)
"""The most that an answer's quality can be with each degradation."""

HARMLESS = frozenset({DegradationReason.CACHE_UNAVAILABLE})
"""What says nothing against an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good an answer is; each figure 0 to 1.

    Attributes:
        score: All in one figure.
        retrieval_confidence: How likely the passages found hold the answer.
        groundedness: Share of the answer that is supported, partly supported sentences half.
        citation_precision: Share of the citations whose sentence the cited passage supports.
        citation_coverage: Share of the sentences that claim something and cite something.
    """

    score: float
    retrieval_confidence: float
    groundedness: float
    citation_precision: float
    citation_coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCitations:
    """What checking an answer's citations came to.

    Attributes:
        citation_count: Pairs of a sentence and a passage it cites.
        supported_count: Those where the passage supports the sentence.
        cited_claim_count: Sentences that claim something and cite something.
    """

    citation_count: int
    supported_count: int
    cited_claim_count: int


def is_good_enough(
    score: float | None, *, finish_reason: str, reasons: Collection[DegradationReason]
) -> bool:
    """Says whether an answer is good enough for others.

    Args:
        score: Its quality, 0 to 1; None where it has no sources that it could be held against.
        finish_reason: Why its generation ended.
        reasons: What on the way to it was not done as it should have been.
    """
    is_whole = finish_reason == "stop" and not set(reasons) - HARMLESS
    return is_whole and (score is None or score >= LEAST_KEPT_SCORE)


def quality_of(
    *,
    confidence: float,
    sentences: Sequence[SentenceSupport],
    citations: CheckedCitations,
    reasons: Collection[DegradationReason],
) -> Quality:
    """Computes how good an answer is.

    Args:
        confidence: How likely the passages found hold the answer, 0 to 1.
        sentences: What checking its sentences found; without a claim nothing is grounded.
        citations: What checking its citations found.
        reasons: What could not be done as it should have been.
    """
    claims = [each for each in sentences if each.status is not SupportStatus.NO_CLAIM]
    total = sum(map(_length, claims))
    grounded = sum(_length(each) * _worth(each.status) for each in claims)
    groundedness = grounded / total if total else 0.0
    precision = (
        citations.supported_count / citations.citation_count if citations.citation_count else 0.0
    )
    coverage = citations.cited_claim_count / len(claims) if claims else 0.0
    score = (
        _CONFIDENCE_WEIGHT * confidence
        + _GROUNDEDNESS_WEIGHT * groundedness
        + _PRECISION_WEIGHT * precision
        + _COVERAGE_WEIGHT * coverage
    )
    return Quality(
        score=degraded_score(score, reasons),
        retrieval_confidence=confidence,
        groundedness=groundedness,
        citation_precision=precision,
        citation_coverage=coverage,
    )


def degraded_score(score: float, reasons: Iterable[DegradationReason]) -> float:
    """Returns what is left of a score after degradations, each reason counted once."""
    distinct = set(reasons)
    for reason in sorted(distinct, key=lambda each: each.value):
        score *= FACTORS[reason]
    return min(1.0, max(0.0, score), *(CAPS[reason] for reason in distinct if reason in CAPS))


def _length(sentence: SentenceSupport) -> int:
    return sentence.answer_char_end - sentence.answer_char_start


def _worth(status: SupportStatus) -> float:
    if status is SupportStatus.SUPPORTED:
        return 1.0
    return _PARTIAL_WORTH if status is SupportStatus.PARTIAL else 0.0
