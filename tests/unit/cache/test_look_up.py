"""Lookups ask the local level first and the shared one once, and give only what counts."""

import pytest

from services.cache.core import frames
from services.cache.core.frames import Frame
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.model import Control, Keeping, Level, NewValue, Result, Scope
from services.cache.keep import keep
from services.cache.look_up import Faults, accept, find_local, look_up
from services.cache.ports import StoreFailure

DAY_SECONDS = 86_400.0
SCOPE = Scope("acme", "manuals", "ab" * 32)


def named(name: str) -> EntryKey:
    return EntryKey(name.encode())


async def put(bench, layer: Layer, *names: str, **keeping: object) -> None:
    values = [NewValue(named(name), f"value of {name}".encode()) for name in names]
    await keep(bench.levels, layer, values, scope=SCOPE, keeping=Keeping(**keeping))


async def get(bench, layer: Layer, *names: str, mode: str = "", **control: object):
    return await look_up(
        bench.levels,
        layer,
        [named(name) for name in names],
        scope=SCOPE,
        control=Control(**control),
        mode=mode,
    )


async def test_a_batch_costs_one_read_for_what_is_not_local(bench) -> None:
    await put(bench, Layer.EMBEDDING, "shared 1", "shared 2")
    bench.forget_locally()
    await put(bench, Layer.EMBEDDING, "local")
    lookup = await get(
        bench, Layer.EMBEDDING, "shared 2", "local", "absent", "shared 1", "shared 2"
    )
    asked_for = [named(name).value for name in ("shared 2", "absent", "shared 1")]
    assert bench.store.reads == [(0, asked_for)]
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
    await put(bench, Layer.CHUNK, "a")
    runs = list(bench.store.runs)
    assert (await get(bench, Layer.CHUNK, "a")).result is Result.HIT
    assert bench.store.reads == []
    assert bench.store.runs == runs


async def test_each_layer_lives_in_its_own_database(bench) -> None:
    for layer in Layer:
        await put(bench, layer, layer.value)
    assert {key: database for database, key in bench.store.values} == {
        named("embedding").value: 0,
        named("inference").value: 1,
        named("chunk").value: 0,
        named("semantic").value: 1,
    }


async def test_a_shared_hit_is_local_the_next_time(bench) -> None:
    await put(bench, Layer.INFERENCE, "a")
    bench.forget_locally()
    levels = []
    for _ in range(2):
        (hit,) = (await get(bench, Layer.INFERENCE, "a")).hits
        levels.append(hit.level)
    assert levels == [Level.SHARED, Level.LOCAL]


@pytest.mark.parametrize(
    ("layer", "local_seconds"),
    [(Layer.EMBEDDING, 600), (Layer.INFERENCE, 60), (Layer.CHUNK, 600)],
)
async def test_the_local_level_answers_for_a_bounded_time(bench, layer, local_seconds) -> None:
    await put(bench, layer, "a")
    await bench.clock.advance(local_seconds - 1)
    (hit,) = (await get(bench, layer, "a")).hits
    assert hit.level is Level.LOCAL
    # The store's clock may have been slower than ours by half a thousandth.
    assert hit.age_seconds == pytest.approx(local_seconds - 1, rel=0.001)
    await bench.clock.advance(1)
    (hit,) = (await get(bench, layer, "a")).hits
    assert hit.level is Level.SHARED


async def test_the_local_level_never_outlives_the_shared_value(bench) -> None:
    await put(bench, Layer.INFERENCE, "a")
    left_seconds = bench.store.ttls_ms[named("a").value] / 1000 - 10
    await bench.clock.advance(left_seconds)
    (hit,) = (await get(bench, Layer.INFERENCE, "a")).hits
    assert hit.level is Level.SHARED
    assert hit.remaining_seconds == pytest.approx(10)
    # The fake keeps values for ever: from here on only the frame tells that time is up.
    await bench.clock.advance(9)
    assert (await get(bench, Layer.INFERENCE, "a")).result is Result.HIT
    await bench.clock.advance(1.1)
    lookup = await get(bench, Layer.INFERENCE, "a")
    assert lookup.result is Result.MISS
    assert (lookup.rejected_count, lookup.invalidated_count) == (0, 0)


async def test_hits_never_renew_a_value(bench) -> None:
    await put(bench, Layer.INFERENCE, "a")
    for _ in range(24):
        await bench.clock.advance(3_600 * 0.95)
        lookup = await get(bench, Layer.INFERENCE, "a")
    assert bench.clock.now() - 1_700_000_000 < DAY_SECONDS
    assert len(bench.store.writes) == 1
    await bench.clock.advance(3_600)
    lookup = await get(bench, Layer.INFERENCE, "a")
    assert lookup.result is Result.MISS


