"""CorpusService over gRPC: read the request, call, write the response."""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from pannier.rag.v1 import corpus_service_pb2 as pb
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceServicer
from services.common.identity import current_identity
from services.common.pagination import (
    check_page_size,
    decode_page_number,
    decode_page_token,
    encode_page_token,
)
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag import corpus_convert as convert
from services.rag.accept_job import JobAcceptance
from services.rag.caller import caller_access
from services.rag.core.intake import DocumentDone
from services.rag.delete_documents import Deletions
from services.rag.filter_convert import filter_of
from services.rag.ingest import Ingestion
from services.rag.ingest_convert import check_document_id, check_new_collection, label_changes_of
from services.rag.invalidate import InvalidationDelivery
from services.rag.job_calls import JobCalls
from services.rag.receive import receive_documents, receive_options
from services.rag.retrieval_convert import check_collection
from services.rag.statistics import RagStatistics
from services.rag.store_port import DocumentStore

__all__ = ["CorpusServicer"]

Context = grpc.aio.ServicerContext[Any, Any]
Listed = TypeVar("Listed", pb.Document, pb.Chunk)

# Half of what a client accepts by default; one document's metadata may have 128 KB.
_PAGE_BYTES = 2 * 1024 * 1024


class CorpusServicer(CorpusServiceServicer):
    """Keeps documents.

    Args:
        ingestion: Takes documents in.
        acceptance: Keeps documents for jobs.
        jobs: Answers calls about jobs.
        deletions: Deletes documents and collections.
        store: Keeps documents.
        statistics: Counts.
        delivery: Tells the cache of changes.
        maximum_document_bytes: Largest document accepted.
    """

    def __init__(
        self,
        *,
        ingestion: Ingestion,
        acceptance: JobAcceptance,
        jobs: JobCalls,
        deletions: Deletions,
        store: DocumentStore,
        statistics: RagStatistics,
        delivery: InvalidationDelivery,
        maximum_document_bytes: int,
    ) -> None:
        self._ingestion = ingestion
        self._acceptance = acceptance
        self._jobs = jobs
        self._deletions = deletions
        self._store = store
        self._statistics = statistics
        self._delivery = delivery
        self._maximum_document_bytes = maximum_document_bytes

    async def IngestDocuments(
        self, request_iterator: AsyncIterator[pb.IngestDocumentsRequest], context: Context
    ) -> AsyncIterator[pb.IngestDocumentsResponse]:
        """Takes in documents."""
        requests = aiter(request_iterator)
        options = await receive_options(requests)
        documents = receive_documents(requests, maximum_document_bytes=self._maximum_document_bytes)
        tenant_id = current_identity.get().tenant_id
        if options.background:
            accepted = await self._acceptance.accept(tenant_id, options, documents)
            yield convert.to_ingest_response(accepted)
            return
        async with aclosing(self._ingestion.run(tenant_id, options, documents)) as events:
            async for event in events:
                if isinstance(event, DocumentDone):
                    self._statistics.add_document(event)
                    self._delivery.wake()
                yield convert.to_ingest_response(event)

    async def ListDocuments(
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        """Lists documents."""
        violations = Violations()
        check_collection(request.collection, violations)
        size = check_page_size(request.page_size, violations)
        chosen = filter_of(request.filter, violations, field="filter")
        violations.raise_found()
        conditions = request.filter.SerializeToString(deterministic=True).hex()
        scope = f"documents/{request.collection}/{conditions}"
        page = await self._store.list_documents(
            current_identity.get().tenant_id,
            request.collection,
            after=decode_page_token(scope, request.page_token),
            page_size=size,
            filter=chosen,
            access=caller_access(),
        )
        documents = _within_message(map(convert.to_document, page.documents))
        all_fit = len(documents) == len(page.documents)
        after = page.next_after if all_fit else documents[-1].document_id
        return pb.ListDocumentsResponse(
            documents=documents,
            next_page_token=encode_page_token(scope, after) if after else "",
        )

    async def GetDocument(
        self, request: pb.GetDocumentRequest, context: Context
    ) -> pb.GetDocumentResponse:
        """Gets a document."""
        violations = Violations()
        check_collection(request.collection, violations)
        check_document_id(request.document_id, violations, field="document_id")
        violations.require(
            request.view in pb.DocumentView.values(), "view", "Is no known DocumentView."
        )
        violations.raise_found()
        stored = await self._store.get_document(
            current_identity.get().tenant_id,
            request.collection,
            request.document_id,
            access=caller_access(),
        )
        text = stored.text if request.view == pb.DOCUMENT_VIEW_FULL else ""
        return pb.GetDocumentResponse(document=convert.to_document(stored.summary, text=text))

    async def UpdateDocument(
        self, request: pb.UpdateDocumentRequest, context: Context
    ) -> pb.UpdateDocumentResponse:
        """Changes what is kept with a document."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        check_collection(request.collection, violations)
        check_document_id(request.document_id, violations, field="document_id")
        labels = label_changes_of(request, violations)
        violations.raise_found()
        summary = await self._store.update_document_labels(
            current_identity.get().tenant_id,
            request.collection,
            request.document_id,
            labels,
            expected_content_digest=request.expected_content_digest or None,
            access=caller_access(),
        )
        self._delivery.wake()
        return pb.UpdateDocumentResponse(document=convert.to_document(summary))

    async def ListChunks(
        self, request: pb.ListChunksRequest, context: Context
    ) -> pb.ListChunksResponse:
        """Lists the chunks of a document."""
        violations = Violations()
        check_collection(request.collection, violations)
        check_document_id(request.document_id, violations, field="document_id")
        size = check_page_size(request.page_size, violations)
        violations.raise_found()
        scope = f"chunks/{request.collection}/{request.document_id}"
        page = await self._store.list_chunks(
            current_identity.get().tenant_id,
            request.collection,
            request.document_id,
            page_size=size,
            after=decode_page_number(scope, request.page_token),
            access=caller_access(),
        )
        chunks = _within_message(map(convert.to_chunk, page.chunks))
        all_fit = len(chunks) == len(page.chunks)
        after = page.next_after if all_fit else chunks[-1].chunk_id
        return pb.ListChunksResponse(
            chunks=chunks,
            next_page_token="" if after is None else encode_page_token(scope, str(after)),
        )

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        """Deletes a document."""
        return await self._deletions.delete_document(request)

    async def DeleteDocuments(
        self, request: pb.DeleteDocumentsRequest, context: Context
    ) -> pb.DeleteDocumentsResponse:
        """Deletes documents by ids or a filter."""
        return await self._deletions.delete_documents(request)

    async def DeleteCollection(
        self, request: pb.DeleteCollectionRequest, context: Context
    ) -> pb.DeleteCollectionResponse:
        """Deletes a collection."""
        return await self._deletions.delete_collection(request)

    async def CreateCollection(
        self, request: pb.CreateCollectionRequest, context: Context
    ) -> pb.CreateCollectionResponse:
        """Makes sure that a collection exists."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        check_new_collection(request.collection, violations, field="collection")
        violations.raise_found()
        stats = await self._store.create_collection(
            current_identity.get().tenant_id, request.collection
        )
        return pb.CreateCollectionResponse(collection=convert.to_collection(stats))

    async def ListCollections(
        self, request: pb.ListCollectionsRequest, context: Context
    ) -> pb.ListCollectionsResponse:
        """Lists collections."""
        violations = Violations()
        size = check_page_size(request.page_size, violations)
        violations.raise_found()
        after = decode_page_token("collections", request.page_token)
        all_collections = await self._store.list_collections(current_identity.get().tenant_id)
        collections = [each for each in all_collections if each.name > after]
        more = len(collections) > size
        return pb.ListCollectionsResponse(
            collections=[convert.to_collection(each) for each in collections[:size]],
            next_page_token=(
                encode_page_token("collections", collections[size - 1].name) if more else ""
            ),
        )

    async def GetIngestJob(
        self, request: pb.GetIngestJobRequest, context: Context
    ) -> pb.GetIngestJobResponse:
        """Gets a job."""
        return await self._jobs.get(request)

    async def ListIngestJobs(
        self, request: pb.ListIngestJobsRequest, context: Context
    ) -> pb.ListIngestJobsResponse:
        """Lists jobs."""
        return await self._jobs.list(request)

    async def WatchIngestJob(
        self, request: pb.WatchIngestJobRequest, context: Context
    ) -> AsyncIterator[pb.WatchIngestJobResponse]:
        """Follows a job."""
        async with aclosing(self._jobs.watch(request)) as events:
            async for event in events:
                yield event

    async def CancelIngestJob(
        self, request: pb.CancelIngestJobRequest, context: Context
    ) -> pb.CancelIngestJobResponse:
        """Ends a job."""
        return await self._jobs.cancel(request)


def _within_message(messages: Iterable[Listed]) -> list[Listed]:
    """Returns the first of some messages, as many as fit one that any client accepts."""
    fitting: list[Listed] = []
    size = 0
    for each in messages:
        size += each.ByteSize()
        if fitting and size > _PAGE_BYTES:
            break
        fitting.append(each)
    return fitting
