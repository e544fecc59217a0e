"""Which request goes where, and when: a pure function of the fleet, the queue and the instant.

The queue is walked in order of service. Each request is put, tentatively, where it costs least,
with what the walk has put there before it counted in. It is sent only where that place is free
now; else it waits, so that a fast backend that is busy may be preferred to a slow one that is idle,
and those behind it see how many are waiting there already. What is loaded is a cost, never a
condition.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.balancer.core.admission import unreachable
from services.balancer.core.copies import Held, best_copy
from services.balancer.core.cost import Bench, Candidate, Lane
from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.eligibility import (
    RequestKind,
    exclusion_of,
    kind_of,
    misfit,
)
from services.balancer.core.interest import Interest
from services.balancer.core.openings import Opening, openings_of, turning_points
from services.balancer.core.placements import (
    Assessment,
    LoadOrder,
    Outcome,
    Placement,
    Plan,
    Reason,
)
from services.balancer.core.snapshot import Residency, Snapshot
from services.balancer.core.terms import Exclusion

__all__ = [
    "Assessment",
    "LoadOrder",
    "Outcome",
    "Placement",
    "Plan",
    "Reason",
    "assess",
    "plan",
]


def plan(
    snapshot: Snapshot, queue: Sequence[Demand], tie_breaks: Mapping[str, float], *, quick: bool
) -> Plan:
    """Plans.

    Args:
        snapshot: The fleet.
        queue: The requests that wait, in order of service.
        tie_breaks: A random number per backend id, which decides where nothing else does.
        quick: Look only at requests that could be sent now; those that have to wait are left out
            of the plan, and no model is loaded.
    """
    walk = _Walk(snapshot, queue, tie_breaks, quick=quick)
    placements: list[Placement] = []
    turns = {} if quick else turning_points(queue, snapshot.policy.walk_limit)
    for position, demand in enumerate(queue):
        walk.note_openings(turns.get(position, ()))
        if len(placements) == snapshot.policy.walk_limit:
            break
        if demand.expected:
            walk.leave_room(demand)
        elif not quick or walk.could_start(demand):
            placements.append(walk.place(demand, position))
    walk.note_openings(turns.get(len(queue), ()))
    if not quick:
        walk.add_copies()
    return Plan(
        placements=tuple(placements),
        loads=tuple(walk.loads),
        yielding=snapshot.yielding if quick else frozenset(walk.yielding),
        openings=walk.openings,
    )


def assess(
    snapshot: Snapshot,
    queue: Sequence[Demand],
    demand: Demand,
    tie_breaks: Mapping[str, float],
    *,
    behind: Sequence[Demand] = (),
    quick: bool = False,
) -> Assessment:
    """Plans for a queue up to one request, and says what that one would cost where.

    Args:
        snapshot: The fleet.
        queue: The requests before it, in order of service.
        demand: The request.
        tie_breaks: A random number per backend id.
        behind: The requests behind it; which models they want matters.
        quick: As for `plan`.
    """
    walk = _Walk(snapshot, [*queue, demand, *behind], tie_breaks, quick=quick)
    for position, each in enumerate(queue):
        if each.expected:
            walk.leave_room(each)
        elif not quick or walk.could_start(each):
            walk.place(each, position)
    candidates = {bench.view.id: walk.weigh(bench, demand) for bench in walk.benches}
    return Assessment(candidates=candidates, placement=walk.place(demand, len(queue)))


@dataclass(frozen=True, slots=True)
class _Holders:
    """Who has what a demand asks for.

    Attributes:
        serving: Lanes of the backends that take requests.
        failing: Lanes of those that do not, drained ones left out.
        unreached: Those that may have it, since nobody knows what they have.
    """

    serving: tuple[Lane, ...]
    failing: tuple[Lane, ...]
    unreached: tuple[Bench, ...]


class _Walk:
    """The walk through the queue."""

    def __init__(
        self,
        snapshot: Snapshot,
        queue: Sequence[Demand],
        tie_breaks: Mapping[str, float],
        *,
        quick: bool,
    ) -> None:
        self._snapshot = snapshot
        self._policy = snapshot.policy
        self._tie_breaks = tie_breaks
        self._quick = quick
        self._interest = Interest({demand.model_key for demand in queue}, snapshot)
        self.benches = [Bench(view, snapshot, self._interest) for view in snapshot.backends]
        self._turns = {view.id: view.chosen_turn for view in snapshot.backends}
        self._next_turn = max(self._turns.values(), default=0) + 1
        self._holders: dict[RequestKind, _Holders] = {}
        self._full: set[RequestKind] = set()
        self._held: dict[RequestKind, Held] = {}
        self.loads: list[LoadOrder] = []
        self.yielding: set[tuple[str, str]] = set()
        self.openings: dict[RequestKind, tuple[Opening, ...]] = {}
        if quick and snapshot.yielding:
            for bench in self.benches:
                bench.leave_idle(snapshot.yielding)

    def could_start(self, demand: Demand) -> bool:
        """Tells whether anybody has a free slot for a request, or nobody is left for it."""
        kind = kind_of(demand)
        if kind in self._full:
            return False
        holders = self._holders_for(demand)
        if not holders.serving:
            return True
        free = [lane for lane in holders.serving if lane.free]
        if not free:
            # Slots are only taken while the plan is made.
            self._full.add(kind)
        return any(lane.bench.view.id not in demand.tried for lane in free)

    def weigh(self, bench: Bench, demand: Demand) -> Candidate | str:
        """Says what a request would cost on a backend, or why it cannot go there."""
        exclusion = exclusion_of(bench.view, demand)
        if exclusion:
            return exclusion
        lane = bench.lane(demand.model_key)
        return Exclusion.MODEL_ABSENT if lane is None else bench.candidate(demand, lane)

    def leave_room(self, demand: Demand) -> None:
        """Keeps the slot that would cost least for a request that may come, if there is one."""
        found = [
            each
            for lane in self._holders_for(demand).serving
            if isinstance(each := lane.bench.candidate(demand, lane), Candidate)
            and not each.needs_load
        ]
        if found:
            terms, lane = min(
                ((each.terms, each.lane) for each in found), key=lambda each: each[0].cost
            )
            lane.occupy(terms.drain + terms.load, terms.prefill + terms.decode)

    def note_openings(self, demands: Iterable[Demand]) -> None:
        """Notes what is left for those that are served behind others of their kinds."""
        for demand in demands:
            self.openings[kind_of(demand)] = openings_of(self._holders_for(demand).serving)

    def place(self, demand: Demand, position: int) -> Placement:
        """Puts a request where it costs least."""
        lanes = [
            lane
            for lane in self._holders_for(demand).serving
            if lane.bench.view.id not in demand.tried
        ]
        found = _candidates(demand, lanes)
        if not found:
            return self._fall_back(demand, position)
        best, reason = self._choose(found, len(lanes))
        backend_id = best.lane.bench.view.id
        self._take_turn(backend_id)
        return Placement(
            demand=demand,
            outcome=self._settle(demand, best),
            position=position,
            backend_id=backend_id,
            reason=reason,
            terms=best.terms,
        )

    def _holders_for(self, demand: Demand) -> _Holders:
        kind = kind_of(demand)
        holders = self._holders.get(kind)
        if holders is None:
            holders = self._holders[kind] = self._find_holders(demand)
        return holders

    def _find_holders(self, demand: Demand) -> _Holders:
        serving: list[Lane] = []
        failing: list[Lane] = []
        for bench in self.benches:
            unfit = misfit(bench.view, demand)
            lane = None if unfit else bench.lane(demand.model_key)
            if lane is not None:
                (serving if bench.view.takes_requests else failing).append(lane)
        unreached = (
            bench for bench in self.benches if bench.view.models is None and not bench.view.drained
        )
        return _Holders(tuple(serving), tuple(failing), tuple(unreached))

    def _settle(self, demand: Demand, best: Candidate) -> Outcome:
        """Notes in the lanes what has been decided, and says what happens now."""
        lane, terms = best.lane, best.terms
        begins = best.needs_load and self._begin_load(demand, best)
        starts_now = lane.free
        if starts_now and self._is_reserved(demand):
            return Outcome.HELD
        # Who will be refused keeps nobody waiting.
        if starts_now or not unreachable(demand, terms.first_token, self._snapshot.now):
            lane.occupy(terms.drain + terms.load, terms.prefill + terms.decode)
        if best.needs_load:
            return Outcome.LOADING if begins else Outcome.HELD
        if starts_now:
            return Outcome.DISPATCHED
        if terms.load:
            return Outcome.LOADING
        held = Held(demand, self._holders_for(demand).serving)
        self._held.setdefault(kind_of(demand), held).seconds += terms.drain
        return Outcome.HELD

    def _begin_load(self, demand: Demand, best: Candidate) -> bool:
        """Notes that a model is to be loaded, and tells whether that begins now."""
        bench = best.lane.bench
        begins = bench.may_load(best) and not self._quick
        if begins:
            self._order(demand, best)
        elif bench.loading_key is None and best.in_turn:
            self.yielding.update((bench.view.id, key) for key in best.evicted)
        # Also where it cannot begin yet: whoever has to make room is given nothing more, or steady
        # work for it would keep the load away for ever.
        bench.begin_load(best)
        return begins

    def add_copies(self) -> None:
        """Has models loaded for the sake of all who wait for them, where that pays."""
        everybody = self._held.values()
        for held in sorted(everybody, key=lambda each: -each.seconds):
            best = best_copy(held, everybody, self._interest, self._snapshot)
            if best is not None:
                self._begin_load(held.demand, best)

    def _order(self, demand: Demand, best: Candidate) -> None:
        bench, lane = best.lane.bench, best.lane
        context = 0
        if demand.context_token_count:
            context = self._policy.context_class(demand.context_token_count)
            if lane.model.maximum_context_token_count:
                context = min(context, lane.model.maximum_context_token_count)
        self.loads.append(
            LoadOrder(
                backend_id=bench.view.id,
                model_key=lane.key,
                evicted_keys=best.evicted,
                context_token_count=context,
                predicted_seconds=best.terms.load,
                embeds=demand.kind is Kind.EMBED,
            )
        )

    def _is_reserved(self, demand: Demand) -> bool:
        """Tells whether batch work would take the last free slot from interactive work."""
        if demand.priority is not Priority.BATCH:
            return False
        snapshot, reserve_seconds = self._snapshot, self._policy.reserve_seconds
        if demand.arrived_at <= snapshot.now - 2 * reserve_seconds:
            return False
        came_at = snapshot.interactive_at.get(demand.model_key)
        if came_at is None or came_at <= snapshot.now - reserve_seconds:
            return False
        warm = [
            lane
            for lane in self._holders_for(demand).serving
            if lane.residency is Residency.WARM and not lane.yielding
        ]
        slot_count = sum(lane.model.slot_count for lane in warm)
        free_count = slot_count - sum(lane.occupied_count for lane in warm)
        return slot_count > 1 and free_count <= 1

    def _choose(self, found: list[Candidate], lane_count: int) -> tuple[Candidate, Reason]:
        if lane_count == 1:
            return found[0], Reason.ONLY_CANDIDATE
        costs = [each.terms.cost for each in found]
        least = min(costs)
        limit = least + max(self._policy.tie_seconds, least * self._policy.tie_ratio)
        tied = [each for each, cost in zip(found, costs, strict=True) if cost <= limit]
        # A load is work for the whole backend: never for the sake of a tie.
        tied = [each for each in tied if not each.needs_load] or tied
        if len(tied) == 1:
            return tied[0], Reason.LOWEST_COST
        chosen = min(tied, key=self._rank)
        shortest = min(each.hit_token_count for each in tied)
        longer = chosen.hit_token_count > shortest
        return chosen, Reason.LONGEST_PREFIX if longer else Reason.LEAST_BUSY

    def _rank(self, candidate: Candidate) -> tuple[bool, int, int, int, float]:
        """Orders equals: who can start now; longer prefix; fewer in flight; least recent."""
        bench = candidate.lane.bench
        return (
            not candidate.lane.free,
            -candidate.hit_token_count,
            bench.occupied_count,
            self._turns[bench.view.id],
            self._tie_breaks.get(bench.view.id, 0.0),
        )

    def _take_turn(self, backend_id: str) -> None:
        self._turns[backend_id] = self._next_turn
        self._next_turn += 1

    def _fall_back(self, demand: Demand, position: int) -> Placement:
        """Takes turns among those that take no requests where nobody does who has the model."""
        holders, tried = self._holders_for(demand), demand.tried
        if holders.serving:
            # If one is left, it lacks room for now, or a load there has failed lately.
            left = any(lane.bench.view.id not in tried for lane in holders.serving)
            outcome = Outcome.HELD if left else Outcome.EXHAUSTED
            return Placement(demand=demand, outcome=outcome, position=position)
        failing = [lane for lane in holders.failing if lane.bench.view.id not in tried]
        unreached = [bench for bench in holders.unreached if bench.view.id not in tried]
        if not failing and not unreached:
            return Placement(demand=demand, outcome=Outcome.EXHAUSTED, position=position)
        open_lanes = [lane for lane in failing if lane.occupied_count < lane.model.slot_count]
        if failing and not open_lanes:
            return Placement(demand=demand, outcome=Outcome.HELD, position=position)
        benches = [lane.bench for lane in open_lanes] or unreached
        chosen = min(benches, key=lambda each: (self._turns[each.view.id], each.view.id))
        lane = chosen.lane(demand.model_key)
        if lane is not None:
            lane.occupy(0.0, self._policy.retry_seconds)
        self._take_turn(chosen.view.id)
        return Placement(
            demand=demand,
            outcome=Outcome.DISPATCHED,
            position=position,
            backend_id=chosen.view.id,
            reason=Reason.ROUND_ROBIN_FALLBACK,
        )


def _candidates(demand: Demand, lanes: Sequence[Lane]) -> list[Candidate]:
    """Says what a request would cost where, as far as it can make a difference."""
    found: list[Candidate] = []
    loads: list[Lane] = []
    for lane in lanes:
        if lane.bench.must_load(demand, lane):
            loads.append(lane)
        else:
            found.append(lane.bench.candidate_as_is(demand, lane))
    if not loads:
        return found
    least = min((each.terms.cost for each in found), default=math.inf)
    # What to unload for a model takes longer to find out than all the rest, and is no matter where
    # loading alone takes longer than waiting for somebody who has it.
    to_load = [
        lane.bench.candidate_to_load(demand, lane)
        for lane in loads
        if lane.model.load_seconds < least
    ]
    return found + [each for each in to_load if isinstance(each, Candidate)]
