import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.models import Capability, InstalledModel, ModelDescription
from services.balancer.core.selection import (
    BackendView,
    Decision,
    Reason,
    Refusal,
    RefusalReason,
    Wanted,
    choose,
)
from services.balancer.core.work import UnitCost, Work, load_seconds

CHAT = InstalledModel(
    name="chat:latest",
    digest="c" * 64,
    description=ModelDescription(capabilities=frozenset({Capability.COMPLETION})),
)
GENERATION = Wanted(
    model_key="chat:latest",
    capability=Capability.COMPLETION,
    work=Work(generation_count=1.0),
)


def view(backend_id, *, seconds=1.0, outstanding=0, **fields):
    defaults = {
        "backend_id": backend_id,
        "healthy": True,
        "installed": {"chat:latest": CHAT},
        "outstanding": Work(generation_count=outstanding),
        "cost": UnitCost(generation_seconds=seconds, text_seconds=0.01),
        "last_turn": 0,
    }
    return BackendView(**defaults | fields)


class Simulation:
    """Requests to backends that are as fast as they say."""

    def __init__(self, views):
        self.views = {each.backend_id: each for each in views}
        self.turn = 0
        self.counts = Counter()

    def begin(self):
        decision = choose(list(self.views.values()), GENERATION, frozenset())
        self.turn += 1
        self.counts[decision.backend_id] += 1
        chosen = self.views[decision.backend_id]
        self.views[decision.backend_id] = replace(
            chosen, last_turn=self.turn, outstanding=chosen.outstanding + GENERATION.work
        )
        return decision.backend_id

    def end(self, backend_id):
        view = self.views[backend_id]
        self.views[backend_id] = replace(view, outstanding=view.outstanding - GENERATION.work)


@pytest.mark.parametrize("concurrency", [1, 5, 32])
def test_eight_equal_backends_share_800_requests_evenly(concurrency):
    simulation = Simulation([view(f"b{index}") for index in range(8)])
    running = []
    for _ in range(800):
        if len(running) == concurrency:
            simulation.end(running.pop(0))
        running.append(simulation.begin())
    assert len(simulation.counts) == 8
    assert all(95 <= count <= 105 for count in simulation.counts.values()), simulation.counts


def test_noise_in_the_estimates_does_not_draw_all_requests_to_one_backend():
    rng = random.Random(7)
    views = [view(f"b{index}", seconds=rng.uniform(0.97, 1.03)) for index in range(8)]
    simulation = Simulation(views)
    for _ in range(800):
        simulation.end(simulation.begin())
    assert set(simulation.counts.values()) == {100}


def test_backends_get_work_in_proportion_to_their_speed():
    simulation = Simulation([view("fast", seconds=1.0), view("slow", seconds=3.0)])
    clock, ends = 0.0, []
    # Each backend works on one request after the other; 16 are always under way.
    free_at = {"fast": 0.0, "slow": 0.0}
    for _ in range(800):
        if len(ends) == 16:
            ends.sort()
            clock, ended = ends.pop(0)
            simulation.end(ended)
        chosen = simulation.begin()
        seconds = {"fast": 1.0, "slow": 3.0}[chosen]
        free_at[chosen] = max(clock, free_at[chosen]) + seconds
        ends.append((free_at[chosen], chosen))
    assert 2.5 <= simulation.counts["fast"] / simulation.counts["slow"] <= 3.5


def test_the_idle_slow_backend_beats_the_busy_fast_one_when_it_is_done_sooner():
    fast, slow = view("fast", seconds=1.0, outstanding=4), view("slow", seconds=3.0)
    decision = choose([fast, slow], GENERATION, frozenset())
    assert (decision.backend_id, decision.reason) == ("slow", Reason.LOWEST_LOAD)
    assert decision.load_seconds == {"fast": 5.0, "slow": 3.0}


def test_texts_being_embedded_count_as_load_of_a_generation():
    busy = view("busy", outstanding=0)
    busy = replace(busy, outstanding=Work(text_count=500))
    decision = choose([busy, view("idle")], GENERATION, frozenset())
    assert decision.backend_id == "idle"


def test_a_backend_that_fails_often_is_dearer_than_its_speed_says():
    flaky = view("a", cost=UnitCost(generation_seconds=1.0, text_seconds=1.0, failure_ratio=0.5))
    steady = view("b", seconds=1.5)
    assert choose([flaky, steady], GENERATION, frozenset()).backend_id == "b"


def test_a_single_candidate_is_named_as_such():
    decision = choose([view("a"), view("b", healthy=False)], GENERATION, frozenset())
    assert (decision.backend_id, decision.reason) == ("a", Reason.ONLY_CANDIDATE)


