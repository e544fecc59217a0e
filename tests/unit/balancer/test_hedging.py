"""When a call for vectors is late."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.hedging import CallDurations, character_limit, work_units


def test_the_call_and_each_text_and_each_thousand_characters_are_a_unit():
    assert work_units(1, 0) == 2
    assert work_units(10, 5000) == 16


def test_nothing_is_late_before_fifty_calls():
    durations = CallDurations()
    for _ in range(49):
        durations.note("m", 1, 0.1)
    assert durations.late_after("m", 1) is None
    durations.note("m", 1, 0.1)
    assert durations.late_after("m", 1) is not None
    assert durations.late_after("another", 1) is None


def test_one_call_in_twenty_is_late():
    dice = random.Random(5)
    durations = CallDurations()
    samples = [dice.lognormvariate(-2.0, 0.5) for _ in range(4000)]
    for seconds in samples:
        durations.note("m", 1, seconds)
    late_after = durations.late_after("m", 1)
    late_ratio = sum(seconds > late_after for seconds in samples) / len(samples)
    assert 0.03 <= late_ratio <= 0.07


def test_large_calls_may_take_longer_in_proportion():
    durations = CallDurations()
    for _ in range(60):
        durations.note("m", 2, 0.1)
    assert durations.late_after("m", 20) == pytest.approx(10 * durations.late_after("m", 2))


def test_nothing_is_late_before_20_ms():
    durations = CallDurations()
    for _ in range(60):
        durations.note("m", 1, 0.0001)
    assert durations.late_after("m", 1) == 0.02


def test_what_is_usual_changes_within_two_hundred_calls():
    durations = CallDurations()
    for _ in range(5000):
        durations.note("m", 1, 0.1)
    for _ in range(200):
        durations.note("m", 1, 1.0)
    assert durations.late_after("m", 1) == pytest.approx(1.0, rel=0.06)


@given(st.lists(st.floats(0, 1e7), min_size=50, max_size=80))
def test_whatever_calls_take_something_is_late(seconds):
    durations = CallDurations()
    for each in seconds:
        durations.note("m", 1, each)
    late_after = durations.late_after("m", 1)
    assert 0.02 <= late_after <= 1100


def test_many_calls_do_not_overflow_the_counts():
    durations = CallDurations()
    for _ in range(60_000):
        durations.note("m", 1, 0.1)
    assert durations.late_after("m", 1) == pytest.approx(0.1, rel=0.06)


def test_what_is_done_within_a_time_is_what_half_of_the_calls_have_done():
    durations = CallDurations()
    assert durations.units_within("m", 1.0) == math.inf
    for seconds in (0.1, 0.1, 0.2, 5.0):
        durations.note("m", 1, seconds)
    assert durations.units_within("m", 1.0) == math.inf
    for seconds in (0.2, 5.0, 5.0):
        durations.note("m", 1, seconds)
    assert durations.units_within("m", 1.0) == pytest.approx(5.0, rel=0.06)


def test_long_texts_are_more_work_than_short_ones():
    assert character_limit(10.0, 10.0) == pytest.approx(99, rel=0.01)
    assert character_limit(10.0, 1000.0) == 5000
    assert character_limit(math.inf, 10.0) == math.inf


def test_only_so_many_models_are_remembered():
    durations = CallDurations()
    for number in range(1001):
        for _ in range(50):
            durations.note(f"m{number}", 1, 0.1)
    assert durations.late_after("m0", 1) is None
    assert durations.late_after("m1000", 1) is not None
