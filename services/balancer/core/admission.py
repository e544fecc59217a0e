"""What may wait, and what has to go for it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from services.balancer.core.demand import Demand, Priority

__all__ = [
    "Admitted",
    "Full",
    "QueueLimit",
    "QueueLimits",
    "admit",
    "to_shed",
    "unreachable",
]

# Predictions are off by a third. To refuse what would have made it is worse than to find out
# some seconds later, when the queue is looked through again with better predictions.
_PREDICTION_TRUST_RATIO = 0.7


class QueueLimit(Enum):
    """What may be full; the values serve as labels of metrics."""

    CLASS = "class"
    """The places of the class, or those that it shares with lower classes."""
    TENANT = "tenant"
    """The tenant's share of the places of the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much may wait.

    Attributes:
        system: Places for system requests.
        interactive: Places for interactive requests.
        batch: Places for batch requests.
        tenant_share_ratio: Share of a class's places that one tenant may hold while others wait
            in that class, (0, 1].
    """

    system: int = 64
    interactive: int = 256
    batch: int = 512
    tenant_share_ratio: float = 0.5

    def places(self, priority: Priority) -> int:
        """Returns how many requests of a class may wait."""
        return (self.system, self.interactive, self.batch)[priority]

    def tenant_places(self, priority: Priority) -> int:
        """Returns how many requests of a class one tenant may have waiting beside others."""
        return max(1, int(self.places(priority) * self.tenant_share_ratio))


@dataclass(frozen=True, slots=True)
class Admitted:
    """There is a place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Full:
    """There is no place.

    Attributes:
        limit: What is full. A full class may make room (`to_shed`); a tenant's share does not.
    """

    limit: QueueLimit


def admit(
    waiting_counts: Mapping[Priority, int],
    tenant_waiting_count: int,
    demand: Demand,
    limits: QueueLimits,
) -> Admitted | Full:
    """Says whether a request may wait.

    A class that has displaced requests of a lower one keeps their places for as long as it needs
    them: for each class, it and the lower ones together never have more than their places.

    Args:
        waiting_counts: How many requests wait, by class.
        tenant_waiting_count: How many of the demand's class are of its tenant.
        demand: The request.
        limits: How much may wait.
    """
    priority = demand.priority
    share = limits.tenant_places(priority)
    others_wait = waiting_counts.get(priority, 0) > tenant_waiting_count
    if tenant_waiting_count >= share and others_wait:
        return Full(limit=QueueLimit.TENANT)
    if _is_full(waiting_counts, priority, limits):
        return Full(limit=QueueLimit.CLASS)
    return Admitted()


def _is_full(counts: Mapping[Priority, int], priority: Priority, limits: QueueLimits) -> bool:
    if counts.get(priority, 0) >= limits.places(priority):
        return True
    waiting = places = 0
    for each in reversed(Priority):
        waiting += counts.get(each, 0)
        places += limits.places(each)
        if each <= priority and waiting >= places:
            return True
    return False


def to_shed(waiting: Sequence[Demand], limits: QueueLimits, demand: Demand) -> Demand | None:
    """Says who has to go so that a request whose class is full may wait all the same.

    That is the youngest request (it has waited least) of the tenant that has most waiting: in the
    request's own class where that tenant holds more than its share; else among batch requests, if
    the request is of a higher class; else in its own class, where the tenant has at least two more
    waiting than the request's. A tenant that holds its share of the class displaces only batch
    requests of its own.

    Args:
        waiting: The queue.
        limits: How much may wait.
        demand: The request, for which `admit` has found its class full.
    """
    peers = [each for each in waiting if each.priority is demand.priority]
    counts = Counter(each.tenant for each in peers)
    share = limits.tenant_places(demand.priority)
    own_count = counts[demand.tenant]
    most = max(counts.values(), default=0)
    if own_count < share < most:
        return _youngest_of_largest(peers)
    if demand.priority < Priority.BATCH:
        batch = [each for each in waiting if each.priority is Priority.BATCH]
        if own_count >= share:
            batch = [each for each in batch if each.tenant == demand.tenant]
        if batch:
            return _youngest_of_largest(batch)
    return _youngest_of_largest(peers) if own_count + 1 < most else None


def _youngest_of_largest(candidates: Sequence[Demand]) -> Demand:
    counts = Counter(each.tenant for each in candidates)
    return max(candidates, key=lambda each: (counts[each.tenant], each.arrived_at, each.id))


def unreachable(demand: Demand, predicted_first_token_seconds: float, now: float) -> bool:
    """Tells whether a request cannot be answered before its caller gives up.

    Args:
        demand: The request.
        predicted_first_token_seconds: How long its first token, or its vectors, are predicted to
            take from now.
        now: Seconds of the monotonic clock.
    """
    if demand.deadline is None:
        return False
    remaining_seconds = demand.deadline - now
    shortest_seconds = predicted_first_token_seconds * _PREDICTION_TRUST_RATIO
    return remaining_seconds <= 0 or shortest_seconds > remaining_seconds
