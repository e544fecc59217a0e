from dataclasses import replace

import pytest

from services.balancer.core.cost import Exclusion
from services.balancer.core.demand import Kind, Priority
from services.balancer.core.plan import Outcome, Reason, assess, plan
from services.balancer.core.snapshot import Residency, Room
from tests.kit.fleets import EMBEDDING, NOW, a_backend, a_demand, a_fleet, a_model, ties

SINGLE = Room(model_limit=1)


def place(snapshot, *queue, quick=False, tie_breaks=None):
    made = plan(snapshot, queue, tie_breaks or ties(snapshot), quick=quick)
    return made.placements[0] if len(queue) == 1 and made.placements else made


def chosen(snapshot, *queue):
    made = plan(snapshot, queue, ties(snapshot), quick=False)
    return [(each.backend_id, each.outcome) for each in made.placements]


def cold(**fields):
    return a_model(residency=Residency.INSTALLED, **fields)


# Where requests go.


def test_the_cheapest_backend_is_chosen():
    snapshot = a_fleet(
        a_backend("slow", {"chat": a_model(0.3)}), a_backend("fast", {"chat": a_model()})
    )
    placement = place(snapshot, a_demand())
    assert placement.backend_id == "fast"
    assert placement.outcome is Outcome.DISPATCHED
    assert placement.reason is Reason.LOWEST_COST


def test_the_only_backend_is_chosen_for_that_reason():
    snapshot = a_fleet(a_backend("one"), a_backend("other", {}))
    assert place(snapshot, a_demand()).reason is Reason.ONLY_CANDIDATE


def test_a_request_is_held_for_a_fast_backend_that_will_soon_be_free():
    fast = a_backend("fast", {"chat": a_model(busy_until=(NOW + 1,))})
    snapshot = a_fleet(fast, a_backend("slow", {"chat": a_model(0.2)}))
    assert chosen(snapshot, a_demand()) == [("fast", Outcome.HELD)]


def test_those_further_back_in_the_line_for_a_fast_backend_go_to_the_slow_one():
    fast = a_backend("fast", {"chat": a_model(busy_until=(NOW + 1,))})
    snapshot = a_fleet(fast, a_backend("slow", {"chat": a_model(0.2)}))
    backends = [name for name, _ in chosen(snapshot, *map(a_demand, range(5)))]
    assert backends[:2] == ["fast", "fast"]
    assert "slow" in backends[2:4]


def test_a_second_slot_takes_a_second_request_and_no_third():
    snapshot = a_fleet(a_backend("one", {"chat": a_model(slot_count=2)}))
    outcomes = [outcome for _, outcome in chosen(snapshot, *map(a_demand, range(3)))]
    assert outcomes == [Outcome.DISPATCHED, Outcome.DISPATCHED, Outcome.HELD]


def test_two_names_of_the_same_weights_share_the_slots_and_count_once_for_room():
    shared = a_model()
    queue = [a_demand(1, model_key="chat"), a_demand(2, model_key="alias")]
    two_names = a_backend("one", {"alias": shared, "chat": shared}, room=SINGLE)
    assert chosen(a_fleet(two_names), *queue) == [
        ("one", Outcome.DISPATCHED),
        ("one", Outcome.HELD),
    ]
    # What is in memory is one model, whatever it is called: another one fits beside it.
    models = {"alias": shared, "chat": shared, "other": cold()}
    backend = a_backend("one", models, room=Room(model_limit=2))
    made = place(a_fleet(backend), a_demand(3, model_key="other"), a_demand(4))
    (order,) = made.loads
    assert (order.model_key, order.evicted_keys) == ("other", ())


def test_a_model_is_wanted_under_any_of_its_names():
    shared = a_model(loaded_at=NOW - 1)
    models = {"alias": shared, "chat": shared, "other": cold()}
    snapshot = a_fleet(a_backend("one", models, room=SINGLE))
    made = place(snapshot, a_demand(1, model_key="other"), a_demand(2, model_key="chat"))
    assert made.loads == ()
    assert [each.outcome for each in made.placements][1] is Outcome.DISPATCHED


