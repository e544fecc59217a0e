"""The whole service over real gRPC, in front of a real Redis."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pannier.cache.v1 import cache_admin_service_pb2_grpc, cache_service_pb2_grpc
from services.cache import app
from services.cache.app import start
from services.cache.metrics import CATALOGUE
from services.cache.semantic_layer import make_semantic_layer
from services.cache.settings import CacheSettings
from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.common.server import Runtime
from services.common.settings import load
from services.common.tracing import make_tracer_provider
from tests.kit.lateness import lateness
from tests.kit.redis import private_redis, redis_server, shared_redis
from tests.kit.redis_cluster import private_cluster, shared_cluster
from tests.kit.redis_lines import redis_line
from tests.kit.redis_sentinel import private_sentinels, shared_sentinels
from tests.kit.redis_stores import any_redis, make_store, patient_store
from tests.kit.rpc import channel_to

__all__ = [
    "any_redis",
    "lateness",
    "make_store",
    "patient_store",
    "private_cluster",
    "private_redis",
    "private_sentinels",
    "redis_line",
    "redis_server",
    "shared_cluster",
    "shared_redis",
    "shared_sentinels",
]


@dataclass
class RunningCache:
    """A cache service that takes calls."""

    stub: cache_service_pb2_grpc.CacheServiceStub
    admin_stub: cache_admin_service_pb2_grpc.CacheAdminServiceStub
    http_port: int
    spans: InMemorySpanExporter
    metrics: Metrics
    stop: Callable[[], Awaitable[None]]

    def metric(self, name: str, **labels: str) -> float | None:
        # As a scrape does.
        self.metrics.refresh()
        return self.metrics.registry.get_sample_value(name, labels)


PATIENCE = {"redis_timeout_seconds": "5s", "redis_connect_timeout_seconds": "5s"}
"""For tests in which Redis is in order, however late the machine may be."""

StartCache = Callable[..., Awaitable[RunningCache]]


@pytest.fixture
async def start_cache(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartCache]:
    """Starts services in this process; all of them stop with the test.

    They wait long for Redis, as the machine may be busy, unless a test has Redis in trouble: those
    say `patient=False` for the time-outs that users have.
    """

    async with AsyncExitStack() as everything:

        async def start_one(
            redis_url: str, *, patient: bool = True, **variables: str
        ) -> RunningCache:
            one = AsyncExitStack()
            everything.push_async_callback(one.aclose)
            base = {"redis_url": redis_url, "drain_delay_seconds": "0s"}
            variables = base | (PATIENCE if patient else {}) | variables
            # Also for questions and vectors that are not in memory yet.
            wait = {"wait_seconds": 5.0} if patient else {}
            monkeypatch.setattr(app, "make_semantic_layer", partial(make_semantic_layer, **wait))
            environment = {name.upper(): value for name, value in variables.items()}
            spans = InMemorySpanExporter()
            provider = make_tracer_provider("cache", version="test", otlp_endpoint="")
            provider.add_span_processor(SimpleSpanProcessor(spans))
            one.callback(provider.shutdown)
            metrics = Metrics(CATALOGUE, version="test")
            settings = load(CacheSettings, environment, prefix="")
            running = await one.enter_async_context(
                start(settings, Runtime(SystemClock(), metrics, provider))
            )
            channel = await one.enter_async_context(channel_to(running.grpc_port))
            stub = cache_service_pb2_grpc.CacheServiceStub(channel)
            admin_stub = cache_admin_service_pb2_grpc.CacheAdminServiceStub(channel)
            return RunningCache(stub, admin_stub, running.http_port, spans, metrics, one.aclose)

        yield start_one


@pytest.fixture
async def caches(start_cache: StartCache, redis_server) -> list[RunningCache]:
    """Two replicas in front of an empty Redis."""
    return [await start_cache(redis_server.url) for _ in range(2)]


@pytest.fixture
async def cache(start_cache: StartCache, redis_server) -> RunningCache:
    """One running service in front of an empty Redis."""
    return await start_cache(redis_server.url)
