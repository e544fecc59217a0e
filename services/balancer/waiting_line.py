"""In which order those who wait are looked at, and for whom room is kept that are yet to come."""

from collections import Counter
from collections.abc import Sequence

from services.balancer.core.demand import Demand
from services.balancer.core.fairness import FairShares, service_order
from services.balancer.core.headroom import Headroom
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import takes_requests
from services.balancer.fleet import Fleet

__all__ = ["WaitingLine"]


class WaitingLine:
    """Puts those who wait in order.

    Args:
        fleet: The backends.
        shares: What each tenant has had.
    """

    def __init__(self, fleet: Fleet, shares: FairShares) -> None:
        self._fleet = fleet
        self._shares = shares
        self._headroom = Headroom()

    def observe(self, waiting: Sequence[Demand], now: float) -> None:
        """Takes in who is there; to be told several times a second.

        Args:
            waiting: The requests in the queue.
            now: Seconds of the monotonic clock.
        """
        self._headroom.observe([*waiting, *self._running()], now)

    def order(self, waiting: list[Demand], now: float) -> list[Demand]:
        """Returns the queue in order of service, with requests that are `expected` only.

        Args:
            waiting: The requests in the queue, in any order.
            now: Seconds of the monotonic clock.
        """
        ordered = waiting
        if len(waiting) > 1:
            limit = self._fleet.policy.walk_limit
            ordered = service_order(waiting, self._shares, now, limit=limit)
        if waiting and self._headroom.contested:
            return self._headroom.leave(ordered, self._running(), self._slot_counts())
        return ordered

    def _running(self) -> list[Demand]:
        return [
            each.demand
            for backend in self._fleet.backends.values()
            for each in backend.occupancies()
            if not each.zombie
        ]

    def _slot_counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for backend in self._fleet.backends.values():
            if takes_requests(backend.standing):
                for key, state in (backend.models or {}).items():
                    if state.residency is Residency.WARM:
                        counts[key] += state.slot_count
        return counts
