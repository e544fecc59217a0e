"""Files of every kind through the service: good ones to the page, bad ones without a trace."""

import json
import zipfile
from io import BytesIO

import asyncpg
import docx
import pytest
from fpdf import FPDF

from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import filter_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from tests.kit.questions import ACME, ask, query

PDF, DOCX = (
    "application/pdf",
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
)
FILLING = "The harbour of the old town has a quay, a crane, two sheds and a small office. " * 4
PAGES = (
    FILLING + "The crane lifts five tons.",
    FILLING + "Pull the green lever to stop the pump.",
    FILLING + "The office opens at nine.",
)


def pdf(*pages: str, password: str = "") -> bytes:
    document = FPDF()
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    for text in pages:
        document.add_page()
        document.set_font("Helvetica", size=11)
        document.multi_cell(0, 6, text)
    return bytes(document.output())


def word_file() -> bytes:
    document, buffer = docx.Document(), BytesIO()
    document.add_heading("Rules of the yard", 1)
    document.add_paragraph("Helmets are worn on the yard at all times.")
    document.save(buffer)
    return buffer.getvalue()


def zip_bomb() -> bytes:
    """A Word file of 20 kB that would be 20 MB."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as container:
        container.writestr("word/document.xml", b"\0" * 20_000_000)
    return buffer.getvalue()


GOOD = {
    "manual.pdf": pdf(*PAGES),
    "rules.docx": word_file(),
    "tides.json": json.dumps([{"port": "Emden", "tide": "high at noon"}]),
    "staff.csv": "name,duty\nAnn,crane driver\nBob,harbour master\n",
}
MEDIA_TYPES = {
    "manual.pdf": PDF,
    "rules.docx": DOCX,
    "tides.json": "application/json",
    "staff.csv": "text/csv",
}


@pytest.fixture
async def rag(start_rag):
    # Small, so that a page is a chunk or more.
    return await start_rag(chunk_token_count=60, maximum_chunk_token_count=80)


async def chunks_of(rag, document_id):
    request = corpus.ListChunksRequest(collection="docs", document_id=document_id)
    return (await rag.corpus.ListChunks(request, metadata=ACME)).chunks


async def rows_of(dsn, tenant):
    """Counts a tenant's rows in every table that says something of documents."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT DISTINCT table_name FROM information_schema.columns"
            " WHERE table_schema = 'rag'"
            " AND column_name IN ('collection', 'collection_id', 'document_id', 'document_count')"
        )
        return {
            name: await connection.fetchval(
                f"SELECT count(*) FROM rag.{name} WHERE tenant_id = $1", tenant
            )
            for (name,) in tables
        }
    finally:
        await connection.close()


async def test_files_of_every_kind_are_found_and_quoted_to_the_page(rag):
    results, totals = await rag.ingest(GOOD)
    assert (totals.created_count, totals.failed_count) == (len(GOOD), 0), results
    listed = await rag.corpus.ListDocuments(
        corpus.ListDocumentsRequest(collection="docs"), metadata=ACME
    )
    assert {each.document_id: each.media_type for each in listed.documents} == MEDIA_TYPES
    chunks = await chunks_of(rag, "manual.pdf")
    assert len(chunks) >= len(PAGES)
    for page, text in enumerate(PAGES, 1):
        last_words = text.rpartition(". ")[2]
        (chunk,) = [each for each in chunks if last_words in " ".join(each.text.split())]
        assert chunk.page_end == page
    for document_id in ("rules.docx", "tides.json", "staff.csv"):
        (chunk,) = await chunks_of(rag, document_id)
        assert (chunk.page_start, chunk.page_end) == (0, 0)
    titles = {each.document_id: each.title for each in listed.documents}
    assert titles["rules.docx"] == "Rules of the yard"

    rag.balancer.answer = "Pull the green lever to stop the pump [1]."
    response = await ask(rag, query("How do I stop the pump?"))
    (citation,) = response.citations
    assert (citation.document_id, citation.page_start, citation.page_end) == ("manual.pdf", 2, 2)
    assert "green lever" in citation.quote
    for document_id, question in (
        ("rules.docx", "Where are helmets worn?"),
        ("tides.json", "When is the tide high in Emden?"),
        ("staff.csv", "Who is harbour master?"),
    ):
        only = pb.RetrievalOptions(filter=filter_pb2.DocumentFilter(document_ids=[document_id]))
        found = await rag.rag.Retrieve(
            pb.RetrieveRequest(collection="docs", query=question, options=only), metadata=ACME
        )
        assert [each.document_id for each in found.passages] == [document_id]


async def test_of_bad_files_nothing_is_stored_and_the_good_one_beside_them_is(rag):
    good = {"manual.pdf": GOOD["manual.pdf"]}
    bad = {"locked.pdf": pdf(*PAGES, password="secret"), "bomb.docx": zip_bomb()}
    results, totals = await rag.ingest({**bad, **good})
    assert (totals.created_count, totals.failed_count) == (1, 2)
    assert results["manual.pdf"].outcome == corpus.INGEST_OUTCOME_CREATED
    locked, bomb = (results[name].failure for name in bad)
    assert (locked.reason, locked.metadata["problem"]) == ("DOCUMENT_UNREADABLE", "encrypted")
    assert (bomb.reason, bomb.metadata["limit"]) == ("DOCUMENT_TOO_COMPLEX", "compression_ratio")
    assert not locked.retryable
    assert not bomb.retryable
    # Another tenant, who sends the good one alone, leaves as many rows behind in each table.
    await rag.ingest(good, tenant="other")
    await rag.told()
    rows = await rows_of(rag.database_dsn, "acme")
    assert rows == await rows_of(rag.database_dsn, "other")
    assert {"document", "chunk", "embedding", "posting", "collection", "ingest_document"} <= {*rows}
    assert (rows["document"], rows["ingest_document"]) == (1, 0)
    listed = await rag.corpus.ListDocuments(
        corpus.ListDocumentsRequest(collection="docs"), metadata=ACME
    )
    assert [each.document_id for each in listed.documents] == ["manual.pdf"]