def test_who_cannot_be_served_in_time_keeps_nobody_waiting():
    snapshot = a_fleet(a_backend("one", {"chat": a_model(busy_until=(NOW + 5,))}))
    hopeless = [a_demand(each, deadline=NOW + 1) for each in range(3)]
    made = plan(snapshot, [*hopeless, a_demand(3)], ties(snapshot), quick=False)
    assert [each.outcome for each in made.placements] == [Outcome.HELD] * 4
    assert [each.terms.drain for each in made.placements] == [5.0] * 4


def test_a_load_begins_although_who_asks_for_it_cannot_wait_for_it():
    snapshot = a_fleet(a_backend("one", {"chat": cold()}))
    made = plan(snapshot, [a_demand(deadline=NOW + 1), a_demand(1)], ties(snapshot), quick=False)
    assert [each.model_key for each in made.loads] == ["chat"]
    assert [each.terms.first_token for each in made.placements] == [10.5, 10.5]


def test_the_best_slot_is_left_to_a_request_that_is_expected_and_given_to_it_when_it_comes():
    snapshot = a_fleet(a_backend("fast"), a_backend("slow", {"chat": a_model(0.5)}))
    expected = a_demand(-1, tenant="quiet", expected=True)
    queue = [expected, a_demand(1), a_demand(2)]
    made = plan(snapshot, queue, ties(snapshot), quick=False)
    assert [(each.backend_id, each.outcome) for each in made.placements] == [
        ("slow", Outcome.DISPATCHED),
        ("fast", Outcome.HELD),
    ]
    assert [each.position for each in made.placements] == [1, 2]
    quick = plan(snapshot, queue, ties(snapshot), quick=True)
    assert [each.backend_id for each in quick.placements] == ["slow"]
    assessed = assess(snapshot, queue[:1], queue[1], ties(snapshot))
    assert assessed.placement.backend_id == "slow"
    come = a_demand(3, tenant="quiet")
    assert chosen(snapshot, come, expected, a_demand(1))[0] == ("fast", Outcome.DISPATCHED)


def test_nothing_is_loaded_for_a_request_that_is_only_expected():
    snapshot = a_fleet(a_backend("one", {"chat": cold()}))
    made = plan(snapshot, [a_demand(-1, expected=True)], ties(snapshot), quick=False)
    assert made.loads == ()
    assert made.placements == ()


def test_a_slot_whose_request_should_have_ended_is_not_free():
    snapshot = a_fleet(a_backend("one", {"chat": a_model(busy_until=(NOW - 30,))}))
    assert chosen(snapshot, a_demand()) == [("one", Outcome.HELD)]


def test_a_model_given_more_than_its_slots_gets_nothing_until_enough_have_ended():
    busy = a_model(busy_until=(NOW + 1, NOW + 5, NOW + 9), slot_count=2)
    placement = place(a_fleet(a_backend("one", {"chat": busy})), a_demand())
    assert placement.outcome is Outcome.HELD
    assert placement.terms.drain == pytest.approx(5)


def test_a_remembered_prefix_outweighs_a_slightly_slower_backend():
    fast, slow = a_model(), a_model(0.9)
    snapshot = a_fleet(a_backend("fast", {"chat": fast}), a_backend("slow", {"chat": slow}))
    demand = a_demand(prompt_token_count=4000, prefix_hits={"slow": 3500})
    assert place(snapshot, demand).backend_id == "slow"


@pytest.mark.parametrize(
    ("fields", "view", "exclusion"),
    [
        ({"model_key": "other"}, {}, Exclusion.MODEL_ABSENT),
        ({"digest": "b" * 64}, {}, Exclusion.OTHER_DIGEST),
        ({"kind": Kind.EMBED}, {}, Exclusion.CAPABILITY_MISSING),
        ({}, {"drained": True}, Exclusion.DRAINED),
        ({}, {"takes_requests": False}, Exclusion.UNHEALTHY),
        ({"tried": frozenset({"one"})}, {}, Exclusion.TRIED),
    ],
)
def test_an_assessment_says_why_a_backend_is_no_candidate(fields, view, exclusion):
    snapshot = a_fleet(a_backend("one", **view))
    assert assess(snapshot, [], a_demand(**fields), {}).candidates == {"one": exclusion}


