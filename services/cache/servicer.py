"""The gRPC face of the cache."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import cache_service_pb2_grpc, invalidation_pb2, semantic_pb2, statistics_pb2
from services.cache.exact_calls import ExactCalls
from services.cache.inference_calls import InferenceCalls
from services.cache.invalidation_calls import InvalidationCalls
from services.cache.semantic_calls import SemanticCalls
from services.cache.statistics_calls import StatisticsCalls

__all__ = ["CacheServicer"]


class CacheServicer(cache_service_pb2_grpc.CacheServiceServicer):
    """Serves `pannier.cache.v1.CacheService`.

    Args:
        exact: Answers for embeddings and chunks.
        inference: Answers for answers of models.
        semantic: Answers for questions that mean the same.
        invalidation: Makes entries unreadable.
        statistics: Reports.
    """

    def __init__(
        self,
        *,
        exact: ExactCalls,
        inference: InferenceCalls,
        semantic: SemanticCalls,
        invalidation: InvalidationCalls,
        statistics: StatisticsCalls,
    ) -> None:
        self._exact = exact
        self._inference = inference
        self._semantic = semantic
        self._invalidation = invalidation
        self._statistics = statistics

    async def LookupEmbeddings(
        self, request: pb.LookupEmbeddingsRequest, context: Any
    ) -> pb.LookupEmbeddingsResponse:
        """Looks up the vectors of texts."""
        return await self._exact.look_up_embeddings(request)

    async def StoreEmbeddings(
        self, request: pb.StoreEmbeddingsRequest, context: Any
    ) -> pb.StoreEmbeddingsResponse:
        """Keeps the vectors of texts."""
        return await self._exact.store_embeddings(request)

    async def LookupChunks(
        self, request: pb.LookupChunksRequest, context: Any
    ) -> pb.LookupChunksResponse:
        """Looks up how a content was cut into chunks."""
        return await self._exact.look_up_chunks(request)

    async def StoreChunks(
        self, request: pb.StoreChunksRequest, context: Any
    ) -> pb.StoreChunksResponse:
        """Keeps the chunks of a content."""
        return await self._exact.store_chunks(request)

    async def LookupInference(
        self, request: pb.LookupInferenceRequest, context: Any
    ) -> pb.LookupInferenceResponse:
        """Looks up the answer of a model, or gives the right to compute it."""
        return await self._inference.look_up_inference(request)

    async def StreamInference(
        self, request: pb.StreamInferenceRequest, context: Any
    ) -> AsyncIterator[pb.StreamInferenceResponse]:
        """Sends the answer of a model as it is there."""
        # Closed at once where the caller goes away, and with it the lease is given back.
        async with aclosing(self._inference.stream_inference(request)) as responses:
            async for response in responses:
                yield response

    async def FillInference(
        self, request_iterator: AsyncIterator[pb.FillInferenceRequest], context: Any
    ) -> pb.FillInferenceResponse:
        """Takes the answer of a model while it is generated."""
        return await self._inference.fill_inference(request_iterator)

    async def StoreInference(
        self, request: pb.StoreInferenceRequest, context: Any
    ) -> pb.StoreInferenceResponse:
        """Keeps the complete answer of a model."""
        return await self._inference.store_inference(request)

    async def ExtendLease(
        self, request: pb.ExtendLeaseRequest, context: Any
    ) -> pb.ExtendLeaseResponse:
        """Prolongs a lease."""
        return await self._inference.extend_lease(request)

    async def ReleaseLease(
        self, request: pb.ReleaseLeaseRequest, context: Any
    ) -> pb.ReleaseLeaseResponse:
        """Gives a lease back."""
        return await self._inference.release_lease(request)

    async def LookupSemantic(
        self, request: semantic_pb2.LookupSemanticRequest, context: Any
    ) -> semantic_pb2.LookupSemanticResponse:
        """Looks up the answer to a question that means the same."""
        return await self._semantic.look_up_semantic(request)

    async def StoreSemantic(
        self, request: semantic_pb2.StoreSemanticRequest, context: Any
    ) -> semantic_pb2.StoreSemanticResponse:
        """Keeps an answer for questions that mean the same."""
        return await self._semantic.store_semantic(request)

    async def ReportOutcome(
        self, request: semantic_pb2.ReportOutcomeRequest, context: Any
    ) -> semantic_pb2.ReportOutcomeResponse:
        """Learns whether a match was right."""
        return await self._semantic.report_outcome(request)

    async def Invalidate(
        self, request: invalidation_pb2.InvalidateRequest, context: Any
    ) -> invalidation_pb2.InvalidateResponse:
        """Makes entries unreadable."""
        return await self._invalidation.invalidate(request)

    async def GetStats(
        self, request: statistics_pb2.GetStatsRequest, context: Any
    ) -> statistics_pb2.GetStatsResponse:
        """Reports what has been counted, from memory."""
        return await self._statistics.get_stats(request)

    async def WatchStats(
        self, request: statistics_pb2.WatchStatsRequest, context: Any
    ) -> AsyncIterator[statistics_pb2.WatchStatsResponse]:
        """Reports again and again."""
        async with aclosing(self._statistics.watch_stats(request)) as responses:
            async for response in responses:
                yield response
