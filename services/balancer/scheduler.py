"""The one queue of the balancer: requests wait here until the planner finds their place free.

Nothing is decided when a request comes and nothing waits at a backend, where it could neither be
moved nor ordered: at each event (a request comes or leaves, a slot falls free, a model is loaded,
health changes, a tenth of a second has passed) the planner looks at the whole queue anew.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random

from opentelemetry import trace
from opentelemetry.trace import SpanContext

from services.balancer.backend import Backend, ModelState
from services.balancer.core.admission import (
    Full,
    QueueLimit,
    QueueLimits,
    admit,
    to_shed,
)
from services.balancer.core.demand import Demand, Priority
from services.balancer.core.eligibility import kind_of
from services.balancer.core.errors import AllAttemptsFailed
from services.balancer.core.fairness import FairShares
from services.balancer.core.openings import earliest_first_token
from services.balancer.core.plan import (
    Assessment,
    LoadOrder,
    Outcome,
    Placement,
    Plan,
    Reason,
    plan,
)
from services.balancer.core.shares import Reservations
from services.balancer.decisions import Decision, DecisionLog, Occasion
from services.balancer.fleet import Fleet
from services.balancer.refusals import Refusals
from services.balancer.tickets import (
    Grant,
    Ticket,
    callers_of,
    longest_waits,
    waiting_counts,
)
from services.balancer.waiting_line import WaitingLine
from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.metrics import Metrics

__all__ = ["Scheduler"]

_logger = logging.getLogger(__name__)

# Up to so many requests in the queue, a request that comes makes the planner look at all of them.
_SHORT_QUEUE = 16
# A model that has no room anywhere, not even in prospect, will hardly get any.
_LONGEST_HOMELESS_SECONDS = 60.0


class Scheduler:
    """The queue and its planner.

    Args:
        fleet: The backends.
        reservations: What the replicas of the balancer hold together.
        clock: Measures waits.
        rng: Decides where nothing else does.
        metrics: Receives what waits took.
        limits: How many requests may wait.
        tick_seconds: How often the queue is looked at where nothing happens.
    """

    def __init__(
        self,
        fleet: Fleet,
        reservations: Reservations,
        *,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
        limits: QueueLimits,
        tick_seconds: float = 0.1,
    ) -> None:
        self._fleet = fleet
        self._reservations = reservations
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self.limits = limits
        self._tick_seconds = tick_seconds
        self.shares = FairShares()
        self._line = WaitingLine(fleet, self.shares)
        self.begin_load: Callable[[LoadOrder, Sequence[SpanContext]], object] = _ignore
        """Called for each model to be loaded, with the calls that wait for it; set by whoever
        loads."""
        self.look: Callable[[Backend], object] = _ignore
        """Called where others have changed what is in memory; set by whoever lists it."""
        self._waiting: dict[int, Ticket] = {}
        self._last_failures: dict[int, str] = {}
        self._ids = itertools.count(1)
        self.decisions = DecisionLog(f"{rng.getrandbits(24):06x}", clock)
        self._refusals = Refusals(self._waiting, fleet.counters, self.decisions, self.assess)
        self._replan_due = False
        self._claims: set[asyncio.Task[None]] = set()
        fleet.changed = self.wake
        reservations.watch(self._note_others)

    def new_id(self) -> int:
        """Returns a number for a request."""
        return next(self._ids)

    def waiting_counts(self) -> dict[Priority, int]:
        """Returns how many requests wait, by priority."""
        return waiting_counts(self._waiting.values())

    def longest_waits(self) -> dict[Priority, float]:
        """Returns how long the oldest request of each priority has waited, in seconds."""
        return longest_waits(self._waiting.values(), self._clock.monotonic())

    async def take(self, demand: Demand, last_failure: str = "") -> Grant:
        """Waits for a slot.

        Args:
            demand: The request.
            last_failure: What the attempt before said; empty at the first.

        Raises:
            QueueFull: The queue is full, or the wait would be longer than accepted.
            DeadlineUnreachable: The deadline cannot be met.
            AllAttemptsFailed: No backend is left to try.
        """
        if not demand.tried:
            self._admit(demand)
        now = self._clock.monotonic()
        if demand.priority is not Priority.BATCH:
            self._fleet.interactive_at[demand.model_key] = now
        ticket = Ticket(
            demand=demand,
            granted=asyncio.get_running_loop().create_future(),
            queued_at=now,
            span_context=trace.get_current_span().get_span_context(),
        )
        self._last_failures[demand.id] = last_failure
        self._waiting[demand.id] = ticket
        self._metrics.add_gauge("balancer_queue_depth", 1, demand.priority.label)
        try:
            self._plan(quick=len(self._waiting) > _SHORT_QUEUE)
            return await ticket.granted
        except asyncio.CancelledError:
            granted = ticket.granted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.release(granted.result())
            raise
        finally:
            self._metrics.add_gauge("balancer_queue_depth", -1, demand.priority.label)
            self._waiting.pop(demand.id, None)
            self._last_failures.pop(demand.id, None)

    def is_waiting(self, number: int) -> bool:
        """Tells whether a request is in the queue and no slot has been found for it yet."""
        ticket = self._waiting.get(number)
        return ticket is not None and not ticket.claiming and not ticket.granted.done()

    def withdraw(self, number: int, model: ModelState) -> float:
        """Takes a request that `is_waiting` out of the queue, because it shares another's slot.

        Whoever waits for its slot has to be cancelled.

        Args:
            number: The request.
            model: The model by which it is served.

        Returns:
            How long it has waited in the queue, in seconds, load excluded.
        """
        ticket = self._waiting.pop(number)
        seconds, _ = ticket.waited(model, self._clock.monotonic())
        self._note_wait(ticket.demand, seconds)
        return seconds

    def _note_wait(self, demand: Demand, seconds: float) -> None:
        self._metrics.observe("balancer_queue_wait_seconds", seconds, demand.priority.label)

    def release(self, grant: Grant) -> None:
        """Gives a slot back."""
        if grant.token is not None:
            self._reservations.release(grant.token)
        self._fleet.vacate(grant.occupancy)

    def wake(self) -> None:
        """Has the queue looked at soon, because something has happened."""
        if not self._replan_due and self._waiting:
            self._replan_due = True
            asyncio.get_running_loop().call_soon(self._replan)

    def _note_others(self) -> None:
        """Another replica has given a slot back, or taken one, or loads a model."""
        for backend in self._fleet.note_others():
            self.look(backend)
        self.wake()

    def _replan(self) -> None:
        self._replan_due = False
        self._plan(quick=len(self._waiting) > _SHORT_QUEUE)

    async def run(self) -> None:
        """Looks at the queue whenever some time has passed, until cancelled."""
        while True:
            await self._clock.sleep(self._tick_seconds)
            self._fleet.refresh()
            self._refusals.forget_predictions()
            waiting = [each.demand for each in self._waiting.values()]
            self._line.observe(waiting, self._clock.monotonic())
            if self._waiting:
                self._plan(quick=False)

    def fail_waiting(self, model_key: str, backend_id: str, failure: str) -> None:
        """Has requests that wait for a model look elsewhere, as a load of it has failed.

        Args:
            model_key: The model.
            backend_id: Where its load failed.
            failure: What was said.
        """
        backend = self._fleet.backends.get(backend_id)
        models = (backend.models if backend is not None else None) or {}
        names = models[model_key].names if model_key in models else (model_key,)
        for ticket in self._waiting.values():
            if ticket.demand.model_key in names and not ticket.claiming:
                tried = ticket.demand.tried | {backend_id}
                ticket.demand = replace(ticket.demand, tried=tried)
                self._last_failures[ticket.demand.id] = f"{backend_id}: {failure}"
        self.wake()

    def assess(self, demand: Demand) -> tuple[Decision, Assessment]:
        """Says what would become of a request now, without giving it anything."""
        order = self._order(*(() if demand.id in self._waiting else (demand,)))
        occasion = Occasion(snapshot=self._fleet.snapshot(), queue=order, tie_breaks={})
        # It may be so far behind that nobody looks at it yet.
        position = order.index(demand) if demand in order else len(order)
        decision = self.decisions.make(occasion, demand, position)
        return decision, decision.assess()

    # Admission.

    def _admit(self, demand: Demand) -> None:
        waiting = [each.demand for each in self._waiting.values()]
        tenants = {each.tenant for each in waiting}
        if demand.tenant not in tenants:
            self.shares.activate(demand.tenant, tenants, self._clock.monotonic())
        counts = self.waiting_counts()
        tenant_count = sum(
            each.tenant == demand.tenant and each.priority is demand.priority for each in waiting
        )
        verdict = admit(counts, tenant_count, demand, self.limits)
        if not isinstance(verdict, Full):
            return
        is_class = verdict.limit is QueueLimit.CLASS
        shed = to_shed(waiting, self.limits, demand) if is_class else None
        if shed is None:
            raise self._refusals.no_room(demand)
        self._end(self._waiting[shed.id], self._refusals.no_room(shed))

    # Planning.

    def _order(self, *hypothetical: Demand) -> list[Demand]:
        waiting = [each.demand for each in self._waiting.values() if not each.claiming]
        return self._line.order([*waiting, *hypothetical], self._clock.monotonic())

    def _plan(self, *, quick: bool) -> None:
        order = self._order()
        if not order:
            return
        snapshot = self._fleet.snapshot()
        tie_breaks = {each.id: self._rng.random() for each in snapshot.backends}
        occasion = Occasion(snapshot=snapshot, queue=order, tie_breaks=tie_breaks, quick=quick)
        made = plan(snapshot, order, tie_breaks, quick=quick)
        self._fleet.yielding = made.yielding
        for placement in made.placements:
            self._apply(placement, occasion)
        self._judge_others(made, occasion)
        self._order_loads(made)

    def _order_loads(self, made: Plan) -> None:
        for order in made.loads:
            backend = self._fleet.backends[order.backend_id]
            if backend.loading_key is None:
                self.begin_load(order, callers_of(order, made, self._waiting))

    def _apply(self, placement: Placement, occasion: Occasion) -> None:
        ticket = self._waiting[placement.demand.id]
        if ticket.granted.done():
            return
        ticket.placement = placement
        now, position = occasion.snapshot.now, placement.position
        if not occasion.quick or placement.outcome is Outcome.DISPATCHED:
            ticket.foresee(placement, now)
        waited = now - ticket.queued_at
        homeless = placement.backend_id is None and waited > _LONGEST_HOMELESS_SECONDS
        if placement.outcome is Outcome.EXHAUSTED or homeless:
            self._end(ticket, self._exhausted(ticket.demand))
        elif placement.outcome is Outcome.DISPATCHED:
            decision_id = self.decisions.note(occasion, ticket.demand, position)
            self._dispatch(ticket, placement, decision_id)
        else:
            terms = placement.terms
            predicted = None if terms is None else terms.first_token
            self._judge(ticket, predicted, occasion, position, at_least=occasion.quick)

    def _judge(
        self,
        ticket: Ticket,
        predicted_seconds: float | None,
        occasion: Occasion,
        position: int,
        *,
        at_least: bool,
    ) -> None:
        decide = partial(self.decisions.make, occasion, ticket.demand, position)
        now = occasion.snapshot.now
        error = self._refusals.late(ticket, predicted_seconds, now, decide, at_least=at_least)
        if error is not None:
            self._end(ticket, error)

    def _judge_others(self, made: Plan, occasion: Occasion) -> None:
        """Refuses those for whom, although the plan has not come to them, it will be too late."""
        now, position = occasion.snapshot.now, len(occasion.queue)
        placed = {each.demand.id for each in made.placements}
        for ticket in list(self._waiting.values()):
            demand = ticket.demand
            if demand.id in placed or ticket.claiming:
                continue
            openings = made.openings.get(kind_of(demand), ())
            predicted = earliest_first_token(demand, openings, now)
            if predicted is not None:
                self._judge(ticket, predicted, occasion, position, at_least=True)

    def _exhausted(self, demand: Demand) -> AllAttemptsFailed:
        failure = self._last_failures.get(demand.id) or "no backend with the model takes requests"
        return AllAttemptsFailed(demand.model_key, len(demand.tried), failure)

    # Giving out slots.

    def _dispatch(self, ticket: Ticket, placement: Placement, decision_id: str) -> None:
        backend = self._fleet.backends[placement.backend_id or ""]
        model = self._fleet.model_of(backend, ticket.demand.model_key)
        occupancy = self._fleet.occupy(backend, model, ticket.demand, placement.terms)
        terms = placement.terms
        queue_seconds, load_seconds = ticket.waited(model, self._clock.monotonic())
        grant = Grant(
            occupancy=occupancy,
            backend=backend,
            model=model,
            reason=placement.reason or Reason.ONLY_CANDIDATE,
            decision_id=decision_id,
            queue_seconds=queue_seconds,
            load_seconds=load_seconds,
            predicted_first_token_seconds=terms.first_token if terms else 0.0,
            foreseen_first_token_at=ticket.foreseen_first_token_at,
        )
        reservations = self._reservations
        if not reservations.shared or placement.reason is Reason.ROUND_ROBIN_FALLBACK:
            self._grant(ticket, grant)
        elif reservations.immediate:
            token = reservations.try_take(backend.id, model.key, model.slot_count)
            self._finish_claim(ticket, grant, token)
        else:
            ticket.claiming = True
            task = asyncio.get_running_loop().create_task(self._claim(ticket, grant))
            self._claims.add(task)
            task.add_done_callback(self._claims.discard)

    async def _claim(self, ticket: Ticket, grant: Grant) -> None:
        """Reserves the slot with the other replicas; if they were quicker, it is planned anew."""
        model = grant.model
        token = None
        try:
            token = await self._reservations.take(grant.backend.id, model.key, model.slot_count)
        finally:
            ticket.claiming = False
            self._finish_claim(ticket, grant, token)

    def _finish_claim(self, ticket: Ticket, grant: Grant, token: str | None) -> None:
        if token is None:
            self._metrics.count("balancer_reservations_lost_total")
            self._fleet.forget_views()
            self._fleet.vacate(grant.occupancy)
        else:
            self._grant(ticket, replace(grant, token=token))

    def _grant(self, ticket: Ticket, grant: Grant) -> None:
        demand = ticket.demand
        self.shares.serve(demand, self._clock.monotonic())
        self._note_wait(demand, grant.queue_seconds)
        self._waiting.pop(demand.id, None)
        if ticket.granted.done():
            self.release(grant)
        else:
            ticket.granted.set_result(grant)

    def _end(self, ticket: Ticket, error: ServiceError) -> None:
        self._waiting.pop(ticket.demand.id, None)
        if not ticket.granted.done():
            ticket.granted.set_exception(error)


def _ignore(*_: object) -> None:
    pass
