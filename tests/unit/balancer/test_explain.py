"""Decisions as the protos show them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.core.cost import Exclusion
from services.balancer.core.plan import Outcome, Reason, plan
from services.balancer.core.snapshot import Residency
from services.balancer.decisions import DecisionLog, Occasion
from services.balancer.explain import decision_message
from services.common.clock import SystemClock
from tests.kit.fleets import a_backend, a_demand, a_fleet, a_model, fleets, queues, ties

LOG = DecisionLog("test", SystemClock())


def decided(snapshot, order, position, *, quick=False):
    occasion = Occasion(snapshot=snapshot, queue=order, tie_breaks=ties(snapshot), quick=quick)
    return LOG.make(occasion, order[position], position)


def explained(snapshot, order, position=-1, *, quick=False):
    decision = decided(snapshot, order, position % len(order), quick=quick)
    return decision_message(decision, decision.assess())


@settings(max_examples=300)
@given(fleets(), queues(), st.booleans())
def test_a_decision_made_again_is_the_decision(snapshot, queue, quick):
    for placement in plan(snapshot, queue, ties(snapshot), quick=quick).placements:
        decision = decided(snapshot, queue, placement.position, quick=quick)
        assert decision.assess().placement == placement


@settings(max_examples=300)
@given(fleets(), queues())
def test_every_backend_is_named_once_and_terms_add_up_to_the_cost(snapshot, queue):
    message = explained(snapshot, [*queue, a_demand(99)])
    named = [each.backend_id for each in message.candidates]
    assert sorted(named) == sorted(each.id for each in snapshot.backends)
    costs = []
    for each in message.candidates:
        terms = (
            each.drain_seconds
            + each.load_seconds
            + each.prefill_seconds
            + each.decode_seconds
            + each.risk_seconds
        )
        assert each.exclusion != pb.EXCLUSION_REASON_UNSPECIFIED
        if each.exclusion == pb.EXCLUSION_REASON_NOT_EXCLUDED:
            assert terms == pytest.approx(each.cost_seconds)
            costs.append(each.cost_seconds)
        else:
            # Who is no candidate comes after all who are.
            assert terms == each.cost_seconds == 0
            costs.append(float("inf"))
    assert costs == sorted(costs)
    assert message.outcome != pb.ROUTING_OUTCOME_UNSPECIFIED


def test_each_outcome_and_reason_has_a_name():
    for reason in Reason:
        assert pb.RoutingReason.Value(f"ROUTING_REASON_{reason.name}")
    for residency in Residency:
        assert pb.ModelResidency.Value(f"MODEL_RESIDENCY_{residency.name}")
    assert len(Outcome) == len(pb.RoutingOutcome.keys()) - 1


@pytest.mark.parametrize("exclusion", [each for each in vars(Exclusion) if each.isupper()])
def test_each_exclusion_has_a_name(exclusion):
    views = {
        "MODEL_ABSENT": a_backend("h", {}),
        "OTHER_DIGEST": a_backend("h", {"chat": a_model(digest="b" * 64)}),
        "CAPABILITY_MISSING": a_backend("h", {"chat": a_model(capabilities=frozenset())}),
        "UNHEALTHY": a_backend("h", takes_requests=False),
        "DRAINED": a_backend("h", drained=True),
        "TRIED": a_backend("h"),
        "NO_ROOM": a_backend(
            "h", {"chat": a_model(residency=Residency.INSTALLED, load_barred_until=2000.0)}
        ),
    }
    tried = frozenset({"h"}) if exclusion == "TRIED" else frozenset()
    demand = a_demand(digest="a" * 64, tried=tried)
    (candidate,) = explained(a_fleet(views[exclusion]), [demand]).candidates
    assert pb.ExclusionReason.Name(candidate.exclusion) == f"EXCLUSION_REASON_{exclusion}"


def test_the_message_says_what_was_asked_and_what_became_of_it():
    busy = a_backend("busy", {"chat": a_model(busy_until=(1003.0,))}, chosen_turn=1)
    slow = a_backend("slow", {"chat": a_model(0.1)})
    demand = a_demand(7, digest="a" * 64, prefix_hits={"busy": 400})
    message = explained(a_fleet(busy, slow), [demand])
    assert message.outcome == pb.ROUTING_OUTCOME_HELD
    assert message.reason == pb.ROUTING_REASON_LOWEST_COST
    assert message.backend_id == "busy"
    assert (message.model, message.model_digest) == ("chat", "a" * 64)
    assert (message.prompt_token_count, message.predicted_output_token_count) == (500, 100)
    # Three seconds until the slot is free, a tenth to read what is not remembered, two to write.
    assert message.predicted_first_token.ToMilliseconds() == 3100
    assert message.predicted_total.ToMilliseconds() == 5100
    first, second = message.candidates
    assert (first.backend_id, second.backend_id) == ("busy", "slow")
    assert first.prefix_hit_token_count == 400
    assert (first.in_flight_count, first.slot_count) == (1, 1)
    assert first.residency == pb.MODEL_RESIDENCY_WARM
    assert first.cost_seconds == pytest.approx(3.0 + 0.1 + 0.3 * 2.0)


def test_a_request_that_nobody_can_serve_is_shown_as_refused():
    message = explained(a_fleet(a_backend("h", drained=True)), [a_demand()])
    assert message.outcome == pb.ROUTING_OUTCOME_REFUSED
    assert message.backend_id == ""
    assert not message.HasField("predicted_total")


def test_requests_before_it_count():
    order = [a_demand(number) for number in range(4)]
    alone = explained(a_fleet(a_backend("h")), order, 0)
    last = explained(a_fleet(a_backend("h")), order, 3)
    assert (alone.queue_position, last.queue_position) == (0, 3)
    assert alone.outcome == pb.ROUTING_OUTCOME_DISPATCHED
    assert last.outcome == pb.ROUTING_OUTCOME_HELD
    assert last.candidates[0].drain_seconds > alone.candidates[0].drain_seconds
