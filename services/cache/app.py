"""Puts the cache service together."""

import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pannier.cache.v1 import cache_service_pb2, cache_service_pb2_grpc
from services.cache.adapters.redis_store import RedisStore
from services.cache.core.breaker import BreakerPolicy
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.levels import Levels
from services.cache.recorder import Recorder
from services.cache.servicer import CacheServicer
from services.cache.settings import DEVELOPMENT_PEPPER, CacheSettings, redis_is_local
from services.cache.shared_level import SharedLevel
from services.common.interceptors import remaining_seconds
from services.common.server import RunningServer, Runtime, serve
from services.common.tasks import in_background

__all__ = ["start"]

_logger = logging.getLogger(__name__)

_SERVICE = cache_service_pb2.DESCRIPTOR.services_by_name["CacheService"].full_name


@asynccontextmanager
async def start(settings: CacheSettings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    """Runs the cache service while the context is open, with Redis or without.

    Args:
        settings: What the service was told.
        runtime: Clock, metrics and tracers.

    Raises:
        OSError: A port is taken.
    """
    if settings.key_pepper == DEVELOPMENT_PEPPER and not redis_is_local(settings.redis_url):
        _logger.warning("keys and signatures are made with a known secret; set KEY_PEPPER")
    store = RedisStore(
        settings.redis_url,
        databases=tuple(_databases(settings).values()),
        timeout_seconds=settings.redis_timeout_seconds,
        connect_timeout_seconds=settings.redis_connect_timeout_seconds,
        connection_limit=settings.redis_connection_limit,
        tracer=runtime.tracer_provider.get_tracer("pannier"),
    )
    levels = _make_levels(settings, runtime, store)
    servicer = CacheServicer(levels, started_at=runtime.clock.now())

    await levels.shared.settle()
    try:
        async with (
            in_background(levels.shared.watch()),
            serve(
                "cache",
                settings,
                runtime,
                registrations=[
                    (
                        _SERVICE,
                        lambda server: cache_service_pb2_grpc.add_CacheServiceServicer_to_server(
                            servicer, server
                        ),
                    )
                ],
            ) as running,
        ):
            yield running
    finally:
        await store.close()


def _make_levels(settings: CacheSettings, runtime: Runtime, store: RedisStore) -> Levels:
    local = {
        Layer.EMBEDDING: LocalLevel(settings.local_embedding_limit_bytes),
        Layer.INFERENCE: LocalLevel(settings.local_inference_limit_bytes),
        Layer.CHUNK: LocalLevel(settings.local_chunk_limit_bytes),
    }
    recorder = Recorder(runtime.metrics, local)
    shared = SharedLevel(
        store,
        databases=_databases(settings),
        timeout_seconds=settings.redis_timeout_seconds,
        remaining_seconds=remaining_seconds,
        clock=runtime.clock,
        recorder=recorder,
        policy=BreakerPolicy(),
    )
    return Levels(
        local=local,
        shared=shared,
        pepper=settings.key_pepper.encode(),
        clock=runtime.clock,
        draw=random.random,
        recorder=recorder,
    )


def _databases(settings: CacheSettings) -> dict[Layer, int]:
    return {
        Layer.EMBEDDING: settings.redis_embedding_database,
        Layer.INFERENCE: settings.redis_inference_database,
        Layer.CHUNK: settings.redis_embedding_database,
    }