def test_a_backend_without_room_for_the_model_is_no_candidate():
    models = {"chat": cold(), "other": a_model(pinned=True)}
    snapshot = a_fleet(a_backend("one", models, room=SINGLE))
    assert assess(snapshot, [], a_demand(), {}).candidates == {"one": Exclusion.NO_ROOM}
    assert chosen(snapshot, a_demand()) == [(None, Outcome.HELD)]


def test_a_backend_that_fails_often_is_dear_by_what_a_second_attempt_costs():
    snapshot = a_fleet(
        a_backend("shaky", failure_ratio=0.5), a_backend("slow", surcharge_seconds=2)
    )
    assert place(snapshot, a_demand()).backend_id == "slow"


# Ties.


def tied(**views):
    return a_fleet(*(a_backend(name, **fields) for name, fields in views.items()))


def test_of_equals_the_one_with_the_longer_prefix_is_chosen():
    snapshot = tied(a={}, b={}, c={})
    placement = place(snapshot, a_demand(prefix_hits={"b": 20, "c": 10}))
    assert (placement.backend_id, placement.reason) == ("b", Reason.LONGEST_PREFIX)


def test_of_equals_without_prefix_the_one_with_fewer_in_flight_is_chosen():
    models = {"chat": a_model(decode_rates=(50.0,)), "embed": a_model(busy_until=(NOW + 9,))}
    idle = {"chat": a_model(decode_rates=(50.0,))}
    snapshot = tied(a={"models": models, "chosen_turn": 1}, b={"models": idle, "chosen_turn": 2})
    placement = place(snapshot, a_demand())
    assert (placement.backend_id, placement.reason) == ("b", Reason.LEAST_BUSY)


def test_of_equals_as_busy_the_one_chosen_least_recently_is_chosen():
    snapshot = tied(a={"chosen_turn": 7}, b={"chosen_turn": 3}, c={"chosen_turn": 5})
    assert place(snapshot, a_demand()).backend_id == "b"


def test_of_equals_in_all_else_the_given_numbers_decide():
    snapshot = tied(a={}, b={}, c={})
    numbers = {"a": 0.9, "b": 0.5, "c": 0.1}
    assert place(snapshot, a_demand(), tie_breaks=numbers).backend_id == "c"


def test_of_equals_the_one_that_is_free_now_is_chosen_before_one_with_a_longer_prefix():
    busy = a_model(busy_until=(NOW + 0.02,))
    snapshot = tied(a={"models": {"chat": busy}}, b={})
    assert place(snapshot, a_demand(prefix_hits={"a": 20})).backend_id == "b"


def test_nothing_is_loaded_for_the_sake_of_a_tie():
    nearly = cold(load_seconds=0.01)
    soon = a_model(busy_until=(NOW + 0.02,))
    snapshot = a_fleet(
        a_backend("cold", {"chat": nearly}), a_backend("warm", {"chat": soon}, chosen_turn=9)
    )
    assert place(snapshot, a_demand()).backend_id == "warm"


def test_requests_of_one_plan_are_spread_over_equal_backends():
    snapshot = tied(a={}, b={}, c={})
    assert {name for name, _ in chosen(snapshot, *map(a_demand, range(3)))} == {"a", "b", "c"}


def test_those_placed_before_count_as_active():
    snapshot = a_fleet(a_backend("one", {"chat": a_model(slot_count=2)}))
    made = place(snapshot, a_demand(0), a_demand(1))
    assert [each.terms.decode for each in made.placements] == pytest.approx([100 / 50, 100 / 30])


# Loads.


