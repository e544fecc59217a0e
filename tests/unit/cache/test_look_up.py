"""Lookups ask the local level first and the shared one once."""

import pytest

from services.cache.core import frames
from services.cache.core.frames import Frame
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.model import Level, NewValue, Result, WriteOutcome
from services.cache.keep import MAXIMUM_VALUE_BYTES, keep
from services.cache.look_up import look_up
from services.cache.ports import StoreFailure

DAY_SECONDS = 86_400.0


async def put(bench, layer: Layer, *names: bytes) -> None:
    await keep(bench.levels, layer, [NewValue(name, b"value of " + name) for name in names])


async def test_a_batch_costs_one_read_for_what_is_not_local(bench) -> None:
    await put(bench, Layer.EMBEDDING, b"shared 1", b"shared 2")
    bench.forget_locally()
    await put(bench, Layer.EMBEDDING, b"local")
    keys = [b"shared 2", b"local", b"absent", b"shared 1", b"shared 2"]
    lookup = await look_up(bench.levels, Layer.EMBEDDING, keys)
    assert bench.store.reads == [(0, [b"shared 2", b"absent", b"shared 1"])]
    assert [hit and hit.payload for hit in lookup.hits] == [
        b"value of shared 2",
        b"value of local",
        None,
        b"value of shared 1",
        b"value of shared 2",
    ]
    assert [hit and hit.level for hit in lookup.hits] == [
        Level.SHARED,
        Level.LOCAL,
        None,
        Level.SHARED,
        Level.SHARED,
    ]
    assert lookup.result is Result.MISS


async def test_a_local_hit_asks_nobody(bench) -> None:
    await put(bench, Layer.CHUNK, b"a")
    lookup = await look_up(bench.levels, Layer.CHUNK, [b"a"])
    assert bench.store.reads == []
    assert lookup.result is Result.HIT


async def test_each_layer_lives_in_its_own_database(bench) -> None:
    for layer in Layer:
        await put(bench, layer, layer.value.encode())
    assert {key: database for database, key in bench.store.values} == {
        b"embedding": 0,
        b"inference": 1,
        b"chunk": 0,
    }


async def test_a_shared_hit_is_local_the_next_time(bench) -> None:
    await put(bench, Layer.INFERENCE, b"a")
    bench.forget_locally()
    levels = []
    for _ in range(2):
        (hit,) = (await look_up(bench.levels, Layer.INFERENCE, [b"a"])).hits
        levels.append(hit.level)
    assert levels == [Level.SHARED, Level.LOCAL]


@pytest.mark.parametrize(
    ("layer", "local_seconds"),
    [(Layer.EMBEDDING, 600), (Layer.INFERENCE, 60), (Layer.CHUNK, 600)],
)
async def test_the_local_level_answers_for_a_bounded_time(bench, layer, local_seconds) -> None:
    await put(bench, layer, b"a")
    await bench.clock.advance(local_seconds - 1)
    (hit,) = (await look_up(bench.levels, layer, [b"a"])).hits
    assert hit.level is Level.LOCAL
    assert hit.age_seconds == pytest.approx(local_seconds - 1)
    await bench.clock.advance(1)
    (hit,) = (await look_up(bench.levels, layer, [b"a"])).hits
    assert hit.level is Level.SHARED


async def test_the_local_level_never_outlives_the_shared_value(bench) -> None:
    await put(bench, Layer.INFERENCE, b"a")
    left_seconds = bench.store.ttls_ms[b"a"] / 1000 - 10
    await bench.clock.advance(left_seconds)
    (hit,) = (await look_up(bench.levels, Layer.INFERENCE, [b"a"])).hits
    assert hit.level is Level.SHARED
    # The fake keeps values for ever: from here on only the frame tells that time is up.
    await bench.clock.advance(9)
    assert (await look_up(bench.levels, Layer.INFERENCE, [b"a"])).result is Result.HIT
    await bench.clock.advance(1)
    lookup = await look_up(bench.levels, Layer.INFERENCE, [b"a"])
    assert lookup.result is Result.MISS
    assert lookup.rejected_count == 0


async def test_hits_never_renew_a_value(bench) -> None:
    await put(bench, Layer.INFERENCE, b"a")
    for _ in range(24):
        await bench.clock.advance(3_600 * 0.95)
        lookup = await look_up(bench.levels, Layer.INFERENCE, [b"a"])
    assert bench.clock.now() - 1_700_000_000 < DAY_SECONDS
    assert len(bench.store.writes) == 1
    await bench.clock.advance(3_600)
    lookup = await look_up(bench.levels, Layer.INFERENCE, [b"a"])
    assert lookup.result is Result.MISS


async def test_values_that_fail_their_check_are_misses_and_counted(bench) -> None:
    await put(bench, Layer.EMBEDDING, b"a", b"b", b"c")
    bench.forget_locally()
    values = bench.store.values
    values[0, b"a"], values[0, b"b"] = values[0, b"b"], values[0, b"a"]
    lookup = await look_up(bench.levels, Layer.EMBEDDING, [b"a", b"b", b"c"])
    assert [hit is None for hit in lookup.hits] == [True, True, False]
    assert lookup.rejected_count == 2
    assert bench.metric("cache_rejected_values_total", layer="embedding") == 2
    assert bench.levels.recorder.tallies[Layer.EMBEDDING].rejected_value_count == 2


