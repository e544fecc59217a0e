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


def test_what_is_said_of_documents_goes_into_every_header(services, folder):
    received: list[pb.IngestDocumentsRequest] = []
    services.answers["IngestDocuments"] = store_all(received)
    result = services.run(
        *("ingest", str(folder), "--tag", "a", "--tag", "b", "--reader", "user:x"),
        *("--fact", "team=docs=x", "--language", "de", "--expires", "2040-01-02"),
        *("--chunking", "semantic", "--chunk-size", "100", "--largest-chunk", "120"),
    )
    assert result.exit_code == 0
    chunking = received[0].options.chunking
    assert chunking.strategy == pb.CHUNKING_STRATEGY_SEMANTIC
    assert (chunking.target_token_count, chunking.maximum_token_count) == (100, 120)
    headers = [each.header for each in received if each.HasField("header")]
    assert [each.document_id for each in headers] == ["a.md", "b.txt"]
    for header in headers:
        assert list(header.tags) == ["a", "b"]
        assert list(header.readers) == ["user:x"]
        assert dict(header.metadata) == {"team": "docs=x"}
        assert header.language == "de"
        assert header.expire_time.ToJsonString() == "2040-01-02T00:00:00Z"
        assert header.source_uri.startswith("file:///")


def test_a_fact_without_a_value_is_refused(services, folder):
    result = services.run("ingest", str(folder), "--fact", "team")
    assert result.exit_code == 2
    assert services.deadlines == []


def test_pending_vectors_and_warnings_are_told(services, folder):
    def answer(requests, _context):
        list(requests)
        yield pb.IngestDocumentsResponse(
            result=pb.DocumentResult(
                document_id="a.md",
                outcome=pb.INGEST_OUTCOME_CREATED,
                chunk_count=2,
                pending_vector_count=2,
                warnings=["Page 3 holds no text."],
            )
        )
        yield pb.IngestDocumentsResponse(completed=pb.IngestCompleted(created_count=1))

    services.answers["IngestDocuments"] = answer
    result = services.run("ingest", str(folder))
    assert result.exit_code == 0
    assert "2 chunks are found by words alone" in result.stderr
    assert "a.md: Page 3 holds no text." in result.stderr


def accept(requests, _context):
    assert next(requests).options.background
    list(requests)
    accepted = pb.IngestAccepted(job_id="j1", document_count=2)
    yield pb.IngestDocumentsResponse(accepted=accepted)


def follow(request, _context):
    assert request.job_id == "j1"
    failure = pb.DocumentFailure(reason="DOCUMENT_EMPTY", message="It holds no text.")
    failed = pb.DocumentResult(
        document_id="a.md", outcome=pb.INGEST_OUTCOME_FAILED, failure=failure
    )
    yield pb.WatchIngestJobResponse(job=pb.IngestJob(state=pb.INGEST_JOB_STATE_ACTIVE))
    yield pb.WatchIngestJobResponse(result=failed)
    totals = pb.IngestCompleted(created_count=1, failed_count=1)
    yield pb.WatchIngestJobResponse(
        job=pb.IngestJob(
            job_id="j1", document_count=2, totals=totals, state=pb.INGEST_JOB_STATE_COMPLETED
        )
    )


def test_a_job_is_named_and_may_be_followed(services, folder):
    services.answers |= {"IngestDocuments": accept, "WatchIngestJob": follow}
    result = services.run("ingest", str(folder), "--background")
    assert result.exit_code == 0
    assert "pannier jobs watch j1" in result.stdout
    for followed in (
        services.run("ingest", str(folder), "--background", "--watch"),
        services.run("jobs", "watch", "j1"),
    ):
        assert followed.exit_code == 1
        assert "a.md: DOCUMENT_EMPTY: It holds no text." in followed.stderr
        assert "Job j1 is completed: 1 created" in followed.stdout
    lines = services.run("jobs", "watch", "j1", "--json").stdout.splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["job", "result", "job"]


