"""The Redis adapter in front of each topology.

A `conftest.py` offers the fixtures:

    from tests.kit.redis_stores import any_redis, make_store, patient_store
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from services.cache.adapters.redis_store import RedisStore
from tests.kit.redis import RedisServer
from tests.kit.redis_cluster import RedisCluster
from tests.kit.redis_sentinel import RedisSentinels

__all__ = [
    "HASTY",
    "PATIENT_SECONDS",
    "MakeStore",
    "any_redis",
    "make_store",
    "patient_store",
]

PATIENT_SECONDS = 5.0
"""Longer than anything takes that works."""

HASTY = {"timeout_seconds": 0.1, "connect_timeout_seconds": 0.25}
"""What an adapter is told where something hangs or is replaced."""

MakeStore = Callable[..., RedisStore]


@pytest.fixture
async def make_store() -> AsyncIterator[MakeStore]:
    """Makes adapters with time to spare; all of them are closed with the test."""
    stores = []

    def make(url: str, **changes: Any) -> RedisStore:
        options = {
            "databases": (0, 1),
            "connection_limit": 2,
            "tracer": NoOpTracer(),
            "timeout_seconds": PATIENT_SECONDS,
            "connect_timeout_seconds": PATIENT_SECONDS,
        } | changes
        stores.append(RedisStore(url, **options))
        return stores[-1]

    yield make
    for one in stores:
        await one.close()


@pytest.fixture(params=["shared_redis", "shared_sentinels", "shared_cluster"])
def any_redis(request: pytest.FixtureRequest) -> RedisServer | RedisSentinels | RedisCluster:
    """A running Redis of each topology in turn, emptied."""
    one: RedisServer | RedisSentinels | RedisCluster = request.getfixturevalue(request.param)
    one.flush()
    return one


@pytest.fixture
def patient_store(make_store: MakeStore, any_redis: RedisServer) -> RedisStore:
    """An adapter with time to spare, in front of each topology in turn."""
    return make_store(any_redis.url, connection_limit=8)
