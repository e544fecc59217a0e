"""Work that nobody waits for is bounded, apart from the call it came from, and ends in time."""

import asyncio
from contextvars import ContextVar

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from services.common.errors import PeerUnavailable
from services.common.identity import Identity, current_identity
from services.common.metrics import Metrics
from services.rag.background import BACKGROUND_KINDS, BackgroundWork
from services.rag.metrics import CATALOGUE

of_the_call: ContextVar[str] = ContextVar("of_the_call", default="")


@pytest.fixture
def metrics():
    return Metrics(CATALOGUE, version="test")


@pytest.fixture
def spans():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    return provider.get_tracer("test")


@pytest.fixture
async def background(metrics, tracer):
    work = BackgroundWork(metrics, tracer=tracer)
    yield work
    await work.close()


def counted(metrics, kind, outcome):
    labels = {"kind": kind, "outcome": outcome}
    return metrics.registry.get_sample_value("rag_background_work_total", labels)


async def test_work_belongs_to_the_tenant_and_to_nothing_else_of_the_call(background):
    seen = asyncio.Queue()

    async def look():
        seen.put_nowait((current_identity.get().tenant_id, of_the_call.get()))

    current_identity.set(Identity("acme"))
    of_the_call.set("deadline")
    assert background.start("report", look)
    assert await seen.get() == ("acme", "")


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
async def test_what_finds_no_room_is_dropped(background, metrics, kind):
    go, ended = asyncio.Event(), asyncio.Semaphore(0)

    async def wait():
        await go.wait()
        ended.release()

    for _ in range(BACKGROUND_KINDS[kind]):
        assert background.start(kind, wait)
    assert not background.start(kind, wait)
    assert counted(metrics, kind, "dropped") == 1
    go.set()
    for _ in range(BACKGROUND_KINDS[kind]):
        await ended.acquire()
    await asyncio.sleep(0)
    assert background.start(kind, wait)


@pytest.mark.parametrize("error", [PeerUnavailable("cache", "away"), ValueError("a bug")])
async def test_work_that_fails_is_counted_and_harms_nobody(background, metrics, error, caplog):
    async def fail():
        raise error

    background.start("report", fail)
    await background.close()
    await asyncio.sleep(0)
    background.start("report", fail)
    while counted(metrics, "report", "error") < 1:
        await asyncio.sleep(0)
    assert bool(caplog.records) is isinstance(error, ValueError)


async def test_closing_ends_what_is_under_way(background):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def hang():
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    background.start("refresh", hang)
    await begun.wait()
    await background.close()
    assert cancelled.is_set()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, StatusCode.UNSET),
        (PeerUnavailable("cache", "gone"), StatusCode.ERROR),
        (ValueError("secret"), StatusCode.ERROR),
        (asyncio.CancelledError(), StatusCode.UNSET),
    ],
)
async def test_work_is_a_trace_of_its_own_linked_to_its_cause(
    background, tracer, spans, error, status
):
    ended = asyncio.Event()

    async def work():
        tracer.start_span("inside").end()
        ended.set()
        if error is not None:
            raise error

    with tracer.start_as_current_span("call") as cause:
        assert background.start("report", work)
    await ended.wait()
    while len(found := {each.name: each for each in spans.get_finished_spans()}) < 3:
        await asyncio.sleep(0)
    root = found["background.report"]
    assert root.parent is None
    assert [link.context.span_id for link in root.links] == [cause.get_span_context().span_id]
    assert found["inside"].parent.span_id == root.context.span_id
    assert root.status.status_code is status
    assert "secret" not in str(root.to_json())
