"""The gRPC face of the balancer."""

# The generic types of grpc exist in its type stubs only.
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceServicer
from services.balancer import convert, report
from services.balancer.check_health import HealthMonitor
from services.balancer.dispatch import Dispatcher
from services.balancer.embed import embed
from services.balancer.generate import generate

__all__ = ["BalancerServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class BalancerServicer(BalancerServiceServicer):
    """Turns calls into use cases.

    Args:
        dispatcher: Gives requests to backends.
        monitor: Checks the backends.
    """

    def __init__(self, dispatcher: Dispatcher, monitor: HealthMonitor) -> None:
        self._dispatcher = dispatcher
        self._fleet = dispatcher.fleet
        self._monitor = monitor

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Continues a prompt."""
        parsed = convert.generation_request(request)
        async with aclosing(generate(self._dispatcher, parsed)) as events:
            async for event in events:
                yield convert.fill_event(pb.GenerateResponse(), event)

    async def Chat(
        self, request: pb.ChatRequest, context: Context
    ) -> AsyncIterator[pb.ChatResponse]:
        """Answers a conversation."""
        parsed = convert.chat_request(request)
        async with aclosing(generate(self._dispatcher, parsed)) as events:
            async for event in events:
                yield convert.fill_event(pb.ChatResponse(), event)

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """Turns texts into vectors."""
        parsed = convert.embedding_request(request)
        return convert.embed_response(await embed(self._dispatcher, parsed))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the models of the fleet."""
        return report.fleet_models(
            self._fleet, page_size=convert.page_size(request), page_token=request.page_token
        )

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Reports counters, response times and load scores."""
        return report.fleet_stats(self._fleet)

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        """Reports the health of every backend."""
        if request.check_now:
            await self._monitor.check_all()
        return report.fleet_health(self._fleet)
