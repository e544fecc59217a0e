"""What the use cases share: the way to a backend, and the account of every request."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.balancer.attempts import Attempts
from services.balancer.core.demand import Demand
from services.balancer.core.errors import DeadlineUnreachable, QueueFull
from services.balancer.core.requests import Operation
from services.balancer.equipment import Equipment, deadline_is_spent
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

    @contextmanager
    def account(self) -> Iterator[None]:
        """Counts a request and its one outcome."""
        counters = self.fleet.counters
        counters.request_count += 1
        counters.in_flight_count += 1
        now, retries = self.clock.monotonic(), self.equipment.retries
        retries.note_request(now)
        self.equipment.metrics.set_gauge("balancer_retry_budget_ratio", retries.level(now))
        outcome = "error"
        try:
            yield
            outcome = "success"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "deadline" if deadline_is_spent() else "cancelled"
            raise
        except QueueFull:
            outcome = "refused"
            raise
        except DeadlineUnreachable:
            outcome = "deadline"
            raise
        finally:
            counters.in_flight_count -= 1
            counters.cancelled_count += outcome == "cancelled"
            counters.failure_count += outcome in ("error", "deadline", "refused")
            self.equipment.metrics.count("balancer_outcomes_total", outcome)

    def attempts(self, operation: Operation, model: str, demand: Demand) -> Attempts:
        """Opens the attempts of a request, or of one piece of it.

        Args:
            operation: What is asked for.
            model: The model as the caller wrote it.
            demand: What the planner sees.
        """
        return Attempts(self.equipment, operation, model, demand)
