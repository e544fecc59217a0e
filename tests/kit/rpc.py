"""What tests over gRPC share: a runtime with spans in memory, and the rich status of a failure."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.common.clock import SystemClock
from services.common.errors import RelayedError
from services.common.metrics import Metric, Metrics
from services.common.server import Runtime
from services.common.status import error_from_call
from services.common.tracing import make_tracer_provider

__all__ = ["Spans", "error_of", "in_time", "make_runtime"]


@dataclass(frozen=True)
class Spans:
    """The spans that a runtime under test has ended."""

    exporter: InMemorySpanExporter

    def named(self, ending: str) -> list[ReadableSpan]:
        """Returns ended spans whose names end so, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name.endswith(ending)]


def make_runtime(
    service_name: str, catalogue: tuple[Metric, ...] = (), *, clock: Any = None
) -> tuple[Runtime, Spans]:
    """Makes what a process hands to its service, with spans kept in memory."""
    exporter = InMemorySpanExporter()
    provider = make_tracer_provider(service_name, version="test", otlp_endpoint="")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    metrics = Metrics(catalogue, version="test")
    return Runtime(clock or SystemClock(), metrics, provider), Spans(exporter)


def channel_to(port: int, *options: tuple[str, Any]) -> grpc.aio.Channel:
    """Opens a plain channel that shares no connection, nor its failures, with others of a test.

    Ports are used again: through a shared pool a test would meet the backoff of a channel that
    went to a server of an earlier test.
    """
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1), *options]
    )


async def in_time(call: Awaitable[Any]) -> Any:
    """Awaits a call, and returns its reply; None where the deadline was earlier."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return None


async def error_of(call: Awaitable[Any]) -> RelayedError:
    """Awaits a call that must fail, and returns what it failed with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error_from_call(error)
    raise AssertionError("the call did not fail")
