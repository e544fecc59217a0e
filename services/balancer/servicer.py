"""The gRPC face of the balancer."""

# The generic types of grpc exist in its type stubs only.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import BalancerServiceServicer
from services.balancer import convert, convert_admin, report
from services.balancer.call import Call
from services.balancer.check_health import HealthMonitor
from services.balancer.core.requests import EmbeddingRequest, Operation
from services.balancer.core.shares import Reservations
from services.balancer.demands import embedding_demand, generation_demand
from services.balancer.dispatch import Dispatcher
from services.balancer.embed import Embedder
from services.balancer.explain import decision_message
from services.balancer.generate import generate
from services.common.errors import ShuttingDown

__all__ = ["BalancerServicer"]

Context = grpc.aio.ServicerContext[Any, Any]
Message = TypeVar("Message")
Parsed = TypeVar("Parsed")


class BalancerServicer(BalancerServiceServicer):
    """Turns calls into use cases.

    Args:
        dispatcher: Gives requests to backends.
        monitor: Checks the backends.
        reservations: What the replicas hold together.
    """

    def __init__(
        self, dispatcher: Dispatcher, monitor: HealthMonitor, reservations: Reservations
    ) -> None:
        self._dispatcher = dispatcher
        self._embedder = Embedder(dispatcher)
        self._fleet = dispatcher.fleet
        self._monitor = monitor
        self._reservations = reservations
        self._ending = asyncio.Event()

    def end_watches(self) -> None:
        """Ends the calls that would never end by themselves, lest the end of the service wait."""
        self._ending.set()

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Continues a prompt."""
        call, parsed = self._arrive(Operation.GENERATE, convert.generation_request, request)
        async with aclosing(generate(self._dispatcher, parsed, call)) as events:
            async for event in events:
                yield convert.fill_event(pb.GenerateResponse(), event)

    async def Chat(
        self, request: pb.ChatRequest, context: Context
    ) -> AsyncIterator[pb.ChatResponse]:
        """Answers a conversation."""
        call, parsed = self._arrive(Operation.CHAT, convert.chat_request, request)
        async with aclosing(generate(self._dispatcher, parsed, call)) as events:
            async for event in events:
                yield convert.fill_event(pb.ChatResponse(), event)

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """Turns texts into vectors."""
        call, parsed = self._arrive(Operation.EMBED, convert.embedding_request, request)
        return convert.embed_response(await self._embedder.embed(parsed, call))

    def _arrive(
        self, operation: Operation, parse: Callable[[Message], Parsed], message: Message
    ) -> tuple[Call, Parsed]:
        """Notes the arrival of a call; one that asks for what makes no sense ends here."""
        call = self._dispatcher.arrive(operation)
        try:
            return call, parse(message)
        except BaseException as error:
            call.end(error)
            raise

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the models of the fleet."""
        return report.fleet_models(
            self._fleet, page_size=convert.page_size(request), page_token=request.page_token
        )

    async def ShowModel(
        self, request: pb.ShowModelRequest, context: Context
    ) -> pb.ShowModelResponse:
        """Describes one model, and how each backend has it."""
        convert_admin.check_model(request.model)
        return report.fleet_model(self._dispatcher.equipment, request.model)

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        """Reports counters, response times and load scores."""
        return self._stats()

    async def WatchStats(
        self, request: pb.WatchStatsRequest, context: Context
    ) -> AsyncIterator[pb.WatchStatsResponse]:
        """Reports them again and again."""
        interval_seconds = convert_admin.watch_interval_seconds(request)
        while not self._ending.is_set():
            yield pb.WatchStatsResponse(stats=self._stats())
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_seconds):
                    await self._ending.wait()
        raise ShuttingDown

    def _stats(self) -> pb.GetStatsResponse:
        return report.fleet_stats(self._dispatcher.equipment, self._reservations)

    async def GetHealth(
        self, request: pb.GetHealthRequest, context: Context
    ) -> pb.GetHealthResponse:
        """Reports the health of every backend."""
        if request.check_now:
            await self._monitor.check_all()
        return report.fleet_health(self._fleet, self._dispatcher.clock)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        """Says which backend a request gets, and what each would cost."""
        its = self._dispatcher
        subject = convert_admin.explain_subject(request)
        if isinstance(subject, str):
            decision = its.scheduler.decisions.find(subject)
            return pb.ExplainResponse(decision=decision_message(decision, decision.assess()))
        number = its.scheduler.new_id()
        if isinstance(subject, EmbeddingRequest):
            demand = embedding_demand(
                its.fleet, its.clock, subject.model, subject.texts, subject.routing, number
            )
        else:
            demand = generation_demand(its.fleet, its.clock, subject, number).demand
        decision, assessment = its.scheduler.assess(demand)
        return pb.ExplainResponse(decision=decision_message(decision, assessment))
