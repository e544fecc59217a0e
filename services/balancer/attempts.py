"""The attempts at backends that a request is entitled to.

    attempts = dispatcher.attempts(...)
    while True:
        with await attempts.next() as attempt:
            ...                          # AttemptFailed may be raised here
            attempt.succeed_with_...(...)

Return:
        # Reached only after a failure that another backend may make good.

Whatever happens inside the block, the attempt ends once: its slot is given back, its outcome
counted, its span closed.
"""

from collections.abc import Sequence
from dataclasses import replace

from opentelemetry.trace import SpanContext

from services.balancer.attempt import Attempt
from services.balancer.call import Call, waiting
from services.balancer.core.demand import Demand
from services.balancer.core.errors import (
    AllAttemptsFailed,
    BackendRejectedRequest,
    StreamInterrupted,
)
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import Operation
from services.balancer.equipment import Equipment, deadline_is_spent
from services.balancer.tickets import Grant
from services.common.errors import ServiceError

__all__ = ["Attempts"]


class Attempts:
    """The attempts of one request, or of one piece of it.

    Args:
        equipment: What all attempts share.
        operation: What is asked for.
        model: The model as the caller wrote it.
        demand: What the planner sees.
        calls: The calls that wait for it, the one whose place in the queue it has first; others may
            join.
        beside: The attempt beside which a second one is made, if that is what this is for.
    """

    def __init__(
        self,
        equipment: Equipment,
        operation: Operation,
        model: str,
        demand: Demand,
        calls: Sequence[Call],
        *,
        beside: SpanContext | None = None,
    ) -> None:
        self.equipment = equipment
        self.operation = operation
        self.embeds = operation is Operation.EMBED
        self.queue_seconds = 0.0
        self.load_seconds = 0.0
        self.last_failure = ""
        self.calls = calls
        self.beside = beside
        self._model = model
        self._demand = demand
        self._tried = demand.tried
        self._attempt_count = 0
        self._interrupted: StreamInterrupted | None = None
        self._failure_kind: FailureKind | None = None

    async def next(self) -> Attempt:
        """Waits for the slot of the next attempt.

        Raises:
            QueueFull: There is no room in the queue.
            DeadlineUnreachable: The deadline cannot be met.
            AllAttemptsFailed: All backends with the model were tried.
            StreamInterrupted: They were, and text had been passed on before.
        """
        while True:
            grant = await self._take()
            self.queue_seconds += grant.queue_seconds
            self.load_seconds += grant.load_seconds
            self._tried |= {grant.backend.id}
            if self.equipment.fleet.backends.get(grant.backend.id) is grant.backend:
                break
            # It has left between the promise of its slot and now; nothing was tried there.
            self.equipment.scheduler.release(grant)
            self.last_failure = f"{grant.backend.id}: taken out of the fleet"
        self._attempt_count += 1
        if self._failure_kind is not None:
            self.equipment.fleet.counters.retry_count += 1
            self.equipment.metrics.count("balancer_retries_total", self._failure_kind.value)
        attempt = Attempt(self, grant, self._attempt_count)
        for call in self.calls:
            call.note_attempt(attempt.number, fell_back=attempt.fell_back)
        return attempt

    async def _take(self) -> Grant:
        its = self.equipment
        if self._tried != self._demand.tried:
            self._demand = replace(self._demand, tried=self._tried)
        began_at = its.clock.monotonic()
        grant: Grant | None = None
        try:
            with waiting(self.calls):
                grant = await its.scheduler.take(self._demand, self.last_failure)
        except ServiceError as error:
            # Whatever keeps the rest of an answer from coming: the caller has a part of it.
            if self._interrupted is not None:
                raise self._interrupted from error
            raise
        finally:
            queued = grant.queue_seconds if grant is not None else its.clock.monotonic() - began_at
            for call in self.calls:
                call.note_queued(self.queue_seconds + queued)
        return grant

    def consider(self, attempt: Attempt, failure: AttemptFailed) -> None:
        """Returns where another attempt may make a failure good; raises what the caller sees.

        Raises:
            StreamInterrupted: Text was passed on before the failure.
            BackendRejectedRequest: The request is at fault.
            AllAttemptsFailed: Neither attempts nor time nor budget are left.
        """
        its = self.equipment
        if attempt.started:
            self._interrupted = StreamInterrupted(
                attempt.backend.id,
                attempt.emitted_character_count,
                failure.message,
                resumable=attempt.resumable,
            )
            if not attempt.resumable:
                raise self._interrupted from failure
        if not failure.kind.retryable:
            if self._interrupted is not None:
                raise self._interrupted from failure
            raise BackendRejectedRequest(self._model, failure.message) from failure
        self.last_failure = f"{attempt.backend.id}: {failure.message}"
        self._failure_kind = failure.kind
        spent = attempt.number >= its.maximum_attempts or deadline_is_spent()
        if spent or not its.retries.try_spend(its.clock.monotonic()):
            if self._interrupted is not None:
                raise self._interrupted from failure
            raise AllAttemptsFailed(self._model, attempt.number, self.last_failure) from failure