def test_residency_is_a_cost_and_no_filter():
    warm = a_model(busy_until=(NOW + 60,))
    snapshot = a_fleet(a_backend("busy", {"chat": warm}), a_backend("cold", {"chat": cold()}))
    made = place(snapshot, a_demand(), a_demand(1))
    assert made.placements[0].backend_id == "cold"
    assert [(each.backend_id, each.model_key) for each in made.loads] == [("cold", "chat")]


def test_a_short_wait_is_preferred_to_a_load():
    warm = a_model(busy_until=(NOW + 3,))
    snapshot = a_fleet(a_backend("busy", {"chat": warm}), a_backend("cold", {"chat": cold()}))
    assert chosen(snapshot, a_demand()) == [("busy", Outcome.HELD)]


def test_a_line_that_is_long_enough_has_the_model_loaded_elsewhere():
    warm = a_model(busy_until=(NOW + 3,))
    snapshot = a_fleet(a_backend("busy", {"chat": warm}), a_backend("cold", {"chat": cold()}))
    made = place(snapshot, *map(a_demand, range(8)))
    assert [order.backend_id for order in made.loads] == ["cold"]


def test_requests_wait_together_for_one_load():
    snapshot = a_fleet(a_backend("one", {"chat": cold(slot_count=2)}))
    made = place(snapshot, a_demand(0), a_demand(1), a_demand(2))
    assert len(made.loads) == 1
    waits = [each.terms.first_token for each in made.placements]
    assert waits[0] == pytest.approx(waits[1]) == pytest.approx(10.5)
    assert waits[2] > waits[1]


def test_while_a_backend_loads_one_model_it_is_given_no_other_to_load():
    loading = a_model(residency=Residency.LOADING, ready_at=NOW + 4)
    models = {"code": loading, "chat": cold()}
    snapshot = a_fleet(a_backend("one", models, loading_key="code", loading_until=NOW + 4))
    made = plan(snapshot, [a_demand()], {}, quick=False)
    assert made.loads == ()
    assert made.placements[0].outcome is Outcome.HELD
    assert made.placements[0].terms.first_token == pytest.approx(4 + 10 + 0.5)


def test_what_a_load_under_way_still_takes_is_what_it_costs():
    loading = a_model(residency=Residency.LOADING, ready_at=NOW + 4)
    snapshot = a_fleet(
        a_backend("one", {"chat": loading}, loading_key="chat", loading_until=NOW + 4)
    )
    placement = place(snapshot, a_demand())
    assert (placement.outcome, placement.terms.load) == (Outcome.LOADING, pytest.approx(4))


def test_models_that_must_make_room_go_on_working_while_another_is_being_loaded():
    models = {
        "code": a_model(residency=Residency.LOADING, ready_at=NOW + 20),
        "embed": a_model(capabilities=EMBEDDING),
        "chat": cold(),
    }
    view = a_backend(
        "one", models, loading_key="code", loading_until=NOW + 20, room=Room(model_limit=2)
    )
    embed = a_demand(1, model_key="embed", kind=Kind.EMBED, output_token_count=0.0)
    late = a_demand(arrived_at=NOW - 900)
    made = plan(a_fleet(view), [late, embed], {}, quick=False)
    assert made.placements[1].outcome is Outcome.DISPATCHED
    assert made.yielding == frozenset()


def test_a_model_that_is_being_loaded_makes_room_for_nobody():
    loading = a_model(residency=Residency.LOADING, ready_at=NOW + 4)
    view = a_backend(
        "one",
        {"code": loading, "chat": cold()},
        loading_key="code",
        loading_until=NOW + 4,
        room=SINGLE,
    )
    assert assess(a_fleet(view), [], a_demand(), {}).candidates == {"one": Exclusion.NO_ROOM}


def test_the_model_missed_least_makes_room():
    models = {
        "chat": cold(),
        "lately": a_model(used_at=NOW - 1),
        "long_ago": a_model(used_at=NOW - 900),
        "lately_too": a_model(used_at=NOW - 2),
    }
    made = plan(a_fleet(a_backend("one", models)), [a_demand()], {}, quick=False)
    assert made.loads[0].evicted_keys == ("long_ago",)
    assert made.loads[0].predicted_seconds == pytest.approx(12)


