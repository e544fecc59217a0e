"""The gRPC face of what operators change."""

from typing import Any

from pannier.cache.v1 import cache_admin_service_pb2 as pb
from pannier.cache.v1 import cache_admin_service_pb2_grpc
from services.cache.invalidation_calls import InvalidationCalls

__all__ = ["CacheAdminServicer"]


class CacheAdminServicer(cache_admin_service_pb2_grpc.CacheAdminServiceServicer):
    """Serves `pannier.cache.v1.CacheAdminService`.

    Args:
        calls: Carries the changes out.
    """

    def __init__(self, calls: InvalidationCalls) -> None:
        self._calls = calls

    async def SetSimilarityThreshold(
        self, request: pb.SetSimilarityThresholdRequest, context: Any
    ) -> pb.SetSimilarityThresholdResponse:
        """Sets the least similarity of a namespace."""
        return await self._calls.set_similarity_threshold(request)
