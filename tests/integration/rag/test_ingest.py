"""Documents go in as a whole or not at all, over a real server and a real PostgreSQL."""

import asyncio

import asyncpg
import pytest

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.errors import PeerUnavailable, StatusCode
from tests.integration.rag.conftest import as_tenant, messages
from tests.kit.rpc import error_of

GUIDE = "# Guide\n\nThe red fox jumps over the lazy dog.\n\n## Stop\n\nPress the blue button.\n"


async def get(rag, document_id, *, tenant="acme", collection="docs", view=pb.DOCUMENT_VIEW_FULL):
    request = pb.GetDocumentRequest(collection=collection, document_id=document_id, view=view)
    return (await rag.corpus.GetDocument(request, metadata=as_tenant(tenant))).document


async def test_a_document_is_stored_as_it_was_sent(rag):
    results, totals = await rag.ingest({"guide.md": GUIDE})
    assert results["guide.md"].outcome == pb.INGEST_OUTCOME_CREATED
    assert results["guide.md"].chunk_count > 0
    assert (totals.created_count, totals.failed_count) == (1, 0)
    document = await get(rag, "guide.md")
    assert document.text == GUIDE
    assert (document.title, document.media_type) == ("Guide", "text/markdown")
    assert document.source_uri == "guide.md"
    assert document.character_count == len(GUIDE)
    basic = await get(rag, "guide.md", view=pb.DOCUMENT_VIEW_BASIC)
    assert basic.text == ""


async def test_the_same_document_again_is_unchanged_and_embeds_nothing(rag):
    await rag.ingest({"guide.md": GUIDE})
    embedded = rag.balancer.embedded.total()
    results, totals = await rag.ingest({"guide.md": GUIDE})
    assert results["guide.md"].outcome == pb.INGEST_OUTCOME_UNCHANGED
    assert totals.unchanged_count == 1
    assert rag.balancer.embedded.total() == embedded


async def test_a_new_version_replaces_the_old_one_and_embeds_only_what_changed(rag):
    sections = [f"## Part {n}\n\n" + f"Sentence about topic{n} here. " * 30 for n in range(6)]
    await rag.ingest({"book.md": "# Book\n\n" + "\n\n".join(sections)})
    before = rag.balancer.embedded.total()
    sections[3] = "## Part 3\n\n" + "Something new was written. " * 30
    results, _ = await rag.ingest({"book.md": "# Book\n\n" + "\n\n".join(sections)})
    assert results["book.md"].outcome == pb.INGEST_OUTCOME_UPDATED
    assert 0 < rag.balancer.embedded.total() - before < before
    assert results["book.md"].computed_embedding_count < results["book.md"].chunk_count
    text = (await get(rag, "book.md")).text
    assert "Something new" in text
    assert "topic3" not in text


async def test_a_changed_title_or_label_is_a_new_version(rag):
    await rag.ingest({"guide.md": GUIDE})
    request = messages({"guide.md": GUIDE}, metadata={"team": "docs"})
    results = [
        event.result
        async for event in rag.corpus.IngestDocuments(request, metadata=as_tenant("acme"))
        if event.HasField("result")
    ]
    assert [each.outcome for each in results] == [pb.INGEST_OUTCOME_UPDATED]
    assert dict((await get(rag, "guide.md")).metadata) == {"team": "docs"}


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        ({"media_type": "text/plain"}, {"media_type": "text/html"}, ("text/html", "page")),
        ({"media_type": "text/html"}, {}, ("text/plain", "page")),
        ({"title": "Given"}, {"title": "Better"}, ("text/plain", "Better")),
        ({"title": "Given"}, {}, ("text/plain", "page")),
    ],
)
async def test_what_is_said_of_a_document_decides_whether_it_is_a_new_version(
    rag, first, second, stored
):
    content = {"page": "Intro\n\n<b>bold</b> text"}
    results = []
    for header in (first, first, second, second):
        call = rag.corpus.IngestDocuments(
            messages(content, **header), metadata=as_tenant("acme"), timeout=10
        )
        results += [event.result.outcome async for event in call if event.HasField("result")]
    assert results == [
        pb.INGEST_OUTCOME_CREATED,
        pb.INGEST_OUTCOME_UNCHANGED,
        pb.INGEST_OUTCOME_UPDATED,
        pb.INGEST_OUTCOME_UNCHANGED,
    ]
    document = await get(rag, "page")
    assert (document.media_type, document.title) == stored