def test_a_model_with_too_small_a_context_is_loaded_anew_with_the_class_that_holds_it():
    models = {"chat": a_model(context_token_count=4096)}
    snapshot = a_fleet(a_backend("one", models))
    made = plan(snapshot, [a_demand(context_token_count=5000)], {}, quick=False)
    assert made.loads[0].evicted_keys == ("chat",)
    assert made.loads[0].context_token_count == 16384


def test_no_context_is_ordered_beyond_what_the_model_can_have():
    models = {"chat": cold(maximum_context_token_count=8192)}
    snapshot = a_fleet(a_backend("one", models))
    made = plan(snapshot, [a_demand(context_token_count=50_000)], {}, quick=False)
    assert made.loads[0].context_token_count == 8192


def test_no_load_is_tried_while_failed_ones_bar_it():
    models = {"chat": cold(load_barred_until=NOW + 1)}
    made = plan(a_fleet(a_backend("one", models)), [a_demand()], {}, quick=False)
    assert made.loads == ()
    assert made.placements[0].outcome is Outcome.HELD


# Turns of models that want the same room.


def two_models(*, busy=True, loaded_at=NOW - 500, **chat):
    hot = a_model(busy_until=(NOW + 5,) if busy else (), used_at=NOW, loaded_at=loaded_at)
    return a_backend("one", {"hot": hot, "chat": cold(**chat)}, room=SINGLE)


def hot_demands(count):
    return [a_demand(10 + number, model_key="hot") for number in range(count)]


# Unloading 2 s and loading 10 s, there and back, twice over.
TURN_SECONDS = 48


def test_the_only_copy_of_a_model_that_is_wanted_stays_for_its_turn():
    snapshot = a_fleet(two_models(busy=False))
    made = plan(snapshot, [a_demand(), *hot_demands(2)], {}, quick=False)
    assert made.loads == ()
    assert made.placements[0].outcome is Outcome.HELD
    assert made.placements[0].terms.first_token == pytest.approx(TURN_SECONDS + 12.5)
    assert made.yielding == frozenset()
    assert made.placements[1].outcome is Outcome.DISPATCHED


def test_a_model_that_nobody_wants_makes_room_at_once():
    made = plan(a_fleet(two_models(busy=False)), [a_demand()], {}, quick=False)
    assert [order.model_key for order in made.loads] == ["chat"]


def test_a_model_that_another_backend_holds_too_makes_room_at_once():
    other = a_backend("other", {"hot": a_model(busy_until=(NOW + 5,))})
    snapshot = a_fleet(two_models(busy=False), other)
    made = plan(snapshot, [a_demand(), *hot_demands(1)], {}, quick=False)
    assert [order.backend_id for order in made.loads] == ["one"]


def test_after_its_turn_a_model_is_left_to_fall_idle_and_then_makes_room():
    late = a_demand(arrived_at=NOW - TURN_SECONDS - 1)
    busy = a_fleet(two_models())
    made = plan(busy, [late, *hot_demands(1)], {}, quick=False)
    assert made.yielding == {("one", "hot")}
    assert made.placements[1].outcome is Outcome.HELD
    idle = a_fleet(two_models(busy=False))
    made = plan(idle, [late, *hot_demands(1)], {}, quick=False)
    assert [order.model_key for order in made.loads] == ["chat"]
    assert made.placements[1].outcome is Outcome.HELD


def test_a_model_just_loaded_has_its_turn_however_long_others_have_waited():
    late = a_demand(arrived_at=NOW - 500)
    snapshot = a_fleet(two_models(busy=False, loaded_at=NOW - 3))
    made = plan(snapshot, [late, *hot_demands(2)], {}, quick=False)
    assert made.loads == ()
    assert made.placements[1].outcome is Outcome.DISPATCHED


