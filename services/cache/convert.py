"""Protobuf to what the core works with, and back."""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.common.v1 import generation_pb2, vector_pb2
from services.cache.canonical import canonical_fields
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.model import Hit, Level
from services.cache.core.tallies import LayerTally, Savings
from services.cache.shared_level import StoreCondition

__all__ = [
    "chunks_fields",
    "duration",
    "embedding_fields",
    "embedding_lookup",
    "inference_fields",
    "is_reusable",
    "layer_stats",
    "lookup_outcome",
    "savings",
    "store_stats",
    "timestamp",
]

_COMPONENT_BYTES = 4

_LAYERS = {
    Layer.EMBEDDING: pb.LAYER_EMBEDDING,
    Layer.INFERENCE: pb.LAYER_INFERENCE,
    Layer.CHUNK: pb.LAYER_CHUNK,
}
_HIT_OUTCOMES = {
    Level.LOCAL: pb.LOOKUP_OUTCOME_HIT_LOCAL,
    Level.SHARED: pb.LOOKUP_OUTCOME_HIT_SHARED,
}


def embedding_fields(space: pb.EmbeddingSpace, texts: Sequence[str]) -> list[dict[str, object]]:
    """Returns what decides the vector of each text."""
    fields = canonical_fields(space)
    return [{"space": fields, "text": text} for text in texts]


def inference_fields(key: pb.InferenceKey) -> dict[str, object]:
    """Returns what decides an answer."""
    return canonical_fields(key)


def chunks_fields(key: pb.ChunksKey) -> dict[str, object]:
    """Returns what decides the chunks of a content."""
    return canonical_fields(key)


def is_reusable(request: pb.StoreInferenceRequest) -> bool:
    """Returns whether an answer would do for the next caller.

    One that reached a limit does so only where the caller set that limit: otherwise a default cut
    it short, and defaults are no part of the key. Reasons unknown to this release do not.
    """
    reason = request.inference.finish_reason
    if reason == generation_pb2.FINISH_REASON_LENGTH:
        return request.key.sampling.HasField("max_output_token_count")
    return reason == generation_pb2.FINISH_REASON_STOP


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


def savings(inference: pb.Inference) -> Savings:
    """Returns what a hit on this answer saves."""
    return Savings(
        inference.usage.prompt_token_count,
        inference.usage.completion_token_count,
        inference.generation_time.ToNanoseconds() / 1e9,
    )


def layer_stats(layer: Layer, tally: LayerTally, local: LocalLevel) -> pb.LayerStats:
    """Reports on one layer."""
    stats = pb.LayerStats(
        layer=_LAYERS[layer],
        lookup_count=tally.lookup_count,
        local_hit_count=tally.local_hit_count,
        shared_hit_count=tally.shared_hit_count,
        miss_count=tally.miss_count,
        degraded_miss_count=tally.degraded_miss_count,
        hit_ratio=tally.hit_ratio,
        stored_count=tally.stored_count,
        dropped_store_count=tally.dropped_store_count,
        local_entry_count=local.entry_count,
        local_size_bytes=local.size_bytes,
        local_limit_bytes=local.limit_bytes,
        local_eviction_count=local.eviction_count,
        ttl=duration(LAYER_RULES[layer].ttl_seconds),
        rejected_value_count=tally.rejected_value_count,
        saved_usage=generation_pb2.TokenUsage(
            prompt_token_count=tally.saved_prompt_token_count,
            completion_token_count=tally.saved_completion_token_count,
        ),
        saved_time=duration(tally.saved_seconds),
    )
    p50, p99 = tally.duration_quantile(0.5), tally.duration_quantile(0.99)
    if p50 is not None and p99 is not None:
        stats.lookup_time_p50.CopyFrom(duration(p50))
        stats.lookup_time_p99.CopyFrom(duration(p99))
    return stats


def store_stats(condition: StoreCondition) -> pb.StoreStats:
    """Reports on the shared store."""
    stats = pb.StoreStats(
        state=pb.STORE_STATE_AVAILABLE if condition.available else pb.STORE_STATE_UNAVAILABLE,
        failure_count=condition.failure_count,
        outage_count=condition.outage_count,
        last_failure=condition.last_failure,
    )
    if condition.changed_at is not None:
        stats.state_change_time.CopyFrom(timestamp(condition.changed_at))
    return stats


def duration(seconds: float) -> Duration:
    """Converts seconds."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def timestamp(seconds: float) -> Timestamp:
    """Converts seconds since the Unix epoch."""
    message = Timestamp()
    message.FromMicroseconds(round(seconds * 1e6))
    return message
