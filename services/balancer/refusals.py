"""Who is refused, and what they are told about when to come again."""

from collections.abc import Callable, Hashable, Mapping

from services.balancer.core.admission import unreachable
from services.balancer.core.demand import Demand
from services.balancer.core.eligibility import kind_of
from services.balancer.core.errors import DeadlineUnreachable, QueueFull
from services.balancer.core.placements import Assessment
from services.balancer.decisions import Decision
from services.balancer.fleet import Counters
from services.balancer.tickets import Ticket, typical_wait, waiting_counts

__all__ = ["Refusals"]


class Refusals:
    """Makes the errors of those who are refused, and counts them.

    Args:
        waiting: The queue, by number.
        counters: The totals of the fleet.
        assess: Says what would become of a request now.
    """

    def __init__(
        self,
        waiting: Mapping[int, Ticket],
        counters: Counters,
        assess: Callable[[Demand], tuple[Decision, Assessment]],
    ) -> None:
        self._waiting = waiting
        self._counters = counters
        self._assess = assess
        self._predicted: dict[tuple[Hashable, ...], float] = {}

    def forget_predictions(self) -> None:
        """Has waits predicted anew, as the whole queue has been looked at."""
        self._predicted.clear()

    def no_room(self, demand: Demand) -> QueueFull:
        """Refuses a request for which there is no place; it may be in the queue, or not yet."""
        return self._full(demand, self._predicted_wait(demand))

    def late(
        self, ticket: Ticket, predicted_seconds: float | None, now: float, *, at_least: bool
    ) -> QueueFull | DeadlineUnreachable | None:
        """Refuses a request that would have to wait for longer than its caller does.

        Args:
            ticket: The request, in the queue.
            predicted_seconds: When its first token will come, from now; None where nobody knows.
            now: Seconds of the monotonic clock.
            at_least: Whether that leaves out some who are served before it.
        """
        demand, maximum = ticket.demand, ticket.demand.maximum_wait_seconds
        if predicted_seconds is not None and unreachable(demand, predicted_seconds, now):
            self._counters.unreachable_deadline_count += 1
            return DeadlineUnreachable(predicted_seconds, (demand.deadline or 0.0) - now)
        if maximum is None or ticket.judged:
            return None
        ticket.judged = not at_least
        wait = self._typical_wait(demand) if predicted_seconds is None else predicted_seconds
        return self._full(demand, wait) if wait > maximum else None

    def _full(self, demand: Demand, wait_seconds: float) -> QueueFull:
        self._counters.refused_count += 1
        priority = demand.priority
        waiting_count = waiting_counts(self._waiting.values())[priority]
        return QueueFull(priority.label, waiting_count, wait_seconds)

    def _predicted_wait(self, demand: Demand) -> float:
        # Whoever floods a queue is refused often: those alike are told the same for a moment.
        alike = (kind_of(demand), demand.priority, demand.tenant)
        if alike not in self._predicted:
            _, assessment = self._assess(demand)
            terms = assessment.placement.terms
            self._predicted[alike] = (
                self._typical_wait(demand) if terms is None else (terms.first_token)
            )
        return self._predicted[alike]

    def _typical_wait(self, demand: Demand) -> float:
        return typical_wait(self._waiting.values(), demand.model_key)
