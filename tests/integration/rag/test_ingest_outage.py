"""Documents that come in while nothing embeds, and what becomes of their vectors."""

import asyncio

from pannier.rag.v1 import corpus_service_pb2 as pb
from pannier.rag.v1 import rag_service_pb2
from services.common.errors import PeerUnavailable
from tests.integration.rag.conftest import as_tenant
from tests.integration.rag.telemetry import eventually

TEXT = "# Fox\n\nThe red fox jumps.\n\n# Bank\n\nThe bank lends money.\n"


async def chunks_of(rag, document_id):
    request = pb.ListChunksRequest(collection="docs", document_id=document_id)
    return (await rag.corpus.ListChunks(request, metadata=as_tenant("acme"))).chunks


async def found(rag, question):
    response = await rag.rag.Retrieve(
        rag_service_pb2.RetrieveRequest(collection="docs", query=question),
        metadata=as_tenant("acme"),
    )
    return [each.document_id for each in response.passages]


async def embedded(rag, document_id):
    async with asyncio.timeout(30):
        while True:
            chunks = await chunks_of(rag, document_id)
            if all(each.embedded for each in chunks):
                return
            await asyncio.sleep(0.01)


async def test_a_document_is_found_by_words_at_once_and_by_meaning_when_something_embeds(rag):
    await rag.ingest({"first.md": "One."})
    rag.balancer.embed_fault = PeerUnavailable("ollama", "all are away")
    results, totals = await rag.ingest({"fox.md": TEXT})
    assert totals.created_count == 1
    result = results["fox.md"]
    assert result.pending_vector_count == result.chunk_count > 0
    assert not any(each.embedded for each in await chunks_of(rag, "fox.md"))
    assert await found(rag, "fox") == ["fox.md"]
    again, _ = await rag.ingest({"fox.md": TEXT})
    assert again["fox.md"].outcome == pb.INGEST_OUTCOME_UNCHANGED
    assert again["fox.md"].pending_vector_count == result.chunk_count
    rag.balancer.embed_fault = None
    await embedded(rag, "fox.md")
    again, _ = await rag.ingest({"fox.md": TEXT})
    assert again["fox.md"].pending_vector_count == 0
    assert set(rag.balancer.tenants) == {"acme"}


async def test_a_document_that_is_deleted_gets_no_vectors_afterwards(rag, monkeypatch, caplog):
    # Long enough for the deletion to fall between two attempts.
    monkeypatch.setattr("services.rag.fill_vectors._FIRST_PAUSE_SECONDS", 2.0)
    rag.balancer.embed_fault = PeerUnavailable("ollama", "all are away")
    await rag.ingest({"fox.md": TEXT, "other.md": "Another."})
    # What was tried before the deletion must have failed: it may still read the document.
    await eventually(lambda: "chunks wait for vectors" in caplog.text)
    await rag.corpus.DeleteDocument(
        pb.DeleteDocumentRequest(collection="docs", document_id="fox.md"),
        metadata=as_tenant("acme"),
    )
    rag.balancer.embed_fault = None
    await embedded(rag, "other.md")
    assert not any("fox" in text for text in rag.balancer.embedded)