async def test_a_value_from_a_clock_ahead_of_ours_has_no_negative_age(bench) -> None:
    now_ms = int(bench.clock.now() * 1000)
    frame = Frame(
        layer=Layer.CHUNK,
        created_ms=now_ms + 5_000,
        expires_ms=now_ms + 10_000,
        payload=b"",
    )
    bench.store.values[0, b"a"] = frames.encode(frame, key=b"a", pepper=bench.levels.pepper)
    (hit,) = (await look_up(bench.levels, Layer.CHUNK, [b"a"])).hits
    assert hit.age_seconds == 0


async def test_a_store_that_fails_makes_misses_and_local_hits(bench) -> None:
    await put(bench, Layer.EMBEDDING, b"a")
    bench.store.failure = StoreFailure("connection refused")
    lookup = await look_up(bench.levels, Layer.EMBEDDING, [b"a", b"b"])
    assert [hit is None for hit in lookup.hits] == [False, True]
    assert lookup.degraded
    assert lookup.result is Result.ERROR
    tally = bench.levels.recorder.tallies[Layer.EMBEDDING]
    assert (tally.miss_count, tally.degraded_miss_count) == (1, 1)


async def test_lookups_are_counted_per_item_mode_and_result(bench) -> None:
    await put(bench, Layer.INFERENCE, b"a")
    await look_up(bench.levels, Layer.INFERENCE, [b"a"], mode="rag")
    await look_up(bench.levels, Layer.INFERENCE, [b"b"], mode="deep")
    await look_up(bench.levels, Layer.INFERENCE, [b"b"], mode="whatever a caller invents")

    def count(mode: str, result: str) -> float | None:
        return bench.metric("cache_lookups_total", layer="inference", mode=mode, result=result)

    assert (count("rag", "hit"), count("rag", "miss")) == (1, 0)
    assert (count("deep", "miss"), count("unknown", "miss")) == (1, 1)
    assert bench.metric("cache_hits_total", layer="inference", level="local") == 1


async def test_evictions_show_in_the_metrics(make_bench) -> None:
    bench = make_bench(local_limit_bytes=2_000)
    for number in range(20):
        await put(bench, Layer.CHUNK, b"%d" % number)
    evicted = bench.metric("cache_evictions_total", layer="chunk", reason="capacity")
    assert evicted == bench.levels.local[Layer.CHUNK].eviction_count > 0
    assert bench.metric("cache_entries", layer="chunk") == 20 - evicted
    assert bench.metric("cache_memory_bytes", layer="chunk") <= 2_000


class TestKeep:
    """Values are kept locally at once and written in one go."""

    async def test_a_batch_costs_one_write_and_the_last_of_equal_keys_counts(self, bench) -> None:
        values = [NewValue(b"a", b"1"), NewValue(b"b", b"2"), NewValue(b"a", b"3")]
        kept = await keep(bench.levels, Layer.EMBEDDING, values)
        ((database, writes),) = bench.store.writes
        assert database == 0
        assert [write.key for write in writes] == [b"a", b"b"]
        assert kept.outcomes == (WriteOutcome.STORED,) * 3
        bench.forget_locally()
        (hit,) = (await look_up(bench.levels, Layer.EMBEDDING, [b"a"])).hits
        assert hit.payload == b"3"

    async def test_the_jittered_time_to_live_reaches_the_store(self, bench) -> None:
        await put(bench, Layer.CHUNK, b"a")
        whole_ms = LAYER_RULES[Layer.CHUNK].ttl_seconds * 1000
        assert bench.store.ttls_ms[b"a"] == pytest.approx(0.95 * whole_ms)

    async def test_a_store_that_is_away_drops_values_but_for_the_local_level(self, bench) -> None:
        bench.store.failure = StoreFailure("connection refused")
        kept = await keep(bench.levels, Layer.EMBEDDING, [NewValue(b"a", b"1")])
        assert kept.outcomes == (WriteOutcome.DROPPED,)
        assert kept.degraded
        bench.store.failure = None
        lookup = await look_up(bench.levels, Layer.EMBEDDING, [b"a"])
        assert lookup.result is Result.HIT
        assert bench.store.values == {}
        assert bench.metric("cache_writes_total", layer="embedding", outcome="dropped") == 1

    async def test_what_the_store_refuses_is_told_from_what_it_takes(self, bench) -> None:
        bench.store.refused = {b"b"}
        values = [NewValue(b"a", b"1"), NewValue(b"b", b"2")]
        kept = await keep(bench.levels, Layer.EMBEDDING, values)
        assert kept.outcomes == (WriteOutcome.STORED, WriteOutcome.REFUSED)
        assert not kept.degraded
        assert kept.stored_count == 1

    async def test_a_value_over_the_limit_is_kept_nowhere_and_counted(self, bench) -> None:
        values = [
            NewValue(b"a", b"x" * MAXIMUM_VALUE_BYTES),
            NewValue(b"b", b"x" * (MAXIMUM_VALUE_BYTES + 1)),
        ]
        kept = await keep(bench.levels, Layer.CHUNK, values)
        assert kept.outcomes == (WriteOutcome.STORED, WriteOutcome.TOO_LARGE)
        assert bench.metric("cache_writes_total", layer="chunk", outcome="too_large") == 1
        lookup = await look_up(bench.levels, Layer.CHUNK, [b"b"])
        assert lookup.hits == (None,)
