"""Further copies of models, loaded for the sake of all who wait for them.

One request rather waits for its turn than for a load, as long as its turn comes sooner. But a load
serves all who wait, and those who are to come: where their waits together are much longer than the
load, it pays, although none of them would ask for it.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from services.balancer.core.cost import Candidate, Lane
from services.balancer.core.demand import Demand
from services.balancer.core.interest import Interest
from services.balancer.core.models import Capability
from services.balancer.core.snapshot import Residency, Snapshot

__all__ = ["Held", "best_copy"]


@dataclass(slots=True)
class Held:
    """Requests for a model that wait for slots where it is in memory.

    Attributes:
        demand: The first of them.
        lanes: The model on all backends that could serve them.
        seconds: What they wait together.
    """

    demand: Demand
    lanes: Collection[Lane]
    seconds: float = 0.0

    def rate_without(self, lane: Lane) -> float:
        """Returns how fast all copies but one are together, in tokens per second."""
        return sum(
            _rate(each)
            for each in self.lanes
            if each is not lane and each.residency is Residency.WARM and not each.yielding
        )


def best_copy(
    held: Held, everybody: Collection[Held], interest: Interest, snapshot: Snapshot
) -> Candidate | None:
    """Returns where a further copy saves most; None where it does nowhere, or one is on its way.

    Args:
        held: Who waits for it.
        everybody: Who waits for any model.
        interest: How many copies of each model there are.
        snapshot: The fleet.
    """
    if any(lane.residency is Residency.LOADING for lane in held.lanes):
        return None
    best, most = None, 0.0
    for lane in held.lanes:
        if lane.residency is not Residency.INSTALLED:
            continue
        candidate = lane.bench.candidate(held.demand, lane)
        if isinstance(candidate, Candidate):
            gained = _gain(held, candidate, everybody, interest, snapshot)
            if gained > most:
                best, most = candidate, gained
    return best


def _gain(
    held: Held,
    candidate: Candidate,
    everybody: Collection[Held],
    interest: Interest,
    snapshot: Snapshot,
) -> float:
    """Returns the seconds that a load saves those who wait, less what it takes.

    Waits are taken to shrink, and those for models that go to grow, in proportion to the rate of
    all copies together; so no two models can each gain by taking the other's place.
    """
    terms, lane = candidate.terms, candidate.lane
    own = _rate(lane)
    saved = held.seconds * own / (own + held.rate_without(lane))
    evicted = (lane.bench.lane(key) for key in candidate.evicted)
    lost = sum(_loss(each, everybody, interest, snapshot) for each in evicted if each is not None)
    gained = snapshot.policy.copy_gain_ratio * (saved - lost - terms.risk)
    return gained - terms.drain - terms.load


def _loss(lane: Lane, everybody: Collection[Held], interest: Interest, snapshot: Snapshot) -> float:
    """Returns how much longer those wait for a model who wait for it when a copy is gone."""
    if interest.is_only_copy(lane.key):
        # Whoever comes next would have to wait until it is back.
        idle_seconds = snapshot.now - lane.model.used_at
        return math.inf if idle_seconds < snapshot.policy.eviction_memory_seconds else 0.0
    lost = 0.0
    for held in everybody:
        if held.demand.model_key in lane.keys:
            rate = held.rate_without(lane)
            lost += held.seconds * _rate(lane) / rate if rate else math.inf
    return lost


def _rate(lane: Lane) -> float:
    """Returns how fast a model works on a backend, in tokens per second."""
    if lane.model.can(Capability.COMPLETION):
        return lane.model.decode_rate(1)
    return lane.model.prefill_rate
