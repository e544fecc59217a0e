"""Calls for embeddings and chunks: values that their keys decide for ever."""

from collections.abc import Mapping, Sequence

from pannier.cache.v1 import cache_service_pb2 as pb
from services.cache import convert
from services.cache.call_spans import describe_lookup, describe_writes
from services.cache.core.keys import EntryKey, entry_key
from services.cache.core.layers import Layer
from services.cache.core.model import Control, Keeping, Kept, Lookup, NewValue, Scope
from services.cache.keep import keep
from services.cache.levels import Levels
from services.cache.look_up import look_up
from services.cache.validate import validate
from services.common.identity import current_identity

__all__ = ["ExactCalls"]


class ExactCalls:
    """Answers for embeddings and chunks.

    Args:
        levels: Where values are kept.
    """

    def __init__(self, levels: Levels) -> None:
        self._levels = levels

    async def look_up_embeddings(
        self, request: pb.LookupEmbeddingsRequest
    ) -> pb.LookupEmbeddingsResponse:
        """Looks up the vectors of texts."""
        validate(request)
        lookup = await self._look_up(
            Layer.EMBEDDING,
            convert.embedding_fields(request.space, request.texts),
            scope=_space_scope(request.space),
            control=convert.control(request.control),
        )
        if lookup.bypassed:
            bypassed = pb.EmbeddingLookup(outcome=pb.LOOKUP_OUTCOME_BYPASSED)
            return pb.LookupEmbeddingsResponse(lookups=[bypassed] * len(lookup.hits))
        return pb.LookupEmbeddingsResponse(
            lookups=[convert.embedding_lookup(hit) for hit in lookup.hits],
            degraded=lookup.degraded,
        )

    async def store_embeddings(
        self, request: pb.StoreEmbeddingsRequest
    ) -> pb.StoreEmbeddingsResponse:
        """Keeps the vectors of texts."""
        validate(request)
        kept = await self._keep(
            Layer.EMBEDDING,
            convert.embedding_fields(request.space, [each.text for each in request.entries]),
            [entry.vector.float32_le for entry in request.entries],
            scope=_space_scope(request.space),
            keeping=convert.keeping(request.control),
        )
        return pb.StoreEmbeddingsResponse(stored_count=kept.stored_count, degraded=kept.degraded)

    async def look_up_chunks(self, request: pb.LookupChunksRequest) -> pb.LookupChunksResponse:
        """Looks up how a content was cut into chunks."""
        validate(request)
        lookup = await self._look_up(
            Layer.CHUNK,
            [convert.chunks_fields(request.key)],
            scope=_chunks_scope(request.key),
            control=convert.control(request.control),
        )
        if lookup.bypassed:
            return pb.LookupChunksResponse(outcome=pb.LOOKUP_OUTCOME_BYPASSED)
        (hit,) = lookup.hits
        response = pb.LookupChunksResponse(
            outcome=convert.lookup_outcome(hit), degraded=lookup.degraded
        )
        if hit is not None:
            response.chunks.ParseFromString(hit.payload)
        return response

    async def store_chunks(self, request: pb.StoreChunksRequest) -> pb.StoreChunksResponse:
        """Keeps the chunks of a content."""
        validate(request)
        kept = await self._keep(
            Layer.CHUNK,
            [convert.chunks_fields(request.key)],
            [request.chunks.SerializeToString()],
            scope=_chunks_scope(request.key),
            keeping=convert.keeping(request.control),
        )
        return pb.StoreChunksResponse(stored=kept.stored_count == 1, degraded=kept.degraded)

    async def _look_up(
        self,
        layer: Layer,
        fields: Sequence[Mapping[str, object]],
        *,
        scope: Scope,
        control: Control,
    ) -> Lookup:
        keys = self._keys(layer, fields, scope)
        mode = convert.mode_or_carried("")
        lookup = await look_up(self._levels, layer, keys, scope=scope, control=control, mode=mode)
        describe_lookup(layer, lookup)
        return lookup

    async def _keep(
        self,
        layer: Layer,
        fields: Sequence[Mapping[str, object]],
        payloads: Sequence[bytes],
        *,
        scope: Scope,
        keeping: Keeping,
    ) -> Kept:
        keys = self._keys(layer, fields, scope)
        values = [NewValue(*pair) for pair in zip(keys, payloads, strict=True)]
        kept = await keep(self._levels, layer, values, scope=scope, keeping=keeping)
        describe_writes(layer, kept, sum(map(len, payloads)))
        return kept

    def _keys(
        self, layer: Layer, fields: Sequence[Mapping[str, object]], scope: Scope
    ) -> list[EntryKey]:
        return [
            entry_key(
                layer,
                tenant_id=scope.tenant_id,
                namespace=scope.namespace,
                fields=each,
                pepper=self._levels.pepper,
            )
            for each in fields
        ]


def _space_scope(space: pb.EmbeddingSpace) -> Scope:
    tenant_id = current_identity.get().tenant_id
    return convert.scope(tenant_id, namespace=space.namespace, model_digest=space.model_digest)


def _chunks_scope(key: pb.ChunksKey) -> Scope:
    return convert.scope(current_identity.get().tenant_id, namespace=key.namespace)
