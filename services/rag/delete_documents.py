"""Deletes documents and collections with all that was made from them, and says what is gone."""

from collections.abc import Sequence

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.identity import current_identity
from services.common.unknown_fields import unknown_field_violations
from services.common.validation import Violations
from services.rag import corpus_convert as convert
from services.rag.caller import caller_access
from services.rag.core.filters import DocumentFilter
from services.rag.core.receipts import DeletionReceipt
from services.rag.filter_convert import filter_of
from services.rag.ingest_convert import check_document_id
from services.rag.invalidate import InvalidationDelivery
from services.rag.jobs_port import IngestJobs
from services.rag.retrieval_convert import check_collection
from services.rag.store_port import DocumentStore

__all__ = ["Deletions"]

MAXIMUM_ID_COUNT = 1000


class Deletions:
    """Answers calls that delete.

    Documents that jobs have still to take in are dropped first, so that none comes back after what
    was stored of it is gone.

    Args:
        store: Has the documents.
        jobs: Has documents that are still to be taken in.
        delivery: Tells the cache.
    """

    def __init__(
        self, store: DocumentStore, jobs: IngestJobs, *, delivery: InvalidationDelivery
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._delivery = delivery

    async def delete_document(self, request: pb.DeleteDocumentRequest) -> pb.DeleteDocumentResponse:
        """Deletes a document."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        check_collection(request.collection, violations)
        check_document_id(request.document_id, violations, field="document_id")
        violations.raise_found()
        identity = current_identity.get()
        dropped_count = await self._jobs.drop_documents(
            identity.tenant_id, request.collection, [request.document_id], access=caller_access()
        )
        receipt = await self._store.delete_document(
            identity.tenant_id, request.collection, request.document_id, access=caller_access()
        )
        return pb.DeleteDocumentResponse(
            chunk_count=receipt.chunk_count,
            posting_count=receipt.posting_count,
            embedding_count=receipt.embedding_count,
            receipt=await self._receipt(receipt, dropped_count),
        )

    async def delete_documents(
        self, request: pb.DeleteDocumentsRequest
    ) -> pb.DeleteDocumentsResponse:
        """Deletes documents by ids or a filter."""
        chosen = _chosen(request)
        tenant_id = current_identity.get().tenant_id
        page = await self._store.list_documents(
            tenant_id,
            request.collection,
            page_size=MAXIMUM_ID_COUNT,
            filter=chosen,
            access=caller_access(),
        )
        dropped_count = 0
        if request.document_ids and not request.dry_run:
            dropped_count = await self._jobs.drop_documents(
                tenant_id, request.collection, request.document_ids, access=caller_access()
            )
        receipt = await self._store.delete_documents(
            tenant_id,
            request.collection,
            filter=chosen,
            access=caller_access(),
            dry_run=request.dry_run,
        )
        return pb.DeleteDocumentsResponse(
            receipt=await self._receipt(receipt, dropped_count),
            document_ids=[each.document_id for each in page.documents],
        )

    async def delete_collection(
        self, request: pb.DeleteCollectionRequest
    ) -> pb.DeleteCollectionResponse:
        """Deletes a collection."""
        violations = Violations()
        violations.extend(unknown_field_violations(request))
        check_collection(request.collection, violations)
        _check_confirmed(request.confirm, request.collection, violations)
        violations.raise_found()
        tenant_id = current_identity.get().tenant_id
        dropped_count = await self._jobs.drop_documents(tenant_id, request.collection, None)
        receipt = await self._store.delete_collection(tenant_id, request.collection)
        return pb.DeleteCollectionResponse(receipt=await self._receipt(receipt, dropped_count))

    async def _receipt(self, receipt: DeletionReceipt, dropped_count: int) -> pb.DeletionReceipt:
        told: bool | None = None
        if receipt.document_count and not receipt.dry_run:
            told = await self._delivery.told()
        return convert.to_deletion_receipt(receipt, dropped_count=dropped_count, told=told)


def _chosen(request: pb.DeleteDocumentsRequest) -> DocumentFilter:
    violations = Violations()
    violations.extend(unknown_field_violations(request))
    check_collection(request.collection, violations)
    chosen = filter_of(request.filter, violations, field="filter", searched=True)
    ids = _ids(request.document_ids, violations)
    violations.require(
        bool(ids) != (not chosen.is_empty),
        "document_ids",
        "Set either these or a condition of `filter`; to delete all, delete the collection.",
    )
    if not ids and not request.dry_run:
        _check_confirmed(request.confirm, request.collection, violations)
    violations.raise_found()
    return DocumentFilter(document_ids=ids) if ids else chosen


def _ids(document_ids: Sequence[str], violations: Violations) -> tuple[str, ...]:
    if len(document_ids) > MAXIMUM_ID_COUNT:
        violations.add("document_ids", f"At most {MAXIMUM_ID_COUNT} are allowed.")
        return tuple(document_ids[:1])
    for document_id in document_ids:
        check_document_id(document_id, violations, field="document_ids")
    return tuple(dict.fromkeys(document_ids))


def _check_confirmed(confirm: str, collection: str, violations: Violations) -> None:
    violations.require(
        confirm == collection, "confirm", "Must be the collection's name; try a dry run first."
    )
