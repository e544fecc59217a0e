from random import Random

import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.effectiveness import (
    area_under_curve,
    average_precision,
    confidence_interval,
    discounted_gain,
    precision,
    recall,
    reciprocal_rank,
)

DOCUMENTS = st.sampled_from([f"d{number}" for number in range(25)])
RUNS = st.dictionaries(DOCUMENTS, st.integers(-8, 8).map(lambda score: score / 4), min_size=1)
JUDGEMENTS = st.dictionaries(DOCUMENTS, st.integers(0, 3), min_size=1)
SCORES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=30)


def ranked(scores: dict[str, float]) -> list[str]:
    """Documents by falling score; those of equal score by falling id, as trec_eval has them."""
    return sorted(sorted(scores, reverse=True), key=lambda document_id: -scores[document_id])


@given(RUNS, JUDGEMENTS, st.sampled_from([5, 10, 15]))
def test_measures_are_those_of_trec_eval(
    run: dict[str, float], judgements: dict[str, int], depth: int
) -> None:
    measures = {f"ndcg_cut.{depth}", f"recall.{depth}", f"P.{depth}", "recip_rank", "map"}
    theirs = pytrec_eval.RelevanceEvaluator({"q": judgements}, measures).evaluate({"q": run})["q"]
    ranking = ranked(run)
    ours = {
        f"ndcg_cut_{depth}": discounted_gain(ranking, judgements, depth=depth),
        f"recall_{depth}": recall(ranking, judgements, depth=depth),
        f"P_{depth}": precision(ranking, judgements, depth=depth),
        "recip_rank": reciprocal_rank(ranking, judgements),
        "map": average_precision(ranking, judgements),
    }
    assert ours == pytest.approx({name: theirs[name] for name in ours})


def test_a_grade_below_zero_is_not_relevant() -> None:
    assert discounted_gain(["a", "b"], {"a": -1, "b": 1}, depth=10) == pytest.approx(
        0.6309, abs=1e-4
    )
    assert recall(["a"], {"a": -1, "b": 1}, depth=10) == 0.0


@given(SCORES, SCORES)
def test_the_area_is_the_share_of_pairs_in_order(
    positives: list[float], negatives: list[float]
) -> None:
    pairs = [(high > low) + (high == low) / 2 for high in positives for low in negatives]
    assert area_under_curve(positives, negatives) == pytest.approx(sum(pairs) / len(pairs))


def test_the_area_needs_both_kinds() -> None:
    with pytest.raises(ValueError, match="negatives"):
        area_under_curve([1.0], [])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(0, 100))
def test_an_interval_can_be_repeated_and_stays_within_the_values(
    values: list[float], seed: int
) -> None:
    interval = confidence_interval(values, Random(seed))
    assert interval == confidence_interval(values, Random(seed))
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


def test_an_interval_covers_the_true_mean_most_of_the_time() -> None:
    covered = 0
    for seed in range(100):
        random = Random(seed)
        interval = confidence_interval([random.random() for _ in range(60)], random)
        covered += interval.low <= 0.5 <= interval.high
    assert covered >= 88
