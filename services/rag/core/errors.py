"""The rag service's own errors.

ServiceError
+-- DocumentRejected            INVALID_ARGUMENT      DOCUMENT_REJECTED
|   +-- DocumentEmpty           INVALID_ARGUMENT      DOCUMENT_EMPTY
|   +-- DocumentNotUtf8         INVALID_ARGUMENT      DOCUMENT_NOT_UTF8
|   +-- DocumentBinary          INVALID_ARGUMENT      DOCUMENT_BINARY
|   +-- MediaTypeUnsupported    INVALID_ARGUMENT      MEDIA_TYPE_UNSUPPORTED
|   +-- DocumentTooLarge        INVALID_ARGUMENT      DOCUMENT_TOO_LARGE
+-- CollectionNotFound          NOT_FOUND             COLLECTION_NOT_FOUND
+-- DocumentNotFound            NOT_FOUND             DOCUMENT_NOT_FOUND
+-- ModelNotFound               NOT_FOUND             MODEL_NOT_FOUND
+-- EmbeddingModelMismatch      FAILED_PRECONDITION   EMBEDDING_MODEL_MISMATCH
+-- EmbeddingModelChanged       FAILED_PRECONDITION   EMBEDDING_MODEL_MISMATCH
+-- AnswerInterrupted           ABORTED               STREAM_INTERRUPTED
+-- StoreUnavailable            UNAVAILABLE           STORE_UNAVAILABLE
+-- StoreSchemaTooNew           FAILED_PRECONDITION   STORE_SCHEMA_TOO_NEW
+-- UnexpectedFailure           INTERNAL              INTERNAL
"""

from collections.abc import Sequence

from services.common.errors import ServiceError, StatusCode

__all__ = [
    "AnswerInterrupted",
    "CollectionNotFound",
    "DocumentBinary",
    "DocumentEmpty",
    "DocumentNotFound",
    "DocumentNotUtf8",
    "DocumentRejected",
    "DocumentTooLarge",
    "EmbeddingModelChanged",
    "EmbeddingModelMismatch",
    "MediaTypeUnsupported",
    "ModelNotFound",
    "StoreSchemaTooNew",
    "StoreUnavailable",
    "UnexpectedFailure",
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
            f"There is no collection {collection!r}. Ingest a document into it to create it.",
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


class DocumentTooLarge(DocumentRejected):
    """A document has more bytes than the service accepts."""

    reason = "DOCUMENT_TOO_LARGE"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The document has more than {limit_bytes} bytes. Split it.",
            metadata={"limit_bytes": str(limit_bytes)},
        )


class ModelNotFound(ServiceError):
    """The fleet has no such model.

    Args:
        model: Name asked for; empty where any model would have done.
        ability: What the model had to do, as a verb phrase such as `embeds texts`.
        known: Models that can.
    """

    reason = "MODEL_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, model: str, *, ability: str, known: Sequence[str]) -> None:
        asked = (
            f"No backend has a model {model!r} that {ability}"
            if model
            else (f"No backend has a model that {ability}")
        )
        others = f"Those that do: {', '.join(known)}." if known else "Pull one on a backend."
        super().__init__(f"{asked}. {others}", metadata={"model": model})


class AnswerInterrupted(ServiceError):
    """The generation broke off after text was sent; what was sent is incomplete.

    Args:
        emitted_character_count: Characters of the answer that were sent.
        cause: What broke it off.
    """

    reason = "STREAM_INTERRUPTED"
    code = StatusCode.ABORTED

    def __init__(self, *, emitted_character_count: int, cause: ServiceError) -> None:
        metadata = {key: cause.metadata[key] for key in ("backend_id",) if key in cause.metadata}
        super().__init__(
            f"The answer broke off after {emitted_character_count} characters: {cause.message} "
            "Ask again.",
            metadata={**metadata, "emitted_character_count": str(emitted_character_count)},
        )


class EmbeddingModelChanged(ServiceError):
    """The fleet serves another version of an embedding model than it listed.

    Args:
        model: The model's name.
        listed: Digest as listed.
        served: Digest that served.
    """

    reason = "EMBEDDING_MODEL_MISMATCH"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, model: str, *, listed: str, served: str) -> None:
        super().__init__(
            f"The fleet has different versions of {model}: {listed[:12]} was listed, "
            f"{served[:12]} served. Pull the model again on all backends.",
            metadata={"model": model, "stored": listed, "given": served},
        )


class UnexpectedFailure(ServiceError):
    """A fault of the service itself; the log has the cause."""

    def __init__(self) -> None:
        super().__init__("An internal error occurred. Send the document again.")
