"""How far an ingestion is."""

from pannier.commands.ingestion import Tally
from pannier.rag.v1 import corpus_service_pb2 as pb


def progress(document_id: str, chunks: int, embedded: int) -> pb.IngestDocumentsResponse:
    return pb.IngestDocumentsResponse(
        progress=pb.IngestProgress(
            document_id=document_id, chunk_count=chunks, embedded_chunk_count=embedded
        )
    )


def test_chunks_are_counted_over_all_documents():
    tally = Tally(2)
    for event in (progress("a", 10, 0), progress("b", 5, 5), progress("a", 10, 4)):
        tally.add(event)
    assert (tally.chunk_count, tally.embedded_count) == (15, 9)


def test_a_stored_document_is_embedded_as_a_whole():
    tally = Tally(1)
    tally.add(progress("a", 10, 4))
    result = pb.DocumentResult(document_id="a", chunk_count=10)
    tally.add(pb.IngestDocumentsResponse(result=result))
    assert (tally.chunk_count, tally.embedded_count) == (10, 10)
    assert tally.failures == []


def test_a_failed_document_is_no_longer_waited_for():
    tally = Tally(1)
    tally.add(progress("a", 10, 4))
    failure = pb.DocumentFailure(reason="DOCUMENT_EMPTY")
    result = pb.DocumentResult(document_id="a", failure=failure)
    tally.add(pb.IngestDocumentsResponse(result=result))
    assert tally.chunk_count == tally.embedded_count
    assert [each.failure.reason for each in tally.failures] == ["DOCUMENT_EMPTY"]


def test_an_event_of_a_later_version_is_passed_over():
    tally = Tally(1)
    tally.add(pb.IngestDocumentsResponse())
    assert tally == Tally(1)
