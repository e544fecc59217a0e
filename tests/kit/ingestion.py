"""An ingestion over a store and a fleet in memory, for tests of order, limits and waiting.

What is stored and embedded for real is shown over a server and PostgreSQL in
tests/integration/rag.
"""

import asyncio
from datetime import UTC, datetime

import numpy as np
from opentelemetry.trace import NoOpTracer

from services.common.clock import SystemClock
from services.common.errors import PeerUnavailable
from services.common.metrics import Metrics
from services.rag.chunk_vectors import ChunkVectors, EmbeddingLimits
from services.rag.core.documents import DocumentSummary
from services.rag.core.errors import CollectionNotFound
from services.rag.core.intake import IncomingDocument, IngestOptions
from services.rag.core.receipts import PutReceipt
from services.rag.embed import CachedVectors, EmbeddingsFound
from services.rag.ingest import Ingestion, IngestLimits
from services.rag.ingest_trace import IngestTrace
from services.rag.metrics import CATALOGUE
from services.rag.ports import ModelFacts

__all__ = [
    "FakeEmbeddings",
    "FakeStore",
    "document",
    "in_order",
    "make_ingestion",
    "make_vectors",
    "options",
]

MODEL = ModelFacts(name="embedder:latest", digest="0" * 64, generates=False, embeds=True)


class FakeStore:
    """Keeps the last version of each document.

    Attributes:
        documents: What was stored, by document id.
        embeddings: Vectors that other documents have, by text digest.
        labels: Changes of labels, in their order.
        peak_count: Most documents between look-up and storage at a time.
        asked_count: Times that vectors of other documents were asked for.
    """

    def __init__(self) -> None:
        self.documents: dict[str, DocumentSummary] = {}
        self.texts: dict[str, str] = {}
        self.chunks: dict[str, list] = {}
        self.embeddings: dict[str, np.ndarray] = {}
        self.labels: list = []
        self.settlements: list = []
        self.peak_count = 0
        self.asked_count = 0
        self._under_way_count = 0

    async def get_collection(self, tenant_id, name):
        raise CollectionNotFound(name)

    async def find_document(self, tenant_id, collection, document_id):
        self._under_way_count += 1
        self.peak_count = max(self.peak_count, self._under_way_count)
        return self.documents.get(document_id)

    async def find_embeddings(self, tenant_id, collection, text_digests, *, embedding_model):
        self.asked_count += 1
        return {each: self.embeddings[each] for each in text_digests if each in self.embeddings}

    async def put_document(
        self,
        document,
        chunks,
        *,
        embedding_model,
        expected_content_digest=None,
        settlement=None,
    ):
        self._under_way_count -= 1
        replaced = document.document_id in self.texts
        self.texts[document.document_id] = document.text
        self.chunks[document.document_id] = list(chunks)
        self.settlements.append(settlement)
        self.documents[document.document_id] = DocumentSummary(
            collection=document.collection,
            document_id=document.document_id,
            title=document.title,
            source_uri=document.source_uri,
            media_type=document.media_type,
            content_digest=document.content_digest,
            index_fingerprint=document.index_fingerprint,
            byte_count=document.byte_count,
            character_count=len(document.text),
            chunk_count=len(chunks),
            version=1,
            metadata=document.metadata,
            created_at=datetime.now(UTC),
            updated_at=datetime.now(UTC),
            tags=document.tags,
            readers=document.readers,
            language=document.language,
            expires_at=document.expires_at,
            pending_vector_count=sum(each.embedding is None for each in chunks),
        )
        return PutReceipt(
            replaced=replaced,
            document_version=1,
            collection_version=1,
            chunk_count=len(chunks),
            posting_count=0,
        )

    async def update_document_labels(
        self,
        tenant_id,
        collection,
        document_id,
        labels,
        *,
        expected_content_digest=None,
        access=None,
        settlement=None,
    ):
        self.labels.append((document_id, labels, expected_content_digest))
        return self.documents[document_id]


