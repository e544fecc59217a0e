import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.bm25 import score_bound
from services.rag.core.confidence import (
    BAND_FLOORS,
    band_of,
    coverage_ratio,
    estimate,
    likeness_of,
)
from services.rag.core.fusion import Hits
from services.rag.core.passages import ScoredChunk, TermStatistics
from services.rag.core.retrieved import NOTHING_FOUND, Band

STATISTICS = TermStatistics(
    chunk_count=100, average_length=20.0, document_frequencies={"llama": 3, "load": 10, "the": 90}
)
TERMS = ("llama", "load")


def spread_vectors(count: int = 60, *, offset: float = 0.0):
    """Vectors in all directions; with an offset all of them lean to one side."""
    rows = np.random.default_rng(1).normal(size=(count, 32)) + offset
    return [row.astype(np.float32) for row in rows]


LIKENESS = likeness_of(spread_vectors())


def scored(*scores: float, first: int = 1):
    return [ScoredChunk(first + place, score) for place, score in enumerate(scores)]


def judged(hits: Hits, **known):
    facts = {"terms": TERMS, "statistics": STATISTICS, "likeness": LIKENESS, "coverage": 1.0}
    return estimate(hits, **{**facts, **known})


def test_a_passage_with_all_the_words_that_is_near_is_relied_on() -> None:
    found = judged(Hits(scored(0.8, 0.4), scored(9.0, 4.0)))
    assert found.band is Band.HIGH
    assert found.keyword_ratio == pytest.approx(9.0 / score_bound(TERMS, STATISTICS))
    assert found.agreement_ratio == 1.0
    assert found.vector_percentile == 1.0


def test_what_only_shares_a_common_word_is_not() -> None:
    found = judged(
        Hits(scored(0.1, 0.05), scored(0.5, first=9)), terms=("the", *TERMS), coverage=0.02
    )
    assert found.band is Band.LOW


def test_an_arm_that_did_not_answer_is_left_out_of_the_estimate() -> None:
    hits = Hits((), scored(9.0))
    words_alone = judged(hits, likeness=None)
    assert words_alone.vector_percentile is None
    assert words_alone.agreement_ratio is None
    assert words_alone.score == pytest.approx(1.0, abs=0.01)
    meaning_alone = judged(Hits(scored(0.5)), statistics=None, coverage=None)
    assert meaning_alone.keyword_ratio is None
    assert meaning_alone.score == pytest.approx(LIKENESS.margin(0.5))


def test_words_that_were_searched_and_found_nowhere_count_against() -> None:
    with_words = judged(Hits(scored(0.5)), coverage=0.0)
    assert with_words.keyword_ratio == 0.0
    assert with_words.score < judged(Hits(scored(0.5)), statistics=None, coverage=None).score


def test_the_cross_encoders_belief_moves_the_estimate() -> None:
    hits = Hits(scored(0.4), scored(4.0))
    plain = judged(hits)
    assert (
        judged(hits, rerank_ratio=0.99).score > plain.score > judged(hits, rerank_ratio=0.01).score
    )


def test_nothing_found_is_nothing_to_rely_on() -> None:
    assert judged(Hits()) == NOTHING_FOUND


def test_in_a_handful_of_passages_only_the_first_places_can_agree() -> None:
    # With four passages both arms find all of them, whatever is asked.
    found = judged(Hits(scored(0.5, 0.4, 0.3, 0.2), list(reversed(scored(1.0, 2.0, 3.0, 4.0)))))
    assert found.agreement_ratio == 0.0


def test_what_a_similarity_means_depends_on_the_collection() -> None:
    alike = likeness_of(spread_vectors(offset=1.0))
    assert alike.mean > 0.4 > LIKENESS.mean
    assert alike.margin(0.6) < LIKENESS.margin(0.6)
    assert alike.percentile(alike.mean) == pytest.approx(0.5, abs=0.1)


def test_without_passages_what_is_usual_is_assumed() -> None:
    nothing = likeness_of([])
    assert nothing.percentile(0.9) is None
    assert nothing.mean == pytest.approx(0.2)
    assert likeness_of([np.zeros(4, np.float32)] * 3).quantiles is None


def test_coverage_counts_rare_words_more() -> None:
    assert coverage_ratio(("llama", "the"), STATISTICS, {"llama"}) > 0.9
    assert coverage_ratio(("llama", "the"), STATISTICS, {"the"}) < 0.1
    assert coverage_ratio((), STATISTICS, {"the"}) == 0.0


def test_the_bands_meet_at_their_floors() -> None:
    assert band_of(BAND_FLOORS[Band.HIGH]) is Band.HIGH
    assert band_of(BAND_FLOORS[Band.HIGH] - 1e-9) is Band.MEDIUM
    assert band_of(BAND_FLOORS[Band.MEDIUM] - 1e-9) is Band.LOW
    assert band_of(0.0) is Band.LOW


@given(
    st.lists(st.floats(-1, 1), max_size=5),
    st.lists(st.floats(0, 100), max_size=5),
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 1),
    st.booleans(),
    st.booleans(),
)
def test_the_estimate_is_a_share_whatever_was_found(
    vector, keyword, coverage, belief, has_words, has_meaning
) -> None:
    found = judged(
        Hits(
            scored(*sorted(vector, reverse=True)), scored(*sorted(keyword, reverse=True), first=3)
        ),
        statistics=STATISTICS if has_words else None,
        likeness=LIKENESS if has_meaning else None,
        coverage=coverage,
        rerank_ratio=belief,
    )
    assert 0 <= found.score <= 1
    assert found.band is band_of(found.score)


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_a_nearer_passage_is_never_relied_on_less(one: float, other: float) -> None:
    far, near = sorted((one, other))
    assert judged(Hits(scored(near))).score >= judged(Hits(scored(far))).score
