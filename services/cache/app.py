"""Puts the cache service together."""

import logging
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from pannier.cache.v1 import cache_admin_service_pb2, cache_service_pb2
from pannier.cache.v1.cache_admin_service_pb2_grpc import add_CacheAdminServiceServicer_to_server
from pannier.cache.v1.cache_service_pb2_grpc import add_CacheServiceServicer_to_server
from services.cache import epoch_scripts
from services.cache.adapters.redis_pools import watched_book
from services.cache.adapters.redis_store import RedisStore
from services.cache.admin_servicer import CacheAdminServicer
from services.cache.core.breaker import BreakerPolicy
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.savings import Prices
from services.cache.core.semantic.decision import SemanticPolicy
from services.cache.core.store_address import Topology
from services.cache.core.store_clock import StoreClock
from services.cache.epochs import Epochs
from services.cache.exact_calls import ExactCalls
from services.cache.inference_calls import InferenceCalls
from services.cache.invalidation_calls import InvalidationCalls
from services.cache.levels import Levels
from services.cache.notices import Notices
from services.cache.recorder import Recorder
from services.cache.semantic_calls import SemanticCalls
from services.cache.semantic_layer import SemanticLayer, make_semantic_layer
from services.cache.servicer import CacheServicer
from services.cache.settings import DEVELOPMENT_PEPPER, CacheSettings
from services.cache.shared_level import SharedLevel
from services.cache.statistics_calls import StatisticsCalls
from services.common.deadline import remaining_seconds
from services.common.server import RunningServer, Runtime, serve
from services.common.tasks import in_background

__all__ = ["start"]

_logger = logging.getLogger(__name__)

_CLOCK_TOLERANCE_MS = 100

_SERVICE = cache_service_pb2.DESCRIPTOR.services_by_name["CacheService"].full_name
_ADMIN = cache_admin_service_pb2.DESCRIPTOR.services_by_name["CacheAdminService"].full_name


