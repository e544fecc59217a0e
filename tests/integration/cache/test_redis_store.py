"""The Redis adapter under callers that lose patience or go away."""

import asyncio
import random
from contextlib import suppress

import pytest
from opentelemetry.trace import NoOpTracer

from services.cache.adapters.redis_store import RedisStore
from services.cache.ports import StoreFailure, StoreTimeout, Write


@pytest.fixture
async def make_store():
    stores = []

    def make(url: str, **changes) -> RedisStore:
        options = {
            "databases": (0, 1),
            "timeout_seconds": 0.1,
            "connect_timeout_seconds": 0.25,
            "connection_limit": 2,
            "tracer": NoOpTracer(),
        } | changes
        stores.append(RedisStore(url, **options))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


async def test_cancelled_calls_cost_no_connection_and_mix_up_no_replies(
    make_store, redis_server
) -> None:
    patient = 5.0
    store = make_store(redis_server.url)
    keys = [b"key %d" % number for number in range(12)]
    writes = [Write(key, b"value of " + key, 60_000) for key in keys]
    await store.write(0, writes, timeout_seconds=patient)
    draw = random.Random(7)
    loop = asyncio.get_running_loop()

    async def read(key: bytes, timeout_seconds: float) -> None:
        with suppress(StoreFailure):
            found = await store.read(0, [key], timeout_seconds=timeout_seconds)
            assert found == [b"value of " + key]

    for _ in range(100):
        tasks = [asyncio.create_task(read(key, draw.choice([0.1, 0.001]))) for key in keys]
        for task in tasks:
            for _ in range(draw.randrange(3)):
                loop.call_later(draw.random() * 0.004, task.cancel)
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None
    for key in keys:
        found = await store.read(0, [key], timeout_seconds=patient)
        assert found == [b"value of " + key]


async def test_a_frozen_server_is_told_from_an_absent_one(make_store, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    store = make_store(private_redis.url)
    await store.check(timeout_seconds=1.0)
    private_redis.freeze()
    with pytest.raises(StoreTimeout, match="no answer in time"):
        await store.read(0, [b"key"], timeout_seconds=0.05)
    private_redis.thaw()
    private_redis.kill()
    with pytest.raises(StoreFailure) as caught:
        await make_store(private_redis.url).read(1, [b"key"], timeout_seconds=1.0)
    assert caught.value.cause == "connection refused"
    assert not isinstance(caught.value, StoreTimeout)


async def test_an_idle_connection_that_broke_is_replaced_without_a_failure(
    make_store, private_redis
) -> None:
    await asyncio.to_thread(private_redis.start)
    store = make_store(private_redis.url)
    await store.check(timeout_seconds=1.0)
    private_redis.kill()
    await asyncio.to_thread(private_redis.start)
    assert await store.read(0, [b"key"], timeout_seconds=1.0) == [None]


async def test_a_wrong_password_is_named_without_being_shown(make_store, redis_server) -> None:
    store = make_store(f"redis://:hush@127.0.0.1:{redis_server.port}")
    with pytest.raises(StoreFailure) as caught:
        await store.check(timeout_seconds=1.0)
    assert caught.value.cause == "authentication failed"
