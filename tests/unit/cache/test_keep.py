"""Values are kept locally at once and written in one go, for no longer than they may count."""

import pytest

from services.cache.core import frames
from services.cache.core.keys import EntryKey
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.model import Keeping, Level, NewValue, Result, Scope, WriteOutcome
from services.cache.keep import MAXIMUM_VALUE_BYTES, keep, prepare
from services.cache.look_up import look_up
from services.cache.ports import StoreFailure

SCOPE = Scope("acme")
A, B = EntryKey(b"a"), EntryKey(b"b")


async def put(bench, layer: Layer, *values: tuple[EntryKey, bytes], **keeping: object):
    return await keep(
        bench.levels,
        layer,
        [NewValue(*value) for value in values],
        scope=SCOPE,
        keeping=Keeping(**keeping),
    )


async def get(bench, layer: Layer, key: EntryKey):
    return await look_up(bench.levels, layer, [key], scope=SCOPE)


async def test_a_batch_costs_one_write_and_the_last_of_equal_keys_counts(bench) -> None:
    kept = await put(bench, Layer.EMBEDDING, (A, b"1"), (B, b"2"), (A, b"3"))
    ((database, writes),) = bench.store.writes
    assert database == 0
    assert [write.key for write in writes] == [A.value, B.value]
    assert kept.outcomes == (WriteOutcome.STORED,) * 3
    bench.forget_locally()
    (hit,) = (await get(bench, Layer.EMBEDDING, A)).hits
    assert hit.payload == b"3"


@pytest.mark.parametrize("layer", Layer)
async def test_the_jittered_time_to_live_reaches_the_store(bench, layer) -> None:
    await put(bench, layer, (A, b"1"))
    whole_ms = LAYER_RULES[layer].default_ttl_seconds * 1000
    assert bench.store.ttls_ms[A.value] == pytest.approx(0.95 * whole_ms)


@pytest.mark.parametrize(("wished", "given"), [(100.0, 100.0), (1e9, 24 * 3_600.0)])
async def test_a_time_to_live_can_only_be_shortened(bench, wished, given) -> None:
    await put(bench, Layer.SEMANTIC, (A, b"1"), ttl_seconds=wished)
    assert bench.store.ttls_ms[A.value] == pytest.approx(0.95 * given * 1000)


async def test_a_short_time_to_live_holds_at_the_local_level_too(bench) -> None:
    await put(bench, Layer.CHUNK, (A, b"1"), ttl_seconds=10)
    await bench.clock.advance(9.4)
    assert (await get(bench, Layer.CHUNK, A)).hits[0].level is Level.LOCAL
    await bench.clock.advance(0.2)
    # The fake keeps values for ever; the frame does not.
    assert (await get(bench, Layer.CHUNK, A)).result is Result.MISS


async def test_a_store_that_is_away_drops_values_but_for_the_local_level(bench) -> None:
    bench.store.failure = StoreFailure("connection refused")
    kept = await put(bench, Layer.EMBEDDING, (A, b"1"))
    assert kept.outcomes == (WriteOutcome.DROPPED,)
    assert kept.degraded
    assert bench.metric("cache_dropped_writes_total", layer="embedding") == 1
    # One wait is enough to learn that nobody answers.
    assert bench.store.writes == []
    bench.store.failure = None
    assert bench.store.values == {}
    assert bench.metric("cache_writes_total", layer="embedding", outcome="dropped") == 1


async def test_what_is_kept_while_the_store_is_away_is_given_until_it_is_back(bench) -> None:
    bench.store.failure = StoreFailure("connection refused")
    await put(bench, Layer.INFERENCE, (A, b"1"))
    assert (await get(bench, Layer.INFERENCE, A)).result is Result.HIT
    await bench.clock.advance(30)
    assert (await get(bench, Layer.INFERENCE, A)).result is Result.HIT
    bench.store.failure = None
    # Nobody knows what was invalidated before the store was there: its first note says "all".
    assert (await get(bench, Layer.INFERENCE, A)).result is Result.MISS


async def test_what_the_store_refuses_is_told_from_what_it_takes(bench) -> None:
    bench.store.refused = {B.value}
    kept = await put(bench, Layer.EMBEDDING, (A, b"1"), (B, b"2"))
    assert kept.outcomes == (WriteOutcome.STORED, WriteOutcome.REFUSED)
    assert not kept.degraded
    assert kept.stored_count == 1


