"""A small trace store: takes OTLP over gRPC, keeps the last traces, serves them as Tempo does.

`GET /api/traces/{trace_id}` answers with OTLP in JSON, so that whatever reads traces here reads
them from a Tempo as well.
"""

import argparse
import asyncio
import signal
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from deploy.local.ports import LOOPBACK
from pannier.commands.spans import Span, parse_trace

__all__ = ["DEFAULT_HTTP_PORT", "DEFAULT_OTLP_PORT", "TraceStore", "serve_traces"]

DEFAULT_OTLP_PORT = 4417
DEFAULT_HTTP_PORT = 3417

_MAXIMUM_TRACES = 1000
_MAXIMUM_SPANS = 50_000
_MAXIMUM_REQUEST_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _Trace:
    batches: list[Any] = field(default_factory=list)
    span_count: int = 0


class TraceStore(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps traces in memory, those that grew last the longest.

    Args:
        maximum_traces: Most traces kept.
        maximum_spans: Most spans kept, over all traces.
    """

    def __init__(
        self, *, maximum_traces: int = _MAXIMUM_TRACES, maximum_spans: int = _MAXIMUM_SPANS
    ) -> None:
        self._maximum_traces = maximum_traces
        self._maximum_spans = maximum_spans
        self._traces: OrderedDict[bytes, _Trace] = OrderedDict()
        self._span_count = 0
        self._grown = asyncio.Condition()

    async def Export(  # noqa: N802 - the name of the RPC
        self, request: Any, _context: object
    ) -> Any:
        """Takes spans in."""
        for batch in request.resource_spans:
            for scope in batch.scope_spans:
                self._add(batch, scope)
        async with self._grown:
            self._grown.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def _add(self, batch: Any, scope: Any) -> None:
        by_trace: dict[bytes, list[Any]] = {}
        for span in scope.spans:
            by_trace.setdefault(span.trace_id, []).append(span)
        for trace_id, spans in by_trace.items():
            trace = self._traces.setdefault(trace_id, _Trace())
            self._traces.move_to_end(trace_id)
            kept = type(batch)(resource=batch.resource, schema_url=batch.schema_url)
            room = self._maximum_spans - trace.span_count
            kept.scope_spans.add(scope=scope.scope, spans=spans[:room])
            trace.batches.append(kept)
            trace.span_count += len(spans[:room])
            self._span_count += len(spans[:room])
        while len(self._traces) > self._maximum_traces or self._span_count > self._maximum_spans:
            _, dropped = self._traces.popitem(last=False)
            self._span_count -= dropped.span_count

    def document(self, trace_id: str) -> dict[str, Any] | None:
        """Returns a trace as OTLP in JSON; None where it is not known.

        Args:
            trace_id: 32 hexadecimal digits.
        """
        try:
            trace = self._traces.get(bytes.fromhex(trace_id))
        except ValueError:
            return None
        if trace is None:
            return None
        return {"batches": [MessageToDict(each) for each in trace.batches]}

    def spans(self, trace_id: str) -> tuple[Span, ...]:
        """Returns the spans of a trace that have arrived, by start."""
        return parse_trace(self.document(trace_id) or {})

    async def wait_for(
        self, trace_id: str, predicate: Callable[[tuple[Span, ...]], bool], timeout_seconds: float
    ) -> tuple[Span, ...]:
        """Waits until the spans of a trace are as they should be, and returns them.

        Args:
            trace_id: 32 hexadecimal digits.
            predicate: Judges the spans that have arrived.
            timeout_seconds: How long to wait.

        Raises:
            TimeoutError: They were not in time; says what had arrived.
        """
        try:
            async with asyncio.timeout(timeout_seconds), self._grown:
                await self._grown.wait_for(lambda: predicate(self.spans(trace_id)))
        except TimeoutError:
            arrived = [f"{each.service}: {each.name}" for each in self.spans(trace_id)]
            raise TimeoutError(f"after {timeout_seconds:g} s there were {arrived}") from None
        return self.spans(trace_id)


@dataclass(frozen=True, slots=True)
class RunningTraceStore:
    """A trace store that takes and serves traces.

    Attributes:
        store: What it keeps.
        otlp_endpoint: `host:port` that spans are sent to.
        url: Base address that traces are read from.
    """

    store: TraceStore
    otlp_endpoint: str
    url: str


@asynccontextmanager
async def serve_traces(
    store: TraceStore, *, otlp_port: int = 0, http_port: int = 0
) -> AsyncIterator[RunningTraceStore]:
    """Serves a trace store on loopback while the context is open.

    Args:
        store: The store.
        otlp_port: Port for spans; 0 for any.
        http_port: Port for readers; 0 for any.

    Raises:
        OSError: A port is taken.
    """
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MAXIMUM_REQUEST_BYTES),
        ]
    )
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(store, server)
    runner = web.AppRunner(_application(store), access_log=None)
    await runner.setup()
    try:
        try:
            bound = server.add_insecure_port(f"{LOOPBACK}:{otlp_port}")
        except RuntimeError as error:
            raise OSError(f"cannot bind {LOOPBACK}:{otlp_port}: {error}") from error
        await server.start()
        await web.TCPSite(runner, LOOPBACK, http_port).start()
        host, port = runner.addresses[0][:2]
        yield RunningTraceStore(store, f"{LOOPBACK}:{bound}", f"http://{host}:{port}")
    finally:
        await server.stop(1.0)
        await runner.cleanup()


def _application(store: TraceStore) -> web.Application:
    async def get_trace(request: web.Request) -> web.Response:
        document = store.document(request.match_info["trace_id"])
        if document is None:
            raise web.HTTPNotFound(text="trace not found\n")
        return web.json_response(document)

    async def get_ready(_request: web.Request) -> web.Response:
        return web.Response(text="ready\n")

    application = web.Application()
    application.router.add_get("/api/traces/{trace_id}", get_trace)
    application.router.add_get("/ready", get_ready)
    return application


async def _run(otlp_port: int, http_port: int) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    async with serve_traces(TraceStore(), otlp_port=otlp_port, http_port=http_port):
        await stop.wait()


def main() -> int:
    """Runs the store until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.trace_store", description=__doc__)
    parser.add_argument("--otlp-port", type=int, default=DEFAULT_OTLP_PORT)
    parser.add_argument("--http-port", type=int, default=DEFAULT_HTTP_PORT)
    options = parser.parse_args()
    asyncio.run(_run(options.otlp_port, options.http_port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
