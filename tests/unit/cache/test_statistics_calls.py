"""Statistics, once and again and again, from memory."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import statistics_pb2 as pb
from services.cache.core.layers import Layer
from services.cache.core.local_level import LocalLevel
from services.cache.core.model import Hit, Level, Lookup
from services.cache.core.savings import Savings
from services.cache.core.semantic.decision import SemanticPolicy
from services.cache.metrics import CATALOGUE
from services.cache.recorder import Recorder
from services.cache.shared_level import StoreCondition
from services.cache.statistics_calls import StatisticsCalls
from services.common.errors import InvalidRequest, ShuttingDown
from services.common.identity import Identity, current_identity
from services.common.metrics import Metrics

SHORT = pb.WatchStatsRequest(interval=Duration(nanos=100_000_000))


@pytest.fixture
def local() -> dict[Layer, LocalLevel]:
    return {layer: LocalLevel(1 << 20) for layer in Layer}


@pytest.fixture
def recorder(clock, local) -> Recorder:
    return Recorder(Metrics(CATALOGUE, version="test"), local, clock)


@pytest.fixture
def make_calls(clock, local, recorder) -> Callable[..., StatisticsCalls]:
    def make(condition: StoreCondition | None = None) -> StatisticsCalls:
        return StatisticsCalls(
            recorder,
            local,
            store_condition=lambda: condition or StoreCondition(),
            store_topology="single",
            policy=SemanticPolicy(threshold=0.95, error_budget_ratio=0.01, verification_ratio=0.02),
            thresholds=lambda tenant_id: {f"faq of {tenant_id}": 0.98},
            clock=clock,
        )

    return make


@pytest.fixture
def calls(make_calls) -> StatisticsCalls:
    return make_calls()


def look_up(recorder: Recorder, layer: Layer = Layer.INFERENCE, tenant_id: str = "acme") -> None:
    hit = Hit(payload=b"", level=Level.LOCAL, created_ms=0, age_seconds=3.0, remaining_seconds=60.0)
    recorder.looked_up(
        layer,
        Lookup(hits=(hit, None), degraded=False),
        mode="rag",
        tenant_id=tenant_id,
        duration_seconds=0.25,
    )


async def test_all_layers_are_there_before_the_first_lookup(calls, clock) -> None:
    stats = await calls.get_stats(pb.GetStatsRequest())
    assert [pb.Layer.Name(each.layer) for each in stats.layers] == [
        f"LAYER_{layer.name}" for layer in Layer
    ]
    assert all(len(each.windows) == 4 for each in stats.layers)
    assert stats.start_time.ToMilliseconds() == round(clock.now() * 1e3)
    assert (list(stats.modes), list(stats.tenants), stats.degraded) == ([], [], False)
    assert (stats.semantic.threshold, stats.semantic.error_budget_ratio) == (0.95, 0.01)


async def test_what_was_counted_is_reported(calls, recorder) -> None:
    look_up(recorder)
    look_up(recorder, Layer.EMBEDDING, "globex")
    recorder.saved(Layer.INFERENCE, Savings(10, 20, 2.0), tenant_id="acme")
    recorder.saved(Layer.INFERENCE, Savings(1, 2, 3.0), tenant_id="acme", coalesced=True)
    stats = await calls.get_stats(pb.GetStatsRequest())
    modes = [(each.mode, each.layer, each.lookup_count, each.hit_count) for each in stats.modes]
    assert modes == [("rag", pb.LAYER_EMBEDDING, 2, 1), ("rag", pb.LAYER_INFERENCE, 2, 1)]
    assert {each.tenant_id for each in stats.tenants} == {"acme", "globex"}
    assert stats.savings.usage.completion_token_count == 20
    assert stats.savings.coalesced_usage.completion_token_count == 2
    assert stats.savings.gross_time.ToMilliseconds() == 2000
    # Less two lookups of 0.25 s each.
    assert stats.savings.net_time.ToMilliseconds() == 1500


async def test_no_more_tenants_are_listed_than_were_asked_for(calls, recorder) -> None:
    for number in range(5):
        look_up(recorder, tenant_id=f"t{number}")
    stats = await calls.get_stats(pb.GetStatsRequest(tenant_limit=2))
    assert [bool(each.tenant_id) for each in stats.tenants] == [True, True, False]
    assert stats.tenants[2].layers[0].lookup_count == 6
    assert not (await calls.get_stats(pb.GetStatsRequest(tenant_limit=0))).tenants


async def test_thresholds_are_those_of_the_calling_tenant(calls) -> None:
    token = current_identity.set(Identity("acme"))
    try:
        stats = await calls.get_stats(pb.GetStatsRequest())
    finally:
        current_identity.reset(token)
    assert [each.namespace for each in stats.semantic.thresholds] == ["faq of acme"]


async def test_the_index_of_questions_is_apart_from_their_answers(calls, recorder, local) -> None:
    recorder.semantic_size(12, 3, 4_000)
    local[Layer.SEMANTIC].eviction_count = 5
    stats = await calls.get_stats(pb.GetStatsRequest())
    assert (stats.semantic.entry_count, stats.semantic.size_bytes) == (12, 4_000)
    layer = next(each for each in stats.layers if each.layer == pb.LAYER_SEMANTIC)
    assert (layer.local_entry_count, layer.local_eviction_count) == (0, 5)
    assert layer.local_limit_bytes == 1 << 20


async def test_a_store_that_is_away_degrades(make_calls) -> None:
    calls = make_calls(StoreCondition(available=False))
    assert (await calls.get_stats(pb.GetStatsRequest())).degraded


async def test_a_request_out_of_range_is_refused(calls) -> None:
    with pytest.raises(InvalidRequest):
        await calls.get_stats(pb.GetStatsRequest(tenant_limit=51))
    with pytest.raises(InvalidRequest):
        await anext(calls.watch_stats(pb.WatchStatsRequest(interval=Duration(seconds=61))))


async def test_a_watch_reports_at_once_and_then_again(calls, recorder) -> None:
    minute = pb.WatchStatsRequest(interval=Duration(seconds=60))
    async with asyncio.timeout(5), aclosing(calls.watch_stats(minute)) as reports:
        await anext(reports)
    async with asyncio.timeout(5), aclosing(calls.watch_stats(SHORT)) as reports:
        started = time.monotonic()
        first = await anext(reports)
        look_up(recorder)
        second = await anext(reports)
        assert time.monotonic() - started >= 0.1
    counts = [each.stats.layers[1].lookup_count for each in (first, second)]
    assert counts == [0, 2]


async def test_the_end_of_the_service_ends_a_watch_at_once(calls) -> None:
    reports = calls.watch_stats(pb.WatchStatsRequest(interval=Duration(seconds=60)))
    await anext(reports)
    waiting = asyncio.ensure_future(anext(reports))
    await asyncio.sleep(0)
    calls.end_watches()
    async with asyncio.timeout(5):
        with pytest.raises(ShuttingDown):
            await waiting
    with pytest.raises(ShuttingDown):
        await anext(calls.watch_stats(SHORT))


async def test_a_cancelled_watch_ends(calls) -> None:
    reports = calls.watch_stats(pb.WatchStatsRequest(interval=Duration(seconds=60)))
    await anext(reports)
    waiting = asyncio.ensure_future(anext(reports))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(reports)


async def test_a_report_costs_no_more_the_longer_the_service_has_run(
    calls, recorder, clock
) -> None:
    """As long as the longest window; that it takes some milliseconds is for benchmarks to show."""

    async def run(step_count: int) -> None:
        for number in range(step_count):
            await clock.advance(5)
            for layer in Layer:
                look_up(recorder, layer, f"t{number % 150}")

    async def cost() -> float:
        durations = []
        for _ in range(20):
            # Processor time, and the best of many: others may use the machine meanwhile.
            started = time.thread_time()
            await calls.get_stats(pb.GetStatsRequest(tenant_limit=50))
            durations.append(time.thread_time() - started)
        return min(durations)

    await run(720)
    after_an_hour = await cost()
    await run(2_160)
    # Of steps there are four times as many.
    assert await cost() < 3 * after_an_hour
