"""One call on the server's side: its span, measures, deadline and errors."""

# The generic types of grpc exist in its type stubs only.
from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import grpc
from google.rpc.status_pb2 import Status
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from services.common.afterwards import Afterwards, current_afterwards
from services.common.baggage import BAGGAGE_HEADER, baggage_entries, current_baggage
from services.common.clock import Clock
from services.common.deadline import set_deadline
from services.common.errors import DeadlineExceeded, ServiceError, ShuttingDown, StatusCode
from services.common.identity import current_identity, identity_from_metadata
from services.common.metrics import Metrics
from services.common.status import STATUS_DETAILS_KEY, grpc_code, to_status
from services.common.tracing import (
    ERROR_REASON,
    RPC_STATUS_CODE,
    TENANT,
    TRACEPARENT_HEADER,
    TRACESTATE_HEADER,
    current_trace_id,
    mark_failed,
    remote_parent,
)

__all__ = ["Context", "Gate", "Rejected", "ServerCall", "Surroundings"]

_logger = logging.getLogger(__name__)

# Server spans are failed only where the server is at fault (semantic conventions for RPC).
_SERVER_FAULTS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)

# Neither is an error of anybody.
_NO_FAILURES = frozenset({"OK", "CANCELLED"})

# A caller whose deadline passes hangs up; that can arrive before the deadline has passed here.
_DEADLINE_TOLERANCE_SECONDS = 0.02
_DEADLINE_TOLERANCE_RATIO = 0.1
# How soon it is looked again whether the time of a call may end that is just being interrupted.
_LOOK_AGAIN_SECONDS = 0.1

_CANCELLATION_FOLLOWS_SECONDS = 1.0
_CANCELLATION_MAY_FOLLOW_SECONDS = 0.002

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Stands in for a request that could not be read, until the handler may refuse it."""

    error: ServiceError


class Gate:
    """Counts the calls under way, and lets none in once it is closed."""

    def __init__(self) -> None:
        self.is_closed = False
        self._count = 0
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self) -> None:
        """Counts a call, also one that will be refused: its answer is still to be sent."""
        self._count += 1
        self._empty.clear()

    def leave(self) -> None:
        """Counts a call no more."""
        self._count -= 1
        if not self._count:
            self._empty.set()

    async def drain(self, grace_seconds: float) -> None:
        """Closes, and waits until no call is under way.

        Args:
            grace_seconds: Longest time to wait.
        """
        self.is_closed = True
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), grace_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all calls of a server share.

    Attributes:
        domain: `ErrorInfo` domain, for example `rag.pannier`.
        clock: Measures durations.
        tracer: Makes the server spans.
        metrics: Receives `COMMON_METRICS`.
        default_deadline_seconds: Applied to calls whose callers set none.
        gate: Counts the calls under way.
    """

    domain: str
    clock: Clock
    tracer: trace.Tracer
    metrics: Metrics
    default_deadline_seconds: float
    gate: Gate


@dataclass(frozen=True, slots=True)
class _End:
    """How and when a call ended.

    Attributes:
        code: Name of the status its caller was sent, or would have been.
        duration_seconds: How long it took.
        time_ns: When, nanoseconds since the Unix epoch.
    """

    code: str
    duration_seconds: float
    time_ns: int