def test_a_quick_plan_leaves_idle_what_the_full_one_did():
    late = a_demand(arrived_at=NOW - TURN_SECONDS - 1)
    full = plan(a_fleet(two_models()), [late, *hot_demands(1)], {}, quick=False)
    snapshot = a_fleet(two_models(busy=False), yielding=full.yielding)
    quick = plan(snapshot, [late, *hot_demands(1)], {}, quick=True)
    assert not any(each.outcome is Outcome.DISPATCHED for each in quick.placements)


@pytest.mark.parametrize("quick_too", [False, True])
def test_steady_work_for_one_model_does_not_keep_another_from_being_loaded(quick_too):
    """A hot model with a request in the slot at all times, and one for a model not in memory."""
    now, busy_until, waiting, yielding = NOW, NOW + 2.0, hot_demands(1), frozenset()
    wanted = a_demand()
    while now < NOW + 200:
        now += 0.5
        busy = (busy_until,) if busy_until > now else ()
        hot = a_model(busy_until=busy, used_at=now, loaded_at=NOW - 500)
        view = a_backend("one", {"hot": hot, "chat": cold()}, room=SINGLE)
        for quick in (True, False) if quick_too else (False,):
            snapshot = replace(a_fleet(view, yielding=yielding), now=now)
            made = plan(snapshot, [wanted, *waiting], {}, quick=quick)
            yielding = made.yielding
            if made.loads:
                assert made.loads[0].model_key == "chat"
                assert now - NOW < TURN_SECONDS + 5
                return
            if any(each.outcome is Outcome.DISPATCHED for each in made.placements):
                busy_until = now + 2.0
                hot = replace(hot, busy_until=(busy_until,))
                view = a_backend("one", {"hot": hot, "chat": cold()}, room=SINGLE)
        waiting = [replace(waiting[0], id=waiting[0].id + 1, arrived_at=now)]
    pytest.fail("the model was never loaded")


# Batch work.


def batch(number=0, **fields):
    return a_demand(number, priority=Priority.BATCH, **fields)


RECENT = {"chat": NOW - 10}


def test_batch_work_leaves_the_last_free_slot_to_interactive_work_that_came_lately():
    snapshot = a_fleet(a_backend("a"), a_backend("b"), interactive_at=RECENT)
    outcomes = [outcome for _, outcome in chosen(snapshot, batch(0), batch(1))]
    assert outcomes == [Outcome.DISPATCHED, Outcome.HELD]


@pytest.mark.parametrize(
    ("backends", "interactive_at", "arrived_at"),
    [
        ([a_backend("a")], RECENT, NOW),
        ([a_backend("a"), a_backend("b", {"chat": cold()})], RECENT, NOW),
        ([a_backend("a"), a_backend("b", {"chat": a_model(busy_until=(NOW + 9,))})], {}, NOW),
        (
            [a_backend("a"), a_backend("b", {"chat": a_model(busy_until=(NOW + 9,))})],
            {"chat": NOW - 61},
            NOW,
        ),
        (
            [a_backend("a"), a_backend("b", {"chat": a_model(busy_until=(NOW + 9,))})],
            RECENT,
            NOW - 121,
        ),
    ],
    ids=["one slot in all", "one warm slot", "never interactive", "not lately", "aged"],
)
def test_batch_work_takes_the_last_free_slot_where(backends, interactive_at, arrived_at):
    snapshot = a_fleet(*backends, interactive_at=interactive_at)
    assert chosen(snapshot, batch(arrived_at=arrived_at)) == [("a", Outcome.DISPATCHED)]


def test_slots_of_models_not_in_memory_are_not_free():
    busy = a_model(busy_until=(NOW + 9,))
    backends = (a_backend("a"), a_backend("b", {"chat": busy}), a_backend("c", {"chat": cold()}))
    snapshot = a_fleet(*backends, interactive_at=RECENT)
    assert chosen(snapshot, batch()) == [("a", Outcome.HELD)]


