"""Traces: the OpenTelemetry SDK, and the attribute names this project stands by.

Attribute names are constants here because the conventions are still moving: those for RPC follow
semantic conventions 1.41, those for models the `gen_ai` registry of the same release.
"""

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, StatusCode, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = [
    "ERROR_TYPE",
    "PROPAGATOR",
    "current_trace_id",
    "make_tracer_provider",
    "mark_failed",
]

ERROR_TYPE = "error.type"

# Trace context only: baggage would carry facts about tenants to whoever is called.
PROPAGATOR = TraceContextTextMapPropagator()


def make_tracer_provider(
    service_name: str,
    *,
    version: str,
    otlp_endpoint: str,
    exporter: SpanExporter | None = None,
) -> TracerProvider:
    """Builds the source of a process's tracers.

    Args:
        service_name: `rag`, `cache` or `balancer`.
        version: Version of the service.
        otlp_endpoint: `host:port` of an OTLP/gRPC receiver; empty to record spans without
            exporting them.
        exporter: Used instead of an OTLP exporter, in tests.
    """
    resource = Resource.create(
        {
            "service.name": service_name,
            "service.namespace": "pannier",
            "service.version": version,
        }
    )
    provider = TracerProvider(resource=resource)
    if exporter is None and otlp_endpoint:
        # A dead collector must not hold up a shutdown for longer than this.
        exporter = OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True, timeout=3)
    if exporter is not None:
        # Small batches: encoding holds the interpreter lock for 50 us a span (measured), and a
        # batch of 512 shows in the 99th percentile of everything else.
        provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=8192,
                max_export_batch_size=64,
                schedule_delay_millis=500,
            )
        )
    return provider


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
