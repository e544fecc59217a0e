"""The commands around documents, against a service whose answers are written down here."""

import json
from pathlib import Path

import grpc
import pytest

from pannier.rag.v1 import corpus_service_pb2 as pb


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"a.md": "alpha", "b.txt": "b" * 300_000}.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path / "docs"


def store_all(received: list[pb.IngestDocumentsRequest]):
    """Answers as a service that stores every document."""

    def answer(requests, _context):
        document_id = ""
        count = 0
        for request in requests:
            received.append(request)
            if request.HasField("header"):
                document_id = request.header.document_id
            elif request.HasField("content") and request.content.last:
                count += 1
                result = pb.DocumentResult(
                    document_id=document_id,
                    outcome=pb.INGEST_OUTCOME_CREATED,
                    chunk_count=2,
                    computed_embedding_count=2,
                )
                yield pb.IngestDocumentsResponse(result=result)
        done = pb.IngestCompleted(created_count=count, chunk_count=2 * count)
        yield pb.IngestDocumentsResponse(completed=done)

    return answer


def test_files_are_streamed_in_parts_in_the_order_the_protocol_asks_for(services, folder):
    received: list[pb.IngestDocumentsRequest] = []
    services.answers["IngestDocuments"] = store_all(received)
    result = services.run("ingest", str(folder), "-c", "letters")
    assert result.exit_code == 0
    assert "2 created, 0 updated, 0 unchanged, 0 failed; 4 chunks, 4 vectors" in result.stdout
    assert received[0].options.collection == "letters"
    assert [each.WhichOneof("message") for each in received[1:]] == [
        *("header", "content"),
        *("header", "content", "content"),
    ]
    assert [each.header.document_id for each in received if each.HasField("header")] == [
        "a.md",
        "b.txt",
    ]
    sizes = [len(each.content.data) for each in received if each.HasField("content")]
    assert sizes == [5, 256 * 1024, 300_000 - 256 * 1024]


def test_a_document_that_failed_is_named_and_the_exit_status_says_so(services, folder):
    failure = pb.DocumentFailure(reason="DOCUMENT_EMPTY", message="It holds no text.")
    events = [
        pb.IngestDocumentsResponse(
            result=pb.DocumentResult(
                document_id="a.md", outcome=pb.INGEST_OUTCOME_FAILED, failure=failure
            )
        ),
        pb.IngestDocumentsResponse(completed=pb.IngestCompleted(failed_count=1, created_count=1)),
    ]

    def answer(requests, _context):
        list(requests)
        yield from events

    services.answers["IngestDocuments"] = answer
    result = services.run("ingest", str(folder))
    assert result.exit_code == 1
    assert "a.md: DOCUMENT_EMPTY: It holds no text." in result.stderr
    document = json.loads(services.run("ingest", str(folder), "--json").stdout)
    assert document["failed_count"] == 1
    assert document["failures"][0]["reason"] == "DOCUMENT_EMPTY"


def test_a_file_that_cannot_be_opened_fails_alone(services, folder):
    (folder / "aa.md").symlink_to(folder / "nowhere")
    received: list[pb.IngestDocumentsRequest] = []
    services.answers["IngestDocuments"] = store_all(received)
    result = services.run("ingest", str(folder))
    assert result.exit_code == 1
    assert "aa.md: FILE_UNREADABLE" in result.stderr
    assert "2 created" in result.stdout


def test_a_call_that_ends_while_files_are_sent_is_reported(services, folder, refuse):
    def answer(requests, context):
        next(requests)
        refuse(context, grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", "PostgreSQL is away.")

    (folder / "large.txt").write_bytes(b"x" * 20_000_000)
    services.answers["IngestDocuments"] = answer
    result = services.run("ingest", str(folder))
    assert result.exit_code == 1
    assert "STORE_UNAVAILABLE (rag.pannier): PostgreSQL is away." in result.stderr


def test_nothing_to_ingest_is_said_without_a_call(services, tmp_path):
    (tmp_path / "empty").mkdir()
    result = services.run("ingest", str(tmp_path / "empty"))
    assert result.exit_code == 1
    assert "there are no documents" in result.stderr
    assert services.deadlines == []


def test_a_listing_goes_through_all_pages(services):
    def answer(request, _context):
        number = int(request.page_token or "0")
        return pb.ListDocumentsResponse(
            documents=[pb.Document(document_id=f"page-{number}.md", chunk_count=number)],
            next_page_token=str(number + 1) if number < 2 else "",
        )

    services.answers["ListDocuments"] = answer
    result = services.run("documents", "-c", "letters", "--json")
    listed = [each["document_id"] for each in json.loads(result.stdout)]
    assert listed == ["page-0.md", "page-1.md", "page-2.md"]
    assert "3 documents" in services.run("documents").stdout


def test_the_stored_text_of_a_document_is_shown_as_it_is(services):
    def answer(request, _context):
        full = request.view == pb.DOCUMENT_VIEW_FULL
        document = pb.Document(document_id=request.document_id, text="[bold]a\n b" if full else "")
        return pb.GetDocumentResponse(document=document)

    services.answers["GetDocument"] = answer
    assert services.run("document", "a.md", "--text").stdout == "[bold]a\n b\n"
    assert "a.md" in services.run("document", "a.md").stdout


def test_a_deletion_says_what_was_deleted(services):
    response = pb.DeleteDocumentResponse(chunk_count=3, posting_count=40, embedding_count=2)
    services.answers["DeleteDocument"] = lambda _request, _context: response
    result = services.run("delete", "a.md")
    assert "3 chunks, 40 entries of the word index, 2 vectors" in result.stdout


def test_collections_are_listed(services):
    collection = pb.Collection(name="letters", document_count=2, embedding_model="all-minilm")
    response = pb.ListCollectionsResponse(collections=[collection])
    services.answers["ListCollections"] = lambda _request, _context: response
    assert "letters             2       0  all-minilm" in services.run("collections").stdout