def test_interactive_work_takes_the_last_free_slot():
    busy = a_model(busy_until=(NOW + 9,))
    snapshot = a_fleet(a_backend("a"), a_backend("b", {"chat": busy}), interactive_at=RECENT)
    assert chosen(snapshot, a_demand()) == [("a", Outcome.DISPATCHED)]


# When nobody takes requests.


def test_when_nobody_takes_requests_those_with_the_model_take_turns():
    views = [
        a_backend(name, takes_requests=False, chosen_turn=turn)
        for name, turn in [("a", 3), ("b", 1), ("c", 2)]
    ]
    made = plan(a_fleet(*views), [a_demand(number) for number in range(4)], {}, quick=False)
    assert [each.backend_id for each in made.placements] == ["b", "c", "a", None]
    assert made.placements[0].reason is Reason.ROUND_ROBIN_FALLBACK
    assert made.placements[3].outcome is Outcome.HELD


def test_turns_are_taken_within_a_plan_too():
    models = {"chat": a_model(slot_count=2)}
    views = [a_backend(name, models, takes_requests=False) for name in ("a", "b")]
    made = plan(a_fleet(*views), [a_demand(number) for number in range(4)], {}, quick=False)
    assert [each.backend_id for each in made.placements] == ["a", "b", "a", "b"]


def test_a_quick_plan_takes_turns_too_when_nobody_takes_requests():
    snapshot = a_fleet(a_backend("a", takes_requests=False))
    assert place(snapshot, a_demand(), quick=True).outcome is Outcome.DISPATCHED


def test_a_backend_never_reached_is_tried_only_when_nothing_else_is_left():
    unreached = a_backend("new")
    unreached = replace(unreached, models=None)
    failing = a_backend("failing", takes_requests=False, chosen_turn=9)
    snapshot = a_fleet(unreached, failing)
    assert place(snapshot, a_demand()).backend_id == "failing"
    assert place(snapshot, a_demand(tried=frozenset({"failing"}))).backend_id == "new"
    assert place(a_fleet(unreached, a_backend("well")), a_demand()).backend_id == "well"


def test_whoever_has_been_tried_everywhere_has_nothing_left():
    snapshot = a_fleet(a_backend("a"), a_backend("b", takes_requests=False))
    demand = a_demand(tried=frozenset({"a", "b"}))
    assert place(snapshot, demand).outcome is Outcome.EXHAUSTED


def test_a_failed_request_is_not_sent_to_a_backend_that_is_out():
    snapshot = a_fleet(a_backend("a"), a_backend("b", takes_requests=False))
    demand = a_demand(tried=frozenset({"a"}))
    assert place(snapshot, demand).outcome is Outcome.EXHAUSTED


def test_drained_backends_get_nothing_even_when_nobody_else_is_left():
    drained = a_backend("a", drained=True, takes_requests=False)
    snapshot = a_fleet(drained, replace(drained, id="b", models=None))
    assert place(snapshot, a_demand()).outcome is Outcome.EXHAUSTED


# Quick plans.


def test_a_quick_plan_leaves_out_those_who_would_have_to_wait():
    busy = a_model(busy_until=(NOW + 9,))
    models = {"chat": busy, "code": a_model()}
    snapshot = a_fleet(a_backend("one", models))
    made = plan(snapshot, [a_demand(0), a_demand(1, model_key="code")], {}, quick=True)
    assert [(each.demand.id, each.position) for each in made.placements] == [(1, 1)]


def test_a_quick_plan_loads_nothing_even_where_it_would_pay():
    slow = a_backend("slow", {"chat": a_model(0.01)})
    snapshot = a_fleet(slow, a_backend("cold", {"chat": cold()}))
    made = plan(snapshot, [a_demand()], {}, quick=True)
    assert [(each.backend_id, each.outcome) for each in made.placements] == [("cold", Outcome.HELD)]
    assert made.loads == ()


def test_a_plan_looks_at_no_more_of_the_queue_than_its_limit():
    snapshot = a_fleet(a_backend("one"), policy={"walk_limit": 3})
    assert len(place(snapshot, *map(a_demand, range(9))).placements) == 3
