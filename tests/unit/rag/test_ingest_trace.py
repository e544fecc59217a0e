"""Spans of documents end, once, however the work on a document ends."""

import asyncio

import pytest

from services.common.clock import SystemClock
from services.common.errors import PeerUnavailable
from services.rag.core.intake import IncomingDocument
from services.rag.ingest_trace import IngestTrace
from services.rag.metrics import CATALOGUE
from tests.kit.rpc import make_runtime

DOCUMENT = IncomingDocument(document_id="fox.md", source_uri="", content=b"Foxes.")


@pytest.fixture
def traced():
    runtime, spans = make_runtime("rag", CATALOGUE)
    tracer = runtime.tracer_provider.get_tracer("test")
    return IngestTrace(tracer=tracer, clock=SystemClock(), metrics=runtime.metrics), spans


async def work(trace, error=None):
    with trace.document("acme", "docs", DOCUMENT), trace.stage("embed"):
        if error is not None:
            raise error
        await asyncio.Event().wait()


@pytest.mark.parametrize("error", [ValueError("secret"), PeerUnavailable("fleet", "gone")])
async def test_work_that_fails_ends_its_spans(traced, error):
    trace, spans = traced
    with pytest.raises(type(error)):
        await work(trace, error)
    ended = {each.name: each for each in spans.exporter.get_finished_spans()}
    assert ended.keys() == {"ingest.embed", "ingest.document"}
    assert all(each.status.status_code.name == "ERROR" for each in ended.values())
    assert "secret" not in str([each.attributes for each in ended.values()])


@pytest.mark.parametrize("way", ["cancel", "close"])
async def test_work_that_is_told_to_stop_ends_its_spans_and_fails_nothing(traced, way):
    trace, spans = traced
    if way == "cancel":
        task = asyncio.ensure_future(work(trace))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    else:
        coroutine = work(trace)
        coroutine.send(None)
        coroutine.close()
    ended = spans.exporter.get_finished_spans()
    assert sorted(each.name for each in ended) == ["ingest.document", "ingest.embed"]
    assert all(each.status.status_code.name == "UNSET" for each in ended)
    assert all(each.attributes["app.cancelled"] for each in ended)
