"""The rules of jobs, on a real PostgreSQL."""

import asyncio
from datetime import UTC, datetime

import pytest

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_jobs import PostgresJobs
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.document_errors import DocumentEmpty
from services.rag.core.documents import DocumentLabels
from services.rag.core.errors import IngestCancelled, IngestJobNotFound
from services.rag.core.ingest_job import IngestJobState, Settlement
from services.rag.core.intake import (
    Chunking,
    ChunkingStrategy,
    DocumentDone,
    IncomingDocument,
    IngestOptions,
    IngestOutcome,
)
from tests.kit.rag_documents import MODEL, indexed_chunks, unit_vector
from tests.kit.rag_documents import document as kept_document

OPTIONS = IngestOptions(
    collection="docs",
    chunking=Chunking(strategy=ChunkingStrategy.SEMANTIC, target_token_count=100),
    background=True,
)


@pytest.fixture
async def pool(database_dsn):
    pool = PostgresPool(database_dsn, size=8)
    await pool.open()
    yield pool
    await pool.close()


@pytest.fixture
def jobs(pool):
    return PostgresJobs(pool)


def document(document_id, text="Text.", **fields):
    return IncomingDocument(
        document_id=document_id, source_uri="uri", content=text.encode(), **fields
    )


async def accept(jobs, *documents, tenant="acme"):
    job_id = await jobs.begin(tenant, OPTIONS)
    for ordinal, each in enumerate(documents):
        await jobs.add(tenant, job_id, ordinal, each)
    await jobs.release(tenant, job_id)
    return job_id


def done(claimed, outcome=IngestOutcome.CREATED, **facts):
    return DocumentDone(document_id=claimed.document.document_id, outcome=outcome, **facts)


