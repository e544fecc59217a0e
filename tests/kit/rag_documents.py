"""Documents for tests of the rag service's store."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import numpy as np

from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.documents import Chunk, Document, IndexedChunk, TermFrequencies, Vector

__all__ = ["MODEL", "UnusedClock", "document", "indexed_chunks", "opened_store", "unit_vector"]

MODEL = "all-minilm"


class UnusedClock:
    """A clock that nobody asks."""


@asynccontextmanager
async def opened_store(dsn: str) -> AsyncIterator[PostgresDocumentStore]:
    """Opens a store on a database, and closes it at the end."""
    pool = PostgresPool(dsn, size=8, statement_seconds=5.0)
    await pool.open()
    try:
        yield PostgresDocumentStore(pool)
    finally:
        await pool.close()


def unit_vector(*values: float) -> Vector:
    """Returns a vector of length 1 in the direction of the values."""
    vector = np.asarray(values, dtype=np.float32)
    unit: Vector = vector / np.linalg.norm(vector)
    return unit


def document(
    document_id: str = "doc",
    *,
    tenant_id: str = "acme",
    collection: str = "manuals",
    text: str = "text",
    **facts: str,
) -> Document:
    """Returns a document with everything filled in."""
    return Document(
        tenant_id=tenant_id,
        collection=collection,
        document_id=document_id,
        title=facts.get("title", f"Title of {document_id}"),
        source_uri=facts.get("source_uri", f"file:///{document_id}"),
        media_type="text/plain",
        text=text,
        content_digest=facts.get("content_digest", "00ff"),
        byte_count=len(text.encode()),
        metadata={"origin": "test"},
    )


def indexed_chunks(
    terms_and_vectors: Iterable[tuple[Mapping[str, int], Vector]], *, text: str = "text"
) -> list[IndexedChunk]:
    """Returns chunks with the given terms and vectors; each holds `text` and its number."""
    chunks = []
    for ordinal, (counts, vector) in enumerate(terms_and_vectors):
        body = f"{text} {ordinal}"
        chunk = Chunk(
            ordinal=ordinal,
            char_start=0,
            char_end=len(body),
            text=body,
            heading_path=("Part", str(ordinal)),
            header=f"Title / Part / {ordinal}",
            token_estimate=3,
            text_digest=body.encode().hex()[:40].ljust(40, "0"),
        )
        terms = TermFrequencies(dict(counts), sum(counts.values()))
        chunks.append(IndexedChunk(chunk=chunk, terms=terms, embedding=vector))
    return chunks
