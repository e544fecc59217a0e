"""The arithmetic that goals are judged by."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.bench.balancer.figures import (
    Outcome,
    estimate,
    paired_ratio,
    percentile,
    summarise,
    wait_for_next,
)
from tests.bench.balancer.scenarios.overhead import growth_ratio
from tests.bench.balancer.scenarios.port import at_least, at_most, ratio_verdict


def an_outcome(**changes) -> Outcome:
    return Outcome(
        **{
            "index": 0,
            "kind": "chat",
            "at_seconds": 0.0,
            "lag_seconds": 0.0,
            "first_seconds": 1.0,
            "total_seconds": 3.0,
            "stall_seconds": 0.1,
            "token_count": 10,
            "message_count": 10,
            **changes,
        }
    )


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values, ratio):
    found = percentile(values, ratio)
    assert found in values
    assert sum(value <= found for value in values) >= ratio * len(values) - 1e-6
    assert sum(value < found for value in values) < ratio * len(values)


def test_percentiles_of_a_hundred_values():
    values = list(range(1, 101))
    assert [percentile(values, ratio) for ratio in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]


def test_there_is_no_percentile_of_nothing():
    assert math.isnan(percentile([], 0.5))


def test_the_wait_for_the_next_of_regular_events_is_a_share_of_the_interval():
    assert wait_for_next(range(11), 0.99) == pytest.approx(0.99)
    assert wait_for_next(range(11), 1.0) == 1.0


def test_long_gaps_make_the_longest_waits():
    # Of 10 s, 4 are in one gap: from 1 s of them one waits longer than 3 s.
    assert wait_for_next([0, 1, 2, 3, 7, 8, 9, 10], 0.9) == pytest.approx(3.0)
    assert math.isnan(wait_for_next([5.0], 0.5))


@given(st.lists(st.floats(0, 100), min_size=2), st.sampled_from([0.5, 0.9, 0.99]))
def test_so_many_moments_wait_no_longer_for_the_next_event(times, ratio):
    assume(max(times) - min(times) > 1e-3)
    wait = wait_for_next(times, ratio)
    gaps = [b - a for a, b in pairwise(sorted(times))]
    longer = sum(max(0.0, gap - wait) for gap in gaps)
    assert longer == pytest.approx((1 - ratio) * sum(gaps), abs=1e-6)


def test_a_failed_request_is_later_than_any_other():
    outcomes = [an_outcome(first_seconds=9.0), an_outcome(failure="http_503", first_seconds=0.1)]
    summary = summarise(outcomes)
    assert summary.first_p50 == 9.0
    assert summary.first_p99 == math.inf
    assert summary.failed_ratio == 0.5
    assert summary.failures == {"http_503": 1}


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({"first_seconds": 5.0, "stall_seconds": 2.0}, True),
        ({"first_seconds": 5.01}, False),
        ({"stall_seconds": 2.01}, False),
        ({"failure": "stream_broken"}, False),
        ({"first_seconds": None}, False),
    ],
)
def test_the_service_level_takes_first_text_stalls_and_failures(changes, good):
    assert an_outcome(**changes).good is good
    assert summarise([an_outcome(**changes)]).good_ratio == (1.0 if good else 0.0)


def test_embeddings_have_percentiles_of_their_own():
    summary = summarise(
        [an_outcome(first_seconds=1.0), an_outcome(kind="embed", first_seconds=7.0)]
    )
    assert (summary.first_p99, summary.embed_p99, summary.any_p99) == (1.0, 7.0, 7.0)
    assert summary.token_count == 10


def test_an_interval_is_that_of_student():
    # Mean 3, standard deviation 1.5811, 4 degrees of freedom: 2.776 * 1.5811 / sqrt(5).
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half_width == pytest.approx(1.963, abs=1e-3)


def test_one_value_has_no_interval():
    assert math.isnan(estimate([1.0]).half_width)
    assert str(estimate([1.0])) == "1"


def test_never_is_written_as_never():
    assert str(estimate([1.0, math.inf])) == "never"
    assert str(estimate([])) == "-"


def test_ratios_are_taken_seed_by_seed():
    found = paired_ratio([1.0, 10.0], [2.0, 20.0])
    assert (found.mean, found.half_width) == (0.5, 0.0)


def test_a_ratio_to_never_is_nothing_and_of_never_is_never():
    assert paired_ratio([1.0], [math.inf]).mean == 0.0
    assert paired_ratio([math.inf], [math.inf]).mean == math.inf


def test_goals_are_met_by_the_mean_and_certain_by_the_interval():
    assert at_most("", [0.9, 1.0, 0.95], 1.2).met
    assert at_most("", [0.9, 1.0, 0.95], 1.2).certain
    assert not at_most("", [1.0, 1.6, 1.1], 1.2).met
    assert not at_most("", [1.0, 1.6, 1.1], 1.2).certain
    assert at_least("", [7.5], 7.5).met
    assert not at_least("", [7.4], 7.5).met
    assert at_least("", [], 7.5).met is None


def test_memory_that_is_taken_at_the_start_is_no_growth():
    assert growth_ratio([50, *[100] * 99]) == 0.0
    assert growth_ratio(list(range(100, 200))) > 0.4


def test_a_ratio_is_judged_by_the_seeds_that_both_have_run():
    def run(contender, seed, value):
        return SimpleNamespace(contender=contender, seed=seed, value=value)

    runs = [run("ours", 1, 2.0), run("ours", 2, 3.0), run("theirs", 2, 6.0), run("theirs", 3, 1.0)]
    verdict = ratio_verdict("", runs, "ours", "theirs", lambda each: each.value, 0.6)
    assert verdict.measured.mean == 0.5
    assert ratio_verdict("", runs, "ours", None, lambda each: each.value, 0.6).met is None


def test_a_goal_whose_limit_was_not_measured_is_neither_met_nor_missed():
    assert at_most("not above a peer that did not run", [0.0], math.nan).met is None
    assert at_most("not above a peer", [0.0], 0.1).met
