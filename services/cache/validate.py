"""The rules that requests must keep; all breaches are reported at once.

What several kinds of requests have in common is checked by generators of violations, which others
put together like those here; `check` reports what they find.
"""

import re
from collections.abc import Iterator
from itertools import islice

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2
from pannier.common.v1 import vector_pb2
from services.cache.core.frames import MAXIMUM_PAYLOAD_BYTES
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.tags import MAXIMUM_TAGS
from services.cache.core.vectors import MAXIMUM_DIMENSION, vector_fault
from services.common.errors import MAXIMUM_VIOLATIONS, FieldViolation, InvalidRequest

__all__ = [
    "MAXIMUM_BATCH",
    "MAXIMUM_QUERY_LENGTH",
    "Violations",
    "check",
    "control_violations",
    "digest_violations",
    "is_elapsed_time",
    "keeping_violations",
    "length_violations",
    "namespace_violations",
    "size_violations",
    "tag_violations",
    "timestamp_violations",
    "validate",
    "vector_violations",
]

MAXIMUM_BATCH = 512

MAXIMUM_QUERY_LENGTH = 8_000
"""Longest question, in characters."""

_MAXIMUM_FINGERPRINT_LENGTH = 200
_MAXIMUM_NAME_LENGTH = 200
_MAXIMUM_DOCUMENT_LENGTH = 1_000
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NAMESPACE = re.compile(r"[a-z0-9._-]{0,64}")

_REQUIRED = "Must be set."
_NOT_EMPTY = "Must not be empty."
_NANOS = range(1_000_000_000)
# Where Timestamp ends, at the end of the year 9999, and Duration.
_LAST_TIMESTAMP_SECONDS = 253_402_300_799
_LONGEST_DURATION_SECONDS = 315_576_000_000

Request = (
    pb.LookupEmbeddingsRequest
    | pb.StoreEmbeddingsRequest
    | pb.LookupChunksRequest
    | pb.StoreChunksRequest
)
Violations = Iterator[FieldViolation]


def validate(request: Request) -> None:
    """Checks a request for embeddings or chunks.

    Raises:
        InvalidRequest: Fields break rules; the first 16 of them are named.
    """
    check(_violations(request))


def check(violations: Violations) -> None:
    """Reports violations, if there are any.

    Raises:
        InvalidRequest: There are; the first 16 are named.
    """
    first = tuple(islice(violations, MAXIMUM_VIOLATIONS))
    if first:
        raise InvalidRequest(*first)


def digest_violations(field: str, digest: str) -> Violations:
    """Checks the digest of a model or a content."""
    if not _DIGEST.fullmatch(digest):
        yield FieldViolation(field, "Must be 64 hexadecimal digits.")


def namespace_violations(field: str, namespace: str) -> Violations:
    """Checks the name of a compartment; none need be named."""
    if not _NAMESPACE.fullmatch(namespace):
        yield FieldViolation(
            field, "Must have at most 64 characters of a-z, 0-9, '.', '_' and '-'."
        )


def length_violations(field: str, text: str, maximum: int) -> Violations:
    """Checks that a text has from 1 to `maximum` characters."""
    if not 1 <= len(text) <= maximum:
        yield FieldViolation(field, f"Must have 1 to {maximum} characters; there are {len(text)}.")


def vector_violations(field: str, vector: vector_pb2.EmbeddingVector) -> Violations:
    """Checks a vector that is there."""
    fault = vector_fault(vector.float32_le, vector.dimension)
    if fault is not None:
        part, rule = fault
        yield FieldViolation(f"{field}.{part}", rule)


def timestamp_violations(field: str, timestamp: Timestamp) -> Violations:
    """Checks a point in time: not before 1970, where the clocks of stores begin."""
    if not 0 <= timestamp.seconds <= _LAST_TIMESTAMP_SECONDS or timestamp.nanos not in _NANOS:
        yield FieldViolation(field, "Must be a time from 1970 to 9999.")


def is_elapsed_time(duration: Duration) -> bool:
    """Returns whether a duration is one of 0 or more."""
    return 0 <= duration.seconds <= _LONGEST_DURATION_SECONDS and duration.nanos in _NANOS


def control_violations(field: str, control: control_pb2.LookupControl) -> Violations:
    """Checks which values a caller accepts.

    Args:
        field: Path of the message in the request.
        control: The message.
    """
    if control.HasField("max_age") and not _is_positive(control.max_age):
        yield FieldViolation(f"{field}.max_age", "Must be a duration above 0.")
    if control.HasField("min_create_time"):
        yield from timestamp_violations(f"{field}.min_create_time", control.min_create_time)


def keeping_violations(
    field: str, control: control_pb2.StoreControl, *, layer: Layer
) -> Violations:
    """Checks how values are to be kept.

    Args:
        field: Path of the message in the request.
        control: The message.
        layer: Where the values are to be kept.
    """
    if control.HasField("ttl"):
        yield from _ttl(f"{field}.ttl", control.ttl, LAYER_RULES[layer].ttl_seconds)
    if len(control.tags) > MAXIMUM_TAGS:
        yield FieldViolation(
            f"{field}.tags", f"Must be at most {MAXIMUM_TAGS}; there are {len(control.tags)}."
        )
    for index, tag in enumerate(control.tags):
        yield from tag_violations(f"{field}.tags[{index}]", tag)
    if control.HasField("basis_time"):
        yield from timestamp_violations(f"{field}.basis_time", control.basis_time)


