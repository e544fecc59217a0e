"""The quality of an answer is one formula, and each degradation has its price."""

import pytest

from services.rag.core.profile import DegradationReason
from services.rag.core.quality import (
    CAPS,
    FACTORS,
    CheckedCitations,
    degraded_score,
    quality_of,
)
from services.rag.core.verification import SentenceSupport, SupportStatus


def sentence(start, end, status):
    return SentenceSupport(answer_char_start=start, answer_char_end=end, status=status)


def checked(citations, supported, cited):
    return CheckedCitations(
        citation_count=citations, supported_count=supported, cited_claim_count=cited
    )


def test_the_figures_are_weighted_as_documented():
    quality = quality_of(
        confidence=0.6,
        sentences=[
            sentence(0, 10, SupportStatus.SUPPORTED),
            sentence(10, 20, SupportStatus.PARTIAL),
            sentence(20, 40, SupportStatus.UNSUPPORTED),
            sentence(40, 90, SupportStatus.NO_CLAIM),
        ],
        citations=checked(4, 3, 2),
        reasons=(),
    )
    assert quality.groundedness == pytest.approx(15 / 40)
    assert quality.citation_precision == 0.75
    assert quality.citation_coverage == pytest.approx(2 / 3)
    assert quality.score == pytest.approx(0.35 * 0.6 + 0.4 * 15 / 40 + 0.15 * 0.75 + 0.1 * 2 / 3)


def test_an_answer_without_a_claim_is_grounded_in_nothing():
    quality = quality_of(confidence=1.0, sentences=(), citations=checked(0, 0, 0), reasons=())
    assert quality.score == pytest.approx(0.35)


def test_every_degradation_has_a_factor():
    assert set(FACTORS) == set(DegradationReason)
    assert all(0 < factor <= 1 for factor in FACTORS.values())
    assert all(FACTORS[reason] == 1 for reason in CAPS)


@pytest.mark.parametrize(
    ("reasons", "score"),
    [
        ((), 0.9),
        ((DegradationReason.EMBEDDING_UNAVAILABLE,), 0.9 * 0.85),
        ((DegradationReason.SEARCH_ARM_FAILED,) * 2, 0.9 * 0.85),
        (
            (DegradationReason.RERANK_UNAVAILABLE, DegradationReason.WEB_SEARCH_UNAVAILABLE),
            0.9 * 0.95 * 0.9,
        ),
        ((DegradationReason.CACHE_UNAVAILABLE,), 0.9),
        ((DegradationReason.MODEL_UNAVAILABLE,), 0.45),
        ((DegradationReason.GENERATION_INTERRUPTED,), 0.3),
        ((DegradationReason.STORE_UNAVAILABLE, DegradationReason.SERVED_STALE), 0.5),
        ((DegradationReason.STORE_UNAVAILABLE, DegradationReason.UNGROUNDED), 0.2),
        ((DegradationReason.DEADLINE_TRUNCATED, DegradationReason.SERVED_STALE), 0.5),
    ],
)
def test_degradations_lower_and_cap_the_score(reasons, score):
    assert degraded_score(0.9, reasons) == pytest.approx(score)
