"""When questions arrive."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pannier.load.arrivals import Stage, Timetable, arrival_times

stages = st.lists(
    st.builds(
        Stage,
        seconds=st.floats(0.1, 100),
        start_rate=st.floats(0, 50),
        end_rate=st.floats(0, 50),
    ),
    min_size=1,
    max_size=4,
)


@given(stages)
def test_even_arrivals_are_as_many_as_expected_and_in_order(parts):
    timetable = Timetable(parts)
    times = list(arrival_times(timetable, rng=None))
    assert len(times) == math.ceil(timetable.expected_count)
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert all(0 <= each <= timetable.seconds for each in times)


@given(stages, st.integers(0, 1000))
def test_random_arrivals_are_in_order_and_the_same_for_one_seed(parts, seed):
    timetable = Timetable(parts)
    times = list(arrival_times(timetable, rng=random.Random(seed)))
    assert times == list(arrival_times(timetable, rng=random.Random(seed)))
    assert all(earlier <= later for earlier, later in pairwise(times))
    assert all(0 <= each <= timetable.seconds for each in times)


@given(stages, st.floats(0, 1))
def test_the_time_of_a_count_is_when_the_rate_has_added_up_to_it(parts, share):
    timetable = Timetable(parts)
    wanted = share * timetable.expected_count
    at = timetable.time_of(wanted)
    steps = 2000
    width = at / steps
    summed = sum(timetable.rate_at((step + 0.5) * width) * width for step in range(steps))
    assert summed == pytest.approx(wanted, abs=0.02 * timetable.expected_count + 1e-6)


def test_random_arrivals_keep_to_the_rate_of_each_stage():
    timetable = Timetable(
        [
            Stage(seconds=1000, start_rate=5, end_rate=5),
            Stage(seconds=1000, start_rate=5, end_rate=15),
        ]
    )
    times = list(arrival_times(timetable, rng=random.Random(7)))
    steady = [each for each in times if each < 1000]
    # Five standard deviations of a Poisson count.
    assert abs(len(steady) - 5000) < 5 * math.sqrt(5000)
    assert abs(len(times) - len(steady) - 10_000) < 5 * math.sqrt(10_000)
    second_half = [each for each in times if each >= 1500]
    assert abs(len(second_half) - 6250) < 5 * math.sqrt(6250)


def test_gaps_of_random_arrivals_are_exponential():
    timetable = Timetable([Stage(seconds=4000, start_rate=10, end_rate=10)])
    times = list(arrival_times(timetable, rng=random.Random(3)))
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((each - mean) ** 2 for each in gaps) / len(gaps))
    assert mean == pytest.approx(0.1, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.03)


def test_a_stage_without_rate_has_no_arrivals_and_those_after_it_do():
    timetable = Timetable(
        [Stage(seconds=5, start_rate=0, end_rate=0), Stage(seconds=2, start_rate=1, end_rate=1)]
    )
    assert list(arrival_times(timetable, rng=None)) == [5.0, 6.0]
    assert timetable.rate_at(4.9) == 0
    assert timetable.rate_at(7.0) == 0


@pytest.mark.parametrize(
    "values", [(0, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, math.nan), (math.inf, 1, 1)]
)
def test_a_stage_out_of_range_is_refused(values):
    seconds, start, end = values
    with pytest.raises(ValueError, match="must"):
        Stage(seconds=seconds, start_rate=start, end_rate=end)