def size_violations(field: str, size_bytes: int) -> Violations:
    """Checks that a value is not larger than one may be."""
    if size_bytes > MAXIMUM_PAYLOAD_BYTES:
        yield FieldViolation(
            field,
            f"Must have at most {MAXIMUM_PAYLOAD_BYTES} bytes; it has {size_bytes}. "
            "Do not store what is larger.",
        )


def tag_violations(field: str, tag: control_pb2.Tag) -> Violations:
    """Checks what a value depends on."""
    match tag.WhichOneof("kind"):
        case "document":
            document = tag.document
            yield from length_violations(
                f"{field}.document.collection", document.collection, _MAXIMUM_NAME_LENGTH
            )
            yield from length_violations(
                f"{field}.document.document_id", document.document_id, _MAXIMUM_DOCUMENT_LENGTH
            )
        case "collection":
            yield from length_violations(
                f"{field}.collection", tag.collection, _MAXIMUM_NAME_LENGTH
            )
        case "custom":
            yield from length_violations(f"{field}.custom", tag.custom, _MAXIMUM_NAME_LENGTH)
        case _:
            yield FieldViolation(field, "One of document, collection and custom must be set.")


def _violations(request: Request) -> Violations:
    match request:
        case pb.LookupEmbeddingsRequest():
            yield from _space(request.space)
            yield from _batch("texts", len(request.texts))
            yield from control_violations("control", request.control)
            for index, text in enumerate(request.texts):
                if not text:
                    yield FieldViolation(f"texts[{index}]", _NOT_EMPTY)
        case pb.StoreEmbeddingsRequest():
            yield from _space(request.space)
            yield from _batch("entries", len(request.entries))
            yield from keeping_violations("control", request.control, layer=Layer.EMBEDDING)
            dimension = _expected_dimension(request)
            for index, entry in enumerate(request.entries):
                yield from _entry(f"entries[{index}]", entry, dimension)
        case pb.LookupChunksRequest():
            yield from _chunks_key(request.key)
            yield from control_violations("control", request.control)
        case pb.StoreChunksRequest():
            yield from _chunks_key(request.key)
            yield from keeping_violations("control", request.control, layer=Layer.CHUNK)
            if not request.HasField("chunks"):
                yield FieldViolation("chunks", _REQUIRED)
            yield from size_violations("chunks", request.chunks.ByteSize())
            for index, span in enumerate(request.chunks.spans):
                yield from _span(f"chunks.spans[{index}]", span)


def _space(space: pb.EmbeddingSpace) -> Violations:
    yield from digest_violations("space.model_digest", space.model_digest)
    yield from namespace_violations("space.namespace", space.namespace)
    if space.HasField("dimension") and not 1 <= space.dimension <= MAXIMUM_DIMENSION:
        yield FieldViolation("space.dimension", f"Must be from 1 to {MAXIMUM_DIMENSION}.")


def _batch(field: str, count: int) -> Violations:
    if not 1 <= count <= MAXIMUM_BATCH:
        yield FieldViolation(field, f"Must be from 1 to {MAXIMUM_BATCH}; there are {count}.")


def _expected_dimension(request: pb.StoreEmbeddingsRequest) -> int | None:
    """Returns how many components the vectors must have; None where nothing says so."""
    if request.space.HasField("dimension"):
        return request.space.dimension
    # One space has one dimension, whatever it is.
    return request.entries[0].vector.dimension if request.entries else None


def _entry(field: str, entry: pb.EmbeddingEntry, dimension: int | None) -> Violations:
    if not entry.text:
        yield FieldViolation(f"{field}.text", _NOT_EMPTY)
    if not entry.HasField("vector"):
        yield FieldViolation(f"{field}.vector", _REQUIRED)
        return
    faults = list(vector_violations(f"{field}.vector", entry.vector))
    yield from faults
    if not faults and entry.vector.dimension != dimension:
        yield FieldViolation(
            f"{field}.vector.dimension",
            f"Must be {dimension} like that of the space; it is {entry.vector.dimension}.",
        )


def _chunks_key(key: pb.ChunksKey) -> Violations:
    yield from digest_violations("key.content_digest", key.content_digest)
    yield from namespace_violations("key.namespace", key.namespace)
    yield from length_violations(
        "key.chunker_fingerprint", key.chunker_fingerprint, _MAXIMUM_FINGERPRINT_LENGTH
    )


def _span(field: str, span: pb.ChunkSpan) -> Violations:
    if span.char_start < 0:
        yield FieldViolation(f"{field}.char_start", "Must not be negative.")
    if span.char_end <= span.char_start:
        yield FieldViolation(f"{field}.char_end", "Must lie behind char_start.")
    if span.token_count < 1:
        yield FieldViolation(f"{field}.token_count", "Must be at least 1.")


def _ttl(field: str, ttl: Duration, maximum_seconds: float) -> Violations:
    beyond = ttl.seconds + ttl.nanos / 1e9 > maximum_seconds
    if not _is_positive(ttl) or beyond:
        yield FieldViolation(
            field,
            f"Must be above 0 s and at most {maximum_seconds:.0f} s, the longest in the layer.",
        )


def _is_positive(duration: Duration) -> bool:
    return is_elapsed_time(duration) and (duration.seconds > 0 or duration.nanos > 0)
