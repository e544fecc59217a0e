"""The rag service's own errors.

    ServiceError
    +-- DocumentRejected            INVALID_ARGUMENT      (the document cannot be read)
    |   +-- DocumentEmpty                                 DOCUMENT_EMPTY
    |   +-- DocumentNotUtf8                               DOCUMENT_NOT_UTF8
    |   +-- DocumentBinary                                DOCUMENT_BINARY
    |   +-- MediaTypeUnsupported                          MEDIA_TYPE_UNSUPPORTED
    +-- CollectionNotFound          NOT_FOUND             COLLECTION_NOT_FOUND
    +-- DocumentNotFound            NOT_FOUND             DOCUMENT_NOT_FOUND
    +-- EmbeddingModelMismatch      FAILED_PRECONDITION   EMBEDDING_MODEL_MISMATCH
    +-- StoreUnavailable            UNAVAILABLE           STORE_UNAVAILABLE
    +-- StoreSchemaTooNew           FAILED_PRECONDITION   STORE_SCHEMA_TOO_NEW
"""

from services.common.errors import ServiceError, StatusCode

__all__ = [
    "CollectionNotFound",
    "DocumentBinary",
    "DocumentEmpty",
    "DocumentNotFound",
    "DocumentNotUtf8",
    "DocumentRejected",
    "EmbeddingModelMismatch",
    "MediaTypeUnsupported",
    "StoreSchemaTooNew",
    "StoreUnavailable",
]

STORE_RETRY_DELAY_SECONDS = 1.0


class DocumentRejected(ServiceError):
    """The received bytes cannot become a document."""

    reason = "DOCUMENT_REJECTED"
    code = StatusCode.INVALID_ARGUMENT


class DocumentEmpty(DocumentRejected):
    """There is no text in the document."""

    reason = "DOCUMENT_EMPTY"

    def __init__(self) -> None:
        super().__init__("The document holds no text. Send one with visible characters.")


class DocumentNotUtf8(DocumentRejected):
    """The bytes are not valid UTF-8.

    Args:
        byte_offset: Where the first invalid sequence starts.
    """

    reason = "DOCUMENT_NOT_UTF8"

    def __init__(self, byte_offset: int) -> None:
        super().__init__(
            f"The document is not valid UTF-8 at byte {byte_offset}. Convert it to UTF-8.",
            metadata={"byte_offset": str(byte_offset)},
        )


class DocumentBinary(DocumentRejected):
    """The bytes are not text, whatever the document's name says.

    Args:
        byte_offset: Where the first byte is that no text holds.
    """

    reason = "DOCUMENT_BINARY"

    def __init__(self, byte_offset: int) -> None:
        super().__init__(
            f"The document is binary: byte {byte_offset} belongs in no text. Send its text.",
            metadata={"byte_offset": str(byte_offset)},
        )


class MediaTypeUnsupported(DocumentRejected):
    """There is no parser for this kind of document.

    Args:
        media_type: What the document is, or claims to be.
    """

    reason = "MEDIA_TYPE_UNSUPPORTED"

    def __init__(self, media_type: str) -> None:
        super().__init__(
            f"Documents of type {media_type} cannot be read. "
            "Send plain text, Markdown, HTML or Python source.",
            metadata={"media_type": media_type},
        )


class CollectionNotFound(ServiceError):
    """The tenant has no collection of that name."""

    reason = "COLLECTION_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, collection: str) -> None:
        super().__init__(
            f"There is no collection {collection!r}. Create it or ingest a document into it.",
            metadata={"collection": collection},
        )


class DocumentNotFound(ServiceError):
    """The collection has no document of that id."""

    reason = "DOCUMENT_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, collection: str, document_id: str) -> None:
        super().__init__(
            f"There is no document {document_id!r} in collection {collection!r}.",
            metadata={"collection": collection, "document_id": document_id},
        )


class EmbeddingModelMismatch(ServiceError):
    """Vectors of one model met a collection embedded with another.

    Args:
        collection: The collection.
        stored: Model and dimension of its vectors, such as `all-minilm/384`.
        given: Model and dimension of the new vector.
    """

    reason = "EMBEDDING_MODEL_MISMATCH"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, collection: str, *, stored: str, given: str) -> None:
        super().__init__(
            f"Collection {collection!r} is embedded with {stored}, not with {given}. "
            "Use that model, or ingest the documents into a new collection.",
            metadata={"collection": collection, "stored": stored, "given": given},
        )


class StoreUnavailable(ServiceError):
    """PostgreSQL cannot be reached or did not answer in time.

    Args:
        cause: What happened, in a few words without addresses or secrets.
    """

    reason = "STORE_UNAVAILABLE"
    code = StatusCode.UNAVAILABLE

    def __init__(self, cause: str) -> None:
        super().__init__(
            f"The document store is unavailable ({cause}). Try again.",
            metadata={"cause": cause},
            retry_delay_seconds=STORE_RETRY_DELAY_SECONDS,
        )


class StoreSchemaTooNew(ServiceError):
    """The database was migrated by a newer release than this one.

    Args:
        stored: Latest migration in the database.
        known: Latest migration in this release.
    """

    reason = "STORE_SCHEMA_TOO_NEW"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, stored: int, known: int) -> None:
        super().__init__(
            f"The database has schema version {stored}, this release knows {known}. "
            "Run a newer release, or restore an older database.",
            metadata={"stored_version": str(stored), "known_version": str(known)},
        )
