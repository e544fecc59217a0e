"""Takes in documents: read, cut, embed, store; each document as a whole or not at all."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from opentelemetry.trace import get_current_span

from services.common.errors import ServiceError
from services.rag.byte_budget import ByteBudget
from services.rag.cache_port import CachePort
from services.rag.chunk_vectors import ChunkVectors
from services.rag.core.chunking import fit_sizes
from services.rag.core.documents import DocumentLabels, DocumentSummary
from services.rag.core.errors import (
    CollectionNotFound,
    DocumentChanged,
    DocumentNotFound,
    EmbeddingModelMismatch,
    UnexpectedFailure,
)
from services.rag.core.filters import SERVICE
from services.rag.core.ingest_job import JobLease, Settlement
from services.rag.core.intake import (
    Chunking,
    DocumentDone,
    DocumentProgress,
    IncomingDocument,
    IngestEvent,
    IngestOptions,
    IngestOutcome,
    IngestStage,
    IngestTotals,
)
from services.rag.core.reading import (
    Reading,
)
from services.rag.ingest_call import IngestCall
from services.rag.ingest_trace import IngestTrace, describe_document
from services.rag.models import ModelCatalogue, model_identity, split_identity
from services.rag.parse_port import DocumentWorker
from services.rag.read_documents import (
    DocumentReading,
    Target,
    document_of,
    index_fingerprint,
    indexed_of,
)
from services.rag.store_port import DocumentStore

__all__ = ["IngestLimits", "Ingestion"]

_logger = logging.getLogger(__name__)

# Less than this is digested before a thread has taken it on.
_DIGESTED_AT_ONCE_BYTES = 32 * 1024
# Cut to the same proportion where only one of the two sizes is given.
_TARGET_RATIO = 5 / 6

Report = Callable[[DocumentProgress], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestLimits:
    """Sizes of the work.

    Attributes:
        chunk_token_count: Size that chunks are cut to.
        maximum_chunk_token_count: Largest chunk.
        document_concurrency: Documents of one call worked on at the same time.
        content_bytes: Content of the documents worked on at the same time, over all ingestions; a
            larger document is worked on alone.
    """

    chunk_token_count: int
    maximum_chunk_token_count: int
    document_concurrency: int
    content_bytes: int


class Ingestion:
    """Takes in documents.

    Args:
        store: Keeps them.
        vectors: Finds or makes the vectors of their chunks.
        cache: Remembers how contents are cut.
        models: Models of the fleet.
        worker: Reads and cuts documents beside the event loop.
        trace: Traces and measures documents.
        limits: Sizes of the work.
        vectors_pending: Called when a document was stored whose vectors have still to be made.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        vectors: ChunkVectors,
        cache: CachePort,
        models: ModelCatalogue,
        worker: DocumentWorker,
        trace: IngestTrace,
        limits: IngestLimits,
        vectors_pending: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._models = models
        self._reading = DocumentReading(worker=worker, vectors=vectors, cache=cache, trace=trace)
        self._trace = trace
        self._limits = limits
        self._vectors_pending = vectors_pending
        self.content_budget = ByteBudget(limits.content_bytes)

    async def run(
        self, tenant_id: str, options: IngestOptions, documents: AsyncIterator[IncomingDocument]
    ) -> AsyncGenerator[IngestEvent, None]:
        """Takes in documents and reports on each; the totals come last.

        A document is asked of `documents` only when there is room to work on it and its results
        are read. Documents with the same id are taken in one after the other, so that the last
        one stays. Where `documents` fails, those before are finished first.

        Args:
            tenant_id: Owner of the collection.
            options: Where they go, and how they are cut. The collection is created with the first
                document where it does not exist.
            documents: The documents.

        Raises:
            EmbeddingModelMismatch: The fleet no longer has the model of the collection.
            ModelNotFound: The fleet has no model that embeds.
            PeerUnavailable: The balancer was never asked yet which models there are, and cannot be.
            StoreUnavailable: The store cannot be asked for the collection.
        """
        target = await self.target(tenant_id, options.collection, options.chunking)
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

    async def target(self, tenant_id: str, collection: str, chunking: Chunking) -> Target:
        """Finds out what embeds the documents of a collection; raises as `run` does."""
        try:
            stats = await self._store.get_collection(tenant_id, collection)
        except CollectionNotFound:
            stats = None
        identity = stats.embedding_model if stats is not None else None
        model = await self._models.embedding_model(split_identity(identity)[0] if identity else "")
        if identity and identity != model_identity(model):
            raise EmbeddingModelMismatch(collection, stored=identity, given=model_identity(model))
        target_size, maximum_size = self._sizes(chunking)
        return Target(
            tenant_id=tenant_id,
            collection=collection,
            model=model,
            strategy=chunking.strategy,
            sizes=fit_sizes(target_size, maximum_size, window=model.context_token_count),
        )

    async def take_in(
        self,
        target: Target,
        document: IncomingDocument,
        report: Report,
        *,
        lease: JobLease | None = None,
    ) -> DocumentDone:
        """Takes in one document, and says what became of it.

        Whoever calls it accounts for the content's bytes in `content_budget`.

        Args:
            target: Where it goes.
            document: The document.
            report: Told how far it is.
            lease: The document is one of a job: it is stored only while this is held, and what
                became of it is noted with the job in the same transaction.
        """
        with self._trace.document(target.tenant_id, target.collection, document) as span:
            done = await self._concluded(target, document, report, lease)
            describe_document(span, done)
            return done

    async def _concluded(
        self, target: Target, document: IncomingDocument, report: Report, lease: JobLease | None
    ) -> DocumentDone:
        failure: ServiceError
        try:
            return await self._take_in(target, document, report, lease)
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

    def _sizes(self, chunking: Chunking) -> tuple[int, int]:
        target, maximum = chunking.target_token_count, chunking.maximum_token_count
        if not maximum:
            least = round(target / _TARGET_RATIO)
            maximum = max(self._limits.maximum_chunk_token_count, least)
        if not target:
            target = min(self._limits.chunk_token_count, round(maximum * _TARGET_RATIO))
        return target, maximum

    async def _work_all(self, target: Target, call: IngestCall) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._limits.document_concurrency):
                group.create_task(self._work(target, call))
        if call.fault is not None:
            raise call.fault

    async def _work(self, target: Target, call: IngestCall) -> None:
        while await self._work_on_next(target, call):
            pass

    async def _work_on_next(self, target: Target, call: IngestCall) -> bool:
        async with call.turn:
            document = await call.receive()
            if document is None:
                return False
            document_id, byte_count = document.document_id, len(document.content)
            await self.content_budget.acquire(byte_count)
            call.begin(document_id)
        try:
            done = await self.take_in(target, document, call.outbox.put)
        finally:
            # The result may wait for its reader as long as the reader likes; the content is not
            # kept for it.
            del document
            self.content_budget.release(byte_count)
        await call.outbox.put(done)
        call.end(document_id)
        return True

    async def _take_in(
        self, target: Target, incoming: IncomingDocument, report: Report, lease: JobLease | None
    ) -> DocumentDone:
        if incoming.fault is not None:
            raise incoming.fault
        document_id = incoming.document_id
        await report(DocumentProgress(document_id=document_id, stage=IngestStage.RECEIVED))
        digest = await _digest(incoming.content)
        way = index_fingerprint(target, incoming)
        stored = await self._store.find_document(target.tenant_id, target.collection, document_id)
        if (
            stored is not None
            and stored.content_digest == digest
            and stored.index_fingerprint == way
            and stored.source_uri == incoming.source_uri
        ):
            if _same_labels(stored, incoming):
                return _unchanged(stored)
            _check_expected(incoming, stored)
            done = await self._relabel(target, stored, incoming, lease)
            if done is not None:
                return done
        _check_expected(incoming, stored)
        reading = await self._reading.read(target, digest, incoming)
        get_current_span().set_attribute("app.doc.format", reading.media_type)
        return await self._store_reading(target, incoming, reading, (digest, way), report, lease)

    async def _relabel(
        self,
        target: Target,
        stored: DocumentSummary,
        incoming: IncomingDocument,
        lease: JobLease | None,
    ) -> DocumentDone | None:
        """Changes labels alone; returns None where the document was replaced or deleted since."""
        try:
            summary = await self._store.update_document_labels(
                target.tenant_id,
                target.collection,
                incoming.document_id,
                DocumentLabels(
                    metadata=incoming.metadata,
                    tags=incoming.tags,
                    readers=incoming.readers,
                    expires_at=incoming.expires_at,
                    never_expires=incoming.expires_at is None,
                ),
                expected_content_digest=stored.content_digest,
                access=SERVICE,
                settlement=None if lease is None else Settlement(lease=lease),
            )
        except (CollectionNotFound, DocumentChanged, DocumentNotFound):
            return None
        return DocumentDone(
            document_id=incoming.document_id,
            outcome=IngestOutcome.UPDATED,
            chunk_count=summary.chunk_count,
            pending_vector_count=summary.pending_vector_count,
        )

    async def _store_reading(
        self,
        target: Target,
        incoming: IncomingDocument,
        reading: Reading,
        identity: tuple[str, str],
        report: Report,
        lease: JobLease | None,
    ) -> DocumentDone:
        document_id, chunk_count = incoming.document_id, len(reading.chunks)

        async def report_stage(stage: IngestStage, embedded_count: int = 0) -> None:
            await report(
                DocumentProgress(
                    document_id=document_id,
                    stage=stage,
                    chunk_count=chunk_count,
                    embedded_chunk_count=embedded_count,
                )
            )

        await report_stage(IngestStage.CHUNKED)
        embedding = partial(report_stage, IngestStage.EMBEDDING)
        async with AsyncExitStack() as stack:
            with self._trace.stage("embed"):
                found = await stack.enter_async_context(
                    self._vectors.found(target.vectors, reading.chunks, embedding)
                )
            with self._trace.stage("store"):
                receipt = await self._store.put_document(
                    document_of(target, incoming, reading, *identity),
                    indexed_of(reading, found.vectors),
                    embedding_model=model_identity(target.model),
                    expected_content_digest=incoming.expected_content_digest or None,
                    settlement=None
                    if lease is None
                    else Settlement(
                        lease=lease,
                        computed_embedding_count=found.computed_count,
                        warnings=reading.warnings,
                    ),
                )
        pending_count = sum(each.text_digest not in found.vectors for each in reading.chunks)
        if pending_count:
            self._vectors_pending()
        return DocumentDone(
            document_id=document_id,
            outcome=IngestOutcome.UPDATED if receipt.replaced else IngestOutcome.CREATED,
            chunk_count=receipt.chunk_count,
            computed_embedding_count=found.computed_count,
            pending_vector_count=pending_count,
            warnings=reading.warnings,
        )


