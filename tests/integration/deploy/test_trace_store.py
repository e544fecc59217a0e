"""The trace store with a real exporter, and reading from it as from a Tempo."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deploy.local.trace_store import RunningTraceStore, TraceStore, serve_traces
from pannier.client import TraceContext
from pannier.commands.traces import TraceUnavailable, fetch_trace


@pytest.fixture
async def running() -> AsyncIterator[RunningTraceStore]:
    async with serve_traces(TraceStore()) as served:
        yield served


@pytest.fixture
def rag(running: RunningTraceStore) -> Iterator[TracerProvider]:
    provider = TracerProvider(resource=Resource({"service.name": "rag"}))
    exporter = OTLPSpanExporter(endpoint=running.otlp_endpoint, insecure=True, timeout=5)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider
    provider.shutdown()


def make_spans(provider: TracerProvider, context: TraceContext) -> None:
    """Makes a call with two spans, the inner one failed; blocks until they are exported."""
    parent = TraceContextTextMapPropagator().extract({"traceparent": context.traceparent})
    tracer = provider.get_tracer("test")
    with (
        tracer.start_as_current_span("outer", context=parent, kind=trace.SpanKind.SERVER),
        tracer.start_as_current_span("inner", attributes={"count": 3}) as inner,
    ):
        inner.set_status(trace.StatusCode.ERROR)


async def test_exported_spans_are_waited_for_and_read(running, rag):
    context = TraceContext.new()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(make_spans, rag, context))
        waiting = running.store.wait_for(context.trace_id, lambda spans: len(spans) == 2, 10)
        outer, inner = await waiting
    assert (outer.service, outer.name, outer.kind) == ("rag", "outer", "server")
    assert (outer.parent_id, inner.parent_id) == (context.span_id, outer.span_id)
    assert (outer.failed, inner.failed) == (False, True)
    assert inner.attributes == {"count": 3}


async def test_a_trace_is_fetched_over_http_as_from_a_tempo(running, rag):
    context = TraceContext.new()
    await asyncio.to_thread(make_spans, rag, context)
    fetched = await fetch_trace(running.url, context)
    assert [each.name for each in fetched.spans] == ["outer", "inner"]
    assert fetched.gaps == ()


async def test_a_trace_that_stays_incomplete_is_returned_with_what_it_lacks(running, rag):
    context = TraceContext.new()
    await asyncio.to_thread(make_spans, rag, context)
    other_caller = TraceContext(context.trace_id, "00000000000000ff")
    fetched = await fetch_trace(running.url, other_caller, limit_seconds=0.5)
    assert fetched.gaps[0] == "the parent of rag: outer is missing"


async def test_an_unknown_trace_is_not_found(running):
    async with aiohttp.ClientSession() as session:
        for trace_id in ("00000000000000000000000000000001", "nonsense"):
            async with session.get(f"{running.url}/api/traces/{trace_id}") as response:
                assert response.status == 404
        async with session.get(f"{running.url}/ready") as response:
            assert response.status == 200
    with pytest.raises(TraceUnavailable, match="does not know the trace"):
        await fetch_trace(running.url, TraceContext.new(), limit_seconds=0.1)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "tempo:3200", "file:///etc"])
async def test_a_store_that_cannot_be_asked_is_named(url: str):
    with pytest.raises(TraceUnavailable, match="no such trace"):
        await fetch_trace(url, TraceContext.new(), limit_seconds=0.1)


async def test_waiting_in_vain_says_what_had_arrived(running, rag):
    context = TraceContext.new()
    await asyncio.to_thread(make_spans, rag, context)
    with pytest.raises(TimeoutError, match="rag: outer"):
        await running.store.wait_for(context.trace_id, lambda _spans: False, 0.05)


def export_of(trace_number: int, span_count: int) -> trace_service_pb2.ExportTraceServiceRequest:
    request = trace_service_pb2.ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(1, span_count + 1):
        scope.spans.add(
            trace_id=trace_number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            start_time_unix_nano=1,
            end_time_unix_nano=2,
        )
    return request


def trace_id(number: int) -> str:
    return f"{number:032x}"


async def test_the_traces_that_grew_last_are_kept():
    store = TraceStore(maximum_traces=2)
    for number in (1, 2, 1, 3):
        await store.Export(export_of(number, 1), None)
    kept = [number for number in (1, 2, 3) if store.document(trace_id(number)) is not None]
    assert kept == [1, 3]


async def test_no_more_spans_are_kept_than_allowed():
    store = TraceStore(maximum_spans=10)
    await store.Export(export_of(1, 6), None)
    await store.Export(export_of(2, 6), None)
    assert store.document(trace_id(1)) is None
    assert len(store.spans(trace_id(2))) == 6


async def test_one_trace_cannot_outgrow_the_store():
    store = TraceStore(maximum_spans=10)
    await store.Export(export_of(1, 8), None)
    await store.Export(export_of(1, 8), None)
    document = store.document(trace_id(1))
    assert document is not None
    counts = [len(each["scopeSpans"][0].get("spans", ())) for each in document["batches"]]
    assert counts == [8, 2]
