import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.profile import Stage, profile_of


def stage(number, start, duration, parent=None, **facts):
    return Stage(
        number=number,
        parent=parent,
        name=facts.pop("name", f"s{number}"),
        start_seconds=start,
        duration_seconds=duration,
        **facts,
    )


def profile(*stages, total=10.0):
    return profile_of(stages, total_seconds=total, first_text_seconds=None)


def names(stages):
    return [each.stage.name for each in stages]


def test_stages_come_in_the_order_of_their_starts():
    assert names(profile(stage(1, 2, 1), stage(0, 1, 1)).stages) == ["s0", "s1"]


def test_a_part_names_the_place_of_its_whole():
    stages = profile(stage(2, 3, 1, parent=1), stage(1, 2, 5), stage(0, 1, 1)).stages
    assert [each.parent_index for each in stages] == [None, None, 1]


def test_a_part_whose_whole_is_still_under_way_is_one_of_the_call():
    (only,) = profile(stage(4, 1, 1, parent=3)).stages
    assert only.parent_index is None


def test_the_longest_stage_is_the_bottleneck():
    found = profile(stage(0, 0, 1), stage(1, 1, 3), stage(2, 4, 2))
    assert found.bottleneck == "s1"


def test_a_stage_that_waits_for_its_part_is_no_bottleneck():
    found = profile(stage(0, 0, 5), stage(1, 0.5, 4, parent=0))
    assert found.bottleneck == "s1"
    assert found.bottlenecks == ("s1",)
    assert [each.self_seconds for each in found.stages] == [1, 4]


def test_both_a_slow_part_and_its_whole_are_on_the_critical_path():
    found = profile(stage(0, 0, 5), stage(1, 0, 5, parent=0), stage(2, 0, 2, parent=0))
    assert [each.on_critical_path for each in found.stages] == [True, True, False]


def test_what_is_not_on_the_critical_path_is_no_bottleneck():
    found = profile(stage(0, 0, 4), stage(1, 0, 9))
    assert found.bottlenecks == ("s1",)


def test_stages_of_one_name_are_a_bottleneck_together():
    found = profile(stage(0, 0, 2, name="search"), stage(1, 3, 2, name="search"), stage(2, 5, 3.1))
    assert found.bottlenecks == ("search", "s2")


def test_running_at_the_same_time_saves_what_the_shorter_ones_took():
    found = profile(stage(0, 0, 4), stage(1, 0, 3), stage(2, 4, 2))
    assert found.critical_path_seconds == 6
    assert found.parallel_saving_seconds == 3


def test_times_of_kinds_of_stages_count_parallel_ones_once():
    found = profile(
        stage(0, 0, 2, name="vector_search"),
        stage(1, 1, 2, name="keyword_search"),
        stage(2, 3, 1, name="rerank"),
        stage(3, 4, 5, name="generate"),
    )
    assert (found.retrieval_seconds, found.rerank_seconds) == (3, 1)
    assert (found.generation_seconds, found.verification_seconds) == (5, None)


def test_a_slow_model_gets_advice():
    (said,) = profile(stage(0, 0, 9.5, name="generate")).advice
    assert said.startswith("The model")


def test_without_stages_there_is_no_bottleneck():
    found = profile()
    assert (found.bottleneck, found.bottlenecks, found.stages) == ("", (), ())
    assert found.own_seconds == found.total_seconds


@st.composite
def calls(draw):
    """Stages as a recorder makes them: parts are within their wholes, numbers follow starts."""
    stages = [(0.0, 10.0, None)]
    for index in range(1, draw(st.integers(1, 8))):
        parent = draw(st.integers(0, index - 1))
        start = draw(st.floats(stages[parent][0], stages[parent][1]))
        stages.append((start, draw(st.floats(start, stages[parent][1])), parent))
    return [
        stage(number, start, end - start, parent=None if parent in (None, 0) else parent)
        for number, (start, end, parent) in enumerate(stages)
        if number
    ]


@st.composite
def lanes(draw):
    """Stages of which only wholes and their parts are under way at the same time."""
    made = []

    def fill(start, end, parent, depth):
        marks = sorted(draw(st.lists(st.floats(start, end), max_size=6)))
        for first, last in zip(marks[::2], marks[1::2], strict=False):
            number = len(made)
            made.append(stage(number, first, last - first, parent=parent))
            if depth:
                fill(first, last, number, depth - 1)

    fill(0.0, 10.0, None, 2)
    return made


@given(calls())
def test_the_critical_path_is_never_longer_than_the_call(stages):
    found = profile(*stages)
    assert 0 <= found.critical_path_seconds <= found.total_seconds + 1e-9
    assert found.critical_path_seconds + found.own_seconds == pytest.approx(found.total_seconds)
    assert found.parallel_saving_seconds >= 0


@given(lanes())
def test_on_one_lane_the_stages_own_times_make_up_the_call(stages):
    found = profile(*stages)
    own = found.own_seconds + sum(each.self_seconds for each in found.stages)
    assert own == pytest.approx(found.total_seconds, abs=1e-6)
    assert found.parallel_saving_seconds == pytest.approx(0, abs=1e-6)


@given(calls(), st.randoms(use_true_random=False))
def test_the_order_in_which_stages_are_recorded_does_not_matter(stages, chance: random.Random):
    shuffled = stages[:]
    chance.shuffle(shuffled)
    assert profile(*shuffled) == profile(*stages)
