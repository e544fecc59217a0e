import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.critical_path import Interval, covered_seconds, critical_seconds

WHOLE = Interval(0, 10)


def path(*stages, window=WHOLE):
    """Stages as (start, end, parent); returns each one's own share of the path."""
    intervals = [Interval(start, end) for start, end, _ in stages]
    return critical_seconds(intervals, [parent for _, _, parent in stages], window)


def test_stages_one_after_the_other_all_count():
    assert path((0, 4, None), (4, 10, None)) == [4, 6]


def test_of_parallel_stages_that_which_ends_last_counts():
    assert path((0, 4, None), (0, 10, None)) == [0, 10]


def test_a_part_counts_in_the_place_of_its_whole():
    assert path((0, 10, None), (2, 7, 0)) == [5, 5]


def test_of_parallel_parts_that_which_ends_last_counts():
    assert path((0, 8, None), (1, 6, 0), (1, 3, 0)) == [3, 5, 0]


def test_overlapping_stages_count_up_to_where_the_next_begins():
    assert path((0, 5, None), (3, 9, None)) == [3, 6]


def test_of_stages_that_end_together_that_which_began_first_counts():
    assert path((4, 10, None), (0, 10, None)) == [0, 10]


def test_what_goes_on_beyond_its_whole_counts_up_to_its_end():
    assert path((0, 4, None), (2, 9, 0)) == [2, 2]


def test_a_stage_without_duration_does_not_count():
    assert path((3, 3, None), (0, 10, None)) == [0, 10]


def test_intervals_cover_a_window_once():
    intervals = [Interval(-5, 2), Interval(1, 4), Interval(1, 3), Interval(9, 20)]
    assert covered_seconds(intervals, WHOLE) == 5


times = st.floats(0, 12, allow_nan=False)


@st.composite
def trees(draw):
    stages = []
    for index in range(draw(st.integers(0, 8))):
        start, end = sorted((draw(times), draw(times)))
        parent = draw(st.none() | st.integers(0, index - 1)) if index else None
        stages.append((start, end, parent))
    return stages


@given(st.lists(times, max_size=10))
def test_of_stages_one_after_the_other_any_order_gives_the_same(moments):
    moments = sorted(moments)
    stages = [(*each, None) for each in zip(moments[::2], moments[1::2], strict=False)]
    assert path(*stages) == pytest.approx(path(*stages[::-1])[::-1])


@given(trees())
def test_the_path_is_as_long_as_stages_of_the_call_were_under_way(stages):
    own = path(*stages)
    top = [Interval(start, end) for start, end, parent in stages if parent is None]
    assert all(each >= 0 for each in own)
    assert sum(own) == pytest.approx(covered_seconds(top, WHOLE), abs=1e-9)
    assert sum(own) <= WHOLE.seconds + 1e-9


@given(trees())
def test_no_stage_counts_more_than_it_is_without_its_parts(stages):
    own = path(*stages)
    for index, (start, end, _) in enumerate(stages):
        parts = [Interval(a, b) for a, b, parent in stages if parent == index]
        alone = end - start - covered_seconds(parts, Interval(start, end))
        assert own[index] <= alone + 1e-9