def test_unhealthy_backends_take_turns_when_none_is_healthy():
    views = [view(name, healthy=False, last_turn=turn) for name, turn in (("a", 3), ("b", 1))]
    views.append(view("c", healthy=False, installed={}))
    decision = choose(views, GENERATION, frozenset())
    assert (decision.backend_id, decision.reason) == ("b", Reason.ROUND_ROBIN_FALLBACK)
    assert choose(views, GENERATION, {"b"}).backend_id == "a"


def test_backends_never_reached_are_tried_last():
    views = [view("a", healthy=False, installed=None), view("b", healthy=False, last_turn=9)]
    assert choose(views, GENERATION, frozenset()).backend_id == "b"
    assert choose(views, GENERATION, {"b"}).backend_id == "a"
    assert choose(views, GENERATION, {"a", "b"}).reason is RefusalReason.NONE_LEFT


def test_unknown_model_is_refused_with_the_models_there_are():
    refusal = choose([view("a"), view("b")], replace(GENERATION, model_key="x:1"), frozenset())
    assert refusal == Refusal(reason=RefusalReason.MODEL_NOT_FOUND, known_models=("chat:latest",))


def test_a_model_is_not_declared_missing_while_a_backend_was_never_reached():
    views = [view("a"), view("b", healthy=False, installed=None)]
    wanted = replace(GENERATION, model_key="x:1")
    assert choose(views, wanted, frozenset()).backend_id == "b"
    assert choose(views, wanted, {"b"}).reason is RefusalReason.NONE_LEFT


def test_missing_capability_is_told_from_missing_model():
    wanted = replace(GENERATION, capability=Capability.EMBEDDING)
    assert choose([view("a")], wanted, frozenset()).reason is RefusalReason.CAPABILITY_MISSING


def test_a_model_of_unknown_capabilities_may_try():
    unknown = replace(CHAT, description=ModelDescription())
    wanted = replace(GENERATION, capability=Capability.EMBEDDING)
    views = [view("a", installed={"chat:latest": unknown})]
    assert isinstance(choose(views, wanted, frozenset()), Decision)


def test_another_digest_under_the_same_name_is_another_model():
    other = replace(CHAT, digest="d" * 64)
    views = [view("a"), view("b", installed={"chat:latest": other}, outstanding=5)]
    wanted = replace(GENERATION, digest="d" * 64)
    assert choose(views, wanted, frozenset()).backend_id == "b"
    assert choose(views, wanted, {"b"}).reason is RefusalReason.NONE_LEFT


VIEWS = st.lists(
    st.builds(
        view,
        st.sampled_from("abcdefgh"),
        seconds=st.floats(0.001, 100),
        outstanding=st.integers(0, 50),
        healthy=st.booleans(),
        installed=st.sampled_from([None, {}, {"chat:latest": CHAT}]),
        last_turn=st.integers(0, 100),
    ),
    unique_by=lambda each: each.backend_id,
)


@given(VIEWS, st.sets(st.sampled_from("abcdefgh")))
def test_choice_is_never_excluded_lacks_nothing_and_is_nearly_the_least_loaded(views, excluded):
    # A healthy backend has been reached, so its models are known.
    views = [each for each in views if each.installed is not None or not each.healthy]
    result = choose(views, GENERATION, excluded)
    left = [
        each
        for each in views
        if each.backend_id not in excluded and (each.installed is None or each.installed)
    ]
    if isinstance(result, Refusal):
        assert not left
        return
    chosen = next(each for each in left if each.backend_id == result.backend_id)
    assert chosen.healthy or not any(each.healthy for each in left)
    if chosen.healthy:
        scores = [
            load_seconds(each.outstanding + GENERATION.work, each.cost)
            for each in left
            if each.healthy
        ]
        assert result.load_seconds[chosen.backend_id] <= min(scores) * 1.2001
        assert sorted(result.load_seconds.values()) == sorted(scores)


@given(VIEWS)
def test_choice_depends_on_its_arguments_alone(views):
    assert choose(views, GENERATION, frozenset()) == choose(views, GENERATION, frozenset())


def test_whoever_just_failed_is_not_next_in_turn():
    failed = UnitCost(generation_seconds=1.0, text_seconds=0.01, failure_ratio=0.1)
    backends = [view("a", cost=failed, last_turn=1), view("b", last_turn=2)]
    decision = choose(backends, GENERATION, frozenset())
    assert isinstance(decision, Decision)
    assert decision.backend_id == "b"


def test_a_failure_is_forgiven_where_the_others_are_busy():
    failed = UnitCost(generation_seconds=1.0, text_seconds=0.01, failure_ratio=0.1)
    backends = [view("a", cost=failed), view("b", outstanding=3)]
    decision = choose(backends, GENERATION, frozenset())
    assert isinstance(decision, Decision)
    assert decision.backend_id == "a"
