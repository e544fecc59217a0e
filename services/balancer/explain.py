"""What the planner decided and why, as the protos show it."""

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.convert import duration
from services.balancer.core.cost import Candidate, Exclusion
from services.balancer.core.plan import Assessment, Outcome
from services.balancer.core.snapshot import BackendView, ModelView
from services.balancer.decisions import Decision
from services.balancer.report import timestamp

__all__ = ["decision_message"]

_EXCLUSIONS = {
    Exclusion.MODEL_ABSENT: pb.EXCLUSION_REASON_MODEL_ABSENT,
    Exclusion.OTHER_DIGEST: pb.EXCLUSION_REASON_OTHER_DIGEST,
    Exclusion.CAPABILITY_MISSING: pb.EXCLUSION_REASON_CAPABILITY_MISSING,
    Exclusion.UNHEALTHY: pb.EXCLUSION_REASON_UNHEALTHY,
    Exclusion.DRAINED: pb.EXCLUSION_REASON_DRAINED,
    Exclusion.TRIED: pb.EXCLUSION_REASON_TRIED,
    Exclusion.NO_ROOM: pb.EXCLUSION_REASON_NO_ROOM,
}
_OUTCOMES = {
    Outcome.DISPATCHED: pb.ROUTING_OUTCOME_DISPATCHED,
    Outcome.HELD: pb.ROUTING_OUTCOME_HELD,
    Outcome.LOADING: pb.ROUTING_OUTCOME_LOADING,
    Outcome.EXHAUSTED: pb.ROUTING_OUTCOME_REFUSED,
}


def decision_message(decision: Decision, assessment: Assessment) -> pb.RoutingDecision:
    """Writes a decision.

    Args:
        decision: What it was made from.
        assessment: What came of it.
    """
    demand, placement = decision.demand, assessment.placement
    outcome = pb.ROUTING_OUTCOME_REFUSED if decision.refused else _OUTCOMES[placement.outcome]
    message = pb.RoutingDecision(
        decision_id=decision.id,
        decide_time=timestamp(decision.decided_at),
        model=demand.model_key,
        model_digest=demand.digest or "",
        outcome=outcome,
        backend_id=placement.backend_id or "",
        queue_position=placement.position,
        prompt_token_count=demand.prompt_token_count,
        predicted_output_token_count=round(demand.output_token_count),
        candidates=_candidates(decision, assessment),
    )
    if placement.reason is not None:
        message.reason = pb.RoutingReason.Value(f"ROUTING_REASON_{placement.reason.name}")
    if placement.terms is not None:
        message.predicted_first_token.CopyFrom(duration(placement.terms.first_token))
        message.predicted_total.CopyFrom(duration(placement.terms.total))
    return message


def _candidates(decision: Decision, assessment: Assessment) -> list[pb.RoutingCandidate]:
    demand, messages = decision.demand, []
    for view in decision.snapshot.backends:
        found = assessment.candidates[view.id]
        messages.append(
            _candidate(view, found, demand.model_key, demand.prefix_hits.get(view.id, 0))
        )
    return sorted(
        messages,
        key=lambda each: (
            each.exclusion != pb.EXCLUSION_REASON_NOT_EXCLUDED,
            each.cost_seconds,
            each.backend_id,
        ),
    )


def _candidate(
    view: BackendView, found: Candidate | str, model_key: str, hit_count: int
) -> pb.RoutingCandidate:
    message = pb.RoutingCandidate(backend_id=view.id)
    model: ModelView | None = (view.models or {}).get(model_key)
    if model is not None:
        message.residency = pb.ModelResidency.Value(f"MODEL_RESIDENCY_{model.residency.name}")
        message.in_flight_count = len(model.busy_until)
        message.slot_count = model.slot_count
    if not isinstance(found, Candidate):
        message.exclusion = _EXCLUSIONS[found]
        return message
    terms = found.terms
    message.exclusion = pb.EXCLUSION_REASON_NOT_EXCLUDED
    message.cost_seconds = terms.cost
    message.drain_seconds = terms.drain
    message.load_seconds = terms.load
    message.prefill_seconds = terms.prefill
    message.decode_seconds = terms.weight * terms.decode
    message.risk_seconds = terms.risk
    message.prefix_hit_token_count = hit_count
    return message
