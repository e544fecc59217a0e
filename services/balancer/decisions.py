"""The planner's decisions of late, kept so that each can be made again and explained."""

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from services.balancer.core.demand import Demand
from services.balancer.core.errors import DecisionNotFound
from services.balancer.core.plan import Assessment, assess
from services.balancer.core.snapshot import Snapshot
from services.common.clock import Clock

__all__ = ["Decision", "DecisionLog", "Occasion"]

_KEPT_DECISIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a plan is made from, and decides many a request by.

    Attributes:
        snapshot: The fleet as it was.
        queue: The queue, in order of service.
        tie_breaks: The random numbers used.
        quick: Whether only those were looked at that could be sent.
    """

    snapshot: Snapshot
    queue: Sequence[Demand]
    tie_breaks: Mapping[str, float]
    quick: bool = False


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
        refused: Whether the request was refused, as its place was not good enough, or as there was
            no room for it.
    """

    id: str
    decided_at: float
    snapshot: Snapshot
    queue: tuple[Demand, ...]
    demand: Demand
    behind: tuple[Demand, ...]
    tie_breaks: Mapping[str, float]
    quick: bool
    refused: bool = False

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

    def note(self, occasion: Occasion, demand: Demand, position: int) -> str:
        """Makes a decision, keeps it, and returns the id that it is found by.

        The arguments are those of `make`.
        """
        id_ = self._new_id()
        self._keep(self.make(occasion, demand, position, id_))
        return id_

    def keep_refusal(self, decision: Decision) -> str:
        """Keeps the decision to refuse a request, and returns the id that it is found by.

        Args:
            decision: What was decided.
        """
        id_ = self._new_id()
        self._keep(replace(decision, id=id_, refused=True))
        return id_

    def _new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def _keep(self, decision: Decision) -> None:
        self._decisions[decision.id] = decision
        if len(self._decisions) > _KEPT_DECISIONS:
            self._decisions.popitem(last=False)

    def make(self, occasion: Occasion, demand: Demand, position: int, id_: str = "") -> Decision:
        """Makes a decision that is not kept.

        Args:
            occasion: What it is made from.
            demand: The request that was decided on.
            position: Its place in the queue; the length of the queue where it is behind.
            id_: Its id.
        """
        queue = occasion.queue
        return Decision(
            id=id_,
            decided_at=self._clock.now(),
            snapshot=occasion.snapshot,
            queue=tuple(queue[:position]),
            demand=demand,
            behind=tuple(queue[position + 1 :]),
            tie_breaks=occasion.tie_breaks,
            quick=occasion.quick,
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
