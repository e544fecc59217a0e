"""The rag service's own errors.

ServiceError
+-- CollectionNotFound          NOT_FOUND             COLLECTION_NOT_FOUND
+-- DocumentNotFound            NOT_FOUND             DOCUMENT_NOT_FOUND
+-- DocumentChanged             FAILED_PRECONDITION   DOCUMENT_CHANGED
+-- IngestJobNotFound           NOT_FOUND             INGEST_JOB_NOT_FOUND
+-- IngestCancelled             FAILED_PRECONDITION   INGEST_CANCELLED
+-- IngestBacklogFull           RESOURCE_EXHAUSTED    INGEST_BACKLOG_FULL
+-- ModelNotFound               NOT_FOUND             MODEL_NOT_FOUND
+-- EmbeddingModelMismatch      FAILED_PRECONDITION   EMBEDDING_MODEL_MISMATCH
+-- EmbeddingModelChanged       FAILED_PRECONDITION   EMBEDDING_MODEL_MISMATCH
+-- AnswerInterrupted           ABORTED               STREAM_INTERRUPTED
+-- StoreUnavailable            UNAVAILABLE           STORE_UNAVAILABLE
+-- StoreSchemaTooNew           FAILED_PRECONDITION   STORE_SCHEMA_TOO_NEW
+-- StoreRoleUnusable           FAILED_PRECONDITION   STORE_ROLE_UNUSABLE
+-- UnexpectedFailure           INTERNAL              INTERNAL
"""

from collections.abc import Sequence

from services.common.errors import QuotaViolation, ServiceError, StatusCode

__all__ = [
    "AnswerInterrupted",
    "CollectionNotFound",
    "DocumentChanged",
    "DocumentNotFound",
    "EmbeddingModelChanged",
    "EmbeddingModelMismatch",
    "IngestBacklogFull",
    "IngestCancelled",
    "IngestJobNotFound",
    "ModelNotFound",
    "StoreRoleUnusable",
    "StoreSchemaTooNew",
    "StoreUnavailable",
    "UnexpectedFailure",
]

STORE_RETRY_DELAY_SECONDS = 1.0
BACKLOG_RETRY_DELAY_SECONDS = 60.0


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


class StoreRoleUnusable(ServiceError):
    """The database role that keeps tenants apart cannot be used.

    Args:
        role: Its name.
    """

    reason = "STORE_ROLE_UNUSABLE"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, role: str) -> None:
        super().__init__(
            f"The database role {role!r} cannot be made or taken on, or row-level security does "
            f'not bind it. As an administrator run CREATE ROLE "{role}" NOLOGIN; GRANT "{role}" '
            "TO the role that connects; or set PANNIER_RAG_DATABASE_ROLE to nothing, which takes "
            "the second wall between tenants away.",
            metadata={"role": role},
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


class DocumentChanged(ServiceError):
    """The stored document is not the version that the caller expects.

    Args:
        document_id: The document.
        expected: Content digest that the caller expects.
        stored: Content digest of the stored version; empty where there is none, None where it is
            not for everyone to know.
    """

    reason = "DOCUMENT_CHANGED"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self, document_id: str, *, expected: str, stored: str | None) -> None:
        there = f"the version {stored[:12]}" if stored else "no version of it"
        if stored is None:
            there = "another version"
        super().__init__(
            f"There is {there} and not {expected[:12]}. Get the document, and decide again.",
            metadata={"document_id": document_id, "expected": expected, "stored": stored or ""},
        )


class IngestJobNotFound(ServiceError):
    """The tenant has no such job, or it ended too long ago.

    Args:
        job_id: The job asked for.
    """

    reason = "INGEST_JOB_NOT_FOUND"
    code = StatusCode.NOT_FOUND

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"There is no ingest job {job_id!r}. Jobs are forgotten some days after their end.",
            metadata={"job_id": job_id},
        )


class IngestCancelled(ServiceError):
    """A document's job was cancelled, or the document deleted, before the job took it in."""

    reason = "INGEST_CANCELLED"
    code = StatusCode.FAILED_PRECONDITION

    def __init__(self) -> None:
        super().__init__(
            "The job was cancelled, or the document deleted, before it was taken in. "
            "Send it again where it is wanted."
        )


class IngestBacklogFull(ServiceError):
    """More contents of a tenant wait for jobs than are kept.

    Args:
        tenant_id: The tenant.
        limit_bytes: Bytes that are kept.
    """

    reason = "INGEST_BACKLOG_FULL"
    code = StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, tenant_id: str, limit_bytes: int) -> None:
        state = f"More than {limit_bytes} bytes of documents wait to be taken in."
        super().__init__(
            f"{state} Send the others when jobs have ended.",
            metadata={"limit_bytes": str(limit_bytes)},
            retry_delay_seconds=BACKLOG_RETRY_DELAY_SECONDS,
            quota_violations=[QuotaViolation(f"tenant:{tenant_id}", state)],
        )
