"""The shared store is asked while it is worth it, and watched while it is not."""

import asyncio
import logging
from contextlib import asynccontextmanager, suppress

import pytest

from services.cache.core.layers import Layer
from services.cache.ports import StoreFailure, StoreTimeout

REFUSED = StoreFailure("connection refused")


async def fail(bench, times: int, failure: StoreFailure = REFUSED) -> None:
    bench.store.failure = failure
    for _ in range(times):
        assert await bench.levels.shared.read(Layer.EMBEDDING, [b"a"]) is None


@asynccontextmanager
async def watching(bench):
    task = asyncio.create_task(bench.levels.shared.watch())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_after_five_failures_in_a_row_the_store_is_left_alone(bench) -> None:
    await fail(bench, 5)
    assert not bench.levels.shared.available
    await fail(bench, 20)
    assert await bench.levels.shared.write(Layer.CHUNK, []) is None
    assert len(bench.store.reads) == 5
    assert bench.store.writes == []


async def test_four_failures_are_not_enough(bench) -> None:
    await fail(bench, 4)
    bench.store.failure = None
    assert await bench.levels.shared.read(Layer.EMBEDDING, [b"a"]) == [None]
    await fail(bench, 4)
    assert bench.levels.shared.available


async def test_the_store_comes_back_by_itself_without_any_calls(bench) -> None:
    await fail(bench, 5)
    async with watching(bench):
        await bench.clock.advance(30)
        assert not bench.levels.shared.available
        bench.store.failure = None
        await bench.clock.advance(5)
        assert bench.levels.shared.available


async def test_an_outage_is_noticed_without_any_calls(bench) -> None:
    async with watching(bench):
        await bench.clock.advance(10)
        assert bench.levels.shared.available
        bench.store.failure = REFUSED
        await bench.clock.advance(2)
        assert not bench.levels.shared.available


async def test_probes_get_rarer_while_the_store_stays_away(bench) -> None:
    await fail(bench, 5)
    bench.store.check_count = 0
    async with watching(bench):
        await bench.clock.advance(12)
    # After 1, 2, 4 and 5 seconds.
    assert bench.store.check_count == 4


async def test_at_the_start_an_absent_store_is_known_at_once(bench) -> None:
    bench.store.failure = REFUSED
    await bench.levels.shared.settle()
    assert not bench.levels.shared.available
    assert bench.metric("cache_degraded") == 1


async def test_at_the_start_one_answer_is_enough(bench) -> None:
    await bench.levels.shared.settle()
    assert bench.store.check_count == 1
    assert bench.levels.shared.condition.changed_at is None


async def test_a_caller_in_a_hurry_says_nothing_about_the_store(bench) -> None:
    bench.remaining_seconds[0] = 0.05
    await fail(bench, 20, StoreTimeout("no answer in time"))
    assert bench.levels.shared.available
    assert bench.store.waits_seconds == [pytest.approx(0.04)] * 20


async def test_a_caller_out_of_time_is_not_kept_waiting(bench) -> None:
    bench.remaining_seconds[0] = 0.005
    assert await bench.levels.shared.read(Layer.EMBEDDING, [b"a"]) is None
    assert bench.store.reads == []


async def test_a_frozen_store_is_found_out_although_all_callers_are_in_a_hurry(bench) -> None:
    bench.remaining_seconds[0] = 0.05
    bench.store.failure = StoreTimeout("no answer in time")
    async with watching(bench):
        bench.remaining_seconds[0] = None
        await bench.clock.advance(2)
    assert not bench.levels.shared.available


async def test_condition_and_metrics_tell_the_same_story(bench) -> None:
    assert bench.metric("cache_backend_up", backend="redis") == 1
    await bench.clock.advance(50)
    await fail(bench, 7)
    condition = bench.levels.shared.condition
    assert not condition.available
    assert (condition.failure_count, condition.outage_count) == (5, 1)
    assert condition.changed_at == 1_700_000_050
    assert condition.last_failure == "connection refused"
    assert bench.metric("cache_backend_up", backend="redis") == 0
    assert bench.metric("cache_backend_failures_total", backend="redis") == 5
    bench.store.failure = None
    async with watching(bench):
        await bench.clock.advance(2)
    assert bench.levels.shared.condition.available
    assert bench.levels.shared.condition.outage_count == 1
    assert bench.metric("cache_backend_up", backend="redis") == 1
    assert bench.metric("cache_degraded") == 0


async def test_only_changes_are_logged(bench, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    await fail(bench, 50)
    async with watching(bench):
        await bench.clock.advance(60)
        bench.store.failure = None
        await bench.clock.advance(60)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
