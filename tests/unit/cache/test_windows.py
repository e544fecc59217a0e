"""What happened counts in a window exactly while it is younger than the window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.windows import SPANS_SECONDS, Windows

# Lengths of the windows with those of their slots.
SLOTS_SECONDS = {60.0: 5, 300.0: 30, 3600.0: 300}
STARTS = st.floats(0, 1e7)
# Steps from none at all up to beyond the longest window.
STEPS = st.lists(st.one_of(st.floats(0, 10), st.floats(0, 400), st.floats(0, 8000)), max_size=60)


def at_times(start: float, steps: list[float]) -> list[float]:
    return [start + each for each in np.cumsum(steps).tolist()]


def test_there_are_three_windows_and_all_time() -> None:
    assert SPANS_SECONDS == (60.0, 300.0, 3600.0, None)


@given(STARTS, STEPS, st.floats(0, 8000))
def test_an_event_counts_while_it_is_younger_than_the_window_give_or_take_a_slot(
    start, steps, rest
) -> None:
    windows = Windows(1, start)
    times = at_times(start, steps)
    for time in times:
        windows.at(time)[0] += 1
    now = (times or [start])[-1] + rest
    for span, (count,) in zip(SPANS_SECONDS, windows.sums(now), strict=True):
        if span is None:
            assert count == len(times)
            continue
        certain = sum(now - time < span - SLOTS_SECONDS[span] for time in times)
        possible = sum(now - time <= span for time in times)
        assert certain <= count <= possible


@given(STARTS, STEPS)
def test_looking_changes_nothing(start, steps) -> None:
    looked_at, left_alone = Windows(1, start), Windows(1, start)
    times = at_times(start, steps)
    for time in times:
        looked_at.sums(time)
        for windows in (looked_at, left_alone):
            windows.at(time)[0] += 1
    now = (times or [start])[-1]
    assert looked_at.sums(now) == left_alone.sums(now)


@pytest.mark.parametrize(("number", "span"), list(enumerate(SLOTS_SECONDS)))
def test_an_event_leaves_its_window_at_the_end_of_a_slot(number, span) -> None:
    windows = Windows(1, 0.0)
    windows.at(0.0)[0] += 1
    assert windows.sums(span - 0.001)[number][0] == 1
    assert windows.sums(span)[number][0] == 0


def test_counts_do_not_mix() -> None:
    windows = Windows(3, 100.0)
    windows.at(100.0)[:] += np.array([1, 2, 3])
    windows.at(107.0)[1] += 5
    for sums in windows.sums(107.0):
        assert sums.tolist() == [1, 7, 3]


def test_what_was_read_does_not_change_any_more() -> None:
    windows = Windows(1, 0.0)
    before = windows.sums(0.0)
    windows.at(0.0)[0] += 1
    assert [each.tolist() for each in before] == [[0]] * 4


def test_a_long_silence_empties_all_windows_but_keeps_the_total() -> None:
    windows = Windows(1, 0.0)
    windows.at(0.0)[0] += 7
    assert [int(each[0]) for each in windows.sums(1e9)] == [0, 0, 0, 7]