async def test_of_two_versions_in_one_call_the_one_sent_last_stays(rag):
    old = "# Old\n\n" + "\n\n".join(f"Paragraph {n} tells of topic {n}. " * 9 for n in range(200))
    new = "# New\n\nThe new version is short."
    requests = [*messages({"guide.md": old}), *list(messages({"guide.md": new}))[1:]]
    call = rag.corpus.IngestDocuments(iter(requests), metadata=as_tenant("acme"), timeout=30)
    results = [event.result async for event in call if event.HasField("result")]
    assert [each.outcome for each in results] == [
        pb.INGEST_OUTCOME_CREATED,
        pb.INGEST_OUTCOME_UPDATED,
    ]
    assert results[1].chunk_count < results[0].chunk_count
    assert (await get(rag, "guide.md")).text == new


async def test_a_vector_known_to_the_cache_is_not_computed_again(rag):
    await rag.ingest({"guide.md": GUIDE})
    before = rag.balancer.embedded.total()
    await rag.ingest({"guide.md": GUIDE}, collection="other")
    assert rag.balancer.embedded.total() == before


async def test_how_a_long_document_is_cut_is_asked_of_the_cache_and_a_short_one_just_cut(rag):
    await rag.ingest({"guide.md": GUIDE})
    assert rag.cache.calls["LookupChunks"] == 0
    book = GUIDE + "\n\n".join(f"## Part {n}\n\nThe text of part {n} is this." for n in range(1000))
    for collection in ("docs", "other"):
        results, _ = await rag.ingest({"book.md": book}, collection=collection)
        assert results["book.md"].outcome == pb.INGEST_OUTCOME_CREATED
    assert rag.cache.calls["LookupChunks"] == 2
    assert rag.cache.calls["StoreChunks"] == 1
    assert (await get(rag, "book.md", collection="other")).text == book


async def test_of_a_hundred_files_three_broken_ones_fail_alone(rag):
    documents = {f"file{n:02}.txt": f"Text number {n} about subject{n}." for n in range(97)}
    documents |= {
        "empty.md": "  \n\n",
        "latin1.txt": b"caf\xe9 au lait",
        "image.md": b"\x89PNG\0\0",
    }
    results, totals = await rag.ingest(documents)
    assert (totals.created_count, totals.failed_count) == (97, 3)
    failures = {
        name: result.failure
        for name, result in results.items()
        if result.outcome == pb.INGEST_OUTCOME_FAILED
    }
    assert {name: failure.reason for name, failure in failures.items()} == {
        "empty.md": "DOCUMENT_EMPTY",
        "latin1.txt": "DOCUMENT_NOT_UTF8",
        "image.md": "DOCUMENT_BINARY",
    }
    assert failures["latin1.txt"].metadata["byte_offset"] == "3"
    assert not any(failure.retryable for failure in failures.values())
    listed = await rag.corpus.ListDocuments(
        pb.ListDocumentsRequest(collection="docs", page_size=1000), metadata=as_tenant("acme")
    )
    assert len(listed.documents) == 97


async def test_a_document_over_the_limit_fails_alone(start_rag):
    rag = await start_rag(maximum_document_bytes=2000)
    results, totals = await rag.ingest({"big.txt": "word " * 1000, "small.txt": "A word."})
    assert results["big.txt"].failure.reason == "DOCUMENT_TOO_LARGE"
    assert results["big.txt"].failure.metadata["limit_bytes"] == "2000"
    assert (totals.created_count, totals.failed_count) == (1, 1)


async def test_a_bad_header_fails_its_document_alone(rag):
    results, totals = await rag.ingest({"a\nb": "Text.", "good.txt": "Text."})
    assert results["a\nb"].failure.reason == "INVALID_FIELD"
    assert "header.document_id" in results["a\nb"].failure.message
    assert (totals.created_count, totals.failed_count) == (1, 1)


