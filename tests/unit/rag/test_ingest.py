import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b

import pytest

from services.common.errors import PeerUnavailable, StreamProtocolViolation
from services.rag import ingest
from services.rag.core.document_errors import DocumentEmpty
from services.rag.core.errors import CollectionNotFound, DocumentChanged, DocumentNotFound
from services.rag.core.intake import (
    Chunking,
    ChunkingStrategy,
    DocumentDone,
    DocumentProgress,
    IncomingDocument,
    IngestOutcome,
    IngestStage,
    IngestTotals,
    is_retryable,
)
from services.rag.ingest_call import WAITING_EVENT_COUNT
from tests.kit.ingestion import (
    FakeEmbeddings,
    FakeStore,
    document,
    in_order,
    make_ingestion,
    options,
)

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


async def all_of(events):
    async with asyncio.timeout(20):
        return [event async for event in events]


async def until_nothing_happens():
    """Lets tasks that wait for nothing outside of the loop go on."""
    for _ in range(2000):
        await asyncio.sleep(0)


async def test_a_caller_that_does_not_read_is_asked_for_no_more_documents():
    documents = Documents(refused)
    events = make_ingestion(FakeStore(), FakeEmbeddings()).run("acme", options(), documents)
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
    events = ingestion.run("acme", options(), Documents(refused))
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
        async with asyncio.timeout(30):
            await events.aclose()
    else:
        reader = asyncio.create_task(read_one_and_stay())
        await began.wait()
        await until_nothing_happens()
        reader.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait([reader])
    assert asyncio.all_tasks() == before


async def test_documents_before_a_broken_stream_get_their_results_first():
    violation = StreamProtocolViolation(expected="header", actual="content")
    count = 2 * WAITING_EVENT_COUNT
    documents = in_order(*(refused(n) for n in range(count)), document("last"), violation)
    store, seen = FakeStore(), []

    async def read_slowly():
        async for event in make_ingestion(store, FakeEmbeddings()).run(
            "t", options("c"), documents
        ):
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
        all_of(make_ingestion(store, embeddings).run("acme", options(), in_order(*versions)))
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
            group.create_task(all_of(ingestion.run("acme", options(), in_order(*documents))))
    assert len(store.texts) == 32
    assert store.peak_count == expected_count


async def test_a_caller_that_does_not_read_keeps_nobody_else_waiting():
    ingestion = make_ingestion(FakeStore(), FakeEmbeddings(), content_bytes=100)
    unread = Documents(lambda number: document(f"d{number}", "x" * 100))
    idle = ingestion.run("acme", options(), unread)
    async with aclosing(idle):
        await anext(idle)
        # They take turns with those of the idle caller, who soon has more results than may wait.
        documents = [document(f"r{n}", "y" * 100) for n in range(2 * WAITING_EVENT_COUNT)]
        events = await all_of(ingestion.run("rival", options(), in_order(*documents)))
        assert unread.asked_count <= WAITING_EVENT_COUNT + CONCURRENCY + 2
    assert events[-1].counts[IngestOutcome.CREATED] == len(documents)


async def test_a_small_document_does_not_wait_for_all_of_a_big_one():
    embeddings = FakeEmbeddings()
    embeddings.permits = asyncio.Semaphore(0)
    ingestion = make_ingestion(FakeStore(), embeddings, batch_size=1, concurrency=2)
    sections = "\n\n".join(f"# Section {n}\n\n" + f"Big{n} text. " * 100 for n in range(40))
    async with asyncio.TaskGroup() as group:
        group.create_task(
            all_of(ingestion.run("acme", options(), in_order(document("big.md", sections))))
        )
        for _ in range(2):
            await embeddings.begun.get()
        small = ingestion.run("rival", options(), in_order(document("small.md", "Small text.")))
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
    events = await all_of(
        make_ingestion(FakeStore(), FakeEmbeddings()).run("t", options("c"), documents)
    )
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
    documents = in_order(document("a", "x" * 50_000))
    await all_of(make_ingestion(FakeStore(), FakeEmbeddings()).run("acme", options(), documents))
    assert threads[50_000] != threading.get_ident()


async def outcomes_of(ingestion, *documents, **chosen):
    events = await all_of(ingestion.run("acme", options(**chosen), in_order(*documents)))
    return [event for event in events if isinstance(event, DocumentDone)]


@pytest.mark.parametrize(
    "labels",
    [
        {"tags": ("new",)},
        {"readers": ("user:anna",)},
        {"metadata": {"team": "docs"}},
        {"expires_at": datetime(2040, 1, 1, tzinfo=UTC)},
    ],
)
async def test_other_labels_are_an_update_that_reads_and_embeds_nothing(labels):
    store, embeddings = FakeStore(), FakeEmbeddings()
    ingestion = make_ingestion(store, embeddings)
    [created] = await outcomes_of(ingestion, document("a"))
    [updated] = await outcomes_of(ingestion, document("a", **labels))
    assert (created.outcome, updated.outcome) == (IngestOutcome.CREATED, IngestOutcome.UPDATED)
    assert updated.computed_embedding_count == 0
    assert len(embeddings.batches) == 1
    [(document_id, changes, digest)] = store.labels
    assert document_id == "a"
    assert digest == store.documents["a"].content_digest
    for name, value in labels.items():
        assert getattr(changes, name) == value
    assert changes.never_expires == ("expires_at" not in labels)


