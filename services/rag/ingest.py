"""Takes in documents: read, cut, embed, store; each document as a whole or not at all."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from opentelemetry.trace import Tracer

from services.common.errors import PeerUnavailable, ServiceError
from services.rag.byte_budget import ByteBudget
from services.rag.cache_port import CachePort, ChunkSpan, Dependencies
from services.rag.core.analysis import analyse_document
from services.rag.core.chunking import chunk_document, fingerprint, restore_chunks
from services.rag.core.errors import (
    CollectionNotFound,
    EmbeddingModelMismatch,
    UnexpectedFailure,
)
from services.rag.core.intake import (
    DocumentDone,
    DocumentProgress,
    IncomingDocument,
    IngestEvent,
    IngestOutcome,
    IngestStage,
    IngestTotals,
)
from services.rag.core.model import Chunk, Document, IndexedChunk, TermFrequencies, Vector
from services.rag.core.parsing import ParsedDocument, parse_document
from services.rag.embed import EmbeddingSource
from services.rag.ingest_call import IngestCall, Outbox
from services.rag.models import ModelCatalogue, model_identity, split_identity
from services.rag.ports import DocumentStore, ModelFacts

__all__ = ["IngestLimits", "Ingestion"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Sizes of the work.

    Attributes:
        chunk_token_count: Size that chunks are cut to.
        maximum_chunk_token_count: Largest chunk.
        document_concurrency: Documents of one call worked on at the same time.
        content_bytes: Content of the documents worked on at the same time, over all ingestions; a
            larger document is worked on alone.
        embedding_batch_size: Texts of one call that embeds.
        embedding_concurrency: Calls that embed at the same time, over all ingestions.
    """

    chunk_token_count: int
    maximum_chunk_token_count: int
    document_concurrency: int
    content_bytes: int
    embedding_batch_size: int
    embedding_concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """Where documents go, and what embeds them."""

    tenant_id: str
    collection: str
    model: ModelFacts


