"""Traces: how they are made, and the attribute names this project stands by.

Attribute names are constants here because the conventions are still moving: those for RPC follow
semantic conventions 1.44, those for models the `gen_ai` registry of 1.41. Names of our own begin
with `app.`.
"""

import re
from collections.abc import Iterable

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    StatusCode,
    TraceFlags,
    TraceState,
    format_trace_id,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.metrics import Metrics
from services.common.otlp import OtlpSender
from services.common.span_queue import SpanQueue
from services.common.spans import ERROR_TYPE, LeanTracerProvider

__all__ = [
    "ERROR_REASON",
    "ERROR_TYPE",
    "PROPAGATOR",
    "QUERY_ID",
    "RAG_MODE",
    "RPC_METHOD",
    "RPC_STATUS_CODE",
    "RPC_SYSTEM",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "TENANT",
    "TRACEPARENT_HEADER",
    "TRACESTATE_HEADER",
    "UNTRACED_SERVICES",
    "current_trace_id",
    "make_tracer_provider",
    "mark_failed",
    "remote_parent",
    "rpc_attributes",
    "traceparent",
]

RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
# From 1.45 on, this will be `rpc.status_code`.
RPC_STATUS_CODE = "rpc.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
TENANT = "app.tenant"
QUERY_ID = "app.query_id"
RAG_MODE = "app.rag.mode"
ERROR_REASON = "app.error_reason"

UNTRACED_SERVICES = ("grpc.health.", "grpc.reflection.")
"""What the names of services begin with whose calls make no spans: there is one every few seconds
from each who watches, and none of them is worth a trace."""

# Trace context and nothing else, for whoever is called: what else travels with a question is the
# suite's own business (services.common.baggage), and neither Ollama's nor a web site's.
PROPAGATOR = TraceContextTextMapPropagator()
TRACEPARENT_HEADER = "traceparent"
TRACESTATE_HEADER = "tracestate"

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

# Others that a caller has set are not passed on (W3C trace context, level 2).
_KNOWN_FLAGS = TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID

_DEFAULT_QUEUE_SPAN_COUNT = 8192


def make_tracer_provider(
    service_name: str,
    *,
    version: str,
    otlp_endpoint: str,
    metrics: Metrics | None = None,
    sample_ratio: float = 1.0,
    queue_span_count: int = _DEFAULT_QUEUE_SPAN_COUNT,
    instance_id: str = "",
    environment: str = "",
) -> TracerProvider:
    """Builds the source of a process's tracers.

    Args:
        service_name: `rag`, `cache` or `balancer`.
        version: Version of the service.
        otlp_endpoint: `host:port` of an OTLP/gRPC receiver; empty to send spans nowhere.
        metrics: Counts the spans sent and lost; needed where there is a receiver.
        sample_ratio: Share of the traces beginning here that are recorded, 0 to 1; all others are
            recorded where those who began them record them.
        queue_span_count: Most spans that wait to be sent.
        instance_id: Tells the processes of a service apart.
        environment: Where the process runs, for example `production`.
    """
    attributes = {
        "service.name": service_name,
        "service.namespace": "pannier",
        "service.version": version,
        "service.instance.id": instance_id,
        "deployment.environment.name": environment,
    }
    resource = Resource.create({name: value for name, value in attributes.items() if value})
    provider = LeanTracerProvider(resource=resource, sample_ratio=sample_ratio)
    if otlp_endpoint:
        if metrics is None:
            raise ValueError("spans that are sent must be counted")
        sender = OtlpSender(otlp_endpoint)
        provider.add_span_processor(SpanQueue(sender, metrics=metrics, limit=queue_span_count))
    return provider


def rpc_attributes(method: str, address: str) -> dict[str, str | int]:
    """Returns what is known of a call before it begins.

    Args:
        method: Full name, without a slash before it.
        address: `host:port` of the server; any other target stands as a whole.
    """
    host, _, port = address.rpartition(":")
    known: dict[str, str | int] = {RPC_SYSTEM: "grpc", RPC_METHOD: method}
    if port.isdecimal() and "/" not in host:
        return known | {SERVER_ADDRESS: host.strip("[]"), SERVER_PORT: int(port)}
    return known | ({SERVER_ADDRESS: address} if address else {})


def remote_parent(traceparents: Iterable[str], tracestates: Iterable[str]) -> Span | None:
    """Reads which span of another process a call is part of.

    Does what `PROPAGATOR` does at a quarter of its cost, which every call bears.

    Args:
        traceparents: Values of the `traceparent` header; there must be exactly one.
        tracestates: Values of the `tracestate` header.

    Returns:
        None where there is none, or one that is not valid.
    """
    values = list(traceparents)
    match = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or (match[4] and values[0].startswith("00")):
        return None
    states = list(tracestates)
    context = SpanContext(
        int(match[1], 16),
        int(match[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[3], 16)),
        trace_state=TraceState.from_header(states) if states else None,
    )
    return NonRecordingSpan(context) if context.is_valid else None


def traceparent(context: SpanContext) -> str:
    """Writes the `traceparent` header for what a span calls."""
    flags = context.trace_flags & _KNOWN_FLAGS
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"


def current_trace_id() -> str:
    """Returns the running trace's id, 32 hexadecimal digits; zeros outside of any trace."""
    return format_trace_id(get_current_span().get_span_context().trace_id)


def mark_failed(span: Span, error: BaseException | str) -> None:
    """Marks a span as failed.

    Args:
        span: The span, not yet ended.
        error: What was raised, or the name of a status or an error.
    """
    name = error if isinstance(error, str) else type(error).__qualname__
    span.set_attribute(ERROR_TYPE, name)
    span.set_status(StatusCode.ERROR)