async def test_a_document_comes_back_as_it_was_received(jobs):
    sent = document(
        "a",
        "Content.",
        title="T",
        media_type="text/plain",
        metadata={"k": "v"},
        tags=("x", "y"),
        readers=("user:u",),
        language="de",
        expires_at=datetime(2040, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        expected_content_digest="0" * 64,
    )
    await accept(jobs, sent)
    claimed = await jobs.claim(lease_seconds=60)
    assert (claimed.collection, claimed.chunking) == ("docs", OPTIONS.chunking)
    assert (claimed.byte_count, claimed.attempt_count, claimed.abandoned_count) == (8, 1, 0)
    content = await jobs.load_content(claimed.lease)
    assert {**_fields(claimed.document), "content": content} == _fields(sent)


def _fields(value):
    return {name: getattr(value, name) for name in value.__slots__}


async def test_a_job_counts_its_results_and_ends_with_the_last_of_them(jobs):
    refused = IncomingDocument(document_id="bad", source_uri="", fault=DocumentEmpty())
    job_id = await accept(jobs, document("a"), refused, document("b"))
    first, second = [await jobs.claim(lease_seconds=60) for _ in range(2)]
    assert await jobs.claim(lease_seconds=60) is None
    assert await jobs.finish(second.lease, done(second, chunk_count=3, warnings=("w",)))
    assert (await jobs.get("acme", job_id)).state is IngestJobState.ACTIVE
    assert await jobs.finish(first.lease, done(first, IngestOutcome.UNCHANGED, chunk_count=5))
    job = await jobs.get("acme", job_id)
    assert job.state is IngestJobState.COMPLETED
    assert job.completed_at is not None
    assert (job.document_count, job.done_count, job.chunk_count) == (3, 3, 3)
    results = await jobs.list_results("acme", job_id, limit=10)
    assert [(each.number, each.done.document_id) for each in results] == [
        (1, "bad"),
        (2, "b"),
        (3, "a"),
    ]
    assert results[0].done.failure.error_reason == "DOCUMENT_EMPTY"
    assert results[1].done.warnings == ("w",)
    assert [each.number for each in await jobs.list_results("acme", job_id, limit=1, after=1)] == [
        2
    ]
    assert await jobs.waiting_bytes("acme") == 0


async def test_a_job_of_nothing_but_refused_documents_is_over_at_once(jobs):
    refused = IncomingDocument(document_id="bad", source_uri="", fault=DocumentEmpty())
    for documents in ([], [refused]):
        job_id = await accept(jobs, *documents)
        assert (await jobs.get("acme", job_id)).state is IngestJobState.COMPLETED


async def test_what_was_not_released_is_not_worked_on_nor_seen(jobs):
    job_id = await jobs.begin("acme", OPTIONS)
    await jobs.add("acme", job_id, 0, document("a"))
    assert await jobs.claim(lease_seconds=60) is None
    with pytest.raises(IngestJobNotFound):
        await jobs.get("acme", job_id)
    assert await jobs.list_jobs("acme", limit=10) == ()
    await jobs.abandon("acme", job_id)
    with pytest.raises(IngestJobNotFound):
        await jobs.add("acme", job_id, 1, document("b"))
    assert await jobs.waiting_bytes("acme") == 0


async def test_an_expired_lease_goes_to_another_and_is_worth_nothing_any_more(jobs):
    await accept(jobs, document("a"))
    first = await jobs.claim(lease_seconds=0)
    second = await jobs.claim(lease_seconds=60)
    assert second.lease.ordinal == first.lease.ordinal
    assert (second.attempt_count, second.abandoned_count) == (2, 1)
    assert not await jobs.extend(first.lease, lease_seconds=60)
    assert not await jobs.finish(first.lease, done(first))
    with pytest.raises(IngestCancelled):
        await jobs.load_content(first.lease)
    assert await jobs.extend(second.lease, lease_seconds=60)
    assert await jobs.finish(second.lease, done(second))


async def test_what_is_put_back_is_claimed_again_after_its_pause(jobs):
    await accept(jobs, document("a"))
    first = await jobs.claim(lease_seconds=60)
    await jobs.put_back(first.lease, pause_seconds=60)
    assert await jobs.claim(lease_seconds=60) is None
    await accept(jobs, document("b"))
    second = await jobs.claim(lease_seconds=60)
    await jobs.put_back(second.lease, pause_seconds=0)
    assert (await jobs.claim(lease_seconds=60)).abandoned_count == 0


async def test_versions_of_a_document_are_given_away_in_the_order_they_came(jobs):
    await accept(jobs, document("a", "1"), document("a", "2"))
    await accept(jobs, document("a", "3"), document("b", "other"))
    await accept(jobs, document("a", "of another"), tenant="rival")
    claimed = [await jobs.claim(lease_seconds=60) for _ in range(3)]
    assert sorted(each.document.document_id for each in claimed) == ["a", "a", "b"]
    assert await jobs.claim(lease_seconds=60) is None
    order = []
    current = next(
        each
        for each in claimed
        if (each.lease.tenant_id, each.document.document_id) == ("acme", "a")
    )
    while current is not None:
        order.append(await jobs.load_content(current.lease))
        await jobs.finish(current.lease, done(current))
        current = await jobs.claim(lease_seconds=60)
    assert order == [b"1", b"2", b"3"]


async def test_a_tenant_with_little_to_do_does_not_wait_for_one_with_much(jobs):
    await accept(jobs, *(document(f"d{n}") for n in range(20)), tenant="big")
    await accept(jobs, document("a"), tenant="small")
    claimed = [await jobs.claim(lease_seconds=60) for _ in range(2)]
    assert {each.lease.tenant_id for each in claimed} == {"big", "small"}


async def test_many_workers_at_once_never_claim_the_same_document(jobs):
    await accept(jobs, *(document(f"d{n}") for n in range(30)))
    claimed = []

    async def work():
        while (each := await jobs.claim(lease_seconds=60)) is not None:
            claimed.append(each.lease.ordinal)

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(work())
    assert sorted(claimed) == list(range(30))


async def test_a_cancelled_job_gives_nothing_away_and_takes_nothing_back(jobs):
    job_id = await accept(jobs, document("a"), document("b"), document("c"))
    first, second = [await jobs.claim(lease_seconds=60) for _ in range(2)]
    await jobs.finish(first.lease, done(first))
    job = await jobs.cancel("acme", job_id)
    assert job.state is IngestJobState.CANCELLED
    assert job.counts[IngestOutcome.FAILED] == 2
    assert not await jobs.finish(second.lease, done(second))
    assert await jobs.claim(lease_seconds=60) is None
    results = await jobs.list_results("acme", job_id, limit=10)
    assert [each.number for each in results] == [1, 2, 3]
    assert results[2].done.failure.error_reason == "INGEST_CANCELLED"
    assert await jobs.cancel("acme", job_id) == job
    assert await jobs.waiting_bytes("acme") == 0


async def test_documents_that_are_deleted_are_not_taken_in_later(jobs):
    job_id = await accept(jobs, document("a"), document("b"), document("c"))
    claimed = await jobs.claim(lease_seconds=60)
    assert await jobs.drop_documents("acme", "docs", ["a", "b", "zz"]) == 2
    assert await jobs.drop_documents("rival", "docs", None) == 0
    assert await jobs.drop_documents("acme", "other", None) == 0
    assert not await jobs.finish(claimed.lease, done(claimed))
    assert (await jobs.get("acme", job_id)).state is IngestJobState.ACTIVE
    assert await jobs.drop_documents("acme", "docs", None) == 1
    assert (await jobs.get("acme", job_id)).state is IngestJobState.COMPLETED


async def test_jobs_are_listed_newest_first_and_for_their_tenant_alone(jobs):
    ids = [await accept(jobs, document("a")) for _ in range(3)]
    await accept(jobs, tenant="rival")
    await jobs.cancel("acme", ids[1])
    listed = await jobs.list_jobs("acme", limit=10)
    assert [each.job_id for each in listed] == ids[::-1]
    older = await jobs.list_jobs("acme", limit=10, before=listed[0].number)
    assert [each.job_id for each in older] == [ids[1], ids[0]]
    active = await jobs.list_jobs("acme", limit=10, active_only=True)
    assert [each.job_id for each in active] == [ids[2], ids[0]]
    with pytest.raises(IngestJobNotFound):
        await jobs.get("rival", ids[0])
    with pytest.raises(IngestJobNotFound):
        await jobs.cancel("rival", ids[0])


async def test_jobs_are_forgotten_when_they_are_old_or_were_never_released(jobs):
    ended, _active = await accept(jobs), await accept(jobs, document("a"))
    await jobs.begin("acme", OPTIONS)
    assert await jobs.forget(retention_seconds=60, silence_seconds=60) == 0
    assert await jobs.forget(retention_seconds=0, silence_seconds=0) == 2
    with pytest.raises(IngestJobNotFound):
        await jobs.get("acme", ended)
    assert await jobs.claim(lease_seconds=60) is not None


async def test_one_at_a_time_is_alone_and_leaves_again(jobs, database_dsn):
    other = PostgresPool(database_dsn, size=2)
    async with (
        jobs.alone("task") as first,
        PostgresJobs(other).alone("task") as second,
        jobs.alone("another") as third,
    ):
        assert (first, second, third) == (True, False, True)
    async with PostgresJobs(other).alone("task") as again:
        assert again
    await other.close()


async def test_jobs_that_wait_keep_no_later_ones_waiting(jobs):
    await accept(jobs, *(document(f"d{number}") for number in range(70)))
    for _ in range(70):
        await accept(jobs, document("d0", "Another version."))
    for _ in range(70):
        claimed = await jobs.claim(lease_seconds=60)
        await jobs.put_back(claimed.lease, pause_seconds=60)
    assert await jobs.claim(lease_seconds=60) is None
    await accept(jobs, document("d0"), tenant="rival")
    assert (await jobs.claim(lease_seconds=60)).lease.tenant_id == "rival"


async def test_labels_of_a_jobs_document_change_only_while_its_lease_is_held(jobs, pool):
    store = PostgresDocumentStore(pool)
    await store.put_document(
        kept_document("a", collection="docs"),
        indexed_chunks([({"word": 1}, unit_vector(1, 0))]),
        embedding_model=MODEL,
    )
    job_id = await accept(jobs, document("a"))
    lost = await jobs.claim(lease_seconds=0)
    held = await jobs.claim(lease_seconds=60)

    async def label(claimed, tag):
        labels, settlement = DocumentLabels(tags=(tag,)), Settlement(lease=claimed.lease)
        await store.update_document_labels("acme", "docs", "a", labels, settlement=settlement)

    await label(held, "new")
    with pytest.raises(IngestCancelled):
        await label(lost, "old")
    assert (await store.find_document("acme", "docs", "a")).tags == ("new",)
    [result] = await jobs.list_results("acme", job_id, limit=5, after=0)
    assert (result.done.outcome, result.done.chunk_count) == (IngestOutcome.UPDATED, 1)
