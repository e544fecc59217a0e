"""What the use cases share: the way to a backend, and the account of every request."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.balancer.attempts import Attempts
from services.balancer.call import Call
from services.balancer.core.demand import Demand
from services.balancer.core.requests import Operation
from services.balancer.equipment import Equipment
from services.balancer.fleet import Fleet
from services.balancer.scheduler import Scheduler
from services.common.clock import Clock

__all__ = ["Dispatcher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """Gives requests to backends.

    Attributes:
        equipment: What all attempts share.
    """

    equipment: Equipment

    @property
    def fleet(self) -> Fleet:
        """The backends."""
        return self.equipment.fleet

    @property
    def scheduler(self) -> Scheduler:
        """The queue."""
        return self.equipment.scheduler

    @property
    def clock(self) -> Clock:
        """Measures durations."""
        return self.equipment.clock

    def arrive(self, operation: Operation) -> Call:
        """Notes the arrival of a call, whose span is the current one; its end must follow.

        Args:
            operation: What is asked for.
        """
        its = self.equipment
        return Call(
            operation,
            clock=its.clock,
            metrics=its.metrics,
            counters=its.fleet.counters,
            retries=its.retries,
        )

    def attempts(
        self, operation: Operation, model: str, demand: Demand, calls: Sequence[Call]
    ) -> Attempts:
        """Opens the attempts of a request, or of one piece of it.

        Args:
            operation: What is asked for.
            model: The model as the caller wrote it.
            demand: What the planner sees.
            calls: The calls that wait for it, the one whose place in the queue it has first;
                others may join.
        """
        return Attempts(self.equipment, operation, model, demand, calls)
