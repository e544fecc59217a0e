"""What the rag service needs of models and documents, as its use cases see it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
)
from services.rag.core.invalidation import PendingInvalidation
from services.rag.core.model import (
    CollectionStats,
    DeletionReceipt,
    Document,
    DocumentPage,
    DocumentSummary,
    IndexedChunk,
    KeywordMatches,
    Passage,
    PutReceipt,
    ScoredChunk,
    StoredDocument,
    Vector,
)

__all__ = [
    "DocumentStore",
    "Embedded",
    "ModelFacts",
    "ModelsPort",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model of the fleet.

    Attributes:
        name: Full name with tag.
        digest: 64 hexadecimal digits.
        generates: Whether it generates text.
        embeds: Whether it turns texts into vectors.
    """

    name: str
    digest: str
    generates: bool
    embeds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Vectors in the order of their texts, with the digest of the model that made them."""

    vectors: tuple[Vector, ...]
    model_digest: str


class ModelsPort(Protocol):
    """The balancer service.

    Every method raises `PeerUnavailable` where it cannot be asked, else `RelayedError` with what
    it said.
    """

    async def list_models(self) -> tuple[ModelFacts, ...]:
        """Lists the models of the fleet by name."""
        ...

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
    ) -> Embedded:
        """Turns 1 to 512 texts into vectors; `urgent` where a person waits for it."""
        ...

    def chat(
        self,
        model: str,
        messages: Sequence[ChatMessage],
        sampling: Sampling,
        *,
        time_limit_seconds: float | None = None,
        urgent: bool = True,
    ) -> AsyncGenerator[ChatStarted | str | ChatCompleted, None]:
        """Answers a conversation: started, then texts to append, then completed.

        `urgent` where a person waits for it.
        """
        ...


class DocumentStore(Protocol):
    """The documents of all tenants. Every method may raise `StoreUnavailable`."""

    async def ping(self) -> None:
        """Asks for a sign of life."""
        ...

    async def get_collection(self, tenant_id: str, name: str) -> CollectionStats:
        """Returns a collection's facts; raises `CollectionNotFound`."""
        ...

    async def list_collections(self, tenant_id: str) -> tuple[CollectionStats, ...]:
        """Returns a tenant's collections by name."""
        ...

    async def find_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> DocumentSummary | None:
        """Returns a document's facts; None where it is not there."""
        ...

    async def get_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> StoredDocument:
        """Returns a document; raises `CollectionNotFound` or `DocumentNotFound`."""
        ...

    async def list_documents(
        self, tenant_id: str, collection: str, *, page_size: int, after: str = ""
    ) -> DocumentPage:
        """Returns documents by id; raises `CollectionNotFound`."""
        ...

    async def put_document(
        self, document: Document, chunks: Sequence[IndexedChunk], *, embedding_model: str
    ) -> PutReceipt:
        """Replaces a document as a whole; raises `EmbeddingModelMismatch`."""
        ...

    async def delete_document(
        self, tenant_id: str, collection: str, document_id: str
    ) -> DeletionReceipt:
        """Deletes a document; raises `CollectionNotFound` or `DocumentNotFound`."""
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

    async def search_vector(
        self, tenant_id: str, collection: str, *, model: str, vector: Vector, limit: int
    ) -> tuple[ScoredChunk, ...]:
        """Returns the chunks nearest to a vector, best first."""
        ...

    async def search_keyword(
        self, tenant_id: str, collection: str, *, terms: Sequence[str], limit: int
    ) -> KeywordMatches:
        """Returns the chunks with the highest BM25 score, best first."""
        ...

    async def load_passages(
        self, tenant_id: str, chunk_ids: Sequence[int]
    ) -> Mapping[int, Passage]:
        """Returns chunks with the facts of their documents, by chunk id."""
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
