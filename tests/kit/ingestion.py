"""An ingestion over a store and a fleet in memory, for tests of order, limits and waiting.

What is stored and embedded for real is shown over a server and PostgreSQL in
tests/integration/rag.
"""

import asyncio

import numpy as np
from opentelemetry.trace import NoOpTracer

from services.common.errors import PeerUnavailable
from services.rag.core.errors import CollectionNotFound
from services.rag.core.intake import IncomingDocument
from services.rag.core.model import PutReceipt
from services.rag.embed import EmbeddingsFound
from services.rag.ingest import Ingestion, IngestLimits
from services.rag.ports import ModelFacts

__all__ = ["FakeEmbeddings", "FakeStore", "document", "make_ingestion"]


class FakeStore:
    """Keeps the last version of each document.

    Attributes:
        texts: Stored texts by document id.
        peak_count: Most documents between look-up and storage at a time.
    """

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.peak_count = 0
        self._under_way_count = 0

    async def get_collection(self, tenant_id, name):
        raise CollectionNotFound(name)

    async def find_document(self, tenant_id, collection, document_id):
        self._under_way_count += 1
        self.peak_count = max(self.peak_count, self._under_way_count)

    async def find_embeddings(self, tenant_id, collection, text_digests, *, embedding_model):
        return {}

    async def put_document(self, document, chunks, *, embedding_model):
        self._under_way_count -= 1
        replaced = document.document_id in self.texts
        self.texts[document.document_id] = document.text
        return PutReceipt(
            replaced=replaced,
            document_version=1,
            collection_version=1,
            chunk_count=len(chunks),
            posting_count=0,
        )


class FakeEmbeddings:
    """Turns texts into vectors.

    Attributes:
        batches: The texts of each call, in the order of the calls.
        permits: Each call waits for one, where set.
        begun: Gets a value whenever a call begins.
    """

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.permits: asyncio.Semaphore | None = None
        self.begun: asyncio.Queue[None] = asyncio.Queue()

    async def embed(self, model, texts):
        self.batches.append(list(texts))
        self.begun.put_nowait(None)
        if self.permits is not None:
            await self.permits.acquire()
        return EmbeddingsFound(
            vectors=tuple(np.ones(4, dtype=np.float32) for _ in texts),
            computed_count=len(texts),
            cache_outcome="miss",
            cache_degraded=False,
        )


class _NoCache:
    async def lookup_chunks(self, content_digest, fingerprint):
        raise PeerUnavailable("cache", "away")

    async def store_chunks(self, content_digest, fingerprint, spans, dependencies):
        raise PeerUnavailable("cache", "away")


class _OneModel:
    async def embedding_model(self, name=""):
        return ModelFacts(name="embedder:latest", digest="0" * 64, generates=False, embeds=True)


def make_ingestion(store, embeddings, **limits):
    """Makes an ingestion; limits not given are those of the settings."""
    chosen = {
        "chunk_token_count": 200,
        "maximum_chunk_token_count": 240,
        "document_concurrency": 4,
        "content_bytes": 1_000_000,
        "embedding_batch_size": 16,
        "embedding_concurrency": 16,
    }
    return Ingestion(
        store=store,
        embeddings=embeddings,
        cache=_NoCache(),
        models=_OneModel(),
        tracer=NoOpTracer(),
        limits=IngestLimits(**{**chosen, **limits}),
    )


def document(document_id, text="Some text.", **fields):
    """Makes a document as it is received."""
    return IncomingDocument(
        document_id=document_id, source_uri=document_id, content=text.encode(), **fields
    )
