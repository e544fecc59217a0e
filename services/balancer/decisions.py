"""The planner's decisions of late, kept so that each can be made again and explained."""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.balancer.core.demand import Demand
from services.balancer.core.errors import DecisionNotFound
from services.balancer.core.plan import Assessment, assess
from services.balancer.core.snapshot import Snapshot
from services.common.clock import Clock

__all__ = ["Decision", "DecisionLog"]

_KEPT_DECISIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision, with all that it was made from, so that it can be made again.

    Attributes:
        id: Its id.
        decided_at: When, seconds since the epoch.
        snapshot: The fleet as it was.
        queue: The requests before it, in order of service.
        demand: The request.
        behind: The requests behind it.
        tie_breaks: The random numbers used.
        quick: Whether only those were looked at that could be sent.
    """

    id: str
    decided_at: float
    snapshot: Snapshot
    queue: tuple[Demand, ...]
    demand: Demand
    behind: tuple[Demand, ...]
    tie_breaks: Mapping[str, float]
    quick: bool

    def assess(self) -> Assessment:
        """Makes the decision again."""
        return assess(
            self.snapshot,
            self.queue,
            self.demand,
            self.tie_breaks,
            behind=self.behind,
            quick=self.quick,
        )


class DecisionLog:
    """Keeps the last decisions.

    Args:
        prefix: What their ids begin with, so that no other replica has the same.
        clock: Says when they were made.
    """

    def __init__(self, prefix: str, clock: Clock) -> None:
        self._prefix = prefix
        self._clock = clock
        self._numbers = itertools.count(1)
        self._decisions: OrderedDict[str, Decision] = OrderedDict()

    def keep(
        self,
        snapshot: Snapshot,
        order: Sequence[Demand],
        position: int,
        tie_breaks: Mapping[str, float],
        *,
        quick: bool,
    ) -> Decision:
        """Keeps a decision.

        Args:
            snapshot: The fleet as it was.
            order: The queue, in order of service.
            position: Which of them was decided on.
            tie_breaks: The random numbers used.
            quick: Whether only those were looked at that could be sent.
        """
        id_ = f"{self._prefix}-{next(self._numbers)}"
        decision = self.make(snapshot, order, position, tie_breaks, quick=quick, id_=id_)
        self._decisions[id_] = decision
        if len(self._decisions) > _KEPT_DECISIONS:
            self._decisions.popitem(last=False)
        return decision

    def make(
        self,
        snapshot: Snapshot,
        order: Sequence[Demand],
        position: int,
        tie_breaks: Mapping[str, float],
        *,
        quick: bool = False,
        id_: str = "",
    ) -> Decision:
        """Makes a decision that is not kept; the arguments are those of `keep`."""
        return Decision(
            id=id_,
            decided_at=self._clock.now(),
            snapshot=snapshot,
            queue=tuple(order[:position]),
            demand=order[position],
            behind=tuple(order[position + 1 :]),
            tie_breaks=tie_breaks,
            quick=quick,
        )

    def find(self, decision_id: str) -> Decision:
        """Returns a decision.

        Raises:
            DecisionNotFound: It is not known, or too old.
        """
        try:
            return self._decisions[decision_id]
        except KeyError:
            raise DecisionNotFound(decision_id) from None
