"""`pannier explain`: which backend a request gets, and what each would cost."""

from enum import StrEnum
from typing import Annotated

import typer

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.fields import show_duration, show_enum
from pannier.commands.fleet import open_balancer
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.common.v1 import generation_pb2

__all__ = ["describe_outcome", "explain", "show_decision"]

_TERMS = ("cost", "drain", "load", "prefill", "decode", "risk")
_REASONS = {
    pb.ROUTING_REASON_LOWEST_LOAD: "its load score is the least",
    pb.ROUTING_REASON_ONLY_CANDIDATE: "it is the only candidate",
    pb.ROUTING_REASON_ROUND_ROBIN_FALLBACK: "no backend is healthy, and it is its turn",
    pb.ROUTING_REASON_LONGEST_PREFIX: "costs are about equal, and it is thought to remember most "
    "of the prompt",
    pb.ROUTING_REASON_LEAST_BUSY: "costs are about equal, and it has the least to do or has waited "
    "longest",
}


class Urgency(StrEnum):
    """Who goes first."""

    SYSTEM = "system"
    INTERACTIVE = "interactive"
    BATCH = "batch"


def explain(
    prompt: Annotated[str, typer.Argument(help="What a request would say.")] = "",
    *,
    model: Annotated[str, typer.Option(help="Model that the request would name.")] = "",
    embed: Annotated[bool, typer.Option("--embed", help="Vectors are wanted.")] = False,
    priority: Annotated[
        Urgency | None, typer.Option(help="Priority; interactive where not given.")
    ] = None,
    decision: Annotated[
        str, typer.Option(metavar="ID", help="Explain a decision made, instead of a prompt.")
    ] = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Say which backend a request would get, or got, and what each would cost in seconds."""
    if decision:
        if prompt or model or embed or priority:
            raise typer.BadParameter("stands alone", param_hint="--decision")
        request = pb.ExplainRequest(decision_id=decision)
    else:
        if not prompt:
            raise typer.BadParameter("is needed, or --decision", param_hint="PROMPT")
        if not model:
            raise typer.BadParameter("is needed with a prompt", param_hint="--model")
        request = _hypothetical(prompt, model, embed=embed, priority=priority)

    async def main(output: Output) -> int:
        async with open_balancer(address, tenant) as balancer:
            response = await balancer.Explain(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response.decision))
        else:
            show_decision(output, response.decision)
        return 0

    run(main)


def _hypothetical(
    prompt: str, model: str, *, embed: bool, priority: Urgency | None
) -> pb.ExplainRequest:
    # No options at all are what most requests have.
    routing = (
        None
        if priority is None
        else pb.RoutingOptions(priority=pb.Priority.Value(f"PRIORITY_{priority.name}"))
    )
    if embed:
        return pb.ExplainRequest(
            embed=pb.EmbedRequest(model=model, texts=[prompt], routing=routing)
        )
    message = generation_pb2.ChatMessage(role=generation_pb2.CHAT_ROLE_USER, content=prompt)
    return pb.ExplainRequest(chat=pb.ChatRequest(model=model, messages=[message], routing=routing))


def show_decision(output: Output, decision: pb.RoutingDecision) -> None:
    """Shows what every backend costs, and below it what comes of it."""
    output.table(
        (
            *("", "backend", *(f">{term} s" for term in _TERMS)),
            *(">prefix hit", "model is", ">in flight", "excluded"),
        ),
        [_row(each, chosen=each.backend_id == decision.backend_id) for each in decision.candidates],
    )
    output.line(describe_outcome(decision))
    parts = []
    if decision.HasField("predicted_first_token"):
        what = f"first result after {show_duration(decision, 'predicted_first_token')}"
        parts.append(f"{what}, all after {show_duration(decision, 'predicted_total')}")
    parts.append(f"prompt of about {decision.prompt_token_count} tokens")
    if decision.predicted_output_token_count:
        parts.append(f"answer of about {decision.predicted_output_token_count}")
    output.line(f"{decision.model}, predicted: {' · '.join(parts)}", style="dim")
    if decision.decision_id:
        made = decision.decide_time.ToJsonString()[:19]
        output.line(f"decision {decision.decision_id} of {made}Z", style="dim")


def _row(candidate: pb.RoutingCandidate, *, chosen: bool) -> tuple[str, ...]:
    included = candidate.exclusion == pb.EXCLUSION_REASON_NOT_EXCLUDED
    terms = [f"{getattr(candidate, f'{term}_seconds'):.3f}" for term in _TERMS]
    known = candidate.residency != pb.MODEL_RESIDENCY_UNSPECIFIED
    return (
        "→" if chosen else "",
        candidate.backend_id,
        *(terms if included else "-" * len(_TERMS)),
        f"{candidate.prefix_hit_token_count} tokens" if included else "-",
        show_enum(pb.ModelResidency, candidate.residency) if known else "-",
        f"{candidate.in_flight_count} of {candidate.slot_count}" if known else "-",
        "" if included else show_enum(pb.ExclusionReason, candidate.exclusion),
    )


def describe_outcome(decision: pb.RoutingDecision) -> str:
    """Says in a sentence what happens, or has happened, to a request."""
    made, where = bool(decision.decision_id), decision.backend_id
    waits = "Waited" if made else "Would wait"
    position = decision.queue_position
    behind = f", {position} before it in the queue" if position else ""
    match decision.outcome:
        case pb.ROUTING_OUTCOME_DISPATCHED:
            what = f"Was sent to {where}" if made else f"Would be sent to {where} now"
        case pb.ROUTING_OUTCOME_HELD:
            what = f"{waits} for a slot of {where}{behind}"
        case pb.ROUTING_OUTCOME_LOADING:
            what = f"{waits} for {where} to load the model{behind}"
        case pb.ROUTING_OUTCOME_REFUSED:
            return f"{'Was' if made else 'Would be'} refused: no backend is a candidate."
        case _:
            return f"Outcome: {show_enum(pb.RoutingOutcome, decision.outcome)}."
    return f"{what}: {_reason(decision)}."


def _reason(decision: pb.RoutingDecision) -> str:
    if decision.reason != pb.ROUTING_REASON_LOWEST_COST:
        return _REASONS.get(
            decision.reason, f"reason {show_enum(pb.RoutingReason, decision.reason)}"
        )
    costs = [
        each.cost_seconds for each in decision.candidates if each.backend_id == decision.backend_id
    ]
    return f"its cost of {costs[0]:.3f} s is the least" if costs else "its cost is the least"