class ServerCall:
    """One call from its arrival until its end.

    Args:
        its: What it shares with others.
        name: Full name of the method, without a slash before it.
        attributes: What is known of its span beforehand.
        context: Its connection to the caller.
    """

    def __init__(
        self,
        its: Surroundings,
        name: str,
        attributes: Mapping[str, str | int],
        context: Context,
    ) -> None:
        self._its = its
        self._name = name
        self._attributes = attributes
        self._context = context
        self._reason = ""
        # gRPC interrupts the task of a call whose caller leaves, and says nothing else of it.
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tolerance_seconds = 0.0
        self._left_in_time: bool | None = None
        self._expired = False
        self._caller_left = False
        self._timer: asyncio.TimerHandle | None = None
        self._afterwards = Afterwards()

    async def __aenter__(self) -> ServerCall:
        """Begins everything; waits for nothing, so that no cancellation can come in between."""
        its = self._its
        self._started = its.clock.monotonic()
        metadata = cast("Any", self._context.invocation_metadata())
        self._metadata: tuple[tuple[str, str | bytes], ...] = tuple(metadata or ())
        self._span = self._start_span()
        # Never detached: each call runs in a task of its own, whose context ends with it.
        otel_context.attach(trace.set_span_in_context(self._span))
        its.metrics.add_gauge("rpc_server_active_calls", 1, self._name)
        its.gate.enter()
        self._set_deadline()
        return self

    def _start_span(self) -> trace.Span:
        parents: list[str] = []
        states: list[str] = []
        baggage: list[str] = []
        for key, value in self._metadata:
            if key == TRACEPARENT_HEADER:
                parents.append(str(value))
            elif key == TRACESTATE_HEADER:
                states.append(str(value))
            elif key == BAGGAGE_HEADER:
                baggage.append(str(value))
        attributes = self._attributes
        if baggage:
            carried = baggage_entries(baggage)
            current_baggage.set(carried)
            attributes = {**attributes, **carried.attributes()}
        parent = remote_parent(parents, states) if parents else None
        return self._its.tracer.start_span(
            self._name,
            context=otel_context.Context()
            if parent is None
            else trace.set_span_in_context(parent, otel_context.Context()),
            kind=SpanKind.SERVER,
            attributes=attributes,
        )

    def admit(self, request: Any) -> Any:
        """Returns the request; raises what is wrong with it or with the caller.

        Raises:
            ServiceError: The server shuts down, the caller says of itself what cannot be, or the
                request could not be read.
        """
        if self._its.gate.is_closed:
            raise ShuttingDown
        identity = identity_from_metadata(self._metadata)
        current_identity.set(identity)
        self._span.set_attribute(TENANT, identity.tenant_id)
        if isinstance(request, Rejected):
            raise request.error
        if hasattr(request, "__aiter__"):
            return self._admitted(request)
        return request

    async def _admitted(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            if isinstance(request, Rejected):
                raise request.error
            yield request
        # To gRPC, the stream of a caller that leaves ends like one that is complete, a moment
        # before it cancels the call; what the handler has by now may be half of it.
        await asyncio.sleep(_CANCELLATION_MAY_FOLLOW_SECONDS)
        remaining = cast("float | None", self._context.time_remaining())
        if remaining is not None and remaining <= 0:
            await self._wait_for_cancellation()

    async def _wait_for_cancellation(self) -> NoReturn:
        """Waits until gRPC cancels the call of a caller that has left.

        What does not wait is interrupted later, in its cleaning up.
        """
        self._caller_left = True
        await asyncio.sleep(_CANCELLATION_FOLLOWS_SECONDS)
        raise asyncio.CancelledError

    def answer_first(self) -> None:
        """Lets the handler leave work for after its answer; in a stream that may be long after."""
        current_afterwards.set(self._afterwards)

    async def write(self, message: bytes) -> None:
        """Sends a message of a stream."""
        try:
            await self._context.write(message)
        except grpc.aio.InternalError:
            # The caller left while the message was on its way; gRPC has no name of its own for it.
            await self._wait_for_cancellation()

    def _set_deadline(self) -> None:
        remaining = cast("float | None", self._context.time_remaining())
        loop = asyncio.get_running_loop()
        if remaining is None:
            remaining = self._its.default_deadline_seconds
            self._timer = loop.call_later(remaining, self._expire)
        else:
            self._tolerance_seconds = min(
                _DEADLINE_TOLERANCE_SECONDS, remaining * _DEADLINE_TOLERANCE_RATIO
            )
            due = loop.time() + remaining - self._tolerance_seconds
            self._timer = loop.call_at(due, self._look_who_is_there, due)
        set_deadline(remaining)

    def _look_who_is_there(self, due: float) -> None:
        """Notes, just before the caller's time is up, whether it has left before.

        How long the handler needs to end is no matter then.

        Args:
            due: When this should be called, seconds of the loop's clock.
        """
        lateness = asyncio.get_running_loop().time() - due
        # On a loop that is late, the end of the time itself may have interrupted the call.
        if lateness <= self._tolerance_seconds / 2:
            self._left_in_time = self._task.cancelling() > 0

    def _expire(self) -> None:
        if self._task.cancelling():
            # The caller has left; or a limit of the handler's own is up, which is soon over.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_LOOK_AGAIN_SECONDS, self._expire)
            return
        self._expired = True
        self._task.cancel()

    async def __aexit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """Ends everything, whatever has happened."""
        if self._timer is not None:
            self._timer.cancel()
        status: Status | None = None
        try:
            status = self._status_of(error)
        finally:
            if status is None:
                self._soon(self._leave, self._ended(self._code(error)))
        if status is not None:
            await self._send(status)

    def _ended(self, code: str) -> _End:
        return _End(code, self._its.clock.monotonic() - self._started, time.time_ns())

    def _soon(self, work: Callable[[_End], None], end: _End) -> None:
        """Does something when gRPC has taken the answer, which it does within this turn.

        Nobody who reads the answer can ask before that what was counted.
        """
        try:
            asyncio.get_running_loop().call_soon(work, end)
        except RuntimeError:
            # There is no loop any more.
            work(end)

    async def _send(self, status: Status) -> NoReturn:
        code = grpc_code(StatusCode(status.code))
        details = ((STATUS_DETAILS_KEY, status.SerializeToString()),)
        self._soon(self._count, self._ended(code.name))
        try:
            # Waits until it is sent.
            await self._context.abort(code, status.message, details)
        finally:
            self._its.gate.leave()

    def _leave(self, end: _End) -> None:
        try:
            self._count(end)
        finally:
            self._its.gate.leave()

    def _count(self, end: _End) -> None:
        """Does what the caller need not wait for."""
        self._afterwards.do()
        self._report(end)

    def _status_of(self, error: BaseException | None) -> Status | None:
        """Returns what the caller is to be sent of an error; None for nothing."""
        if error is None or isinstance(error, grpc.aio.AbortError):
            return None
        if isinstance(error, GeneratorExit) and not self._is_running():
            # Nobody waits for a call any more that is thrown away.
            return None
        if isinstance(error, asyncio.CancelledError):
            if self._expired:
                self._task.uncancel()
                error = DeadlineExceeded(self._its.default_deadline_seconds)
            elif self._caller_left or self._task.cancelling():
                return None
            # Otherwise the handler's own doing: without a status the caller would wait for ever.
        if not isinstance(error, ServiceError):
            _logger.error("call failed", exc_info=error, extra={"rpc_method": self._name})
        if self._status_sent() is not None:
            # The handler has ended the call itself, and the caller knows that status.
            return None
        self._reason = error.error_reason if isinstance(error, ServiceError) else "INTERNAL"
        return to_status(error, domain=self._its.domain, request_id=current_trace_id())

    def _status_sent(self) -> grpc.StatusCode | None:
        # The number 0 until abort ended the call.
        code = cast("grpc.StatusCode | int", self._context.code())
        return code if isinstance(code, grpc.StatusCode) else None

    def _is_running(self) -> bool:
        try:
            return asyncio.current_task() is self._task
        except RuntimeError:
            # There is no loop any more.
            return False

    def _code(self, error: BaseException | None) -> str:
        sent = self._status_sent()
        if sent is not None:
            return sent.name
        # A handler may go on as if nothing were; its answer reaches nobody.
        interrupted = self._task.cancelling() > self._expired
        if error is None and not interrupted:
            return "OK"
        if self._left_in_time is not None:
            return "CANCELLED" if self._left_in_time else "DEADLINE_EXCEEDED"
        remaining = cast("float | None", self._context.time_remaining())
        expired = remaining is not None and remaining <= self._tolerance_seconds
        return "DEADLINE_EXCEEDED" if expired else "CANCELLED"

    def _report(self, end: _End) -> None:
        code, metrics = end.code, self._its.metrics
        metrics.add_gauge("rpc_server_active_calls", -1, self._name)
        metrics.observe("rpc_server_call_duration_seconds", end.duration_seconds, self._name, code)
        self._span.set_attribute(RPC_STATUS_CODE, code)
        if code not in _NO_FAILURES:
            # Where gRPC or the handler itself has ended the call, there is no reason but the code.
            metrics.count("service_errors_total", self._reason or code)
            self._span.set_attribute(ERROR_REASON, self._reason or code)
        if code in _SERVER_FAULTS:
            mark_failed(self._span, code)
        self._span.end(end.time_ns)
        if code == "OK":
            level = logging.DEBUG
        else:
            level = logging.WARNING if code in _SERVER_FAULTS else logging.INFO
        if _logger.isEnabledFor(level):
            _logger.log(
                level,
                "call ended",
                extra={
                    "rpc_method": self._name,
                    "code": code,
                    "duration_seconds": round(end.duration_seconds, 6),
                    "tenant": current_identity.get().tenant_id,
                    "reason": self._reason,
                },
            )
