"""Channels to the other services of the suite.

One channel per peer and process. Its calls carry trace context, baggage, identity and what is left
of the deadline, and are measured.
"""

import asyncio
import json
from typing import Any, Self

import grpc
from opentelemetry import trace
from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind

from pannier.client.wrapped_channel import Method, WrappedChannel
from services.common.baggage import BAGGAGE_HEADER, current_baggage
from services.common.clock import Clock, SystemClock
from services.common.deadline import remaining_seconds
from services.common.identity import current_identity, identity_metadata
from services.common.metrics import Metrics
from services.common.tracing import (
    RPC_STATUS_CODE,
    TRACEPARENT_HEADER,
    TRACESTATE_HEADER,
    UNTRACED_SERVICES,
    mark_failed,
    rpc_attributes,
    traceparent,
)

__all__ = ["cancelled_at_end", "open_channel"]

# Kept back from the caller's deadline, so that a failure further in can still be told.
_DEADLINE_MARGIN_SECONDS = 0.005

# No retries here: the balancer retries itself, and repeating its calls would multiply them; what
# the cache does not answer is done without. gRPC still repeats what never left this process.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
}


def open_channel(
    address: str,
    *,
    tracer: trace.Tracer,
    maximum_message_bytes: int,
    metrics: Metrics | None = None,
    clock: Clock | None = None,
) -> grpc.aio.Channel:
    """Opens a channel to another service; connects when first used.

    Args:
        address: `host:port`, or any gRPC target.
        tracer: Makes the client spans.
        maximum_message_bytes: Largest response accepted.
        metrics: Receives `RPC_CLIENT_METRICS`; None to measure nothing.
        clock: Measures durations; the system's by default.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_receive_message_length", maximum_message_bytes),
        ("grpc.max_send_message_length", maximum_message_bytes),
        ("grpc.enable_http_proxy", 0),
        # One channel per peer has nothing to share, and would inherit the backoff of another one
        # to the same address, closed or not.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Without a ping time-out of its own, keepalive does not notice a frozen peer for a minute.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 2_000),
        ("grpc.http2.ping_timeout_ms", 2_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    outgoing = _Outgoing(address, tracer=tracer, metrics=metrics, clock=clock or SystemClock())
    return WrappedChannel(grpc.aio.insecure_channel(address, options=options), outgoing.wrap)


class _Messages:
    """Reads a stream and cancels it at the end, however that comes about.

    No async generator: one that was never asked for its first message has nothing to clean up
    when it is closed, and the stream would go on.
    """

    def __init__(self, call: "grpc.aio.UnaryStreamCall[Any, Any]") -> None:
        self._loop = asyncio.get_running_loop()
        self._call = call
        self._messages = aiter(call)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._messages)
        except BaseException:
            self._call.cancel()
            raise

    async def aclose(self) -> None:
        """Cancels the stream if it has not ended."""
        self._call.cancel()

    def __del__(self) -> None:
        # Wherever the garbage collector happens to run; calls are for the loop's thread only.
        if not self._call.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._call.cancel)


def cancelled_at_end(call: "grpc.aio.UnaryStreamCall[Any, Any]") -> _Messages:
    """Makes an iterator over the messages of a stream that cancels it when its reader stops early.

    A stream that is merely dropped goes on, and its span never ends. To be closed with `aclosing`;
    one that was never read from is cancelled, too.
    """
    return _Messages(call)


class _Outgoing:
    """Prepares calls and ends their spans.

    Args:
        address: Whom they go to.
        tracer: Makes the spans.
        metrics: Receives `RPC_CLIENT_METRICS`; None to measure nothing.
        clock: Measures durations.
    """

    def __init__(
        self, address: str, *, tracer: trace.Tracer, metrics: Metrics | None, clock: Clock
    ) -> None:
        self._address = address
        self._tracer = tracer
        self._metrics = metrics
        self._clock = clock

    def wrap(self, name: str, method: Method) -> Method:
        """Returns a method whose calls are prepared, and end their spans.

        Args:
            name: Its full name.
            method: Begins its calls.
        """
        if name.startswith(UNTRACED_SERVICES):
            return method
        attributes = rpc_attributes(name, self._address)

        def begin(
            request: Any, *, timeout: float | None = None, metadata: Any = None, **options: Any
        ) -> Any:
            span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
            outcome = _Outcome(self, name, span)
            try:
                call = method(
                    request,
                    timeout=_timeout(timeout),
                    metadata=[*(metadata or ()), *_carried(span)],
                    **options,
                )
            except BaseException as error:
                outcome.note(grpc.StatusCode.UNKNOWN, error)
                raise
            call.add_done_callback(outcome.read)
            return call

        return begin


class _Outcome:
    """What becomes of one call."""

    def __init__(self, outgoing: _Outgoing, name: str, span: trace.Span) -> None:
        self._its = outgoing
        self._name = name
        self._span = span
        self._started = outgoing._clock.monotonic()

    def read(self, call: Any) -> None:
        """Notes how a call has ended; called when it has."""
        reading = call.code()
        try:
            # Is there by now, so that no task is needed to wait for it.
            reading.send(None)
        except StopIteration as answer:
            self.note(answer.value)
            return
        reading.close()
        task = asyncio.get_running_loop().create_task(self._wait(call))
        _ending.add(task)
        task.add_done_callback(_ending.discard)

    async def _wait(self, call: Any) -> None:
        self.note(await call.code())

    def note(self, code: grpc.StatusCode, error: BaseException | None = None) -> None:
        """Notes how it has ended."""
        span, its = self._span, self._its
        span.set_attribute(RPC_STATUS_CODE, code.name)
        if code is not grpc.StatusCode.OK:
            mark_failed(span, error or code.name)
        span.end()
        if its._metrics is not None:
            seconds = its._clock.monotonic() - self._started
            # The exemplar is this call's span, whatever is the current one just now.
            token = attach(trace.set_span_in_context(span))
            try:
                its._metrics.observe(
                    "rpc_client_call_duration_seconds", seconds, self._name, code.name
                )
            finally:
                detach(token)


_ending: set["asyncio.Task[None]"] = set()


def _carried(span: trace.Span) -> list[tuple[str, str]]:
    """Returns the metadata that tell the callee what its call is part of, and who calls."""
    context = span.get_span_context()
    carried = identity_metadata(current_identity.get())
    if context.is_valid:
        carried.append((TRACEPARENT_HEADER, traceparent(context)))
        if context.trace_state:
            carried.append((TRACESTATE_HEADER, context.trace_state.to_header()))
    baggage = current_baggage.get().header()
    if baggage:
        carried.append((BAGGAGE_HEADER, baggage))
    return carried


def _timeout(given: float | None) -> float | None:
    remaining = remaining_seconds()
    if remaining is None:
        return given
    left = max(0.0, remaining - _DEADLINE_MARGIN_SECONDS)
    return left if given is None else min(given, left)