async def _digest(content: bytes) -> str:
    if len(content) <= _DIGESTED_AT_ONCE_BYTES:
        return blake2b(content, digest_size=32).hexdigest()
    digest = await asyncio.to_thread(blake2b, content, digest_size=32)
    return digest.hexdigest()


def _same_labels(stored: DocumentSummary, incoming: IncomingDocument) -> bool:
    return (
        stored.metadata == dict(incoming.metadata)
        and stored.tags == incoming.tags
        and stored.readers == incoming.readers
        and stored.expires_at == incoming.expires_at
    )


def _unchanged(stored: DocumentSummary) -> DocumentDone:
    return DocumentDone(
        document_id=stored.document_id,
        outcome=IngestOutcome.UNCHANGED,
        chunk_count=stored.chunk_count,
        pending_vector_count=stored.pending_vector_count,
    )


def _check_expected(incoming: IncomingDocument, stored: DocumentSummary | None) -> None:
    """Refuses early what the store would refuse in the end.

    Raises:
        DocumentChanged: The stored version is not the one expected.
    """
    expected = incoming.expected_content_digest
    digest = stored.content_digest if stored is not None else ""
    if expected and expected != digest:
        # Whoever sends a version need not be one who may read what is stored.
        told = None if stored is not None and stored.readers else digest
        raise DocumentChanged(incoming.document_id, expected=expected, stored=told)
