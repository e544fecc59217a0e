"""The gRPC face of the balancer for operators."""

# The generic types of grpc exist in its type stubs only.
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerAdminServiceServicer
from services.balancer import convert_admin as convert
from services.balancer.backend import Backend
from services.balancer.convert import duration
from services.balancer.fleet import Fleet
from services.balancer.manage_models import ModelManager, Pulled, PullStep
from services.balancer.membership import Membership
from services.balancer.report import backend_health
from services.common.clock import Clock
from services.common.errors import FieldViolation, InvalidRequest

__all__ = ["BalancerAdminServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class BalancerAdminServicer(BalancerAdminServiceServicer):
    """Turns calls into use cases.

    Args:
        membership: Takes backends in and lets them go.
        manager: Loads, unloads and downloads models.
        fleet: The backends.
        clock: The time.
    """

    def __init__(
        self, membership: Membership, manager: ModelManager, fleet: Fleet, clock: Clock
    ) -> None:
        self._membership = membership
        self._manager = manager
        self._fleet = fleet
        self._clock = clock

    async def AddBackend(
        self, request: pb.AddBackendRequest, context: Context
    ) -> pb.AddBackendResponse:
        """Takes a backend into the fleet."""
        endpoint = convert.endpoint(request)
        try:
            backend = await self._membership.add(endpoint)
        except ValueError as error:
            raise InvalidRequest(FieldViolation("endpoint", f"Not taken in: {error}.")) from error
        return pb.AddBackendResponse(backend=self._health(backend))

    async def RemoveBackend(
        self, request: pb.RemoveBackendRequest, context: Context
    ) -> pb.RemoveBackendResponse:
        """Takes a backend out of the fleet."""
        grace_seconds = convert.grace_seconds(request)
        count = await self._membership.remove(request.backend_id, grace_seconds)
        return pb.RemoveBackendResponse(abandoned_count=count)

    async def DrainBackend(
        self, request: pb.DrainBackendRequest, context: Context
    ) -> pb.DrainBackendResponse:
        """Gives a backend nothing more."""
        backend = self._membership.drain(request.backend_id)
        return pb.DrainBackendResponse(in_flight_count=backend.in_flight_count)

    async def ResumeBackend(
        self, request: pb.ResumeBackendRequest, context: Context
    ) -> pb.ResumeBackendResponse:
        """Lets a drained backend take requests again."""
        backend = self._membership.resume(request.backend_id)
        return pb.ResumeBackendResponse(backend=self._health(backend))

    async def PreloadModel(
        self, request: pb.PreloadModelRequest, context: Context
    ) -> pb.PreloadModelResponse:
        """Loads a model into memory."""
        convert.check_model(request.model)
        backend_id, seconds = await self._manager.preload(request.model, request.backend_id)
        return pb.PreloadModelResponse(backend_id=backend_id, load=duration(seconds))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: Context
    ) -> pb.UnloadModelResponse:
        """Takes a model out of memory."""
        convert.check_model(request.model)
        gone, busy = await self._manager.unload(request.model, request.backend_id)
        return pb.UnloadModelResponse(backend_ids=gone, busy_backend_ids=busy)

    async def PullModel(
        self, request: pb.PullModelRequest, context: Context
    ) -> AsyncIterator[pb.PullModelResponse]:
        """Downloads a model."""
        convert.check_model(request.model)
        async with aclosing(self._manager.pull(request.model, request.backend_id)) as steps:
            async for step in steps:
                yield _pull_response(step)

    def _health(self, backend: Backend) -> pb.BackendHealth:
        return backend_health(self._fleet, backend, self._clock)


def _pull_response(step: PullStep | Pulled) -> pb.PullModelResponse:
    if isinstance(step, Pulled):
        return pb.PullModelResponse(
            backend_id=step.backend_id, completed=pb.PullCompleted(model_digest=step.digest)
        )
    progress = step.progress
    return pb.PullModelResponse(
        backend_id=step.backend_id,
        progress=pb.PullProgress(
            status=progress.status,
            digest=progress.digest,
            completed_bytes=progress.completed_bytes,
            total_bytes=progress.total_bytes,
        ),
    )
