"""What callers may not see or change of documents that are not for them, over a real server."""

import asyncio
import base64
import json
from hashlib import blake2b

import pytest

from pannier.rag.v1 import conversation_pb2
from pannier.rag.v1 import corpus_service_pb2 as pb
from tests.integration.rag.conftest import as_tenant, messages
from tests.integration.rag.test_jobs import accept, begun, follow
from tests.kit.rpc import error_of

ACME = as_tenant("acme")
BOB = [*ACME, ("x-pannier-user-id", "bob")]
ALICE = [*ACME, ("x-pannier-user-id", "alice")]


def forged(scope, position):
    """Makes a token as anybody can who has read how it is done."""
    digest = blake2b(scope.encode(), digest_size=8).hexdigest()
    return base64.urlsafe_b64encode(json.dumps([digest, position]).encode()).decode()


async def ingest(rag, documents, *, metadata=ACME, **header):
    call = rag.corpus.IngestDocuments(messages(documents, **header), metadata=metadata, timeout=20)
    return {
        event.result.document_id: event.result async for event in call if event.HasField("result")
    }


async def list_chunks(rag, token="", **asked):
    request = pb.ListChunksRequest(
        collection="docs", document_id="open.txt", page_token=token, **asked
    )
    return await rag.corpus.ListChunks(request, metadata=BOB)


@pytest.mark.parametrize("position", ["-99999999", "0", "abc", "1.5", "²", str(2**62), str(2**80)])
async def test_an_invented_token_shows_no_chunks_of_other_documents(rag, position):
    await ingest(rag, {"secret.txt": "The secret is 42."}, readers=["user:alice"])
    await ingest(rag, {"open.txt": "Nothing to hide."})
    error = await error_of(list_chunks(rag, forged("chunks/docs/open.txt", position)))
    assert error.error_reason == "PAGE_TOKEN_MISMATCH"


@pytest.mark.parametrize("position", ["abc", "-5", str(2**80)])
async def test_a_token_that_holds_no_place_is_refused(rag, position):
    job_id = (await accept(rag, {"a.txt": "One."})).job_id
    conversation_id = "0" * 32
    for method, request in (
        (
            rag.corpus.GetIngestJob,
            pb.GetIngestJobRequest(
                job_id=job_id, page_token=forged(f"ingest-job/{job_id}", position)
            ),
        ),
        (
            rag.corpus.ListIngestJobs,
            pb.ListIngestJobsRequest(page_token=forged("ingest-jobs/False", position)),
        ),
        (
            rag.rag.GetConversation,
            conversation_pb2.GetConversationRequest(
                conversation_id=conversation_id,
                page_token=forged(f"turns\0\0{conversation_id}", position),
            ),
        ),
    ):
        error = await error_of(method(request, metadata=ACME))
        assert error.error_reason == "PAGE_TOKEN_MISMATCH"


async def test_pages_of_two_versions_are_not_mixed(rag):
    def version(number):
        return "\n\n".join(f"Version {number}, part {part}. " + "word " * 300 for part in range(6))

    await ingest(rag, {"open.txt": version(1)})
    token = (await list_chunks(rag, page_size=2)).next_page_token
    assert (await list_chunks(rag, token, page_size=2)).chunks[0].ordinal == 2
    await ingest(rag, {"open.txt": version(2)})
    error = await error_of(list_chunks(rag, token, page_size=2))
    assert error.error_reason == "PAGE_TOKEN_MISMATCH"


async def test_chunks_are_those_of_a_version_while_it_is_replaced(rag):
    await ingest(rag, {"open.txt": "Version 0."})

    async def replace():
        for number in range(1, 40):
            await ingest(rag, {"open.txt": f"Version {number}."})

    writing = asyncio.create_task(replace())
    while not writing.done():
        page = await list_chunks(rag)
        assert [each.text[:8] for each in page.chunks] == ["Version "]
    await writing


async def test_a_refused_version_does_not_say_what_is_stored_for_others(rag):
    await ingest(rag, {"secret.txt": "The secret is 42."}, readers=["user:alice"])
    results = await ingest(
        rag, {"secret.txt": "Another."}, metadata=BOB, expected_content_digest="0" * 64
    )
    failure = results["secret.txt"].failure
    assert failure.reason == "DOCUMENT_CHANGED"
    document = (
        await rag.corpus.GetDocument(
            pb.GetDocumentRequest(collection="docs", document_id="secret.txt"), metadata=ALICE
        )
    ).document
    assert document.content_digest[:12] not in str(failure)


async def test_what_one_may_not_read_is_not_dropped_from_jobs(rag):
    await ingest(rag, {"secret.txt": "Old."}, readers=["user:alice"])
    rag.balancer.tenants.clear()
    rag.balancer.hold_embedding = asyncio.Event()
    requests = list(messages({"secret.txt": "New.", "open.txt": "New, too."}))
    for each in requests:
        if each.header.document_id == "secret.txt":
            each.header.readers.append("user:alice")
    requests[0].options.background = True
    call = rag.corpus.IngestDocuments(iter(requests), metadata=ALICE, timeout=10)
    [event] = [event async for event in call]
    await begun(rag)
    one = pb.DeleteDocumentRequest(collection="docs", document_id="secret.txt")
    error = await error_of(rag.corpus.DeleteDocument(one, metadata=BOB))
    assert error.error_reason == "DOCUMENT_NOT_FOUND"
    both = pb.DeleteDocumentsRequest(collection="docs", document_ids=["secret.txt", "open.txt"])
    receipt = (await rag.corpus.DeleteDocuments(both, metadata=BOB)).receipt
    assert receipt.dropped_document_count == 1
    rag.balancer.hold_embedding.set()
    results, _ = await follow(rag, event.accepted.job_id)
    assert results["secret.txt"].outcome == pb.INGEST_OUTCOME_UPDATED
    assert results["open.txt"].failure.reason == "INGEST_CANCELLED"


async def test_a_page_of_chunks_is_never_more_than_a_client_accepts(rag, monkeypatch):
    monkeypatch.setattr("services.rag.corpus_servicer._PAGE_BYTES", 5000)
    await ingest(rag, {"open.txt": "\n\n".join(f"Part {n}. " + "word " * 300 for n in range(12))})
    ordinals, token, page_count = [], "", 0
    while not page_count or token:
        page = await list_chunks(rag, token)
        assert page.ByteSize() < 6000
        ordinals += [each.ordinal for each in page.chunks]
        token, page_count = page.next_page_token, page_count + 1
    assert ordinals == list(range(len(ordinals)))
    assert page_count > 1
