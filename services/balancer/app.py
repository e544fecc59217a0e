"""The composition root of the balancer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pannier
from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import add_BalancerServiceServicer_to_server
from services.balancer.adapters.ollama import OllamaServer, open_client
from services.balancer.check_health import HealthMonitor
from services.balancer.dispatch import Dispatcher
from services.balancer.fleet import Fleet
from services.balancer.metrics import create_series
from services.balancer.ports import ModelServer
from services.balancer.servicer import BalancerServicer
from services.balancer.settings import BalancerSettings
from services.common.server import RunningServer, Runtime, serve

__all__ = ["start"]

_SERVICE_NAME = pb.DESCRIPTOR.services_by_name["BalancerService"].full_name


@asynccontextmanager
async def start(
    settings: BalancerSettings,
    runtime: Runtime,
    *,
    servers: Mapping[str, ModelServer] | None = None,
    rng: Random | None = None,
) -> AsyncIterator[RunningServer]:
    """Runs the balancer while the context is open.

    Args:
        settings: What it was told.
        runtime: Clock, metrics and tracers.
        servers: What reaches the backends, by id; by default HTTP.
        rng: Spreads the health checks.
    """
    async with AsyncExitStack() as stack:
        fleet = Fleet(settings.backends, clock=runtime.clock)
        create_series(runtime.metrics, fleet.backends)
        if servers is None:
            servers = await _open_servers(settings, stack)
        dispatcher = Dispatcher(
            fleet=fleet,
            servers=servers,
            clock=runtime.clock,
            metrics=runtime.metrics,
            tracer=runtime.tracer_provider.get_tracer("pannier", pannier.__version__),
            maximum_attempts=settings.maximum_attempts,
        )
        monitor = HealthMonitor(
            fleet,
            servers,
            clock=runtime.clock,
            rng=rng or Random(),
            metrics=runtime.metrics,
            interval_seconds=settings.health_interval_seconds,
            limit_seconds=settings.health_limit_seconds,
        )
        # Who is healthy and has which model must be known before the first request comes.
        await monitor.check_all()
        await stack.enter_async_context(_running(monitor))
        servicer = BalancerServicer(dispatcher, monitor)
        async with serve(
            "balancer",
            settings,
            runtime,
            registrations=[
                (
                    _SERVICE_NAME,
                    lambda server: add_BalancerServiceServicer_to_server(servicer, server),
                )
            ],
        ) as running:
            yield running


async def _open_servers(
    settings: BalancerSettings, stack: AsyncExitStack
) -> dict[str, ModelServer]:
    servers: dict[str, ModelServer] = {}
    for endpoint in settings.backends:
        client = open_client(endpoint.url, connect_limit_seconds=settings.connect_limit_seconds)
        servers[endpoint.backend_id] = OllamaServer(
            await stack.enter_async_context(client),
            first_token_limit_seconds=settings.first_token_limit_seconds,
            stall_limit_seconds=settings.stall_limit_seconds,
        )
    return servers


@asynccontextmanager
async def _running(monitor: HealthMonitor) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(monitor.run())
        try:
            yield
        finally:
            task.cancel()
