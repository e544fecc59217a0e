"""One call for text or vectors: its one outcome, where its time goes, what its span says of it."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Self

from opentelemetry import trace

from services.balancer.core.budgets import RatioBudget
from services.balancer.core.errors import QueueFull
from services.balancer.core.outcomes import RequestOutcome
from services.balancer.core.requests import Operation
from services.balancer.equipment import deadline_is_spent
from services.balancer.fleet import Counters
from services.common.clock import Clock
from services.common.errors import ServiceError, StatusCode
from services.common.metrics import Metrics

__all__ = ["Call", "Waits", "waiting"]

_FAILURES = frozenset(RequestOutcome) - {RequestOutcome.SUCCESS, RequestOutcome.CANCELLED}
_CALLERS_FAULTS = (
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.FAILED_PRECONDITION,
)


class Waits:
    """The time in which a call waits for others, at one place or at several at once.

    As a context manager, which may be entered again before it is left, it stands for such a time.

    Args:
        clock: Measures it.
    """

    __slots__ = ("_began_at", "_clock", "_depth", "_ended_seconds")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._depth = 0
        self._began_at = 0.0
        self._ended_seconds = 0.0

    @property
    def seconds(self) -> float:
        """How long it was so far; what overlaps counts once."""
        if not self._depth:
            return self._ended_seconds
        return self._ended_seconds + self._clock.monotonic() - self._began_at

    def __enter__(self) -> Self:
        if not self._depth:
            self._began_at = self._clock.monotonic()
        self._depth += 1
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            self._ended_seconds += self._clock.monotonic() - self._began_at


class Call:
    """One call, from its arrival until its one outcome.

    A context manager around the work for it, which ends it; one that no work is begun for is ended
    by `end`.

    Args:
        operation: What is asked for.
        clock: Measures it.
        metrics: Receives its outcome.
        counters: Counted where work has begun.
        retries: The budget that grows with every request.
    """

    def __init__(
        self,
        operation: Operation,
        *,
        clock: Clock,
        metrics: Metrics,
        counters: Counters,
        retries: RatioBudget,
    ) -> None:
        self.operation = operation
        self.span = trace.get_current_span()
        self.waits = Waits(clock)
        self._clock = clock
        self._metrics = metrics
        self._counters = counters
        self._retries = retries
        self._arrived_at = clock.monotonic()
        self._has_begun = False
        self._has_ended = False
        self._attempt_count = 0
        self._queue_seconds = 0.0
        self._fell_back = False

    def note_queued(self, seconds: float) -> None:
        """Notes how long it, or the piece of it that has waited longest, was in the queue."""
        self._queue_seconds = max(self._queue_seconds, seconds)

    def note_attempt(self, number: int, *, fell_back: bool) -> None:
        """Notes an attempt for it or for a piece of it.

        Args:
            number: Counts the attempts of a piece from 1.
            fell_back: Whether the backend was chosen for want of one that is in order.
        """
        self._attempt_count = max(self._attempt_count, number)
        self._fell_back = self._fell_back or fell_back

    def __enter__(self) -> Self:
        self._has_begun = True
        self._counters.request_count += 1
        self._counters.in_flight_count += 1
        self._retries.note_request(self._clock.monotonic())
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.end(error)

    def end(self, error: BaseException | None) -> None:
        """Notes its outcome, once.

        Args:
            error: What it ends with; None where it has succeeded.
        """
        if self._has_ended:
            return
        self._has_ended = True
        outcome = _outcome(error)
        if self._has_begun:
            self._counters.in_flight_count -= 1
            self._counters.cancelled_count += outcome is RequestOutcome.CANCELLED
            self._counters.failure_count += outcome in _FAILURES
        seconds = self._clock.monotonic() - self._arrived_at - self.waits.seconds
        self._metrics.count("balancer_outcomes_total", outcome.value)
        self._metrics.observe("balancer_overhead_seconds", seconds, self.operation.value)
        self.span.set_attributes(
            {
                "app.balancer.attempts": self._attempt_count,
                "app.balancer.fallback": self._fell_back,
                "app.balancer.queue_wait_s": self._queue_seconds,
                "app.balancer.overhead_s": seconds,
                "app.balancer.outcome": outcome.value,
            }
        )


def _outcome(error: BaseException | None) -> RequestOutcome:
    match error:
        case None:
            return RequestOutcome.SUCCESS
        case asyncio.CancelledError() | GeneratorExit():
            return RequestOutcome.DEADLINE if deadline_is_spent() else RequestOutcome.CANCELLED
        case QueueFull():
            return RequestOutcome.REFUSED
        case ServiceError() if error.status_code is StatusCode.DEADLINE_EXCEEDED:
            return RequestOutcome.DEADLINE
        case ServiceError() if error.status_code in _CALLERS_FAULTS:
            return RequestOutcome.REJECTED
        case _:
            return RequestOutcome.ERROR


def waiting(calls: Sequence[Call]) -> AbstractContextManager[object]:
    """Stands for a time in which one call or several wait for the same thing.

    Args:
        calls: The calls; those that join later do not count.
    """
    return calls[0].waits if len(calls) == 1 else _waiting_together(calls)


@contextmanager
def _waiting_together(calls: Iterable[Call]) -> Iterator[None]:
    with ExitStack() as stack:
        for call in calls:
            stack.enter_context(call.waits)
        yield