async def test_values_that_fail_their_check_are_misses_and_counted(bench) -> None:
    await put(bench, Layer.EMBEDDING, "a", "b", "c")
    bench.forget_locally()
    values = bench.store.values
    a, b = (0, named("a").value), (0, named("b").value)
    values[a], values[b] = values[b], values[a]
    lookup = await get(bench, Layer.EMBEDDING, "a", "b", "c")
    assert [hit is None for hit in lookup.hits] == [True, True, False]
    assert lookup.rejected_count == 2
    assert bench.metric("cache_rejected_values_total", layer="embedding") == 2


async def test_a_value_from_a_clock_ahead_of_ours_has_no_negative_age(bench) -> None:
    now_ms = int(bench.clock.now() * 1000)
    frame = Frame(
        layer=Layer.CHUNK,
        created_ms=now_ms + 5_000,
        expires_ms=now_ms + 10_000,
        payload=b"",
    )
    key = named("a").value
    bench.store.values[0, key] = frames.encode(frame, key=key, pepper=bench.levels.pepper)
    (hit,) = (await get(bench, Layer.CHUNK, "a")).hits
    assert hit.age_seconds == 0


async def test_a_store_that_fails_makes_misses_and_local_hits(bench) -> None:
    await put(bench, Layer.EMBEDDING, "a")
    bench.store.failure = StoreFailure("connection refused")
    lookup = await get(bench, Layer.EMBEDDING, "a", "b")
    assert [hit is None for hit in lookup.hits] == [False, True]
    assert lookup.degraded
    assert lookup.result is Result.ERROR


async def test_a_tenant_of_which_nothing_can_be_learned_costs_one_wait_only(bench) -> None:
    bench.store.failure = StoreFailure("no answer in time")
    lookup = await get(bench, Layer.EMBEDDING, "a")
    assert lookup.degraded
    assert bench.store.runs == ["read_epochs"]
    assert bench.store.reads == []


async def test_lookups_are_counted_per_item_mode_and_result(bench) -> None:
    await put(bench, Layer.INFERENCE, "a")
    await get(bench, Layer.INFERENCE, "a", mode="rag")
    await get(bench, Layer.INFERENCE, "b", mode="deep")
    await get(bench, Layer.INFERENCE, "b", mode="whatever a caller invents")

    def count(mode: str, result: str) -> float | None:
        return bench.metric("cache_lookups_total", layer="inference", mode=mode, result=result)

    assert (count("rag", "hit"), count("rag", "miss")) == (1, 0)
    assert (count("deep", "miss"), count("unknown", "miss")) == (1, 1)
    assert bench.metric("cache_hits_total", layer="inference", level="local") == 1


async def test_evictions_show_in_the_metrics(make_bench) -> None:
    bench = make_bench(local_limit_bytes=2_000)
    for number in range(20):
        await put(bench, Layer.CHUNK, str(number))
    evicted = bench.metric("cache_evictions_total", layer="chunk", reason="capacity")
    assert evicted == bench.levels.local[Layer.CHUNK].eviction_count > 0
    bench.metrics.refresh()
    assert bench.metric("cache_entries", layer="chunk") == 20 - evicted
    assert bench.metric("cache_memory_bytes", layer="chunk") <= 2_000


class TestControl:
    """Callers may ask for younger values, or for none."""

    async def test_who_bypasses_the_cache_asks_nobody_and_is_no_lookup(self, bench) -> None:
        await put(bench, Layer.INFERENCE, "a")
        lookup = await get(bench, Layer.INFERENCE, "a", "b", mode="rag", bypass=True)
        assert (lookup.bypassed, lookup.hits, lookup.degraded) == (True, (None, None), False)
        assert bench.store.reads == []
        misses = {"layer": "inference", "mode": "rag", "result": "miss"}
        assert bench.metric("cache_lookups_total", **misses) == 0
        assert bench.metric("cache_bypasses_total", layer="inference", mode="rag") == 2

    @pytest.mark.parametrize("local", [True, False])
    async def test_a_value_that_is_too_old_is_a_miss_for_who_says_so(self, bench, local) -> None:
        await put(bench, Layer.CHUNK, "a")
        await bench.clock.advance(30)
        if not local:
            bench.forget_locally()
        assert (await get(bench, Layer.CHUNK, "a", max_age_seconds=29)).result is Result.MISS
        assert (await get(bench, Layer.CHUNK, "a", max_age_seconds=31)).result is Result.HIT
        assert (await get(bench, Layer.CHUNK, "a")).hits[0].level is Level.LOCAL

    @pytest.mark.parametrize("local", [True, False])
    async def test_a_value_must_be_younger_than_asked_for(self, bench, local) -> None:
        await put(bench, Layer.CHUNK, "a")
        (hit,) = (await get(bench, Layer.CHUNK, "a")).hits
        if not local:
            bench.forget_locally()
        for since_ms, result in ((0, Result.MISS), (-1, Result.HIT)):
            found = await get(bench, Layer.CHUNK, "a", min_created_ms=hit.created_ms + since_ms)
            assert found.result is result

    async def test_what_one_caller_refuses_is_kept_for_the_others(self, bench) -> None:
        await put(bench, Layer.CHUNK, "a")
        bench.forget_locally()
        await bench.clock.advance(30)
        await get(bench, Layer.CHUNK, "a", max_age_seconds=1)
        assert (await get(bench, Layer.CHUNK, "a")).hits[0].level is Level.LOCAL


