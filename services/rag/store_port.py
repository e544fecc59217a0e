"""What the rag service needs of its store of documents, as its use cases see it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.rag.core.documents import (
    ChunkPage,
    CollectionStats,
    Document,
    DocumentLabels,
    DocumentPage,
    DocumentSummary,
    IndexCounts,
    IndexedChunk,
    MissingVector,
    StoredDocument,
    Vector,
)
from services.rag.core.filters import ANYONE, EVERY_DOCUMENT, Access, DocumentFilter
from services.rag.core.ingest_job import Settlement
from services.rag.core.invalidation import PendingInvalidation
from services.rag.core.passages import (
    KeywordMatches,
    Passage,
    ScoredChunk,
    TermStatistics,
    TextSpan,
)
from services.rag.core.receipts import DeletionReceipt, PutReceipt
from services.rag.core.stored_evidence import CollectionState, StoredEvidence

__all__ = ["DocumentStore", "PassageStore"]


class PassageStore(Protocol):
    """Finds passages in the documents of all tenants. Every method may raise `StoreUnavailable`.

    `filter` says which documents count and `access` which of them the caller may read; both hold
    for every hit, without exception. Expired documents are as good as gone.
    """

    async def search_vector(
        self,
        tenant_id: str,
        collection: str,
        *,
        model: str,
        vector: Vector,
        limit: int,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> tuple[ScoredChunk, ...]:
        """Returns the chunks nearest to a vector, best first."""
        ...

    async def search_keyword(
        self,
        tenant_id: str,
        collection: str,
        *,
        terms: Sequence[str],
        limit: int,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> KeywordMatches:
        """Returns the chunks with the highest BM25 score, best first."""
        ...

    async def get_term_statistics(
        self, tenant_id: str, collection: str, terms: Sequence[str]
    ) -> TermStatistics:
        """Returns how common terms are in a collection; raises `CollectionNotFound`."""
        ...

    async def load_passages(
        self,
        tenant_id: str,
        chunk_ids: Sequence[int],
        *,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> Mapping[int, Passage]:
        """Returns chunks with the facts of their documents, by chunk id."""
        ...

    async def load_evidence(
        self,
        tenant_id: str,
        chunk_ids: Sequence[int],
        *,
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> StoredEvidence:
        """Returns the same chunks of one collection, and as of which state of it."""
        ...

    async def get_collection_state(self, tenant_id: str, name: str) -> CollectionState | None:
        """Returns what tells whether a collection has changed; None where it is not there."""
        ...

    async def load_spans(
        self, tenant_id: str, spans: Sequence[TextSpan], *, access: Access = ANYONE
    ) -> Mapping[TextSpan, str]:
        """Returns parts of documents; those of documents that are gone are absent."""
        ...

    async def load_vectors(
        self, tenant_id: str, collection: str, chunk_ids: Sequence[int]
    ) -> Mapping[int, Vector]:
        """Returns stored vectors by chunk id; chunks without one are absent."""
        ...

    async def sample_vectors(
        self, tenant_id: str, collection: str, *, limit: int
    ) -> tuple[Vector, ...]:
        """Returns vectors of chunks drawn at random; none where the collection is not there."""
        ...


class DocumentStore(PassageStore, Protocol):
    """The documents of all tenants. What a `PassageStore` says of itself holds here too."""

    async def ping(self) -> None:
        """Asks for a sign of life."""
        ...

    async def create_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Makes sure that a collection exists, and returns its facts."""
        ...

    async def get_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Returns a collection's facts; raises `CollectionNotFound`."""
        ...

    async def list_collections(self, tenant_id: str) -> tuple[CollectionStats, ...]:
        """Returns a tenant's collections by name."""
        ...

    async def delete_collection(self, tenant_id: str, name: str) -> DeletionReceipt:
        """Deletes a collection with all it holds; raises `CollectionNotFound`."""
        ...

    async def find_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> DocumentSummary | None:
        """Returns a document's facts, whoever may read it; None where it is not there."""
        ...

    async def get_document(
        self, tenant_id: str, collection: str, document_id: str, *, access: Access = ANYONE
    ) -> StoredDocument:
        """Returns a document; raises `CollectionNotFound` or `DocumentNotFound`."""
        ...

    async def list_documents(
        self,
        tenant_id: str,
        collection: str,
        *,
        page_size: int,
        after: str = "",
        filter: DocumentFilter = EVERY_DOCUMENT,
        access: Access = ANYONE,
    ) -> DocumentPage:
        """Returns documents by id; raises `CollectionNotFound`."""
        ...

    async def list_chunks(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        *,
        page_size: int,
        after: int | None = None,
        access: Access = ANYONE,
    ) -> ChunkPage:
        """Returns a document's chunks by ordinal; raises as `get_document` does.

        Raises `PageTokenMismatch` where the document was replaced since the page before.
        """
        ...

    async def put_document(
        self,
        document: Document,
        chunks: Sequence[IndexedChunk],
        *,
        embedding_model: str | None,
        expected_content_digest: str | None = None,
        settlement: Settlement | None = None,
    ) -> PutReceipt:
        """Replaces a document as a whole.

        Args:
            document: The version.
            chunks: All of its chunks, at least one; some may have no vector yet.
            embedding_model: What makes the vectors; None where it is not known and none is given.
            expected_content_digest: What the stored version must have; None for any.
            settlement: What is noted with the job that the document is one of; None without one.

        Raises:
            DocumentChanged: The stored version has another digest, or there is none.
            EmbeddingModelMismatch: The collection's vectors are of another kind.
            IngestCancelled: The job's lease is not held any more.
        """
        ...

    async def update_document_labels(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        labels: DocumentLabels,
        *,
        expected_content_digest: str | None = None,
        access: Access = ANYONE,
        settlement: Settlement | None = None,
    ) -> DocumentSummary:
        """Changes labels and nothing else; raises as `get_document` does, or `DocumentChanged`.

        With a settlement it is noted with the document's job, or raises `IngestCancelled`.
        """
        ...

    async def delete_document(
        self, tenant_id: str, collection: str, document_id: str, *, access: Access = ANYONE
    ) -> DeletionReceipt:
        """Deletes a document; raises `CollectionNotFound` or `DocumentNotFound`."""
        ...

    async def delete_documents(
        self,
        tenant_id: str,
        collection: str,
        *,
        filter: DocumentFilter,
        access: Access = ANYONE,
        dry_run: bool = False,
    ) -> DeletionReceipt:
        """Deletes the documents that a filter leaves, all or none; raises `CollectionNotFound`."""
        ...

    async def delete_expired(self, *, limit: int) -> int:
        """Deletes expired documents of all tenants, at most `limit`, and returns how many."""
        ...

    async def count_all(self) -> IndexCounts:
        """Returns how much is stored, of all tenants; cheap at any size."""
        ...

    async def find_embeddings(
        self,
        tenant_id: str,
        collection: str,
        text_digests: Sequence[str],
        *,
        embedding_model: str,
    ) -> Mapping[str, Vector]:
        """Returns the stored vectors of texts, by their digests."""
        ...

    async def missing_vectors(self, *, limit: int, after: int = -1) -> tuple[MissingVector, ...]:
        """Returns chunks of all tenants that were stored without their vectors, by chunk id.

        Args:
            limit: How many at the most.
            after: Only chunks with a greater id.
        """
        ...

    async def put_vectors(
        self,
        tenant_id: str,
        collection: str,
        vectors: Mapping[int, Vector],
        *,
        embedding_model: str,
    ) -> int:
        """Stores vectors of chunks that lack them, and returns how many chunks have one now.

        Chunks that are gone are passed over, as is a collection that is gone.

        Raises:
            EmbeddingModelMismatch: The collection's vectors are of another kind.
        """
        ...

    async def list_invalidations(
        self, *, limit: int, except_tenants: Sequence[str] = ()
    ) -> tuple[PendingInvalidation, ...]:
        """Returns changes that the cache has not been told of yet, oldest first.

        Args:
            limit: How many at the most.
            except_tenants: Whose changes are left out.
        """
        ...

    async def drop_invalidations(self, numbers: Sequence[int]) -> None:
        """Forgets changes that the cache has been told of."""
        ...