@asynccontextmanager
async def start(settings: CacheSettings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    """Runs the cache service while the context is open, with Redis or without.

    Args:
        settings: What the service was told.
        runtime: Clock, metrics and tracers.

    Raises:
        OSError: A port is taken.
    """
    if settings.key_pepper == DEVELOPMENT_PEPPER and not settings.redis_address.local:
        _logger.warning("keys and signatures are made with a known secret; set KEY_PEPPER")
    async with AsyncExitStack() as stack:
        store = _open_store(settings, runtime)
        stack.push_async_callback(store.close)
        parts = _build(settings, runtime, store)
        stack.push_async_callback(parts.inference.close)
        await parts.levels.shared.settle()
        await stack.enter_async_context(
            in_background(
                parts.levels.shared.watch(),
                parts.levels.epochs.run(),
                parts.semantic.run(),
                # Last: all who rely on notices have said so by now.
                parts.notices.run(),
            )
        )
        servicer, admin = _servicers(settings, parts)
        registrations = [
            (_SERVICE, lambda server: add_CacheServiceServicer_to_server(servicer, server)),
            (_ADMIN, lambda server: add_CacheAdminServiceServicer_to_server(admin, server)),
        ]
        async with serve("cache", settings, runtime, registrations=registrations) as running:
            try:
                yield running
            finally:
                parts.statistics.end_watches()
                parts.inference.end_waits()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    levels: Levels
    notices: Notices
    inference: InferenceCalls
    semantic: SemanticLayer
    statistics: StatisticsCalls


def _open_store(settings: CacheSettings, runtime: Runtime) -> RedisStore:
    return RedisStore(
        settings.redis_url,
        databases=tuple(_databases(settings).values()),
        timeout_seconds=settings.redis_timeout_seconds,
        connect_timeout_seconds=settings.redis_connect_timeout_seconds,
        connection_limit=settings.redis_connection_limit,
        stream_connection_limit=settings.redis_stream_connection_limit,
        sentinel_password=settings.redis_sentinel_password,
        tracer=runtime.tracer_provider.get_tracer("pannier"),
        command_pools=watched_book(runtime.metrics, "redis"),
        stream_pools=watched_book(runtime.metrics, "redis_streams"),
    )


def _build(settings: CacheSettings, runtime: Runtime, store: RedisStore) -> _Parts:
    notices = Notices(store, clock=runtime.clock)
    levels = _make_levels(settings, runtime, store)
    notices.on(epoch_scripts.CHANNEL, levels.epochs.on_notice)
    notices.on_gap(levels.epochs.on_gap)
    levels.shared.on_recovered(levels.epochs.recover)
    semantic = make_semantic_layer(
        levels,
        policy=SemanticPolicy(
            threshold=settings.semantic_threshold,
            error_budget_ratio=settings.semantic_error_budget_ratio,
            verification_ratio=settings.semantic_verification_ratio,
        ),
        memory_limit_bytes=settings.semantic_memory_limit_bytes,
        tenant_entry_limit=settings.semantic_tenant_entry_limit,
        remaining_seconds=remaining_seconds,
    )
    semantic.connect(notices)
    return _Parts(
        levels=levels,
        notices=notices,
        inference=InferenceCalls(levels, notices, remaining_seconds=remaining_seconds),
        semantic=semantic,
        statistics=StatisticsCalls(
            levels.recorder,
            levels.local,
            store_condition=lambda: levels.shared.condition,
            store_topology=settings.redis_address.topology.value,
            policy=semantic.policy,
            thresholds=levels.epochs.thresholds,
            clock=runtime.clock,
        ),
    )


def _servicers(settings: CacheSettings, parts: _Parts) -> tuple[CacheServicer, CacheAdminServicer]:
    invalidation = InvalidationCalls(
        parts.levels,
        semantic=parts.semantic.held,
        semantic_threshold=settings.semantic_threshold,
    )
    servicer = CacheServicer(
        exact=ExactCalls(parts.levels),
        inference=parts.inference,
        semantic=SemanticCalls(parts.semantic),
        invalidation=invalidation,
        statistics=parts.statistics,
    )
    return servicer, CacheAdminServicer(invalidation)


def _make_levels(settings: CacheSettings, runtime: Runtime, store: RedisStore) -> Levels:
    local = {
        Layer.EMBEDDING: LocalLevel(settings.local_embedding_limit_bytes),
        Layer.INFERENCE: LocalLevel(settings.local_inference_limit_bytes),
        Layer.CHUNK: LocalLevel(settings.local_chunk_limit_bytes),
        Layer.SEMANTIC: LocalLevel(settings.local_semantic_limit_bytes),
    }
    recorder = Recorder(
        runtime.metrics,
        local,
        runtime.clock,
        prices=Prices(
            per_million_prompt_tokens=settings.price_per_million_prompt_tokens,
            per_million_completion_tokens=settings.price_per_million_completion_tokens,
            currency=settings.currency,
        ),
    )
    shared = SharedLevel(
        store,
        databases=_databases(settings),
        timeout_seconds=settings.redis_timeout_seconds,
        remaining_seconds=remaining_seconds,
        clock=runtime.clock,
        recorder=recorder,
        policy=BreakerPolicy(),
    )
    store_clock = StoreClock(lambda: runtime.clock.now() * 1000)
    return Levels(
        local=local,
        shared=shared,
        epochs=Epochs(
            shared,
            store_clock=store_clock,
            clock=runtime.clock,
            remaining_seconds=remaining_seconds,
            clock_tolerance_ms=_clock_tolerance_ms(settings),
        ),
        store_clock=store_clock,
        pepper=settings.key_pepper.encode(),
        clock=runtime.clock,
        draw=random.random,
        recorder=recorder,
    )


def _clock_tolerance_ms(settings: CacheSettings) -> int:
    """Returns by how much clocks that date values may differ: one server has one clock."""
    alone = settings.redis_address.topology is Topology.SINGLE
    return 0 if alone else _CLOCK_TOLERANCE_MS


def _databases(settings: CacheSettings) -> dict[Layer, int]:
    return {
        Layer.EMBEDDING: settings.redis_embedding_database,
        Layer.INFERENCE: settings.redis_inference_database,
        Layer.CHUNK: settings.redis_embedding_database,
        Layer.SEMANTIC: settings.redis_inference_database,
    }
