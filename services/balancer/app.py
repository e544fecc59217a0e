"""The composition root of the balancer."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

import pannier
from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1.balancer_service_pb2_grpc import (
    add_BalancerAdminServiceServicer_to_server,
    add_BalancerServiceServicer_to_server,
)
from services.balancer.adapters.connections import ConnectionPool
from services.balancer.adapters.ollama import OllamaConnection, OllamaServer
from services.balancer.adapters.pauses import Pauses
from services.balancer.adapters.reservations import open_reservations
from services.balancer.admin_servicer import BalancerAdminServicer
from services.balancer.check_health import HealthMonitor
from services.balancer.core.admission import QueueLimits
from services.balancer.core.budgets import RatioBudget
from services.balancer.core.patience import Patience
from services.balancer.core.shares import Reservations, SoleReplica
from services.balancer.core.snapshot import Policy
from services.balancer.core.stalls import StallLimits
from services.balancer.core.standing import Rules
from services.balancer.cure_stalls import StallCurer
from services.balancer.discover import Discovery
from services.balancer.dispatch import Dispatcher
from services.balancer.equipment import Equipment
from services.balancer.failing import FailureEffects
from services.balancer.fleet import Fleet
from services.balancer.keep_running import keep_running
from services.balancer.keep_warm import WarmPool
from services.balancer.load_models import LoadLimits, ModelLoader
from services.balancer.manage_models import ModelManager
from services.balancer.membership import Membership, ServerOpener
from services.balancer.metrics import create_series
from services.balancer.ports import ModelServer
from services.balancer.scheduler import Scheduler
from services.balancer.servicer import BalancerServicer
from services.balancer.settings import BalancerSettings, Endpoint
from services.common.metrics import Metrics
from services.common.pools import PoolGauge
from services.common.server import RunningServer, Runtime, serve
from services.common.tasks import in_background

__all__ = ["start"]

_SERVICES = pb.DESCRIPTOR.services_by_name
_RETRY_RATIO, _RETRY_BURST = 0.2, 5


@asynccontextmanager
async def start(
    settings: BalancerSettings,
    runtime: Runtime,
    *,
    open_server: ServerOpener | None = None,
    rng: Random | None = None,
) -> AsyncIterator[RunningServer]:
    """Runs the balancer while the context is open.

    Args:
        settings: What it was told.
        runtime: Clock, metrics and tracers.
        open_server: Opens what reaches a backend; by default HTTP.
        rng: Spreads what would happen in step, and decides between equals.
    """
    async with AsyncExitStack() as stack:
        create_series(runtime.metrics)
        reservations: Reservations = SoleReplica()
        if settings.shared_redis_url:
            reservations = await stack.enter_async_context(
                open_reservations(settings.shared_redis_url, clock=runtime.clock)
            )
        pauses = stack.enter_context(Pauses(runtime.clock))
        opener = open_server or _server_opener(settings, runtime.metrics, pauses)
        parts = _build(settings, runtime, reservations, rng or Random(), opener)
        await stack.enter_async_context(parts.membership.opened(settings.backends))
        stack.push_async_callback(parts.loader.close)
        stack.push_async_callback(parts.curer.close)
        # Who is healthy and has which model must be known before the first request comes.
        await parts.discovery.look()
        await parts.monitor.check_all()
        await stack.enter_async_context(
            in_background(
                *(
                    keep_running(run, clock=runtime.clock)
                    for run in (
                        parts.monitor.run,
                        parts.dispatcher.scheduler.run,
                        parts.warm_pool.run,
                        parts.discovery.run,
                    )
                )
            )
        )
        servicer = BalancerServicer(parts.dispatcher, parts.monitor, reservations)
        admin = BalancerAdminServicer(
            parts.membership, parts.manager, parts.dispatcher.fleet, runtime.clock
        )
        registrations = [
            (
                _SERVICES["BalancerService"].full_name,
                lambda server: add_BalancerServiceServicer_to_server(servicer, server),
            ),
            (
                _SERVICES["BalancerAdminService"].full_name,
                lambda server: add_BalancerAdminServiceServicer_to_server(admin, server),
            ),
        ]
        async with serve("balancer", settings, runtime, registrations=registrations) as running:
            try:
                yield running
            finally:
                servicer.end_watches()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    dispatcher: Dispatcher
    monitor: HealthMonitor
    membership: Membership
    loader: ModelLoader
    curer: StallCurer
    warm_pool: WarmPool
    manager: ModelManager
    discovery: Discovery


def _build(
    settings: BalancerSettings,
    runtime: Runtime,
    reservations: Reservations,
    rng: Random,
    open_server: ServerOpener,
) -> _Parts:
    clock, metrics = runtime.clock, runtime.metrics
    tracer = runtime.tracer_provider.get_tracer("pannier", pannier.__version__)
    keep_alive = f"{settings.keep_alive_seconds:g}s"
    servers: dict[str, ModelServer] = {}
    fleet = Fleet(
        clock=clock,
        policy=Policy(context_classes=settings.context_classes),
        slot_count=settings.slots_per_model,
        model_limit=settings.models_per_backend,
        jitter=rng.random,
        reservations=reservations,
        rules=Rules.lasting(
            ejection_seconds=settings.ejection_seconds,
            slow_start_seconds=settings.slow_start_seconds,
        ),
    )
    effects = FailureEffects(fleet)
    scheduler = Scheduler(
        fleet,
        reservations,
        clock=clock,
        rng=rng,
        metrics=metrics,
        limits=QueueLimits(
            interactive=settings.queue_limit_interactive, batch=settings.queue_limit_batch
        ),
    )
    loader = ModelLoader(
        fleet,
        servers,
        reservations,
        effects,
        clock=clock,
        metrics=metrics,
        tracer=tracer,
        limits=LoadLimits(load=settings.load_limit_seconds),
        keep_alive=keep_alive,
    )
    loader.load_failed = scheduler.fail_waiting
    scheduler.begin_load = loader.begin
    curer = StallCurer(
        fleet,
        servers,
        reservations,
        clock=clock,
        metrics=metrics,
        tracer=tracer,
        limits=StallLimits(probe=settings.canary_limit_seconds, load=settings.load_limit_seconds),
        keep_alive=keep_alive,
    )
    effects.suspect = curer.suspect
    monitor = HealthMonitor(
        fleet,
        servers,
        reservations,
        clock=clock,
        rng=rng,
        metrics=metrics,
        tracer=tracer,
        interval_seconds=settings.health_interval_seconds,
        limit_seconds=settings.health_limit_seconds,
        canary_limit_seconds=settings.canary_limit_seconds,
        listing_seconds=settings.listing_interval_seconds,
    )
    effects.look = scheduler.look = monitor.look
    monitor.suspect = curer.suspect
    membership = Membership(
        fleet,
        servers,
        open_server=open_server,
        monitor=monitor,
        clock=clock,
        metrics=metrics,
    )

    async def end_own_work(backend_id: str) -> None:
        await loader.abandon(backend_id)
        await curer.abandon(backend_id)

    membership.departing = end_own_work
    retries = RatioBudget(ratio=_RETRY_RATIO, burst=_RETRY_BURST)

    def show_retries() -> None:
        # It fills up again by itself, while there are no calls that could tell.
        metrics.set_gauge("balancer_retry_budget_ratio", retries.level(clock.monotonic()))

    metrics.before_scrape(show_retries)
    equipment = Equipment(
        fleet=fleet,
        scheduler=scheduler,
        servers=servers,
        effects=effects,
        retries=retries,
        clock=clock,
        metrics=metrics,
        tracer=tracer,
        patience=Patience(
            first_token_seconds=settings.first_token_limit_seconds,
            first_token_floor_seconds=settings.first_token_floor_seconds,
            stall_seconds=settings.stall_limit_seconds,
            stall_floor_seconds=settings.stall_floor_seconds,
            unproven_seconds=settings.unproven_first_token_seconds,
        ),
        keep_alive=keep_alive,
        maximum_attempts=settings.maximum_attempts,
    )
    return _Parts(
        dispatcher=Dispatcher(equipment=equipment),
        monitor=monitor,
        membership=membership,
        loader=loader,
        curer=curer,
        warm_pool=WarmPool(
            fleet,
            loader,
            clock=clock,
            pinned_models=settings.pinned_models,
            keep_alive_seconds=settings.keep_alive_seconds,
        ),
        manager=ModelManager(fleet, servers, loader, membership, clock=clock),
        discovery=Discovery(
            membership,
            clock=clock,
            path=settings.backends_file,
            dns_name=settings.backends_dns_name,
        ),
    )


def _server_opener(settings: BalancerSettings, metrics: Metrics, pauses: Pauses) -> ServerOpener:
    pool = ConnectionPool(PoolGauge(metrics, "ollama", maximum=0))

    def open_server(endpoint: Endpoint) -> AbstractAsyncContextManager[ModelServer]:
        return _opened(endpoint, settings, pool, pauses)

    return open_server


@asynccontextmanager
async def _opened(
    endpoint: Endpoint, settings: BalancerSettings, pool: ConnectionPool, pauses: Pauses
) -> AsyncIterator[ModelServer]:
    limit_seconds = settings.connect_limit_seconds
    async with OllamaConnection(
        endpoint.url, connect_limit_seconds=limit_seconds, pool=pool
    ) as connection:
        yield OllamaServer(
            connection,
            first_token_limit_seconds=settings.first_token_limit_seconds,
            stall_limit_seconds=settings.stall_limit_seconds,
            pauses=pauses,
        )
