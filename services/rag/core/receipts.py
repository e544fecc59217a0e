"""What a change of the stored documents did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PutReceipt:
    """What one `put_document` did.

    Attributes:
        replaced: Whether an earlier version of the document went away.
        document_version: The version now stored.
        collection_version: The collection's version after the change.
        chunk_count: Chunks written.
        posting_count: Keyword index entries written.
    """

    replaced: bool
    document_version: int
    collection_version: int
    chunk_count: int
    posting_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReceipt:
    """What a deletion removed, or would have removed.

    Attributes:
        document_count: Documents.
        chunk_count: Chunks.
        posting_count: Keyword index entries.
        embedding_count: Vectors.
        invalidation_count: Changes noted for the cache, in the transaction of the deletion.
        conversation_count: Kept conversations whose citations of them are gone.
        collection_version: The collection's version after it; of a try, the version as it is.
        dry_run: Whether it was only tried: nothing is changed.
        duration_seconds: How long it took.
    """

    document_count: int
    chunk_count: int
    posting_count: int
    embedding_count: int
    collection_version: int
    invalidation_count: int = 0
    conversation_count: int = 0
    dry_run: bool = False
    duration_seconds: float = 0.0
