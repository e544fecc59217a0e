"""The gRPC face of the cache."""

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import cache_service_pb2_grpc
from services.cache import convert
from services.cache.core.keys import entry_key
from services.cache.core.layers import Layer
from services.cache.core.model import Kept, Level, Lookup, NewValue, WriteOutcome
from services.cache.keep import keep
from services.cache.levels import Levels
from services.cache.look_up import look_up
from services.cache.validate import validate
from services.common.identity import current_identity

__all__ = ["CacheServicer"]


class CacheServicer(cache_service_pb2_grpc.CacheServiceServicer):
    """Serves `pannier.cache.v1.CacheService`.

    Args:
        levels: Where values are kept.
        started_at: When counting began, seconds since the Unix epoch.
    """

    def __init__(self, levels: Levels, *, started_at: float) -> None:
        self._levels = levels
        self._started_at = started_at

    async def LookupEmbeddings(
        self, request: pb.LookupEmbeddingsRequest, context: Any
    ) -> pb.LookupEmbeddingsResponse:
        """Looks up the vectors of texts."""
        validate(request)
        fields = convert.embedding_fields(request.space, request.texts)
        lookup = await self._look_up(Layer.EMBEDDING, fields)
        return pb.LookupEmbeddingsResponse(
            lookups=[convert.embedding_lookup(hit) for hit in lookup.hits],
            degraded=lookup.degraded,
        )

    async def StoreEmbeddings(
        self, request: pb.StoreEmbeddingsRequest, context: Any
    ) -> pb.StoreEmbeddingsResponse:
        """Keeps the vectors of texts."""
        validate(request)
        fields = convert.embedding_fields(request.space, [each.text for each in request.entries])
        payloads = [entry.vector.float32_le for entry in request.entries]
        kept = await self._keep(Layer.EMBEDDING, fields, payloads)
        return pb.StoreEmbeddingsResponse(stored_count=kept.stored_count, degraded=kept.degraded)

    async def LookupInference(
        self, request: pb.LookupInferenceRequest, context: Any
    ) -> pb.LookupInferenceResponse:
        """Looks up the answer of a model."""
        validate(request)
        fields = convert.inference_fields(request.key)
        lookup = await self._look_up(Layer.INFERENCE, [fields], mode=request.mode)
        (hit,) = lookup.hits
        response = pb.LookupInferenceResponse(
            outcome=convert.lookup_outcome(hit), degraded=lookup.degraded
        )
        if hit is not None:
            response.inference.ParseFromString(hit.payload)
            response.age.CopyFrom(convert.duration(hit.age_seconds))
            self._levels.recorder.saved(Layer.INFERENCE, convert.savings(response.inference))
        return response

    async def StoreInference(
        self, request: pb.StoreInferenceRequest, context: Any
    ) -> pb.StoreInferenceResponse:
        """Keeps the complete answer of a model."""
        validate(request)
        if not convert.is_reusable(request):
            kept = Kept((WriteOutcome.NOT_REUSABLE,), degraded=not self._levels.shared.available)
            self._levels.recorder.wrote(Layer.INFERENCE, kept.outcomes)
            _describe_writes(Layer.INFERENCE, kept)
        else:
            fields = convert.inference_fields(request.key)
            payload = request.inference.SerializeToString()
            kept = await self._keep(Layer.INFERENCE, [fields], [payload])
        return pb.StoreInferenceResponse(stored=kept.stored_count == 1, degraded=kept.degraded)

    async def LookupChunks(
        self, request: pb.LookupChunksRequest, context: Any
    ) -> pb.LookupChunksResponse:
        """Looks up how a content was cut into chunks."""
        validate(request)
        lookup = await self._look_up(Layer.CHUNK, [convert.chunks_fields(request.key)])
        (hit,) = lookup.hits
        response = pb.LookupChunksResponse(
            outcome=convert.lookup_outcome(hit), degraded=lookup.degraded
        )
        if hit is not None:
            response.chunks.ParseFromString(hit.payload)
        return response

    async def StoreChunks(
        self, request: pb.StoreChunksRequest, context: Any
    ) -> pb.StoreChunksResponse:
        """Keeps the chunks of a content."""
        validate(request)
        fields = convert.chunks_fields(request.key)
        kept = await self._keep(Layer.CHUNK, [fields], [request.chunks.SerializeToString()])
        return pb.StoreChunksResponse(stored=kept.stored_count == 1, degraded=kept.degraded)

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:
        """Reports what has been counted, from memory."""
        levels = self._levels
        return pb.GetStatsResponse(
            start_time=convert.timestamp(self._started_at),
            layers=[
                convert.layer_stats(layer, levels.recorder.tallies[layer], levels.local[layer])
                for layer in Layer
            ],
            store=convert.store_stats(levels.shared.condition),
            degraded=not levels.shared.available,
        )

    async def _look_up(
        self, layer: Layer, fields: Sequence[Mapping[str, object]], *, mode: str = ""
    ) -> Lookup:
        lookup = await look_up(self._levels, layer, self._keys(layer, fields), mode=mode)
        _describe_lookup(layer, lookup)
        return lookup

    async def _keep(
        self, layer: Layer, fields: Sequence[Mapping[str, object]], payloads: Sequence[bytes]
    ) -> Kept:
        keys = self._keys(layer, fields)
        values = [NewValue(*pair) for pair in zip(keys, payloads, strict=True)]
        kept = await keep(self._levels, layer, values)
        _describe_writes(layer, kept)
        return kept

    def _keys(self, layer: Layer, fields: Sequence[Mapping[str, object]]) -> list[bytes]:
        tenant_id = current_identity.get().tenant_id
        pepper = self._levels.pepper
        return [
            entry_key(layer, tenant_id=tenant_id, fields=each, pepper=pepper) for each in fields
        ]


def _describe_lookup(layer: Layer, lookup: Lookup) -> None:
    levels = [hit.level for hit in lookup.hits if hit is not None]
    trace.get_current_span().set_attributes(
        {
            "app.cache.layer": layer.value,
            "app.cache.result": lookup.result.value,
            "app.cache.item_count": len(lookup.hits),
            "app.cache.local_hit_count": levels.count(Level.LOCAL),
            "app.cache.shared_hit_count": levels.count(Level.SHARED),
            "app.cache.degraded": lookup.degraded,
        }
    )


def _describe_writes(layer: Layer, kept: Kept) -> None:
    trace.get_current_span().set_attributes(
        {
            "app.cache.layer": layer.value,
            "app.cache.item_count": len(kept.outcomes),
            "app.cache.stored_count": kept.stored_count,
            "app.cache.degraded": kept.degraded,
        }
    )
