"""Reads documents and cuts them into chunks, beside the event loop.

Where a long document is cut is remembered in the cache.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from services.common.clock import SystemClock
from services.common.errors import PeerUnavailable
from services.rag.cache_port import CachePort, ChunkSpan, Dependencies
from services.rag.chunk_vectors import ChunkVectors, VectorTarget
from services.rag.core.chunking import ChunkSizes, Place, fingerprint
from services.rag.core.documents import Chunk, Document, IndexedChunk, Vector
from services.rag.core.intake import ChunkingStrategy, IncomingDocument
from services.rag.core.parsing import is_heavy
from services.rag.core.reading import (
    Reading,
    ReadingOrder,
    cut,
    cut_by_meaning,
    parse,
    read_sentences,
)
from services.rag.ingest_trace import IngestTrace
from services.rag.parse_port import DocumentWorker
from services.rag.ports import ModelFacts

__all__ = [
    "DocumentReading",
    "Target",
    "document_of",
    "index_fingerprint",
    "indexed_of",
    "read_timed",
]

_logger = logging.getLogger(__name__)

# Less than this is cut sooner than the cache can be asked: 1 ms for 2 KB, two calls take 2 ms.
_LEAST_REMEMBERED_BYTES = 32 * 1024
# Messages are written on the event loop, which this many places hold up for 20 ms.
_MOST_REMEMBERED_CHUNKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where documents go, how they are cut, and what embeds them."""

    tenant_id: str
    collection: str
    model: ModelFacts
    strategy: ChunkingStrategy
    sizes: ChunkSizes

    @property
    def vectors(self) -> VectorTarget:
        """Where vectors belong."""
        return VectorTarget(tenant_id=self.tenant_id, collection=self.collection, model=self.model)

    def fingerprint(self) -> str:
        """Returns what identifies the way documents are cut."""
        return fingerprint(self.sizes, strategy=self.strategy.value)


class DocumentReading:
    """Reads and cuts documents.

    Args:
        worker: Does the work.
        vectors: Embeds sentences, where documents are cut by meaning.
        cache: Remembers where contents are cut.
        trace: Traces and measures it.
    """

    def __init__(
        self,
        *,
        worker: DocumentWorker,
        vectors: ChunkVectors,
        cache: CachePort,
        trace: IngestTrace,
    ) -> None:
        self._worker = worker
        self._trace = trace
        self._vectors = vectors
        self._cache = cache

    async def read(self, target: Target, digest: str, incoming: IncomingDocument) -> Reading:
        """Reads a document.

        Args:
            target: How it is to be cut.
            digest: Digest of its content.
            incoming: The document.

        Raises:
            DocumentRejected: One of its subclasses, by what is wrong with the bytes.
            ServiceError: Sentences have to be embedded and cannot be.
        """
        remembered = (
            target.strategy is ChunkingStrategy.SEMANTIC
            or len(incoming.content) >= _LEAST_REMEMBERED_BYTES
        )
        order = ReadingOrder(
            file_name=incoming.document_id,
            media_type=incoming.media_type,
            title=incoming.title,
            language=incoming.language,
            sizes=target.sizes,
            places=await self._places(target, digest, incoming) if remembered else None,
        )
        heavy = is_heavy(incoming.content)
        strategy = target.strategy.value
        if target.strategy is ChunkingStrategy.SEMANTIC and order.places is None:
            with self._trace.stage("parse"):
                sentences = await self._worker.run(
                    read_sentences, incoming.content, order, heavy=heavy
                )
            with self._trace.stage("chunk") as stage:
                vectors = await self._vectors.embed(target.model, sentences.texts())
                reading = await self._worker.run(
                    cut_by_meaning, sentences, vectors, order, heavy=heavy
                )
                stage.note_chunks(len(reading.chunks), strategy)
        else:
            with self._trace.stage("parse") as stage:
                reading, seconds = await self._worker.run(
                    read_timed, incoming.content, order, heavy=heavy
                )
                stage.note_chunks(len(reading.chunks), strategy, seconds=seconds)
        fit = len(reading.chunks) <= _MOST_REMEMBERED_CHUNKS
        if remembered and fit and order.places is None:
            await self._remember(target, digest, incoming, reading.chunks)
        return reading

    async def _places(
        self, target: Target, digest: str, incoming: IncomingDocument
    ) -> tuple[Place, ...] | None:
        """Asks the cache where the same document was cut before."""
        try:
            spans = await self._cache.lookup_chunks(digest, _cut_fingerprint(target, incoming))
        except PeerUnavailable:
            return None
        if spans is None:
            return None
        return tuple((span.char_start, span.char_end, span.heading_path) for span in spans)

    async def _remember(
        self,
        target: Target,
        digest: str,
        incoming: IncomingDocument,
        chunks: tuple[Chunk, ...],
    ) -> None:
        spans = [
            ChunkSpan(each.char_start, each.char_end, each.heading_path, each.token_estimate)
            for each in chunks
        ]
        try:
            await self._cache.store_chunks(
                digest,
                _cut_fingerprint(target, incoming),
                spans,
                Dependencies(target.collection, (incoming.document_id,)),
            )
        except PeerUnavailable:
            _logger.debug("chunks not kept: the cache cannot be asked")


def read_timed(content: bytes, order: ReadingOrder) -> tuple[Reading, float]:
    """Reads and cuts a document, and says how many seconds of that the cutting took.

    Raises:
        DocumentRejected: One of its subclasses, by what is wrong with the bytes.
    """
    clock = SystemClock()
    parsed = parse(content, order)
    started = clock.monotonic()
    reading = cut(parsed, order)
    return reading, clock.monotonic() - started


def index_fingerprint(target: Target, incoming: IncomingDocument) -> str:
    """Returns what decides, beside the content, what is stored and indexed of a document."""
    # What the sender says of a document decides how it is read, but not all of it shows in what is
    # stored: no title given is something else than the title found.
    said = _hash(incoming.media_type, incoming.title, incoming.language)
    return f"{target.fingerprint()}/said={said}"


def _cut_fingerprint(target: Target, incoming: IncomingDocument) -> str:
    # The title, which may be the file's name, stands in every chunk's header and so has a say in
    # where chunks end; the name and what is said decide which parser reads the bytes. Where the
    # meaning changes is for the model to say.
    model = target.model.digest if target.strategy is ChunkingStrategy.SEMANTIC else ""
    said = _hash(incoming.media_type, incoming.title, incoming.document_id, model)
    return f"{target.fingerprint()}/{said}"


def _hash(*texts: str) -> str:
    return blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()


def document_of(
    target: Target,
    incoming: IncomingDocument,
    reading: Reading,
    digest: str,
    way: str,
) -> Document:
    """Returns what is stored of a document."""
    return Document(
        tenant_id=target.tenant_id,
        collection=target.collection,
        document_id=incoming.document_id,
        title=reading.title,
        source_uri=incoming.source_uri,
        media_type=reading.media_type,
        text=reading.text,
        content_digest=digest,
        index_fingerprint=way,
        byte_count=len(incoming.content),
        metadata=dict(incoming.metadata),
        tags=incoming.tags,
        readers=incoming.readers,
        language=reading.language,
        expires_at=incoming.expires_at,
        page_count=reading.page_count,
    )


def indexed_of(reading: Reading, vectors: Mapping[str, Vector]) -> list[IndexedChunk]:
    """Returns the chunks of a document with those of their vectors that there are."""
    return [
        IndexedChunk(chunk=chunk, terms=terms, embedding=vectors.get(chunk.text_digest))
        for chunk, terms in zip(reading.chunks, reading.terms, strict=True)
    ]
