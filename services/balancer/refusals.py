"""Who is refused, and what they are told about when to come again."""

from collections.abc import Callable, Hashable, Mapping

from services.balancer.core.admission import unreachable
from services.balancer.core.demand import Demand
from services.balancer.core.eligibility import kind_of
from services.balancer.core.errors import DeadlineUnreachable, QueueFull
from services.balancer.core.placements import Assessment
from services.balancer.decisions import Decision, DecisionLog
from services.balancer.fleet import Counters
from services.balancer.tickets import Ticket, typical_wait, waiting_counts

__all__ = ["Refusals"]


class Refusals:
    """Makes the errors of those who are refused, and counts them.

    Args:
        waiting: The queue, by number.
        counters: The totals of the fleet.
        decisions: Keeps what was decided, to be explained.
        assess: Says what would become of a request now.
    """

    def __init__(
        self,
        waiting: Mapping[int, Ticket],
        counters: Counters,
        decisions: DecisionLog,
        assess: Callable[[Demand], tuple[Decision, Assessment]],
    ) -> None:
        self._waiting = waiting
        self._counters = counters
        self._decisions = decisions
        self._assess = assess
        self._predicted: dict[tuple[Hashable, ...], tuple[float, str]] = {}

    def forget_predictions(self) -> None:
        """Has waits predicted anew; to be told several times a second."""
        self._predicted.clear()

    def no_room(self, demand: Demand) -> QueueFull:
        """Refuses a request for which there is no place; it may be in the queue, or not yet."""
        return self._full(demand, *self._predicted_wait(demand))

    def late(
        self,
        ticket: Ticket,
        predicted_seconds: float | None,
        now: float,
        decide: Callable[[], Decision],
        *,
        at_least: bool,
    ) -> QueueFull | DeadlineUnreachable | None:
        """Refuses a request that would have to wait for longer than its caller does.

        Args:
            ticket: The request, in the queue.
            predicted_seconds: When its first token will come, from now; None where nobody knows.
            now: Seconds of the monotonic clock.
            decide: Makes the decision that this is.
            at_least: Whether that leaves out some who are served before it.
        """
        demand, maximum = ticket.demand, ticket.demand.maximum_wait_seconds
        if predicted_seconds is not None and unreachable(demand, predicted_seconds, now):
            self._counters.unreachable_deadline_count += 1
            remaining_seconds = (demand.deadline or 0.0) - now
            return DeadlineUnreachable(predicted_seconds, remaining_seconds, self._keep(decide()))
        if maximum is None or ticket.judged:
            return None
        ticket.judged = not at_least
        wait = self._typical_wait(demand) if predicted_seconds is None else predicted_seconds
        if now - ticket.queued_at + wait <= maximum:
            return None
        return self._full(demand, wait, self._keep(decide()))

    def _keep(self, decision: Decision) -> str:
        return self._decisions.keep_refusal(decision)

    def _full(self, demand: Demand, wait_seconds: float, decision_id: str) -> QueueFull:
        self._counters.refused_count += 1
        priority = demand.priority
        waiting_count = waiting_counts(self._waiting.values())[priority]
        return QueueFull(priority.label, waiting_count, wait_seconds, decision_id)

    def _predicted_wait(self, demand: Demand) -> tuple[float, str]:
        """Returns when a first token would come, in seconds, and the id of the decision."""
        # Whoever floods a queue is refused often: those alike are told the same for a moment.
        alike = (kind_of(demand), demand.priority, demand.tenant)
        if alike not in self._predicted:
            decision, assessment = self._assess(demand)
            terms = assessment.placement.terms
            wait = self._typical_wait(demand) if terms is None else terms.first_token
            self._predicted[alike] = wait, self._keep(decision)
        return self._predicted[alike]

    def _typical_wait(self, demand: Demand) -> float:
        return typical_wait(self._waiting.values(), demand.model_key)
