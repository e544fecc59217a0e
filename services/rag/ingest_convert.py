"""Reads what is said of documents, with the checks of the requests that say it."""

import re
import unicodedata
from collections.abc import Sized
from datetime import datetime

from pannier.rag.v1 import corpus_service_pb2 as pb
from services.common.validation import Violations
from services.rag.core.chunking import MIN_TARGET_TOKENS
from services.rag.core.documents import DocumentLabels
from services.rag.core.intake import Chunking, ChunkingStrategy, IncomingDocument, IngestOptions
from services.rag.times_convert import moment_of

__all__ = [
    "MAXIMUM_DOCUMENT_ID_LENGTH",
    "MAXIMUM_PART_BYTES",
    "check_digest",
    "check_document_id",
    "check_new_collection",
    "header_of",
    "label_changes_of",
    "labels_of",
    "options_of",
]

MAXIMUM_PART_BYTES = 1_048_576
MAXIMUM_DOCUMENT_ID_LENGTH = 512
MAXIMUM_METADATA_COUNT = 64

MAXIMUM_TAG_COUNT = 64
MAXIMUM_READER_COUNT = 256
MAXIMUM_TARGET_TOKEN_COUNT = 2000
MAXIMUM_CHUNK_TOKEN_COUNT = 4000

_LABELS = frozenset({"metadata", "tags", "readers", "expire_time"})
_LANGUAGE = re.compile(r"[a-z]{2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_READER = re.compile(r"user:[!-~]{1,128}|group:[!-+\--~]{1,128}")
# Control, format, surrogate, line separator, paragraph separator.
_DISGUISING_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Persian, Indian scripts and emoji are not written without them.
_JOINERS = frozenset("\u200c\u200d")
_COLLECTION = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_STRATEGIES = {
    pb.CHUNKING_STRATEGY_UNSPECIFIED: ChunkingStrategy.STRUCTURE,
    pb.CHUNKING_STRATEGY_STRUCTURE: ChunkingStrategy.STRUCTURE,
    pb.CHUNKING_STRATEGY_SEMANTIC: ChunkingStrategy.SEMANTIC,
}


def options_of(options: pb.IngestOptions) -> IngestOptions:
    """Reads how documents are to be taken in.

    Raises:
        InvalidRequest: Fields break their rules; all of them are named.
    """
    violations = Violations()
    check_new_collection(options.collection, violations, field="options.collection")
    chunking = _chunking_of(options.chunking, violations, "options.chunking")
    violations.raise_found()
    return IngestOptions(
        collection=options.collection, chunking=chunking, background=options.background
    )


def check_new_collection(name: str, violations: Violations, *, field: str) -> None:
    """Checks the form of the name of a collection that may have to be made."""
    violations.require(
        _COLLECTION.fullmatch(name) is not None,
        field,
        "Must have 1 to 64 characters of a-z, 0-9, '-', '_', '.' and begin with a letter or digit.",
    )


def _chunking_of(message: pb.ChunkingOptions, violations: Violations, field: str) -> Chunking:
    target, maximum = message.target_token_count, message.maximum_token_count
    violations.require(
        message.strategy in _STRATEGIES, f"{field}.strategy", "Is no known ChunkingStrategy."
    )
    if target:
        violations.check_range(
            f"{field}.target_token_count", target, MIN_TARGET_TOKENS, MAXIMUM_TARGET_TOKEN_COUNT
        )
    if maximum:
        least = max(target, MIN_TARGET_TOKENS)
        violations.check_range(
            f"{field}.maximum_token_count", maximum, least, MAXIMUM_CHUNK_TOKEN_COUNT
        )
    return Chunking(
        strategy=_STRATEGIES.get(message.strategy, ChunkingStrategy.STRUCTURE),
        target_token_count=target,
        maximum_token_count=maximum,
    )


def check_document_id(document_id: str, violations: Violations, *, field: str) -> None:
    """Checks the form of a document's id."""
    violations.check_text(
        field, document_id, minimum_length=1, maximum_length=MAXIMUM_DOCUMENT_ID_LENGTH
    )
    violations.require(
        not any(map(_disguises, document_id[:MAXIMUM_DOCUMENT_ID_LENGTH])),
        field,
        "Must not hold control characters, line breaks or invisible characters.",
    )


def _disguises(character: str) -> bool:
    """Returns whether a character could make an id look like another one, or break a line."""
    category = unicodedata.category(character)
    return category in _DISGUISING_CATEGORIES and character not in _JOINERS


def header_of(header: pb.DocumentHeader, violations: Violations) -> IncomingDocument:
    """Reads the description of a document; its content is still to come.

    What was violated is noted; the document is then of no use.
    """
    check_document_id(header.document_id, violations, field="header.document_id")
    for field, limit in (("source_uri", 2000), ("title", 500), ("media_type", 100)):
        value = getattr(header, field)
        violations.check_text(f"header.{field}", value, maximum_length=limit)
        violations.check_plain(f"header.{field}", value[:limit])
    violations.require(
        not header.language or _LANGUAGE.fullmatch(header.language) is not None,
        "header.language",
        "Must be an ISO 639-1 code such as 'en'.",
    )
    check_digest(header.expected_content_digest, violations, "header.expected_content_digest")
    labels = labels_of(header, violations, field="header")
    return IncomingDocument(
        document_id=header.document_id,
        source_uri=header.source_uri or header.document_id,
        title=header.title.strip(),
        media_type=header.media_type.strip(),
        metadata=labels.metadata or {},
        tags=labels.tags or (),
        readers=labels.readers or (),
        language=header.language,
        expires_at=labels.expires_at,
        expected_content_digest=header.expected_content_digest,
    )


def labels_of(
    message: pb.DocumentHeader | pb.DocumentLabels, violations: Violations, *, field: str
) -> DocumentLabels:
    """Reads what is kept with a document.

    Lists and maps with too many entries are not looked into.

    Args:
        message: Has the fields.
        violations: Receives what is wrong with them.
        field: Path of the message.
    """
    _check_metadata(message, violations, f"{field}.metadata")
    if _few(message.tags, MAXIMUM_TAG_COUNT, violations, f"{field}.tags"):
        for tag in message.tags:
            violations.check_text(f"{field}.tags", tag, minimum_length=1, maximum_length=64)
            violations.check_plain(f"{field}.tags", tag[:64])
    if _few(message.readers, MAXIMUM_READER_COUNT, violations, f"{field}.readers"):
        for reader in message.readers:
            violations.require(
                _READER.fullmatch(reader) is not None,
                f"{field}.readers",
                "Must be 'user:<id>' or 'group:<id>' with an id of 1 to 128 visible ASCII "
                "characters; a group's without commas.",
            )
    return DocumentLabels(
        metadata=dict(message.metadata),
        tags=tuple(sorted(set(message.tags))),
        readers=tuple(sorted(set(message.readers))),
        expires_at=_moment(message, violations, f"{field}.expire_time"),
    )


def label_changes_of(request: pb.UpdateDocumentRequest, violations: Violations) -> DocumentLabels:
    """Reads which labels of a document are to change, and to what."""
    labels = labels_of(request.labels, violations, field="labels")
    check_digest(request.expected_content_digest, violations, "expected_content_digest")
    paths = set(request.update_mask.paths)
    violations.require(
        bool(paths) and paths <= _LABELS,
        "update_mask",
        f"Must name one or more of {', '.join(sorted(_LABELS))}.",
    )
    expires = "expire_time" in paths
    return DocumentLabels(
        metadata=labels.metadata if "metadata" in paths else None,
        tags=labels.tags if "tags" in paths else None,
        readers=labels.readers if "readers" in paths else None,
        expires_at=labels.expires_at if expires else None,
        never_expires=expires and labels.expires_at is None,
    )


def check_digest(digest: str, violations: Violations, field: str) -> None:
    """Checks the form of a content digest that may be left out."""
    violations.require(
        not digest or _DIGEST.fullmatch(digest) is not None,
        field,
        "Must be a `content_digest`: 64 hexadecimal digits in lower case.",
    )


def _few(values: Sized, limit: int, violations: Violations, field: str) -> bool:
    few = len(values) <= limit
    violations.require(few, field, f"At most {limit} entries are allowed.")
    return few


def _check_metadata(
    message: pb.DocumentHeader | pb.DocumentLabels, violations: Violations, field: str
) -> None:
    if not _few(message.metadata, MAXIMUM_METADATA_COUNT, violations, field):
        return
    for key, value in message.metadata.items():
        violations.check_text(field, key, minimum_length=1, maximum_length=100)
        violations.check_text(f"{field}[{key[:100]!r}]", value, maximum_length=2000)
        violations.check_plain(field, key + value)


def _moment(
    message: pb.DocumentHeader | pb.DocumentLabels, violations: Violations, field: str
) -> datetime | None:
    if not message.HasField("expire_time"):
        return None
    return moment_of(message.expire_time, violations, field=field)
