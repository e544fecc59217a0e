"""CorpusService over gRPC: read the request, call, write the response."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from pannier.rag.v1 import corpus_service_pb2 as pb
from pannier.rag.v1.corpus_service_pb2_grpc import CorpusServiceServicer
from services.common.identity import current_identity
from services.common.pagination import check_page_size, decode_page_token, encode_page_token
from services.common.validation import Violations
from services.rag import corpus_convert as convert
from services.rag.convert import check_collection
from services.rag.core.intake import DocumentDone
from services.rag.core.model import DocumentPage
from services.rag.ingest import Ingestion
from services.rag.invalidate import InvalidationDelivery
from services.rag.ports import DocumentStore
from services.rag.receive import receive_documents, receive_options
from services.rag.statistics import RagStatistics

__all__ = ["CorpusServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

# Half of what a client accepts by default; one document's metadata may have 128 KB.
_PAGE_BYTES = 2 * 1024 * 1024


class CorpusServicer(CorpusServiceServicer):
    """Keeps documents.

    Args:
        ingestion: Takes documents in.
        store: Keeps them.
        statistics: Counts.
        delivery: Tells the cache of changes.
        maximum_document_bytes: Largest document accepted.
    """

    def __init__(
        self,
        *,
        ingestion: Ingestion,
        store: DocumentStore,
        statistics: RagStatistics,
        delivery: InvalidationDelivery,
        maximum_document_bytes: int,
    ) -> None:
        self._ingestion = ingestion
        self._store = store
        self._statistics = statistics
        self._delivery = delivery
        self._maximum_document_bytes = maximum_document_bytes

    async def IngestDocuments(
        self, request_iterator: AsyncIterator[pb.IngestDocumentsRequest], context: Context
    ) -> AsyncIterator[pb.IngestDocumentsResponse]:
        """Takes in documents."""
        requests = aiter(request_iterator)
        collection = await receive_options(requests)
        documents = receive_documents(requests, maximum_document_bytes=self._maximum_document_bytes)
        tenant_id = current_identity.get().tenant_id
        async with aclosing(self._ingestion.run(tenant_id, collection, documents)) as events:
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
        violations.raise_found()
        scope = f"documents/{request.collection}"
        page = await self._store.list_documents(
            current_identity.get().tenant_id,
            request.collection,
            after=decode_page_token(scope, request.page_token),
            page_size=size,
        )
        documents, after = _within_message(page)
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
        convert.check_document_id(request.document_id, violations, field="document_id")
        violations.require(
            request.view in pb.DocumentView.values(), "view", "Is no known DocumentView."
        )
        violations.raise_found()
        stored = await self._store.get_document(
            current_identity.get().tenant_id, request.collection, request.document_id
        )
        text = stored.text if request.view == pb.DOCUMENT_VIEW_FULL else ""
        return pb.GetDocumentResponse(document=convert.to_document(stored.summary, text=text))

    async def DeleteDocument(
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        """Deletes a document."""
        violations = Violations()
        check_collection(request.collection, violations)
        convert.check_document_id(request.document_id, violations, field="document_id")
        violations.raise_found()
        receipt = await self._store.delete_document(
            current_identity.get().tenant_id, request.collection, request.document_id
        )
        self._delivery.wake()
        return pb.DeleteDocumentResponse(
            chunk_count=receipt.chunk_count,
            posting_count=receipt.posting_count,
            embedding_count=receipt.embedding_count,
        )

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


def _within_message(page: DocumentPage) -> tuple[list[pb.Document], str]:
    """Writes the documents of a page that fit a message, and where the next page begins."""
    documents: list[pb.Document] = []
    size = 0
    for each in page.documents:
        document = convert.to_document(each)
        size += document.ByteSize()
        if documents and size > _PAGE_BYTES:
            return documents, documents[-1].document_id
        documents.append(document)
    return documents, page.next_after or ""
