import asyncio
import threading
from contextlib import aclosing
from hashlib import blake2b

import pytest

from services.common.errors import StreamProtocolViolation
from services.rag import ingest
from services.rag.core.errors import DocumentEmpty
from services.rag.core.intake import (
    DocumentDone,
    DocumentProgress,
    IncomingDocument,
    IngestOutcome,
    IngestStage,
    IngestTotals,
)
from services.rag.ingest_call import WAITING_EVENT_COUNT
from tests.kit.ingestion import FakeEmbeddings, FakeStore, document, make_ingestion

CONCURRENCY = 4


class Documents:
    """More documents than anyone should ask for, and how many were asked for."""

    def __init__(self, make):
        self.asked_count = 0
        self._make = make

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.asked_count == 10_000:
            raise StopAsyncIteration
        self.asked_count += 1
        return self._make(self.asked_count)


def refused(number):
    return IncomingDocument(document_id=f"d{number}", source_uri="", fault=DocumentEmpty())


async def in_order(*documents):
    for each in documents:
        if isinstance(each, Exception):
            raise each
        yield each


async def all_of(events):
    async with asyncio.timeout(20):
        return [event async for event in events]


async def until_nothing_happens():
    """Lets tasks that wait for nothing outside of the loop go on."""
    for _ in range(2000):
        await asyncio.sleep(0)


async def test_a_caller_that_does_not_read_is_asked_for_no_more_documents():
    documents = Documents(refused)
    events = make_ingestion(FakeStore(), FakeEmbeddings()).run("acme", "docs", documents)
    async with aclosing(events):
        await anext(events)
        await until_nothing_happens()
        asked_count = documents.asked_count
        assert asked_count <= WAITING_EVENT_COUNT + CONCURRENCY + 2
        for _ in range(10):
            await anext(events)
        await until_nothing_happens()
        assert asked_count < documents.asked_count <= asked_count + 10


@pytest.mark.parametrize("how", ["leave", "cancel"])
async def test_a_caller_may_go_away_while_results_wait_to_be_read(how):
    ingestion = make_ingestion(FakeStore(), FakeEmbeddings())
    events = ingestion.run("acme", "docs", Documents(refused))
    before = asyncio.all_tasks()
    began = asyncio.Event()

    async def read_one_and_stay():
        async with aclosing(events):
            await anext(events)
            began.set()
            await asyncio.Event().wait()

    if how == "leave":
        await anext(events)
        await until_nothing_happens()
        async with asyncio.timeout(5):
            await events.aclose()
    else:
        reader = asyncio.create_task(read_one_and_stay())
        await began.wait()
        await until_nothing_happens()
        reader.cancel()
        async with asyncio.timeout(5):
            await asyncio.wait([reader])
    assert asyncio.all_tasks() == before


async def test_documents_before_a_broken_stream_get_their_results_first():
    violation = StreamProtocolViolation(expected="header", actual="content")
    count = 2 * WAITING_EVENT_COUNT
    documents = in_order(*(refused(n) for n in range(count)), document("last"), violation)
    store, seen = FakeStore(), []

    async def read_slowly():
        async for event in make_ingestion(store, FakeEmbeddings()).run("t", "c", documents):
            await asyncio.sleep(0)
            seen.append(event)

    with pytest.raises(StreamProtocolViolation) as raised:
        await asyncio.wait_for(read_slowly(), 20)
    assert raised.value is violation
    assert sum(isinstance(event, DocumentDone) for event in seen) == count + 1
    assert not any(isinstance(event, IngestTotals) for event in seen)
    assert list(store.texts) == ["last"]


async def test_of_several_versions_in_one_call_the_last_one_stays():
    store, embeddings = FakeStore(), FakeEmbeddings()
    embeddings.permits = asyncio.Semaphore(0)
    versions = [document("a", f"Version {n}.") for n in range(5)]
    reading = asyncio.create_task(
        all_of(make_ingestion(store, embeddings).run("acme", "docs", in_order(*versions)))
    )
    for _ in versions:
        await embeddings.begun.get()
        embeddings.permits.release()
    done = [event.outcome for event in await reading if isinstance(event, DocumentDone)]
    assert done == [IngestOutcome.CREATED] + [IngestOutcome.UPDATED] * 4
    assert [text for [text] in embeddings.batches] == sorted(text for [text] in embeddings.batches)
    assert store.texts["a"] == "Version 4."