async def test_an_id_larger_than_a_message_may_be_fails_its_document_alone(rag):
    # A result that repeated it would be over the client's limit of 4 MiB.
    overlong = "x" * 4_194_290
    results, totals = await rag.ingest({overlong: "Text.", "good.txt": "Text."})
    assert results[overlong[:512]].failure.reason == "INVALID_FIELD"
    assert (totals.created_count, totals.failed_count) == (1, 1)


async def test_without_a_cache_documents_are_stored_all_the_same(rag):
    rag.cache.fault = PeerUnavailable("cache", "away")
    _, totals = await rag.ingest({"guide.md": GUIDE})
    assert totals.created_count == 1


async def test_the_stages_of_a_document_are_reported_in_order(rag):
    stages = [
        (event.progress.stage, event.progress.embedded_chunk_count)
        async for event in rag.corpus.IngestDocuments(
            messages({"guide.md": GUIDE}), metadata=as_tenant("acme")
        )
        if event.HasField("progress")
    ]
    assert [stage for stage, _ in stages][:3] == [
        pb.INGEST_STAGE_RECEIVED,
        pb.INGEST_STAGE_CHUNKED,
        pb.INGEST_STAGE_EMBEDDING,
    ]
    assert stages[-1][1] > 0


async def collect(call):
    return [event async for event in call]


@pytest.mark.parametrize(
    ("requests", "expected", "actual"),
    [
        ([], "options", "the end"),
        ([pb.IngestDocumentsRequest()], "options", "nothing"),
        (
            [pb.IngestDocumentsRequest(header=pb.DocumentHeader(document_id="a"))],
            "options",
            "header",
        ),
        (
            [*messages({}), pb.IngestDocumentsRequest(content=pb.DocumentContent(data=b"x"))],
            "header",
            "content",
        ),
        (
            [
                *messages({}),
                pb.IngestDocumentsRequest(header=pb.DocumentHeader(document_id="a")),
                pb.IngestDocumentsRequest(content=pb.DocumentContent(data=b"x")),
            ],
            "content",
            "the end",
        ),
    ],
)
async def test_messages_in_the_wrong_order_are_refused(rag, requests, expected, actual):
    error = await error_of(collect(rag.corpus.IngestDocuments(iter(requests), timeout=10)))
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "STREAM_PROTOCOL",
    )
    assert error.metadata == {"expected": expected, "actual": actual}


async def test_documents_sent_whole_before_a_wrong_message_get_their_results(rag):
    content = pb.IngestDocumentsRequest(content=pb.DocumentContent(data=b"x"))
    requests = [*messages({"one.txt": "One.", "two.txt": "Two."}), content]
    call = rag.corpus.IngestDocuments(iter(requests), metadata=as_tenant("acme"), timeout=10)
    seen = []

    async def read():
        async for event in call:
            seen.append(event)

    error = await error_of(read())
    assert error.error_reason == "STREAM_PROTOCOL"
    results = {event.result.document_id for event in seen if event.HasField("result")}
    assert results == {"one.txt", "two.txt"}
    assert not any(event.HasField("completed") for event in seen)
    assert (await get(rag, "two.txt")).text == "Two."


@pytest.mark.parametrize("name", ["", "Docs", "-docs", "a b", "a" * 65, "../x"])
async def test_a_collection_of_another_form_is_refused(rag, name):
    error = await error_of(collect(rag.corpus.IngestDocuments(messages({}, name), timeout=10)))
    assert error.violations[0].field == "options.collection"


async def test_a_caller_that_leaves_in_the_middle_of_a_document_leaves_nothing(rag, database_dsn):
    sent = asyncio.Event()

    async def half_a_document():
        for request in list(messages({"whole.txt": "All of it.", "half.txt": "Half of it."}))[:-1]:
            yield request
        sent.set()
        await asyncio.Event().wait()

    call = rag.corpus.IngestDocuments(half_a_document(), metadata=as_tenant("acme"))
    async for event in call:
        if event.HasField("result"):
            break
    await sent.wait()
    call.cancel()
    connection = await asyncpg.connect(database_dsn)
    try:
        ids = await connection.fetch("SELECT document_id FROM rag.document")
    finally:
        await connection.close()
    assert [row["document_id"] for row in ids] == ["whole.txt"]