@pytest.mark.parametrize(
    ("second", "chosen"),
    [
        ({"text": "Other text."}, {}),
        ({"title": "A title"}, {}),
        ({"language": "de"}, {}),
        ({"media_type": "text/markdown"}, {}),
        ({}, {"chunking": Chunking(target_token_count=50)}),
        ({}, {"chunking": Chunking(strategy=ChunkingStrategy.SEMANTIC)}),
    ],
)
async def test_what_changes_the_chunks_is_a_new_version(second, chosen):
    store = FakeStore()
    ingestion = make_ingestion(store, FakeEmbeddings())
    await outcomes_of(ingestion, document("a"))
    [again] = await outcomes_of(ingestion, document("a"))
    [changed] = await outcomes_of(ingestion, document("a", **second), **chosen)
    assert again.outcome is IngestOutcome.UNCHANGED
    assert changed.outcome is IngestOutcome.UPDATED
    assert store.labels == []


async def test_a_version_replaces_only_the_one_it_expects():
    store = FakeStore()
    ingestion = make_ingestion(store, FakeEmbeddings())
    [refused] = await outcomes_of(ingestion, document("a", expected_content_digest="0" * 64))
    assert refused.failure.error_reason == "DOCUMENT_CHANGED"
    await outcomes_of(ingestion, document("a", "Version 1."))
    digest = store.documents["a"].content_digest
    second = document("a", "Version 2.", expected_content_digest=digest)
    [replaced] = await outcomes_of(ingestion, second)
    # The answer may have been lost: what is stored already does not replace anything.
    [repeated] = await outcomes_of(ingestion, second)
    [late] = await outcomes_of(ingestion, document("a", "V 3.", expected_content_digest=digest))
    assert [each.outcome for each in (replaced, repeated, late)] == [
        IngestOutcome.UPDATED,
        IngestOutcome.UNCHANGED,
        IngestOutcome.FAILED,
    ]
    assert not is_retryable(late.failure)
    assert store.texts["a"] == "Version 2."


async def test_equal_chunks_of_the_documents_of_a_call_are_embedded_once():
    embeddings = FakeEmbeddings()
    documents = [document(f"d{n}", "The same text.", title="Same") for n in range(20)]
    done = await outcomes_of(make_ingestion(FakeStore(), embeddings), *documents)
    assert sum(each.computed_embedding_count for each in done) < 20
    embeddings, store = FakeEmbeddings(), FakeStore()
    embeddings.permits = asyncio.Semaphore(0)
    ingestion = make_ingestion(store, embeddings)
    working = asyncio.create_task(outcomes_of(ingestion, *documents[:CONCURRENCY]))
    # All of them have asked for the vector before it is there.
    async with asyncio.timeout(20):
        while store.asked_count < CONCURRENCY:
            await asyncio.sleep(0.001)
    embeddings.permits.release()
    assert sum(each.computed_embedding_count for each in await working) == 1


async def test_without_anything_that_embeds_a_document_is_stored_for_words():
    store, embeddings = FakeStore(), FakeEmbeddings()
    embeddings.fault = PeerUnavailable("balancer", "away")
    [done] = await outcomes_of(make_ingestion(store, embeddings), document("a"))
    assert done.outcome is IngestOutcome.CREATED
    assert done.pending_vector_count == done.chunk_count == 1
    assert [each.embedding for each in store.chunks["a"]] == [None]
    [again] = await outcomes_of(make_ingestion(store, embeddings), document("a"))
    assert again.outcome is IngestOutcome.UNCHANGED
    assert again.pending_vector_count == 1


async def test_a_document_is_cut_by_meaning_where_that_is_asked_for():
    store, embeddings = FakeStore(), FakeEmbeddings()
    text = "Foxes run. Foxes jump over everything. Banks lend money. Banks keep money."
    chunking = Chunking(strategy=ChunkingStrategy.SEMANTIC, target_token_count=40)
    [done] = await outcomes_of(
        make_ingestion(store, embeddings), document("a", text), chunking=chunking
    )
    assert done.outcome is IngestOutcome.CREATED
    assert embeddings.batches[0] == [
        "Foxes run.",
        "Foxes jump over everything.",
        "Banks lend money.",
        "Banks keep money.",
    ]
    assert "".join(each.chunk.text for each in store.chunks["a"]).replace(" ", "") == text.replace(
        " ", ""
    )


@pytest.mark.parametrize(
    "fault",
    [
        DocumentChanged("d1", expected="1", stored="2"),
        DocumentNotFound("docs", "d1"),
        CollectionNotFound("docs"),
    ],
)
async def test_what_was_replaced_or_deleted_before_its_labels_changed_is_taken_in_anew(fault):
    store, embeddings = FakeStore(), FakeEmbeddings()
    ingestion = make_ingestion(store, embeddings)

    async def take_in(**labels):
        given = replace(document("d1", "Text."), **labels)
        return [
            event.outcome
            for event in await all_of(ingestion.run("acme", options(), in_order(given)))
            if isinstance(event, DocumentDone)
        ]

    async def fail(*_arguments, **_options):
        raise fault

    assert await take_in() == [IngestOutcome.CREATED]
    store.update_document_labels = fail
    assert await take_in(tags=("new",)) == [IngestOutcome.UPDATED]
    assert store.documents["d1"].tags == ("new",)
