"""Protobuf to what the core works with, and back: what several kinds of calls have in common."""

from collections.abc import Iterator, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2
from pannier.common.v1 import vector_pb2
from services.cache.canonical import canonical_fields
from services.cache.core import tags
from services.cache.core.model import Control, Hit, Keeping, Level, Scope
from services.common.baggage import current_baggage

__all__ = [
    "chunks_fields",
    "control",
    "duration",
    "embedding_fields",
    "embedding_lookup",
    "keeping",
    "lookup_outcome",
    "mode_or_carried",
    "scope",
    "seconds",
    "tag",
    "timestamp",
    "timestamp_from_ms",
    "whole_ms",
]

_COMPONENT_BYTES = 4

_HIT_OUTCOMES = {
    Level.LOCAL: pb.LOOKUP_OUTCOME_HIT_LOCAL,
    Level.SHARED: pb.LOOKUP_OUTCOME_HIT_SHARED,
}


def embedding_fields(space: pb.EmbeddingSpace, texts: Sequence[str]) -> list[dict[str, object]]:
    """Returns what decides the vector of each text."""
    fields = canonical_fields(space)
    return [{"space": fields, "text": text} for text in texts]


def chunks_fields(key: pb.ChunksKey) -> dict[str, object]:
    """Returns what decides the chunks of a content."""
    return canonical_fields(key)


def scope(tenant_id: str, *, namespace: str, model_digest: str = "") -> Scope:
    """Returns what a value belongs to; digests are the same in either case."""
    return Scope(tenant_id, namespace, model_digest.lower())


def mode_or_carried(mode: str) -> str:
    """Returns what a caller calls the kind of its request; else what its question brings along."""
    return mode or current_baggage.get().mode


def control(message: control_pb2.LookupControl) -> Control:
    """Returns which values a caller accepts; times are cut to milliseconds, as stored times are."""
    return Control(
        bypass=message.bypass,
        max_age_seconds=seconds(message.max_age) if message.HasField("max_age") else None,
        min_created_ms=(
            whole_ms(message.min_create_time) if message.HasField("min_create_time") else None
        ),
    )


def keeping(message: control_pb2.StoreControl) -> Keeping:
    """Returns how values are to be kept."""
    noted = [each for given in message.tags for each in _noted_tags(given)]
    return Keeping(
        ttl_seconds=seconds(message.ttl) if message.HasField("ttl") else None,
        tags=tuple(dict.fromkeys(noted)),
        basis_ms=whole_ms(message.basis_time) if message.HasField("basis_time") else None,
    )


def tag(message: control_pb2.Tag) -> str:
    """Returns a tag as values and invalidations name it."""
    match message.WhichOneof("kind"):
        case "document":
            return tags.document_tag(message.document.collection, message.document.document_id)
        case "collection":
            return tags.collection_tag(message.collection)
        case _:
            return tags.custom_tag(message.custom)


def lookup_outcome(hit: Hit | None) -> "pb.LookupOutcome.ValueType":
    """Names what was found."""
    return pb.LOOKUP_OUTCOME_MISS if hit is None else _HIT_OUTCOMES[hit.level]


def embedding_lookup(hit: Hit | None) -> pb.EmbeddingLookup:
    """Makes the result for one text."""
    if hit is None:
        return pb.EmbeddingLookup(outcome=pb.LOOKUP_OUTCOME_MISS)
    vector = vector_pb2.EmbeddingVector(
        float32_le=hit.payload, dimension=len(hit.payload) // _COMPONENT_BYTES
    )
    return pb.EmbeddingLookup(outcome=lookup_outcome(hit), vector=vector)


def duration(seconds: float) -> Duration:
    """Converts seconds."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def seconds(message: Duration) -> float:
    """Converts a duration."""
    return message.seconds + message.nanos / 1e9


def timestamp(seconds: float) -> Timestamp:
    """Converts seconds since the Unix epoch."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message


def timestamp_from_ms(milliseconds: int) -> Timestamp:
    """Converts milliseconds since the Unix epoch, exactly."""
    message = Timestamp()
    message.FromMilliseconds(milliseconds)
    return message


def whole_ms(message: Timestamp) -> int:
    """Converts a point in time to milliseconds since the Unix epoch, cutting off what is left."""
    return message.seconds * 1000 + message.nanos // 1_000_000


def _noted_tags(message: control_pb2.Tag) -> Iterator[str]:
    yield tag(message)
    if message.WhichOneof("kind") == "document":
        # What depends on a document depends on its collection.
        yield tags.collection_tag(message.document.collection)