async def test_documents_are_listed_in_pages(rag):
    await rag.ingest({f"d{n}.txt": f"Text {n}." for n in range(5)})
    names, token = [], ""
    while True:
        page = await rag.corpus.ListDocuments(
            pb.ListDocumentsRequest(collection="docs", page_size=2, page_token=token),
            metadata=as_tenant("acme"),
        )
        names += [each.document_id for each in page.documents]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"d{n}.txt" for n in range(5)]
    error = await error_of(
        rag.corpus.ListCollections(pb.ListCollectionsRequest(page_token="invented"))
    )
    assert error.error_reason == "PAGE_TOKEN_MISMATCH"


async def test_a_page_of_documents_fits_a_message(rag):
    labels = {f"label{n}": "x" * 2000 for n in range(64)}
    documents = {f"d{n:02}.txt": f"Text {n}." for n in range(40)}
    request = messages(documents, metadata=labels)
    async for _ in rag.corpus.IngestDocuments(request, metadata=as_tenant("acme"), timeout=30):
        pass
    names, token = [], ""
    while not names or token:
        page = await rag.corpus.ListDocuments(
            pb.ListDocumentsRequest(collection="docs", page_token=token),
            metadata=as_tenant("acme"),
        )
        assert page.ByteSize() < 4 * 1024 * 1024
        names += [each.document_id for each in page.documents]
        token = page.next_page_token
    assert names == sorted(documents)


async def test_collections_are_listed_in_pages(rag):
    for name in ("a", "b", "c"):
        await rag.ingest({"x.txt": "Text."}, collection=name)
    first = await rag.corpus.ListCollections(
        pb.ListCollectionsRequest(page_size=2), metadata=as_tenant("acme")
    )
    assert [each.name for each in first.collections] == ["a", "b"]
    assert first.collections[0].embedding_model == "all-minilm:latest"
    assert first.collections[0].document_count == 1
    second = await rag.corpus.ListCollections(
        pb.ListCollectionsRequest(page_size=2, page_token=first.next_page_token),
        metadata=as_tenant("acme"),
    )
    assert [each.name for each in second.collections] == ["c"]
    assert second.next_page_token == ""


async def test_a_deleted_document_is_gone_with_all_its_rows(rag, database_dsn):
    await rag.ingest({"guide.md": GUIDE})
    receipt = await rag.corpus.DeleteDocument(
        pb.DeleteDocumentRequest(collection="docs", document_id="guide.md"),
        metadata=as_tenant("acme"),
    )
    assert receipt.chunk_count > 0
    assert receipt.posting_count > 0
    assert receipt.embedding_count > 0
    error = await error_of(get(rag, "guide.md"))
    assert (error.status_code, error.error_reason) == (StatusCode.NOT_FOUND, "DOCUMENT_NOT_FOUND")
    connection = await asyncpg.connect(database_dsn)
    try:
        for table in ("document", "chunk", "posting", "embedding"):
            assert await connection.fetchval(f"SELECT count(*) FROM rag.{table}") == 0
    finally:
        await connection.close()


async def test_another_tenant_sees_nothing(rag):
    await rag.ingest({"guide.md": GUIDE}, tenant="acme")
    for call in (
        get(rag, "guide.md", tenant="rival"),
        rag.corpus.ListDocuments(
            pb.ListDocumentsRequest(collection="docs"), metadata=as_tenant("rival")
        ),
        rag.corpus.DeleteDocument(
            pb.DeleteDocumentRequest(collection="docs", document_id="guide.md"),
            metadata=as_tenant("rival"),
        ),
    ):
        error = await error_of(call)
        assert (error.status_code, error.error_reason) == (
            StatusCode.NOT_FOUND,
            "COLLECTION_NOT_FOUND",
        )
    assert (await get(rag, "guide.md")).text == GUIDE


async def test_the_tenant_travels_to_the_balancer(rag):
    await rag.ingest({"guide.md": GUIDE}, tenant="acme")
    assert set(rag.balancer.tenants) == {"acme"}