class Ingestion:
    """Takes in documents.

    Args:
        store: Keeps them.
        embeddings: Makes vectors.
        cache: Remembers how contents are cut.
        models: Models of the fleet.
        tracer: Makes a span for each document.
        limits: Sizes of the work.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        embeddings: EmbeddingSource,
        cache: CachePort,
        models: ModelCatalogue,
        tracer: Tracer,
        limits: IngestLimits,
    ) -> None:
        self._store = store
        self._embeddings = embeddings
        self._cache = cache
        self._models = models
        self._tracer = tracer
        self._limits = limits
        self._content_budget = ByteBudget(limits.content_bytes)
        self._embedding_slots = asyncio.Semaphore(limits.embedding_concurrency)
        self._fingerprint = fingerprint(
            target_tokens=limits.chunk_token_count, max_tokens=limits.maximum_chunk_token_count
        )

    async def run(
        self, tenant_id: str, collection: str, documents: AsyncIterator[IncomingDocument]
    ) -> AsyncGenerator[IngestEvent, None]:
        """Takes in documents and reports on each; the totals come last.

        A document is asked of `documents` only when there is room to work on it and its results
        are read. Documents with the same id are taken in one after the other, so that the last
        one stays. Where `documents` fails, those before are finished first.

        Args:
            tenant_id: Owner of the collection.
            collection: Created with the first document where it does not exist.
            documents: The documents.

        Raises:
            EmbeddingModelMismatch: The fleet no longer has the model of the collection.
            ModelNotFound: The fleet has no model that embeds.
            PeerUnavailable: The balancer cannot be asked which models there are.
            StoreUnavailable: The store cannot be asked for the collection.
        """
        target = await self._target(tenant_id, collection)
        call = IngestCall(documents)
        outcomes: Counter[IngestOutcome] = Counter()
        chunk_count = 0
        # No task group around the yields: a consumer that leaves would see its GeneratorExit
        # come back wrapped in a group.
        work = asyncio.create_task(self._work_all(target, call))
        work.add_done_callback(lambda _: call.outbox.end())
        try:
            while (event := await call.outbox.get()) is not None:
                if isinstance(event, DocumentDone):
                    outcomes[event.outcome] += 1
                    if event.outcome in (IngestOutcome.CREATED, IngestOutcome.UPDATED):
                        chunk_count += event.chunk_count
                yield event
        finally:
            work.cancel()
            await asyncio.wait([work])
        work.result()
        yield IngestTotals(counts=outcomes, chunk_count=chunk_count)

    async def _work_all(self, target: _Target, call: IngestCall) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._limits.document_concurrency):
                group.create_task(self._work(target, call))
        if call.fault is not None:
            raise call.fault

    async def _work(self, target: _Target, call: IngestCall) -> None:
        while await self._work_on_next(target, call):
            pass

    async def _work_on_next(self, target: _Target, call: IngestCall) -> bool:
        async with call.turn:
            document = await call.receive()
            if document is None:
                return False
            document_id, byte_count = document.document_id, len(document.content)
            await self._content_budget.acquire(byte_count)
            call.begin(document_id)
        try:
            done = await self._attempt(target, document, call.outbox)
        finally:
            # The result may wait for its reader as long as the reader likes; the content is not
            # kept for it.
            del document
            self._content_budget.release(byte_count)
        await call.outbox.put(done)
        call.end(document_id)
        return True

    async def _attempt(
        self, target: _Target, document: IncomingDocument, outbox: Outbox
    ) -> DocumentDone:
        try:
            return await self._ingest(target, document, outbox)
        except ServiceError as error:
            failure = error
        except Exception:
            _logger.exception("document failed", extra={"document_id": document.document_id})
            failure = UnexpectedFailure()
        # The frames of the traceback and a decoding error among the causes hold the content.
        failure.__traceback__ = failure.__cause__ = failure.__context__ = None
        return DocumentDone(
            document_id=document.document_id, outcome=IngestOutcome.FAILED, failure=failure
        )

    async def _target(self, tenant_id: str, collection: str) -> _Target:
        try:
            stats = await self._store.get_collection(tenant_id, collection)
        except CollectionNotFound:
            stats = None
        identity = stats.embedding_model if stats is not None else None
        model = await self._models.embedding_model(split_identity(identity)[0] if identity else "")
        if identity and identity != model_identity(model):
            raise EmbeddingModelMismatch(collection, stored=identity, given=model_identity(model))
        return _Target(tenant_id=tenant_id, collection=collection, model=model)

    async def _ingest(
        self, target: _Target, incoming: IncomingDocument, outbox: Outbox
    ) -> DocumentDone:
        if incoming.fault is not None:
            raise incoming.fault
        document_id = incoming.document_id
        await outbox.put(DocumentProgress(document_id=document_id, stage=IngestStage.RECEIVED))
        digest = await asyncio.to_thread(_digest, incoming.content)
        index_fingerprint = self._index_fingerprint(incoming)
        stored = await self._store.find_document(target.tenant_id, target.collection, document_id)
        if (
            stored is not None
            and stored.content_digest == digest
            and stored.index_fingerprint == index_fingerprint
            and stored.source_uri == incoming.source_uri
            and stored.metadata == dict(incoming.metadata)
        ):
            return DocumentDone(
                document_id=document_id,
                outcome=IngestOutcome.UNCHANGED,
                chunk_count=stored.chunk_count,
            )
        with self._tracer.start_as_current_span("rag.ingest_document", record_exception=False):
            parsed = await asyncio.to_thread(
                parse_document,
                incoming.content,
                file_name=document_id,
                media_type=incoming.media_type,
                title=incoming.title,
            )
            dependencies = Dependencies(target.collection, (document_id,))
            chunks, terms = await self._cut(digest, parsed, dependencies)
            vectors, computed_count = await self._embed(target, document_id, chunks, outbox)
            document = Document(
                tenant_id=target.tenant_id,
                collection=target.collection,
                document_id=document_id,
                title=parsed.title,
                source_uri=incoming.source_uri,
                media_type=parsed.media_type,
                text=parsed.text,
                content_digest=digest,
                index_fingerprint=index_fingerprint,
                byte_count=len(incoming.content),
                metadata=dict(incoming.metadata),
            )
            receipt = await self._store.put_document(
                document,
                [
                    IndexedChunk(chunk=chunk, terms=term, embedding=vector)
                    for chunk, term, vector in zip(chunks, terms, vectors, strict=True)
                ],
                embedding_model=model_identity(target.model),
            )
        return DocumentDone(
            document_id=document_id,
            outcome=IngestOutcome.UPDATED if receipt.replaced else IngestOutcome.CREATED,
            chunk_count=receipt.chunk_count,
            computed_embedding_count=computed_count,
        )

    async def _cut(
        self, digest: str, parsed: ParsedDocument, dependencies: Dependencies
    ) -> tuple[Sequence[Chunk], Sequence[TermFrequencies]]:
        try:
            spans = await self._cache.lookup_chunks(digest, self._chunks_fingerprint(parsed))
        except PeerUnavailable:
            spans = None
        chunks, terms = await asyncio.to_thread(self._cut_and_analyse, parsed, spans)
        if spans is None:
            try:
                await self._cache.store_chunks(
                    digest,
                    self._chunks_fingerprint(parsed),
                    [
                        ChunkSpan(
                            chunk.char_start,
                            chunk.char_end,
                            chunk.heading_path,
                            chunk.token_estimate,
                        )
                        for chunk in chunks
                    ],
                    dependencies,
                )
            except PeerUnavailable:
                _logger.debug("chunks not kept: the cache cannot be asked")
        return chunks, terms

    def _index_fingerprint(self, incoming: IncomingDocument) -> str:
        # What the sender says of a document decides how it is read, but not all of it shows in
        # what is stored: no title given is something else than the title found.
        said = "\0".join((incoming.media_type, incoming.title))
        return f"{self._fingerprint}/said={blake2b(said.encode(), digest_size=8).hexdigest()}"

    def _chunks_fingerprint(self, parsed: ParsedDocument) -> str:
        # The title stands in every chunk's header and so has a say in where chunks end.
        title = blake2b(parsed.title.encode(), digest_size=8).hexdigest()
        return f"{self._fingerprint}/{parsed.media_type}/{title}"

    def _cut_and_analyse(
        self, parsed: ParsedDocument, spans: Sequence[ChunkSpan] | None
    ) -> tuple[Sequence[Chunk], Sequence[TermFrequencies]]:
        if spans is None:
            chunks = chunk_document(
                parsed,
                target_tokens=self._limits.chunk_token_count,
                max_tokens=self._limits.maximum_chunk_token_count,
            )
        else:
            chunks = restore_chunks(
                parsed,
                [(span.char_start, span.char_end, span.heading_path) for span in spans],
                max_tokens=self._limits.maximum_chunk_token_count,
            )
        return chunks, [analyse_document(chunk.embedding_text) for chunk in chunks]

    async def _embed(
        self, target: _Target, document_id: str, chunks: Sequence[Chunk], outbox: Outbox
    ) -> tuple[Sequence[Vector], int]:
        """Gets the vectors of chunks: from the collection, the cache, or newly computed."""
        await outbox.put(
            DocumentProgress(
                document_id=document_id, stage=IngestStage.CHUNKED, chunk_count=len(chunks)
            )
        )
        texts = {chunk.text_digest: chunk.embedding_text for chunk in chunks}
        occurrences = Counter(chunk.text_digest for chunk in chunks)
        vectors = dict(
            await self._store.find_embeddings(
                target.tenant_id,
                target.collection,
                list(texts),
                embedding_model=model_identity(target.model),
            )
        )
        missing = [digest for digest in texts if digest not in vectors]
        size = self._limits.embedding_batch_size
        embedded_count = len(chunks) - sum(occurrences[digest] for digest in missing)
        computed_count = 0

        async def report_embedding() -> None:
            await outbox.put(
                DocumentProgress(
                    document_id=document_id,
                    stage=IngestStage.EMBEDDING,
                    chunk_count=len(chunks),
                    embedded_chunk_count=embedded_count,
                )
            )

        async def embed(digests: Sequence[str]) -> None:
            nonlocal computed_count, embedded_count
            found = await self._embeddings.embed(
                target.model, [texts[digest] for digest in digests]
            )
            vectors.update(zip(digests, found.vectors, strict=True))
            computed_count += found.computed_count
            embedded_count += sum(occurrences[digest] for digest in digests)
            await report_embedding()

        await report_embedding()
        failure: ServiceError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for start in range(0, len(missing), size):
                    # Slots go to who asks first. A document asks for one at a time, so that
                    # others wait for its next batch and not for all of them.
                    await self._embedding_slots.acquire()
                    task = group.create_task(embed(missing[start : start + size]))
                    task.add_done_callback(lambda _: self._embedding_slots.release())
        except* ServiceError as errors:
            failure = _first(errors)
        if failure is not None:
            raise failure
        return [vectors[chunk.text_digest] for chunk in chunks], computed_count


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=32).hexdigest()


def _first(group: ExceptionGroup[ServiceError]) -> ServiceError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
