"""Channels to the other services of the suite.

One channel per peer and process. One client interceptor carries trace context, identity and what is
left of the deadline, since stacked client interceptors can return calls without done callbacks.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import grpc
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from services.common.identity import current_identity, identity_metadata
from services.common.interceptors import remaining_seconds
from services.common.tracing import PROPAGATOR, mark_failed

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
    address: str, *, tracer: trace.Tracer, maximum_message_bytes: int
) -> grpc.aio.Channel:
    """Opens a channel to another service; connects when first used.

    Args:
        address: `host:port`, or any gRPC target.
        tracer: Makes the client spans.
        maximum_message_bytes: Largest response accepted.
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
    interceptor = _Outgoing(tracer)
    return grpc.aio.insecure_channel(
        address,
        options=options,
        interceptors=[
            _UnaryUnary(interceptor),
            _UnaryStream(interceptor),
            _StreamUnary(interceptor),
        ],
    )


async def cancelled_at_end(
    call: "grpc.aio.UnaryStreamCall[Any, Any]",
) -> AsyncGenerator[Any, None]:
    """Yields the messages of a stream and cancels it when the reader stops early.

    A stream that is merely dropped goes on, and its span never ends.
    """
    try:
        async for message in call:
            yield message
    finally:
        call.cancel()


class _Outgoing:
    """Prepares a call and ends its span."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    async def send(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        method = cast("str | bytes", details.method)
        name = (method.decode() if isinstance(method, bytes) else method).removeprefix("/")
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={"rpc.system.name": "grpc", "rpc.method": name},
        )
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        metadata = grpc.aio.Metadata(
            *(details.metadata or ()),
            *carrier.items(),
            *identity_metadata(current_identity.get()),
        )
        sent = grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=_timeout(details.timeout),
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )
        try:
            call = await continuation(sent, request)
        except BaseException as error:
            mark_failed(span, error)
            span.end()
            raise
        # Returned at once: awaiting the outcome here would keep a cancellation from the server.
        call.add_done_callback(lambda done: _end_later(span, done))
        return call


def _timeout(given: float | None) -> float | None:
    remaining = remaining_seconds()
    if remaining is None:
        return given
    left = max(0.0, remaining - _DEADLINE_MARGIN_SECONDS)
    return left if given is None else min(given, left)


_ending: set["asyncio.Task[None]"] = set()


def _end_later(span: trace.Span, call: Any) -> None:
    task = asyncio.get_running_loop().create_task(_end(span, call))
    _ending.add(task)
    task.add_done_callback(_ending.discard)


async def _end(span: trace.Span, call: Any) -> None:
    code = await call.code()
    span.set_attribute("rpc.response.status_code", code.name)
    if code is not grpc.StatusCode.OK:
        mark_failed(span, code.name)
    span.end()


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._outgoing.send(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._outgoing.send(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, outgoing: _Outgoing) -> None:
        self._outgoing = outgoing

    async def intercept_stream_unary(
        self,
        continuation: Any,
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        return await self._outgoing.send(continuation, client_call_details, request_iterator)