def test_jobs_are_listed_shown_and_cancelled(services):
    job = pb.IngestJob(job_id="j1", collection="letters", state=pb.INGEST_JOB_STATE_CANCELLED)
    services.answers |= {
        "ListIngestJobs": lambda request, _: pb.ListIngestJobsResponse(
            jobs=[job] if request.active_only else [job, job]
        ),
        "GetIngestJob": lambda request, _: pb.GetIngestJobResponse(
            job=job,
            results=[
                pb.DocumentResult(
                    document_id=f"{request.page_token or 'first'}.md",
                    outcome=pb.INGEST_OUTCOME_CREATED,
                )
            ],
            next_page_token="" if request.page_token else "second",
        ),
        "CancelIngestJob": lambda _request, _context: pb.CancelIngestJobResponse(job=job),
    }
    assert services.run("jobs").stdout.count("letters") == 2
    assert services.run("jobs", "--active").stdout.count("letters") == 1
    shown = services.run("jobs", "show", "j1").stdout
    assert "first.md: created, 0 chunks\nsecond.md: created, 0 chunks\nJob j1" in shown
    assert "Job j1 is cancelled" in services.run("jobs", "cancel", "j1").stdout


def test_what_a_filter_finds_is_deleted_only_where_that_is_confirmed(services):
    requests: list[pb.DeleteDocumentsRequest] = []

    def answer(request, _context):
        requests.append(request)
        receipt = pb.DeletionReceipt(
            document_count=2, cache_invalidation=pb.CACHE_INVALIDATION_QUEUED
        )
        return pb.DeleteDocumentsResponse(receipt=receipt, document_ids=["a.md", "b.md"])

    services.answers["DeleteDocuments"] = answer
    asked = services.run("delete", "--tag", "old", "-c", "letters")
    assert asked.exit_code == 1
    assert asked.stdout.startswith("a.md\nb.md\nWould delete 2 documents")
    assert "--yes" in asked.stderr
    done = services.run("delete", "--tag", "old", "-c", "letters", "--yes")
    assert done.exit_code == 0
    assert "The cache will be told" in done.stdout
    several = services.run("delete", "a.md", "b.md")
    assert several.exit_code == 0
    assert [(each.dry_run, each.confirm) for each in requests] == [
        (True, ""),
        (False, "letters"),
        (False, ""),
    ]
    assert list(requests[0].filter.any_tags) == ["old"]
    assert list(requests[2].document_ids) == ["a.md", "b.md"]


def test_a_collection_is_deleted_only_where_that_is_confirmed(services):
    requests: list[pb.DeleteCollectionRequest] = []

    def answer(request, _context):
        requests.append(request)
        return pb.DeleteCollectionResponse(receipt=pb.DeletionReceipt(document_count=7))

    services.answers["DeleteCollection"] = answer
    assert services.run("collections", "delete", "letters").exit_code == 1
    assert requests == []
    assert "7 documents" in services.run("collections", "delete", "letters", "--yes").stdout
    assert requests[0].confirm == "letters"


def test_chunks_are_listed_with_their_places(services):
    chunk = pb.Chunk(
        ordinal=3, char_start=10, char_end=20, page_start=2, page_end=2, heading_path=["A", "B"]
    )
    response = pb.ListChunksResponse(chunks=[chunk])
    services.answers["ListChunks"] = lambda _request, _context: response
    listed = services.run("chunks", "a.pdf").stdout
    for text in ("10-20", "2-2", "A / B", "pending"):
        assert text in listed


def test_only_the_labels_that_are_named_are_changed(services):
    requests: list[pb.UpdateDocumentRequest] = []

    def answer(request, _context):
        requests.append(request)
        return pb.UpdateDocumentResponse(document=pb.Document(document_id=request.document_id))

    services.answers["UpdateDocument"] = answer
    services.run("label", "a.md", "--tag", "new", "--never-expires")
    services.run("label", "a.md", "--reader", "", "--fact", "a=b")
    assert [list(each.update_mask.paths) for each in requests] == [
        ["tags", "expire_time"],
        ["readers", "metadata"],
    ]
    assert not requests[0].labels.HasField("expire_time")
    assert list(requests[1].labels.readers) == []