async def test_a_value_over_the_limit_is_kept_nowhere_and_counted(bench) -> None:
    fits, too_large = bytes(MAXIMUM_VALUE_BYTES), bytes(MAXIMUM_VALUE_BYTES + 1)
    kept = await put(bench, Layer.CHUNK, (A, fits), (B, too_large))
    assert kept.outcomes == (WriteOutcome.STORED, WriteOutcome.TOO_LARGE)
    assert bench.metric("cache_writes_total", layer="chunk", outcome="too_large") == 1
    assert (await get(bench, Layer.CHUNK, B)).hits == (None,)


class TestBasis:
    """A value dates from the lookup that missed, not from its arrival."""

    async def test_a_value_from_before_an_invalidation_is_kept_nowhere(self, bench) -> None:
        basis_ms = (await get(bench, Layer.INFERENCE, A)).read_ms
        await bench.clock.advance(1)
        await bench.levels.epochs.bump("acme", ["*"])
        await bench.clock.advance(1)
        kept = await put(bench, Layer.INFERENCE, (A, b"1"), basis_ms=basis_ms)
        assert kept.outcomes == (WriteOutcome.INVALIDATED,)
        assert not kept.degraded
        assert bench.store.writes == []
        assert (await get(bench, Layer.INFERENCE, A)).result is Result.MISS
        labels = {"layer": "inference", "outcome": "invalidated"}
        assert bench.metric("cache_writes_total", **labels) == 1

    async def test_without_a_basis_a_value_dates_from_its_arrival(self, bench) -> None:
        await get(bench, Layer.INFERENCE, A)
        await bench.levels.epochs.bump("acme", ["*"])
        await bench.clock.advance(1)
        kept = await put(bench, Layer.INFERENCE, (A, b"1"))
        assert kept.outcomes == (WriteOutcome.STORED,)
        assert (await get(bench, Layer.INFERENCE, A)).result is Result.HIT

    async def test_nobody_can_date_a_value_ahead_of_time(self, bench) -> None:
        ahead_ms = int(bench.clock.now() * 1000) + 3_600_000
        await put(bench, Layer.INFERENCE, (A, b"1"), basis_ms=ahead_ms)
        await bench.clock.advance(1)
        await bench.levels.epochs.bump("acme", ["*"])
        assert (await get(bench, Layer.INFERENCE, A)).result is Result.MISS

    async def test_a_basis_of_which_the_notes_are_gone_does_not_count(self, bench) -> None:
        await get(bench, Layer.CHUNK, A)
        basis_ms = int(bench.clock.now() * 1000)
        await bench.clock.advance(32 * 86_400)
        setting = [b"acme", b"", 0, 0, b"t:", b""]
        bench.store.notes.run("set_threshold", b"pannier:2:ep:{acme}", setting)
        kept = await put(bench, Layer.CHUNK, (A, b"1"), basis_ms=basis_ms)
        assert kept.outcomes == (WriteOutcome.INVALIDATED,)

    async def test_the_first_value_of_a_tenant_counts(self, bench) -> None:
        basis_ms = (await get(bench, Layer.INFERENCE, A)).read_ms
        await put(bench, Layer.INFERENCE, (A, b"1"), basis_ms=basis_ms)
        assert (await get(bench, Layer.INFERENCE, A)).result is Result.HIT


class TestPrepare:
    """What others write for themselves is made by the same rules."""

    async def test_it_makes_the_frame_and_keeps_the_value_locally(self, bench) -> None:
        await bench.levels.epochs.ready("acme")
        created_ms = bench.levels.store_now_ms() - 0
        write = prepare(
            bench.levels,
            Layer.INFERENCE,
            A,
            b"answer",
            scope=SCOPE,
            created_ms=created_ms,
            ttl_seconds=100,
            tags=("x:tag",),
            delta_ms=7,
        )
        frame = frames.decode(
            write.data, layer=Layer.INFERENCE, key=A.value, pepper=bench.levels.pepper
        )
        assert (write.key, write.ttl_ms) == (A.value, 95_000)
        assert (frame.payload, frame.tags, frame.delta_ms) == (b"answer", ("x:tag",), 7)
        assert (frame.created_ms, frame.expires_ms) == (created_ms, created_ms + 95_000)
        assert (await get(bench, Layer.INFERENCE, A)).hits[0].level is Level.LOCAL

    async def test_what_does_not_count_is_not_kept_locally(self, bench) -> None:
        await bench.levels.epochs.ready("acme")
        created_ms = bench.levels.store_now_ms()
        await bench.levels.epochs.bump("acme", ["x:tag"])
        for tags, count in ((("x:tag",), 0), ((), 1)):
            prepare(
                bench.levels,
                Layer.INFERENCE,
                A,
                b"answer",
                scope=SCOPE,
                created_ms=created_ms,
                tags=tags,
            )
            assert bench.levels.local[Layer.INFERENCE].entry_count == count
