"""The cache service, over gRPC."""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

import grpc

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from services.common.errors import PeerUnavailable
from services.rag.adapters.protocol import (
    FINISH_REASONS,
    finish_reason_of,
    to_messages,
    to_sampling,
    to_usage,
    to_vector,
    usage_of,
    vector_of,
)
from services.rag.core.model import Vector
from services.rag.ports import (
    CachedInference,
    ChunkSpan,
    EmbeddingLookups,
    InferenceKey,
    InferenceLookup,
)

__all__ = ["GrpcCache"]

T = TypeVar("T")

_OUTCOMES = {
    pb.LOOKUP_OUTCOME_HIT_LOCAL: "hit_local",
    pb.LOOKUP_OUTCOME_HIT_SHARED: "hit_shared",
}


class GrpcCache:
    """Asks the cache service.

    Args:
        channel: Channel to the service.
        time_limit_seconds: Longest time of one call.
    """

    def __init__(self, channel: grpc.aio.Channel, *, time_limit_seconds: float) -> None:
        self._stub = CacheServiceStub(channel)
        self._limit = time_limit_seconds

    async def lookup_embeddings(self, model_digest: str, texts: Sequence[str]) -> EmbeddingLookups:
        """Looks up the vectors of 1 to 512 texts."""
        request = pb.LookupEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=model_digest), texts=texts
        )
        response = await _answer_of(self._stub.LookupEmbeddings(request, timeout=self._limit))
        outcomes = [_OUTCOMES.get(each.outcome, "miss") for each in response.lookups]
        return EmbeddingLookups(
            vectors=tuple(
                None if outcome == "miss" else vector_of(each.vector)
                for each, outcome in zip(response.lookups, outcomes, strict=True)
            ),
            outcome=_worst(outcomes),
            degraded=response.degraded,
        )

    async def store_embeddings(
        self, model_digest: str, texts: Sequence[str], vectors: Sequence[Vector]
    ) -> None:
        """Keeps the vectors of texts."""
        request = pb.StoreEmbeddingsRequest(
            space=pb.EmbeddingSpace(model_digest=model_digest),
            entries=[
                pb.EmbeddingEntry(text=text, vector=to_vector(vector))
                for text, vector in zip(texts, vectors, strict=True)
            ],
        )
        await _answer_of(self._stub.StoreEmbeddings(request, timeout=self._limit))

    async def lookup_inference(self, key: InferenceKey, *, mode: str) -> InferenceLookup:
        """Looks up an answer."""
        request = pb.LookupInferenceRequest(key=_to_key(key), mode=mode)
        response = await _answer_of(self._stub.LookupInference(request, timeout=self._limit))
        outcome = _OUTCOMES.get(response.outcome, "miss")
        found = response.inference
        return InferenceLookup(
            outcome=outcome,
            inference=None
            if outcome == "miss"
            else CachedInference(
                text=found.text,
                finish_reason=finish_reason_of(found.finish_reason),
                usage=usage_of(found.usage),
                generation_seconds=found.generation_time.ToNanoseconds() / 1e9,
            ),
            degraded=response.degraded,
        )

    async def store_inference(self, key: InferenceKey, inference: CachedInference) -> None:
        """Keeps a complete answer."""
        message = pb.Inference(
            text=inference.text,
            finish_reason=FINISH_REASONS[inference.finish_reason],
            usage=to_usage(inference.usage),
        )
        message.generation_time.FromNanoseconds(int(inference.generation_seconds * 1e9))
        request = pb.StoreInferenceRequest(key=_to_key(key), inference=message)
        await _answer_of(self._stub.StoreInference(request, timeout=self._limit))

    async def lookup_chunks(
        self, content_digest: str, fingerprint: str
    ) -> tuple[ChunkSpan, ...] | None:
        """Looks up how a content was cut; None where that is not known."""
        request = pb.LookupChunksRequest(key=_chunks_key(content_digest, fingerprint))
        response = await _answer_of(self._stub.LookupChunks(request, timeout=self._limit))
        if response.outcome not in _OUTCOMES:
            return None
        return tuple(
            ChunkSpan(span.char_start, span.char_end, tuple(span.heading_path), span.token_count)
            for span in response.chunks.spans
        )

    async def store_chunks(
        self, content_digest: str, fingerprint: str, spans: Sequence[ChunkSpan]
    ) -> None:
        """Keeps how a content was cut."""
        request = pb.StoreChunksRequest(
            key=_chunks_key(content_digest, fingerprint),
            chunks=pb.ChunkSet(
                spans=[
                    pb.ChunkSpan(
                        char_start=span.char_start,
                        char_end=span.char_end,
                        heading_path=span.heading_path,
                        token_count=span.token_estimate,
                    )
                    for span in spans
                ]
            ),
        )
        await _answer_of(self._stub.StoreChunks(request, timeout=self._limit))


async def _answer_of(call: Awaitable[T]) -> T:
    """Awaits a call; whatever the cache fails with, the work is then done without it."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise PeerUnavailable("cache", error.details() or error.code().name) from error


def _to_key(key: InferenceKey) -> pb.InferenceKey:
    return pb.InferenceKey(
        model_digest=key.model_digest,
        conversation=pb.Conversation(messages=to_messages(key.messages)),
        sampling=to_sampling(key.sampling),
    )


def _chunks_key(content_digest: str, fingerprint: str) -> pb.ChunksKey:
    return pb.ChunksKey(content_digest=content_digest, chunker_fingerprint=fingerprint)


def _worst(outcomes: Sequence[str]) -> str:
    """Names a batch after its slowest item, which is what its caller waits for."""
    return next((each for each in ("miss", "hit_shared") if each in outcomes), "hit_local")