class TestInvalidated:
    """What was invalidated is found at neither level, and counted."""

    @pytest.mark.parametrize("local", [True, False])
    @pytest.mark.parametrize("field", ["*", "n:manuals", "m:" + "ab" * 32, "x:tag"])
    async def test_each_note_that_applies_makes_a_miss(self, bench, local, field) -> None:
        await put(bench, Layer.INFERENCE, "a", tags=("x:tag",))
        await bench.clock.advance(1)
        await bench.levels.epochs.bump("acme", [field])
        if not local:
            bench.forget_locally()
        lookup = await get(bench, Layer.INFERENCE, "a")
        assert lookup.result is Result.MISS
        # It is found at the local level and then, as it still stands there, in the shared one.
        assert lookup.invalidated_count == (2 if local else 1)
        assert bench.levels.local[Layer.INFERENCE].entry_count == 0
        name = "cache_invalidated_values_total"
        assert bench.metric(name, layer="inference") == lookup.invalidated_count

    @pytest.mark.parametrize("field", ["n:", "n:other", "m:" + "cd" * 32, "x:other", "g:tag"])
    async def test_notes_that_do_not_apply_change_nothing(self, bench, field) -> None:
        await put(bench, Layer.INFERENCE, "a", tags=("x:tag",))
        await bench.clock.advance(1)
        await bench.levels.epochs.bump("acme", [field])
        assert (await get(bench, Layer.INFERENCE, "a")).result is Result.HIT

    async def test_after_a_minute_without_news_only_lasting_values_are_given(self, bench) -> None:
        for layer in (Layer.EMBEDDING, Layer.INFERENCE):
            await put(bench, layer, "a")
        bench.store.failure = StoreFailure("connection refused")
        await bench.clock.advance(59)
        assert (await get(bench, Layer.INFERENCE, "a")).result is Result.HIT
        await put(bench, Layer.INFERENCE, "b")
        await bench.clock.advance(2)
        assert (await get(bench, Layer.INFERENCE, "b")).result is Result.ERROR
        assert (await get(bench, Layer.EMBEDDING, "a")).result is Result.HIT


class TestAccept:
    """What others read for themselves is checked by the same rules."""

    async def test_it_tells_what_a_refresh_needs_to_know(self, bench) -> None:
        value = NewValue(named("a"), b"answer")
        await keep(bench.levels, Layer.INFERENCE, [value], scope=SCOPE, delta_ms=1_500)
        await bench.clock.advance(10)
        (data,) = bench.store.values.values()
        hit = accept(bench.levels, Layer.INFERENCE, named("a"), data, scope=SCOPE)
        assert (hit.payload, hit.level, hit.delta_seconds) == (b"answer", Level.SHARED, 1.5)
        assert hit.age_seconds == pytest.approx(10, rel=0.001)
        assert hit.age_seconds + hit.remaining_seconds == pytest.approx(0.95 * DAY_SECONDS)
        local = find_local(bench.levels, Layer.INFERENCE, named("a"), scope=SCOPE)
        assert (local.level, local.created_ms) == (Level.LOCAL, hit.created_ms)
        assert (local.delta_seconds, local.remaining_seconds) == (1.5, hit.remaining_seconds)

    async def test_it_raises_for_foreign_bytes_and_counts_what_was_invalidated(self, bench) -> None:
        await put(bench, Layer.INFERENCE, "a")
        (data,) = bench.store.values.values()
        with pytest.raises(frames.FrameRejected):
            accept(bench.levels, Layer.INFERENCE, named("b"), data, scope=SCOPE)
        await bench.levels.epochs.bump("acme", ["*"])
        faults = Faults()
        found = accept(bench.levels, Layer.INFERENCE, named("a"), data, scope=SCOPE, faults=faults)
        assert (found, faults) == (None, Faults(rejected_count=0, invalidated_count=1))
