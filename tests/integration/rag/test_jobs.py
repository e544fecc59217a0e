"""Documents that are taken in after the call, over a real server and a real PostgreSQL."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL

import asyncpg
import pytest

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import StatusCode
from tests.integration.rag.conftest import as_tenant, messages
from tests.kit.rpc import error_of

ACME = as_tenant("acme")


async def accept(rag, documents, *, tenant="acme"):
    """Sends documents for a job, and returns its acceptance."""
    requests = list(messages(documents))
    requests[0].options.background = True
    call = rag.corpus.IngestDocuments(iter(requests), metadata=as_tenant(tenant), timeout=10)
    [event] = [event async for event in call]
    return event.accepted


async def follow(rag, job_id):
    """Follows a job to its end; returns its results by id, and the job."""
    results, job = {}, None
    call = rag.corpus.WatchIngestJob(
        pb.WatchIngestJobRequest(job_id=job_id), metadata=ACME, timeout=20
    )
    async for event in call:
        if event.HasField("result"):
            assert event.result.document_id not in results
            results[event.result.document_id] = event.result
        else:
            job = event.job
    return results, job


async def begun(rag, *, seconds=10):
    """Waits until something is being embedded."""
    async with asyncio.timeout(seconds):
        while not rag.balancer.tenants:
            await asyncio.sleep(0.005)


async def text_of(rag, document_id):
    request = pb.GetDocumentRequest(
        collection="docs", document_id=document_id, view=pb.DOCUMENT_VIEW_FULL
    )
    return (await rag.corpus.GetDocument(request, metadata=ACME)).document.text


async def fetch(dsn, statement):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_job_takes_in_what_was_accepted_and_keeps_a_result_for_each(rag, database_dsn):
    documents = {f"d{n}.txt": f"Text number {n}." for n in range(6)}
    accepted = await accept(rag, {**documents, "empty.txt": " ", "a\nb": "Text."})
    assert (accepted.document_count, accepted.refused_count) == (8, 1)
    results, job = await follow(rag, accepted.job_id)
    assert set(results) == {*documents, "empty.txt", "a\nb"}
    assert results["d0.txt"].outcome == pb.INGEST_OUTCOME_CREATED
    assert results["d0.txt"].computed_embedding_count == 1
    assert results["empty.txt"].failure.reason == "DOCUMENT_EMPTY"
    assert results["a\nb"].failure.reason == "INVALID_FIELD"
    assert job.state == pb.INGEST_JOB_STATE_COMPLETED
    assert (job.totals.created_count, job.totals.failed_count, job.totals.chunk_count) == (6, 2, 6)
    assert await text_of(rag, "d3.txt") == "Text number 3."
    assert set(rag.balancer.tenants) == {"acme"}
    assert await fetch(database_dsn, "SELECT count(content) FROM rag.ingest_document") == 0
    names, token = [], ""
    while not names or token:
        page = await rag.corpus.GetIngestJob(
            pb.GetIngestJobRequest(job_id=accepted.job_id, page_size=3, page_token=token),
            metadata=ACME,
        )
        names += [each.document_id for each in page.results]
        token = page.next_page_token
    assert sorted(names) == sorted(results)
    listed = await rag.corpus.ListIngestJobs(pb.ListIngestJobsRequest(), metadata=ACME)
    assert [each.job_id for each in listed.jobs] == [accepted.job_id]
    active = pb.ListIngestJobsRequest(active_only=True)
    assert not (await rag.corpus.ListIngestJobs(active, metadata=ACME)).jobs


async def test_the_last_version_sent_stays(rag):
    jobs = [await accept(rag, {"a.txt": f"Version {n}."}) for n in range(4)]
    for job in jobs:
        await follow(rag, job.job_id)
    assert await text_of(rag, "a.txt") == "Version 3."


async def test_a_job_is_its_tenants_alone(rag):
    accepted = await accept(rag, {"a.txt": "Text."})
    for method, request in (
        (rag.corpus.GetIngestJob, pb.GetIngestJobRequest(job_id=accepted.job_id)),
        (rag.corpus.CancelIngestJob, pb.CancelIngestJobRequest(job_id=accepted.job_id)),
        (rag.corpus.GetIngestJob, pb.GetIngestJobRequest(job_id="nothing")),
    ):
        error = await error_of(method(request, metadata=as_tenant("rival")))
        assert (error.status_code, error.error_reason) == (
            StatusCode.NOT_FOUND,
            "INGEST_JOB_NOT_FOUND",
        )


async def test_a_cancelled_job_stores_nothing_more(rag):
    rag.balancer.hold_embedding = asyncio.Event()
    accepted = await accept(rag, {"a.txt": "One.", "b.txt": "Two."})
    await begun(rag)
    response = await rag.corpus.CancelIngestJob(
        pb.CancelIngestJobRequest(job_id=accepted.job_id), metadata=ACME
    )
    assert response.job.state == pb.INGEST_JOB_STATE_CANCELLED
    rag.balancer.hold_embedding.set()
    results, _ = await follow(rag, accepted.job_id)
    assert {each.failure.reason for each in results.values()} == {"INGEST_CANCELLED"}
    # The same work again, to know that what was under way has ended.
    await follow(rag, (await accept(rag, {"b.txt": "Three."})).job_id)
    error = await error_of(text_of(rag, "a.txt"))
    assert error.error_reason == "DOCUMENT_NOT_FOUND"
    assert await text_of(rag, "b.txt") == "Three."


async def test_a_document_deleted_while_it_is_taken_in_does_not_come_back(rag):
    await rag.ingest({"a.txt": "Old."})
    rag.balancer.tenants.clear()
    rag.balancer.hold_embedding = asyncio.Event()
    accepted = await accept(rag, {"a.txt": "New."})
    await begun(rag)
    receipt = await rag.corpus.DeleteDocument(
        pb.DeleteDocumentRequest(collection="docs", document_id="a.txt"), metadata=ACME
    )
    assert receipt.receipt.dropped_document_count == 1
    rag.balancer.hold_embedding.set()
    results, job = await follow(rag, accepted.job_id)
    assert results["a.txt"].failure.reason == "INGEST_CANCELLED"
    assert job.state == pb.INGEST_JOB_STATE_COMPLETED
    await follow(rag, (await accept(rag, {"b.txt": "Other."})).job_id)
    assert (await error_of(text_of(rag, "a.txt"))).error_reason == "DOCUMENT_NOT_FOUND"


async def test_a_caller_that_leaves_before_all_is_sent_leaves_no_job(rag, database_dsn):
    sent = asyncio.Event()

    async def half():
        requests = list(messages({"a.txt": "One.", "b.txt": "Two."}))[:-1]
        requests[0].options.background = True
        for request in requests:
            yield request
        sent.set()
        await asyncio.Event().wait()

    call = rag.corpus.IngestDocuments(half(), metadata=ACME)
    reading = asyncio.create_task(anext(aiter(call)))
    await sent.wait()
    async with asyncio.timeout(10):
        while not await fetch(database_dsn, "SELECT count(*) FROM rag.ingest_document"):
            await asyncio.sleep(0.005)
        call.cancel()
        while await fetch(database_dsn, "SELECT count(*) FROM rag.ingest_job"):
            await asyncio.sleep(0.005)
    await asyncio.wait([reading])


async def test_more_than_a_tenant_may_have_waiting_is_refused_and_not_kept(start_rag, database_dsn):
    rag = await start_rag(ingest_backlog_bytes=1024)
    error = await error_of(accept(rag, {"a.txt": "x" * 2000}))
    assert (error.status_code, error.error_reason) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "INGEST_BACKLOG_FULL",
    )
    assert [each.subject for each in error.quota_violations] == ["tenant:acme"]
    assert await fetch(database_dsn, "SELECT count(*) FROM rag.ingest_job") == 0


async def test_labels_count_as_what_waits(start_rag, database_dsn):
    rag = await start_rag(ingest_backlog_bytes=2048)
    rag.balancer.hold_embedding = asyncio.Event()

    async def send(document_id):
        requests = list(messages({document_id: "x"}, metadata={"a": os.urandom(900).hex()}))
        requests[0].options.background = True
        call = rag.corpus.IngestDocuments(iter(requests), metadata=ACME, timeout=10)
        return [event async for event in call]

    await send("a.txt")
    assert (await error_of(send("b.txt"))).error_reason == "INGEST_BACKLOG_FULL"
    rag.balancer.hold_embedding.set()


async def test_a_replica_that_stops_hands_its_documents_over(start_rag):
    first = await start_rag()
    first.balancer.hold_embedding = asyncio.Event()
    accepted = await accept(first, {"a.txt": "One.", "b.txt": "Two."})
    await begun(first)
    await first.stop()
    second = await start_rag()
    results, job = await follow(second, accepted.job_id)
    assert job.state == pb.INGEST_JOB_STATE_COMPLETED
    assert {each.outcome for each in results.values()} == {pb.INGEST_OUTCOME_CREATED}


@pytest.fixture
async def start_process():
    """Runs services in processes of their own, which are gone after the test."""
    processes = []

    async def begin(database_url, **addresses):
        environment = {
            **os.environ,
            "PANNIER_RAG_DATABASE_URL": database_url,
            "PANNIER_RAG_INGEST_JOB_LEASE_SECONDS": "1s",
            **{f"PANNIER_RAG_{name.upper()}": value for name, value in addresses.items()},
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.rag"), env=environment, stdout=DEVNULL, stderr=DEVNULL
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_documents_of_a_process_that_is_killed_are_taken_in_by_another(
    start_rag, start_process, database_dsn
):
    # This replica only accepts: it may not work, so that all is left to the process.
    rag = await start_rag(ingest_job_lease_seconds=1.0)
    rag.balancer.hold_embedding = asyncio.Event()
    addresses = {"balancer_address": rag.balancer_address, "cache_address": rag.cache_address}
    accepted = await accept(rag, {f"d{n}.txt": f"Text {n}." for n in range(3)})
    await begun(rag)
    await rag.stop()
    rag.balancer.tenants.clear()
    process = await start_process(database_dsn, **addresses)
    # It has to import everything and to connect first.
    await begun(rag, seconds=30)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await fetch(
        database_dsn, "SELECT count(*) FROM rag.ingest_document WHERE lease_until IS NOT NULL"
    )
    second = await start_rag()
    results, job = await follow(second, accepted.job_id)
    assert job.state == pb.INGEST_JOB_STATE_COMPLETED
    assert {each.outcome for each in results.values()} == {pb.INGEST_OUTCOME_CREATED}
    assert await text_of(second, "d2.txt") == "Text 2."