@pytest.mark.parametrize(("content_bytes", "expected_count"), [(1, 1), (100, 1), (350, 3)])
async def test_the_documents_of_all_calls_share_one_budget_of_content(
    content_bytes, expected_count
):
    store = FakeStore()
    ingestion = make_ingestion(store, FakeEmbeddings(), content_bytes=content_bytes)
    async with asyncio.TaskGroup() as group:
        for call in range(4):
            documents = [document(f"{call}-{n}", "x" * 100) for n in range(8)]
            group.create_task(all_of(ingestion.run("acme", "docs", in_order(*documents))))
    assert len(store.texts) == 32
    assert store.peak_count == expected_count


async def test_a_caller_that_does_not_read_keeps_nobody_else_waiting():
    ingestion = make_ingestion(FakeStore(), FakeEmbeddings(), content_bytes=100)
    unread = Documents(lambda number: document(f"d{number}", "x" * 100))
    idle = ingestion.run("acme", "docs", unread)
    async with aclosing(idle):
        await anext(idle)
        # They take turns with those of the idle caller, who soon has more results than may wait.
        documents = [document(f"r{n}", "y" * 100) for n in range(2 * WAITING_EVENT_COUNT)]
        events = await all_of(ingestion.run("rival", "docs", in_order(*documents)))
        assert unread.asked_count <= WAITING_EVENT_COUNT + CONCURRENCY + 2
    assert events[-1].counts[IngestOutcome.CREATED] == len(documents)


async def test_a_small_document_does_not_wait_for_all_of_a_big_one():
    embeddings = FakeEmbeddings()
    embeddings.permits = asyncio.Semaphore(0)
    ingestion = make_ingestion(
        FakeStore(), embeddings, embedding_batch_size=1, embedding_concurrency=2
    )
    sections = "\n\n".join(f"# Section {n}\n\n" + f"Big{n} text. " * 100 for n in range(40))
    async with asyncio.TaskGroup() as group:
        group.create_task(
            all_of(ingestion.run("acme", "docs", in_order(document("big.md", sections))))
        )
        for _ in range(2):
            await embeddings.begun.get()
        small = ingestion.run("rival", "docs", in_order(document("small.md", "Small text.")))
        async for event in small:
            if isinstance(event, DocumentProgress) and event.stage is IngestStage.EMBEDDING:
                break
        group.create_task(all_of(small))
        for _ in range(1000):
            embeddings.permits.release()
    first = next(n for n, [text] in enumerate(embeddings.batches) if "Small" in text)
    assert first <= 4
    assert len(embeddings.batches) > 20


async def test_a_failure_keeps_nothing_of_its_document():
    documents = in_order(
        document("a", "  "), IncomingDocument(document_id="b", source_uri="", content=b"caf\xe9")
    )
    events = await all_of(make_ingestion(FakeStore(), FakeEmbeddings()).run("t", "c", documents))
    failures = [event.failure for event in events if isinstance(event, DocumentDone)]
    assert sorted(each.error_reason for each in failures) == ["DOCUMENT_EMPTY", "DOCUMENT_NOT_UTF8"]
    for each in failures:
        assert (each.__traceback__, each.__cause__, each.__context__) == (None, None, None)


async def test_contents_are_digested_beside_the_event_loop(monkeypatch):
    threads = {}

    def noting(data, **options):
        threads[len(data)] = threading.get_ident()
        return blake2b(data, **options)

    monkeypatch.setattr(ingest, "blake2b", noting)
    documents = in_order(document("a", "x" * 5000))
    await all_of(make_ingestion(FakeStore(), FakeEmbeddings()).run("acme", "docs", documents))
    assert threads[5000] != threading.get_ident()
