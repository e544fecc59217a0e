import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.profile import Stage, profile_of


def stage(name, start, duration):
    return Stage(name=name, start_seconds=start, duration_seconds=duration)


def profile(*stages):
    return profile_of(stages, total_seconds=10.0, first_text_seconds=None)


def test_stages_come_in_the_order_of_their_starts():
    assert [each.name for each in profile(stage("b", 2, 1), stage("a", 1, 1)).stages] == ["a", "b"]


def test_the_longest_stage_is_the_bottleneck():
    assert profile(stage("a", 0, 1), stage("b", 1, 3), stage("c", 4, 2)).bottleneck == "b"


def test_a_stage_that_waits_for_a_shorter_one_inside_is_no_bottleneck():
    outer, inner = stage("retrieve", 0, 5), stage("vector_search", 0.5, 4)
    assert profile(outer, inner).bottleneck == "vector_search"


def test_parallel_stages_inside_count_once():
    outer = stage("outer", 0, 4)
    inner = [stage("a", 0, 1.5), stage("b", 0, 1.5)]
    assert profile(outer, *inner).bottleneck == "outer"


def test_without_stages_there_is_no_bottleneck():
    assert profile().bottleneck == ""


@given(
    st.lists(
        st.tuples(st.floats(0, 10), st.floats(0, 10)),
        max_size=8,
    ),
    st.randoms(),
)
def test_the_order_in_which_stages_are_recorded_does_not_matter(times, random):
    stages = [stage(f"s{n}", start, length) for n, (start, length) in enumerate(times)]
    shuffled = stages[:]
    random.shuffle(shuffled)
    first, second = profile(*stages), profile(*shuffled)
    assert {each.name for each in first.stages} == {each.name for each in second.stages}
    assert len(first.stages) == len(stages)
    own = {each.name: each.duration_seconds for each in stages}
    if stages:
        assert own[first.bottleneck] == pytest.approx(own[second.bottleneck], abs=10)
