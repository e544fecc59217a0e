"""Which matches may be served."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cache.core.semantic.bins import (
    BIN_COUNT,
    NO_VERDICTS,
    Verdicts,
    bin_of,
    lower_edge,
)
from services.cache.core.semantic.bounds import error_upper_bound
from services.cache.core.semantic.budget import Standing, effective_threshold, judge

BUDGET = 0.01
RANKS = {Standing.OVER_BUDGET: 0, Standing.UNPROVEN: 1, Standing.PROVEN: 2}

verdicts = st.builds(
    lambda pairs: Verdicts(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)),
    st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 30, 100, 400, 3000]), st.sampled_from([0, 0, 0, 1, 5])),
        min_size=BIN_COUNT,
        max_size=BIN_COUNT,
    ),
)
similarities = st.floats(0.80, 0.9999)


def counted(similarity: float, *, right: int = 0, wrong: int = 0, base: Verdicts = NO_VERDICTS):
    number = bin_of(similarity)
    assert number is not None
    return base.adding(number, right_count=right, wrong_count=wrong)


@pytest.mark.parametrize("number", range(BIN_COUNT))
def test_every_edge_lies_in_its_own_bin(number):
    assert bin_of(lower_edge(number)) == number
    assert bin_of(lower_edge(number) - 1e-6) == (number - 1 if number else None)


def test_the_highest_similarity_is_in_the_last_bin():
    assert bin_of(1.0) == BIN_COUNT - 1
    assert lower_edge(BIN_COUNT) == 1.0


def test_nothing_is_proven_without_verdicts():
    assert judge(NO_VERDICTS, 0.97, budget_ratio=BUDGET) is Standing.UNPROVEN
    assert judge(NO_VERDICTS, 0.5, budget_ratio=BUDGET) is Standing.UNPROVEN


def test_299_right_verdicts_prove_a_budget_of_one_percent():
    assert judge(counted(0.96, right=298), 0.96, budget_ratio=BUDGET) is Standing.UNPROVEN
    assert judge(counted(0.96, right=299), 0.96, budget_ratio=BUDGET) is Standing.PROVEN


def test_verdicts_on_more_similar_matches_alone_prove_nothing():
    above = counted(0.99, right=5000)
    assert judge(above, 0.96, budget_ratio=BUDGET) is Standing.UNPROVEN
    assert judge(counted(0.96, right=59, base=above), 0.96, budget_ratio=BUDGET) is Standing.PROVEN


def test_few_wrong_matches_do_not_hide_behind_many_right_ones():
    above = counted(0.99, right=5000)
    both = counted(0.96, right=10, wrong=2, base=above)
    assert judge(both, 0.96, budget_ratio=BUDGET) is Standing.OVER_BUDGET
    assert judge(both, 0.99, budget_ratio=BUDGET) is Standing.PROVEN


def test_wrong_matches_that_are_more_similar_count():
    base = counted(0.95, right=300)
    wrong = counted(0.99, wrong=5, base=base)
    assert judge(wrong, 0.95, budget_ratio=BUDGET) is Standing.OVER_BUDGET


@settings(max_examples=300)
@given(verdicts, similarities)
def test_what_is_served_keeps_the_budget(known, similarity):
    if judge(known, similarity, budget_ratio=BUDGET) is Standing.PROVEN:
        number = bin_of(similarity)
        assert number is not None
        above = known.wrong_and_verified(range(number, BIN_COUNT))
        assert error_upper_bound(*above) <= BUDGET


@settings(max_examples=300)
@given(verdicts, similarities, st.integers(0, BIN_COUNT - 1))
def test_right_verdicts_never_harm_and_wrong_ones_never_help(known, similarity, number):
    rank = RANKS[judge(known, similarity, budget_ratio=BUDGET)]
    better = known.adding(number, right_count=1)
    worse = known.adding(number, wrong_count=1)
    assert RANKS[judge(better, similarity, budget_ratio=BUDGET)] >= rank
    assert RANKS[judge(worse, similarity, budget_ratio=BUDGET)] <= rank


@settings(max_examples=200)
@given(verdicts, similarities)
def test_the_threshold_only_rises_and_only_past_what_is_over_budget(known, threshold):
    effective = effective_threshold(known, threshold, budget_ratio=BUDGET)
    assert threshold <= effective <= 1.0
    at = threshold
    while at < effective:
        assert judge(known, at, budget_ratio=BUDGET) is Standing.OVER_BUDGET
        at = lower_edge((bin_of(at) or 0) + 1)
    if effective < 1.0:
        assert judge(known, effective, budget_ratio=BUDGET) is not Standing.OVER_BUDGET


def test_the_threshold_rises_by_one_bin_and_falls_back():
    proven = counted(0.952, right=400)
    assert effective_threshold(proven, 0.952, budget_ratio=BUDGET) == 0.952
    wrong = counted(0.952, wrong=20, base=proven)
    assert effective_threshold(wrong, 0.952, budget_ratio=BUDGET) == 0.955
    again = counted(0.952, right=5000, base=wrong)
    assert effective_threshold(again, 0.952, budget_ratio=BUDGET) == 0.952


def test_a_threshold_below_all_bins_stays():
    assert effective_threshold(counted(0.9, wrong=50), 0.5, budget_ratio=BUDGET) == 0.5