class FakeEmbeddings:
    """Turns texts into vectors.

    Attributes:
        batches: The texts of each call that computes, in the order of the calls.
        cached: What the cache knows, by text.
        lookups: The texts of each call that asks the cache.
        kept: The texts of each call that tells the cache.
        outcome: How look-ups end.
        permits: Each call waits for one, where set.
        begun: Gets a value whenever a call begins.
        fault: Raised where set.
        peak_count: Most calls at a time.
    """

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.peak_count = 0
        self._count = 0
        self.batches: list[list[str]] = []
        self.cached: dict[str, np.ndarray] = {}
        self.lookups: list[list[str]] = []
        self.kept: list[list[str]] = []
        self.outcome = "miss"
        self.permits: asyncio.Semaphore | None = None
        self.begun: asyncio.Queue[None] = asyncio.Queue()

    async def embed(self, model, texts, *, time_limit_seconds=None, urgent=True):
        computed = await self.compute(
            model, texts, time_limit_seconds=time_limit_seconds, urgent=urgent
        )
        return EmbeddingsFound(
            vectors=tuple(computed[text] for text in texts),
            computed_count=len(texts),
            cache_outcome="miss",
            cache_degraded=False,
        )

    async def look_up(self, model, texts):
        self.lookups.append(list(texts))
        known = {text: self.cached[text] for text in texts if text in self.cached}
        return CachedVectors(vectors=known, outcome=self.outcome)

    async def keep(self, model, vectors):
        self.kept.append(list(vectors))

    async def compute(self, model, texts, *, time_limit_seconds=None, urgent=True):
        assert not urgent
        self.batches.append(list(texts))
        self.begun.put_nowait(None)
        self._count += 1
        self.peak_count = max(self.peak_count, self._count)
        try:
            if self.permits is not None:
                await self.permits.acquire()
            if self.fault is not None:
                raise self.fault
        finally:
            self._count -= 1
        return {text: np.full(4, len(text), dtype=np.float32) for text in texts}


class _NoCache:
    async def lookup_chunks(self, content_digest, fingerprint):
        raise PeerUnavailable("cache", "away")

    async def store_chunks(self, content_digest, fingerprint, spans, dependencies):
        raise PeerUnavailable("cache", "away")


class _OneModel:
    async def embedding_model(self, name=""):
        return MODEL


class _InThreads:
    """Does all work in threads, however heavy."""

    async def run(self, function, *arguments, heavy):
        return await asyncio.to_thread(function, *arguments)


def make_vectors(store, embeddings, *, clock=None, **limits):
    """Makes what finds vectors; limits not given are those of the settings."""
    chosen = {"batch_size": 16, "concurrency": 16, "time_limit_seconds": 60.0}
    return ChunkVectors(
        store=store,
        embeddings=embeddings,
        clock=clock or SystemClock(),
        limits=EmbeddingLimits(**{**chosen, **limits}),
    )


def make_ingestion(store, embeddings, *, clock=None, batch_size=16, concurrency=16, **limits):
    """Makes an ingestion; limits not given are those of the settings."""
    chosen = {
        "chunk_token_count": 200,
        "maximum_chunk_token_count": 240,
        "document_concurrency": 4,
        "content_bytes": 1_000_000,
    }
    return Ingestion(
        store=store,
        vectors=make_vectors(
            store, embeddings, clock=clock, batch_size=batch_size, concurrency=concurrency
        ),
        cache=_NoCache(),
        models=_OneModel(),
        worker=_InThreads(),
        trace=IngestTrace(
            tracer=NoOpTracer(),
            clock=SystemClock(),
            metrics=Metrics(CATALOGUE, version="test"),
        ),
        limits=IngestLimits(**{**chosen, **limits}),
    )


def options(collection="docs", **chosen):
    """Makes the options of an ingestion."""
    return IngestOptions(collection=collection, **chosen)


def document(document_id, text="Some text.", **fields):
    """Makes a document as it is received."""
    return IncomingDocument(
        document_id=document_id, source_uri=document_id, content=text.encode(), **fields
    )


async def in_order(*documents):
    """Yields documents, and raises what is an error."""
    for each in documents:
        if isinstance(each, Exception):
            raise each
        yield each
