"""Requests in the queue, and the slots that they are given."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opentelemetry.trace import SpanContext

from services.balancer.backend import Backend, ModelState, Occupancy
from services.balancer.core.demand import Demand, Priority
from services.balancer.core.plan import LoadOrder, Outcome, Placement, Plan, Reason

__all__ = [
    "Grant",
    "Ticket",
    "callers_of",
    "longest_waits",
    "typical_wait",
    "waiting_counts",
]

_UNKNOWN_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A slot given to a request; `Scheduler.release` must follow.

    Attributes:
        occupancy: The slot.
        backend: Where.
        model: The model there; None where the backend was never reached.
        reason: Why there.
        decision_id: Id of the decision.
        queue_seconds: How long the request has waited in the queue this time, load excluded.
        load_seconds: How long of its wait the model was being loaded.
        predicted_first_token_seconds: When its first token was predicted to come, from now.
        foreseen_first_token_at: When it was, as soon as the request was in the queue, monotonic
            seconds; None where nothing was predicted.
        token: The reservation that other replicas see; None where there is none.
    """

    occupancy: Occupancy
    backend: Backend
    model: ModelState
    reason: Reason
    decision_id: str
    queue_seconds: float
    load_seconds: float
    predicted_first_token_seconds: float
    foreseen_first_token_at: float | None = None
    token: str | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A request in the queue.

    Attributes:
        demand: The request.
        granted: Where it learns what becomes of it.
        queued_at: When it came into the queue this time, monotonic seconds.
        span_context: The span of the call that it is for.
        claiming: Whether a slot is being reserved for it with the other replicas.
        placement: What the last plan that looked at it did with it.
        foreseen_first_token_at: When its first token was predicted to come by the first plan that
            looked at it and at those before it, monotonic seconds.
        judged: Whether its wait has been held against what its caller accepts.
    """

    demand: Demand
    granted: asyncio.Future[Grant]
    queued_at: float
    span_context: SpanContext
    claiming: bool = False
    placement: Placement | None = None
    foreseen_first_token_at: float | None = None
    judged: bool = False

    def foresee(self, placement: Placement, now: float) -> None:
        """Remembers when the first token is predicted to come; the first prediction counts."""
        if self.foreseen_first_token_at is None and placement.terms is not None:
            self.foreseen_first_token_at = now + placement.terms.first_token

    def waited(self, model: ModelState, now: float) -> tuple[float, float]:
        """Says how long it was in the queue, and how long its model was loaded meanwhile."""
        loaded = max(0.0, model.load_ended_at - max(model.load_began_at, self.queued_at))
        return now - self.queued_at - loaded, loaded


def typical_wait(tickets: Iterable[Ticket], model_key: str) -> float:
    """Returns the longest wait that plans predicted for a model, in seconds; 1 where none did.

    For requests that nothing is predicted for, because no backend has room for their model.

    Args:
        tickets: The queue.
        model_key: The model.
    """
    predicted = [
        each.placement.terms.first_token
        for each in tickets
        if each.demand.model_key == model_key
        and each.placement is not None
        and each.placement.terms is not None
    ]
    return max(predicted, default=_UNKNOWN_WAIT_SECONDS)


def waiting_counts(tickets: Iterable[Ticket]) -> dict[Priority, int]:
    """Returns how many requests wait, by priority."""
    counts = dict.fromkeys(Priority, 0)
    for ticket in tickets:
        counts[ticket.demand.priority] += 1
    return counts


def longest_waits(tickets: Iterable[Ticket], now: float) -> dict[Priority, float]:
    """Returns how long the oldest request of each priority has waited, in seconds."""
    waits: dict[Priority, float] = {}
    for ticket in tickets:
        priority = ticket.demand.priority
        waits[priority] = max(waits.get(priority, 0.0), now - ticket.queued_at)
    return waits


def callers_of(order: LoadOrder, made: Plan, waiting: Mapping[int, Ticket]) -> list[SpanContext]:
    """Finds the calls for which a model is to be loaded; some may just have been refused.

    Args:
        order: The load.
        made: The plan that it is part of.
        waiting: Requests in the queue, by number.
    """
    causes = [
        each.demand.id
        for each in made.placements
        if each.outcome is Outcome.LOADING and each.backend_id == order.backend_id
    ] or [
        # Nobody is to be served there yet: it is a further copy, for all who wait for others.
        each.demand.id
        for each in made.placements
        if each.outcome is Outcome.HELD and each.demand.model_key == order.model_key
    ]
    return [waiting[number].span_context for number in causes if number in waiting]
