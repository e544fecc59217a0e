"""What can be done with documents once they are stored, over a real server and PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.trace import NoOpTracer

from pannier.rag.v1 import corpus_service_pb2 as pb
from pannier.rag.v1 import filter_pb2
from services.common.clock import SystemClock
from services.common.errors import PeerUnavailable, StatusCode
from services.common.metrics import Metrics
from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_jobs import PostgresJobs
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.invalidate import InvalidationDelivery
from services.rag.metrics import CATALOGUE
from services.rag.sweep import Sweep
from tests.integration.rag.conftest import as_tenant, messages
from tests.kit.rpc import error_of

ACME = as_tenant("acme")
GUIDE = "# Guide\n\nThe red fox jumps over the lazy dog.\n\n## Stop\n\nPress the blue button.\n"
TABLES = ("document", "chunk", "posting", "embedding")


async def ingest(rag, documents, **header):
    """Ingests contents whose headers say the same; returns results by id."""
    call = rag.corpus.IngestDocuments(messages(documents, **header), metadata=ACME, timeout=20)
    return {
        event.result.document_id: event.result async for event in call if event.HasField("result")
    }


async def names(rag, *, metadata=ACME, **conditions):
    request = pb.ListDocumentsRequest(
        collection="docs", filter=filter_pb2.DocumentFilter(**conditions)
    )
    listed = await rag.corpus.ListDocuments(request, metadata=metadata)
    return [each.document_id for each in listed.documents]


async def counts(dsn):
    connection = await asyncpg.connect(dsn)
    try:
        return [await connection.fetchval(f"SELECT count(*) FROM rag.{each}") for each in TABLES]
    finally:
        await connection.close()


async def get(rag, document_id, *, metadata=ACME):
    request = pb.GetDocumentRequest(
        collection="docs", document_id=document_id, view=pb.DOCUMENT_VIEW_FULL
    )
    return (await rag.corpus.GetDocument(request, metadata=metadata)).document


async def test_a_collection_is_made_once_and_deleted_only_by_its_name(rag, database_dsn):
    for _ in range(2):
        made = await rag.corpus.CreateCollection(
            pb.CreateCollectionRequest(collection="docs"), metadata=ACME
        )
        assert made.collection.name == "docs"
    await ingest(rag, {"a.md": GUIDE, "b.md": "Other."})
    for confirm in ("", "Docs"):
        request = pb.DeleteCollectionRequest(collection="docs", confirm=confirm)
        error = await error_of(rag.corpus.DeleteCollection(request, metadata=ACME))
        assert error.violations[0].field == "confirm"
    request = pb.DeleteCollectionRequest(collection="docs", confirm="docs")
    error = await error_of(rag.corpus.DeleteCollection(request, metadata=as_tenant("rival")))
    assert error.error_reason == "COLLECTION_NOT_FOUND"
    receipt = (await rag.corpus.DeleteCollection(request, metadata=ACME)).receipt
    assert receipt.document_count == 2
    assert min(receipt.chunk_count, receipt.posting_count, receipt.embedding_count) > 0
    assert receipt.duration.ToNanoseconds() > 0
    assert await counts(database_dsn) == [0, 0, 0, 0]
    error = await error_of(rag.corpus.DeleteCollection(request, metadata=ACME))
    assert error.error_reason == "COLLECTION_NOT_FOUND"


@pytest.mark.parametrize("name", ["", "Docs", "../x", "a" * 65])
async def test_a_collection_of_another_form_is_not_made(rag, name):
    request = pb.CreateCollectionRequest(collection=name)
    error = await error_of(rag.corpus.CreateCollection(request, metadata=ACME))
    assert error.violations[0].field == "collection"


async def test_a_receipt_says_whether_the_cache_knows(rag, monkeypatch):
    await ingest(rag, {"a.md": GUIDE, "b.md": "Other."})
    first, second = (
        pb.DeleteDocumentRequest(collection="docs", document_id=f"{n}.md") for n in "ab"
    )
    with monkeypatch.context() as patient:
        # A busy machine may need longer to tell the cache.
        patient.setattr("services.rag.invalidate._TOLD_SECONDS", 10.0)
        receipt = (await rag.corpus.DeleteDocument(first, metadata=ACME)).receipt
    assert receipt.cache_invalidation == pb.CACHE_INVALIDATION_DONE
    rag.cache.fault = PeerUnavailable("cache", "away")
    receipt = (await rag.corpus.DeleteDocument(second, metadata=ACME)).receipt
    assert receipt.cache_invalidation == pb.CACHE_INVALIDATION_QUEUED
    assert receipt.document_count == 1


async def test_documents_are_deleted_by_a_filter_after_a_dry_run(rag, database_dsn):
    await ingest(rag, {"a.md": GUIDE, "b.md": "Other."}, tags=["old"])
    await ingest(rag, {"c.md": "Third."}, tags=["new"])
    chosen = filter_pb2.DocumentFilter(any_tags=["old"])
    dry = pb.DeleteDocumentsRequest(collection="docs", filter=chosen, dry_run=True)
    would = await rag.corpus.DeleteDocuments(dry, metadata=ACME)
    assert list(would.document_ids) == ["a.md", "b.md"]
    assert await names(rag) == ["a.md", "b.md", "c.md"]
    unconfirmed = pb.DeleteDocumentsRequest(collection="docs", filter=chosen)
    error = await error_of(rag.corpus.DeleteDocuments(unconfirmed, metadata=ACME))
    assert error.violations[0].field == "confirm"
    confirmed = pb.DeleteDocumentsRequest(collection="docs", filter=chosen, confirm="docs")
    did = await rag.corpus.DeleteDocuments(confirmed, metadata=ACME)
    for name in ("document_count", "chunk_count", "posting_count", "embedding_count"):
        assert getattr(did.receipt, name) == getattr(would.receipt, name) > 0
    assert did.receipt.collection_version > would.receipt.collection_version
    assert await names(rag) == ["c.md"]
    documents, *_ = await counts(database_dsn)
    assert documents == 1


async def test_documents_are_deleted_by_their_ids(rag):
    await ingest(rag, {f"{n}.md": f"Text {n}." for n in "abc"})
    request = pb.DeleteDocumentsRequest(collection="docs", document_ids=["a.md", "c.md", "zz"])
    did = await rag.corpus.DeleteDocuments(request, metadata=ACME)
    assert did.receipt.document_count == 2
    assert list(did.document_ids) == ["a.md", "c.md"]
    assert await names(rag) == ["b.md"]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"confirm": "docs"},
        {"document_ids": ["a"], "filter": filter_pb2.DocumentFilter(any_tags=["x"])},
        {"document_ids": ["a\nb"]},
        {"document_ids": ["a"] * 1001},
    ],
)
async def test_what_is_to_be_deleted_must_be_said_in_one_way(rag, request_):
    request = pb.DeleteDocumentsRequest(collection="docs", **request_)
    error = await error_of(rag.corpus.DeleteDocuments(request, metadata=ACME))
    assert error.status_code is StatusCode.INVALID_ARGUMENT
    assert {each.field for each in error.violations} <= {"document_ids", "confirm"}


async def test_labels_change_without_the_document(rag):
    await ingest(rag, {"a.md": GUIDE}, tags=["old"], metadata={"team": "docs"})
    before, embedded = await get(rag, "a.md"), rag.balancer.embedded.total()
    request = pb.UpdateDocumentRequest(
        collection="docs",
        document_id="a.md",
        labels=pb.DocumentLabels(tags=["new"], readers=["user:anna"]),
        update_mask=FieldMask(paths=["tags", "readers"]),
        expected_content_digest=before.content_digest,
    )
    anna = [*ACME, ("x-pannier-user-id", "anna")]
    updated = (await rag.corpus.UpdateDocument(request, metadata=anna)).document
    assert (list(updated.tags), list(updated.readers)) == (["new"], ["user:anna"])
    assert dict(updated.metadata) == {"team": "docs"}
    assert updated.version == before.version
    assert rag.balancer.embedded.total() == embedded
    assert await names(rag, metadata=anna, any_tags=["new"]) == ["a.md"]
    # Others neither find it nor change it now.
    assert await names(rag) == []
    for call in (
        get(rag, "a.md"),
        rag.corpus.UpdateDocument(request, metadata=ACME),
        rag.corpus.ListChunks(
            pb.ListChunksRequest(collection="docs", document_id="a.md"), metadata=ACME
        ),
        rag.corpus.DeleteDocument(
            pb.DeleteDocumentRequest(collection="docs", document_id="a.md"), metadata=ACME
        ),
    ):
        assert (await error_of(call)).error_reason == "DOCUMENT_NOT_FOUND"
    request.expected_content_digest = "0" * 64
    error = await error_of(rag.corpus.UpdateDocument(request, metadata=anna))
    assert error.error_reason == "DOCUMENT_CHANGED"


async def test_ingesting_again_with_other_labels_changes_them_alone(rag):
    await ingest(rag, {"a.md": GUIDE}, tags=["old"])
    before, embedded = await get(rag, "a.md"), rag.balancer.embedded.total()
    results = await ingest(rag, {"a.md": GUIDE}, tags=["new"], readers=["group:staff"])
    assert results["a.md"].outcome == pb.INGEST_OUTCOME_UPDATED
    assert rag.balancer.embedded.total() == embedded
    staff = [*ACME, ("x-pannier-user-id", "x"), ("x-pannier-group-ids", "staff")]
    after = await get(rag, "a.md", metadata=staff)
    assert (list(after.tags), after.version) == (["new"], before.version)


async def test_chunks_say_where_they_are_and_rebuild_the_text(rag):
    await ingest(rag, {"a.md": "\n\n".join(f"## Part {n}\n\n" + "Words. " * 200 for n in range(9))})
    document = await get(rag, "a.md")
    chunks, token = [], ""
    while not chunks or token:
        page = await rag.corpus.ListChunks(
            pb.ListChunksRequest(
                collection="docs", document_id="a.md", page_size=4, page_token=token
            ),
            metadata=ACME,
        )
        chunks += page.chunks
        token = page.next_page_token
    assert len(chunks) == document.chunk_count > 4
    assert [each.ordinal for each in chunks] == list(range(len(chunks)))
    for each in chunks:
        assert document.text[each.char_start : each.char_end] == each.text
        assert each.embedded
        assert len(each.text_digest) == 40
    assert any("Part 3" in each.heading_path for each in chunks)


async def test_an_expired_document_is_gone_and_then_swept(start_rag, database_dsn, monkeypatch):
    # Nobody sweeps but the test: the service would do so at some time after its start.
    monkeypatch.setattr(Sweep, "run", lambda _: asyncio.Event().wait())
    rag = await start_rag()
    await ingest(rag, {"a.md": GUIDE})
    past = Timestamp()
    past.FromDatetime(datetime.now(UTC) - timedelta(seconds=1))
    await ingest(rag, {"old.md": GUIDE}, expire_time=past)
    assert await names(rag) == ["a.md"]
    assert (await counts(database_dsn))[0] == 2
    pool = PostgresPool(database_dsn, size=2)
    store, clock = PostgresDocumentStore(pool), SystemClock()
    delivery = InvalidationDelivery(
        store,
        rag.cache,
        clock=clock,
        metrics=Metrics(CATALOGUE, version="test"),
        tracer=NoOpTracer(),
    )
    sweep = Sweep(
        store, PostgresJobs(pool), delivery=delivery, clock=clock, retention_seconds=3600.0
    )
    await sweep.sweep()
    await pool.close()
    assert (await counts(database_dsn))[0] == 1


async def test_of_two_updates_at_once_that_expect_the_same_version_one_is_made(rag):
    await ingest(rag, {"a.md": "Version 0."})
    digest = (await get(rag, "a.md")).content_digest
    rag.balancer.hold_embedding = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                ingest(rag, {"a.md": f"Version {n}."}, expected_content_digest=digest)
            )
            for n in (1, 2, 3)
        ]
        await asyncio.sleep(0.1)
        rag.balancer.hold_embedding.set()
    results = [task.result()["a.md"] for task in tasks]
    winners = [n for n, each in enumerate(results, 1) if not each.HasField("failure")]
    assert len(winners) == 1
    assert (await get(rag, "a.md")).text == f"Version {winners[0]}."
    failures = [each.failure.reason for each in results if each.HasField("failure")]
    assert failures == ["DOCUMENT_CHANGED"] * 2


async def test_a_document_deleted_while_versions_come_in_is_there_as_a_whole_or_not(
    rag, database_dsn
):
    versions = ["\n\n".join(f"# V{v} part {n}\n\nText {v} {n}." for n in range(v)) for v in (2, 5)]

    async def write():
        for n in range(12):
            await ingest(rag, {"a.md": versions[n % 2] + f"\n\nRound {n}."})

    async def delete():
        request = pb.DeleteDocumentRequest(collection="docs", document_id="a.md")
        for _ in range(12):
            await error_or_none(rag.corpus.DeleteDocument(request, metadata=ACME))

    async with asyncio.TaskGroup() as group:
        for work in (write(), write(), delete()):
            group.create_task(work)
    documents, chunks, _postings, embeddings = await counts(database_dsn)
    assert (
        chunks == embeddings == (await get(rag, "a.md")).chunk_count if documents else chunks == 0
    )
    listed = await rag.corpus.ListCollections(pb.ListCollectionsRequest(), metadata=ACME)
    [collection] = listed.collections
    assert (collection.document_count, collection.chunk_count) == (documents, chunks)


async def error_or_none(call):
    try:
        return await error_of(call)
    except AssertionError:
        return None
