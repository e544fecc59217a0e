"""The shared store is asked while it is worth it, and watched while it is not."""

import asyncio
import logging

import pytest

from services.cache.core.breaker import Phase
from services.cache.core.layers import Layer
from services.cache.ports import Script, StoreFailure, StoreRefusal, StoreTimeout, Write
from services.common.tasks import in_background
from tests.kit.shared_levels import FailingStore, QuietRecorder, make_level

REFUSED = StoreFailure("connection refused")
LATE = StoreTimeout("no answer in time")
READ_ONLY = StoreRefusal("server is a read-only replica")
SCRIPT = Script("script", "return 1")
VALUE = Write(b"key", b"value", 1000)


@pytest.fixture
def store(clock) -> FailingStore:
    return FailingStore(clock)


@pytest.fixture
def recorder() -> QuietRecorder:
    return QuietRecorder()


@pytest.fixture
def remaining() -> list[float | None]:
    """What is left of the caller's deadline."""
    return [None]


@pytest.fixture
def level(store, clock, recorder, remaining):
    return make_level(store, clock=clock, recorder=recorder, remaining_seconds=lambda: remaining[0])


async def fail(level, store, times: int, failure: StoreFailure = REFUSED) -> None:
    store.failure = failure
    for _ in range(times):
        assert await level.read(Layer.EMBEDDING, [b"a"]) is None


async def slow_down(level, store, clock) -> None:
    """Lets calls take 60 ms for six seconds."""
    store.seconds = 0.06
    for _ in range(60):
        reading = asyncio.ensure_future(level.read(Layer.EMBEDDING, [b"a"]))
        await clock.advance(0.06)
        await reading
        await clock.advance(0.04)
    store.seconds = 0.0
    assert level.phase is Phase.SLOW


async def run(level) -> object:
    return await level.run(Layer.INFERENCE, SCRIPT, [b"key"], [])


async def test_each_layer_has_its_database(level) -> None:
    assert level.database_of(Layer.EMBEDDING) == 0
    assert await run(level) == level.database_of(Layer.INFERENCE) == 1
    assert await level.read_map(Layer.INFERENCE, b"map") == {b"field": b"1"}


async def test_after_five_failures_in_a_row_the_store_is_left_alone(level, store) -> None:
    await fail(level, store, 5)
    assert not level.available
    await fail(level, store, 20)
    assert await level.write(Layer.CHUNK, [VALUE]) is None
    assert store.call_names == ["read"] * 5


async def test_what_may_fail_fails_at_once_while_the_store_is_left_alone(level, store) -> None:
    await fail(level, store, 5)
    for call in (
        run(level),
        level.read_map(Layer.INFERENCE, b"map"),
        level.read_stream(Layer.INFERENCE, b"stream", b"0", wait_seconds=10.0, limit=1),
    ):
        with pytest.raises(StoreFailure, match="out of use"):
            await call
    assert store.call_names == ["read"] * 5


async def test_failures_of_all_kinds_of_calls_count(level, store) -> None:
    store.failure = REFUSED
    assert await level.read(Layer.EMBEDDING, [b"a"]) is None
    assert await level.write(Layer.EMBEDDING, [VALUE]) is None
    for call in (
        run(level),
        level.read_map(Layer.INFERENCE, b"map"),
        level.read_stream(Layer.INFERENCE, b"stream", b"0", wait_seconds=0.0, limit=1),
    ):
        assert level.available
        with pytest.raises(StoreFailure, match="connection refused"):
            await call
    assert not level.available


async def test_four_failures_are_not_enough(level, store) -> None:
    await fail(level, store, 4)
    store.failure = None
    assert await level.read(Layer.EMBEDDING, [b"a"]) == [None]
    await fail(level, store, 4)
    assert level.available


async def test_the_store_comes_back_by_itself_without_any_calls(level, store, clock) -> None:
    await fail(level, store, 5)
    async with in_background(level.watch()):
        await clock.advance(30)
        assert not level.available
        store.failure = None
        await clock.advance(5)
        assert level.available


async def test_an_outage_is_noticed_without_any_calls(level, store, clock) -> None:
    async with in_background(level.watch()):
        await clock.advance(10)
        assert level.available
        store.failure = REFUSED
        await clock.advance(2)
        assert not level.available


async def test_probes_get_rarer_while_the_store_stays_away(level, store, clock) -> None:
    await fail(level, store, 5)
    async with in_background(level.watch()):
        await clock.advance(12)
    # After 1, 2, 4 and 5 seconds.
    assert store.check_count == 4


async def test_at_the_start_an_absent_store_is_known_at_once(level, store, recorder) -> None:
    store.failure = REFUSED
    await level.settle()
    assert not level.available
    assert recorder.phases == [Phase.NORMAL, Phase.OPEN]


async def test_at_the_start_one_answer_is_enough(level, store) -> None:
    await level.settle()
    assert store.check_count == 1
    assert level.condition.changed_at is None


async def test_a_caller_in_a_hurry_says_nothing_about_the_store(level, store, remaining) -> None:
    remaining[0] = 0.05
    await fail(level, store, 20, LATE)
    assert level.available
    assert store.calls == [("read", pytest.approx(0.04))] * 20


async def test_a_caller_waits_for_a_late_store_once_and_no_other_pays_for_it(
    level, store, clock
) -> None:
    store.failure = LATE
    assert await level.read(Layer.EMBEDDING, [b"a"]) is None
    with pytest.raises(StoreTimeout, match="before"):
        await run(level)
    assert await level.write(Layer.EMBEDDING, [VALUE]) is None
    assert store.call_names == ["read"]
    assert level.condition.failure_count == 1
    await clock.advance(0.3)
    await level.read(Layer.EMBEDDING, [b"a"])
    assert store.call_names == ["read"] * 2


async def test_callers_do_not_share_their_patience(level, store) -> None:
    store.failure = LATE
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(level.read(Layer.EMBEDDING, [b"a"]))
    assert store.call_names == ["read"] * 5
    assert not level.available


async def test_a_caller_out_of_time_is_not_kept_waiting(level, store, remaining) -> None:
    remaining[0] = 0.005
    assert await level.read(Layer.EMBEDDING, [b"a"]) is None
    with pytest.raises(StoreTimeout, match="no time left"):
        await run(level)
    assert store.calls == []


@pytest.mark.parametrize(("left", "waited"), [(None, 10.0), (5.0, 4.89), (0.06, 0.0)])
async def test_a_stream_is_waited_for_no_longer_than_the_caller_has_time(
    level, store, remaining, left: float | None, waited: float
) -> None:
    remaining[0] = left
    await level.read_stream(Layer.INFERENCE, b"stream", b"0", wait_seconds=10.0, limit=1)
    assert store.calls == [("read_stream", pytest.approx(waited))]


async def test_a_frozen_store_is_found_out_although_all_callers_are_in_a_hurry(
    level, store, clock, remaining
) -> None:
    store.failure = LATE
    remaining[0] = 0.05
    async with in_background(level.watch()):
        await clock.advance(2)
    assert not level.available


async def test_a_slow_store_is_read_but_not_written_to(level, store, clock) -> None:
    await slow_down(level, store, clock)
    assert level.available
    assert not level.writable
    assert await level.read(Layer.CHUNK, [b"a"]) == [None]
    assert await level.write(Layer.CHUNK, [VALUE, VALUE]) is None
    assert "write" not in store.call_names


async def test_scripts_run_while_the_store_is_slow(level, store, clock) -> None:
    await slow_down(level, store, clock)
    assert await run(level) == 1


async def test_a_store_that_is_fast_again_is_written_to(level, store, clock) -> None:
    await slow_down(level, store, clock)
    async with in_background(level.watch()):
        await clock.advance(12)
    assert level.writable
    assert await level.write(Layer.CHUNK, [VALUE]) == [True]


async def test_long_reads_of_maps_and_streams_are_no_sign_of_a_slow_store(
    level, store, clock
) -> None:
    store.seconds = 0.2
    for _ in range(60):
        reading = asyncio.ensure_future(level.read_map(Layer.INFERENCE, b"map"))
        await clock.advance(0.2)
        await reading
        reading = asyncio.ensure_future(
            level.read_stream(Layer.INFERENCE, b"s", b"0", wait_seconds=1.0, limit=1)
        )
        await clock.advance(0.2)
        await reading
    assert level.phase is Phase.NORMAL


async def test_what_is_dropped_while_the_store_is_away_is_told(level, store) -> None:
    await fail(level, store, 4)
    for _ in range(3):
        assert await level.write(Layer.INFERENCE, [VALUE]) is None


async def test_a_store_that_refuses_writes_is_read_on(level, store, recorder) -> None:
    store.write_failure = READ_ONLY
    for _ in range(50):
        assert await level.write(Layer.CHUNK, [VALUE, VALUE]) == [False, False]
        with pytest.raises(StoreRefusal, match="read-only"):
            await run(level)
        assert await level.read(Layer.CHUNK, [b"a"]) == [None]
    assert level.available
    assert not level.writable
    assert recorder.failure_count == level.condition.failure_count == 100
    assert level.condition.last_failure == "server is a read-only replica"


async def test_a_store_that_refuses_reads_is_left_alone(level, store) -> None:
    await fail(level, store, 5, StoreRefusal("replica has lost its master"))
    assert not level.available


async def test_a_store_that_takes_values_again_is_found_out_without_any_calls(
    level, store, clock
) -> None:
    store.write_failure = READ_ONLY
    await level.write(Layer.CHUNK, [VALUE])
    async with in_background(level.watch()):
        await clock.advance(3)
        assert not level.writable
        store.write_failure = None
        await clock.advance(1)
    assert level.writable


async def test_recovery_is_finished_before_the_store_is_used(level, store, clock) -> None:
    may_finish = asyncio.Event()
    order: list[str] = []

    async def learn() -> None:
        order.append("began")
        assert await run(level) == 1
        await may_finish.wait()
        order.append("ended")

    level.on_recovered(learn)
    await fail(level, store, 5)
    store.failure = None
    store.calls.clear()
    async with in_background(level.watch()):
        await clock.advance(1)
        assert order == ["began"]
        assert level.phase is Phase.RECOVERING
        assert not level.available
        # The handler's own calls go through; callers' do not.
        assert await level.read(Layer.EMBEDDING, [b"a"]) is None
        with pytest.raises(StoreFailure, match="out of use"):
            await run(level)
        assert store.call_names == ["run"]
        may_finish.set()
        await clock.advance(0)
    assert order == ["began", "ended"]
    assert level.available


@pytest.mark.parametrize("mistake", [REFUSED, KeyError("field")])
async def test_a_recovery_that_fails_is_tried_again(level, store, clock, mistake) -> None:
    mistakes: list[Exception] = [mistake]

    async def learn() -> None:
        if mistakes:
            raise mistakes.pop()

    level.on_recovered(learn)
    await fail(level, store, 5)
    store.failure = None
    async with in_background(level.watch()):
        await clock.advance(1)
        assert level.phase is Phase.OPEN
        await clock.advance(2)
        assert level.available
    assert level.condition.outage_count == 1


async def test_a_recovery_that_takes_too_long_is_given_up(level, store, clock, monkeypatch) -> None:
    monkeypatch.setattr("services.cache.store_watch._RECOVERY_LIMIT_SECONDS", 0.02)
    cancelled = asyncio.Event()

    async def learn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    level.on_recovered(learn)
    await fail(level, store, 5)
    store.failure = None
    async with in_background(level.watch()):
        await clock.advance(1)
        await cancelled.wait()
        await clock.advance(0)
        assert level.phase is Phase.OPEN
        assert level.condition.last_failure == "recovery took too long"


async def test_a_caller_that_goes_away_says_nothing_about_the_store(level, store, clock) -> None:
    store.seconds = 1.0
    for _ in range(10):
        reading = asyncio.ensure_future(level.read(Layer.EMBEDDING, [b"a"]))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert level.condition.failure_count == 0
    assert level.available


async def test_the_condition_tells_the_story(level, store, clock, recorder) -> None:
    await clock.advance(50)
    await fail(level, store, 7)
    condition = level.condition
    assert (condition.available, condition.writable) == (False, False)
    assert condition.phase is Phase.OPEN
    assert (condition.failure_count, condition.outage_count) == (5, 1)
    assert condition.changed_at == 1_700_000_050
    assert condition.last_failure == "connection refused"
    store.failure = None
    async with in_background(level.watch()):
        await clock.advance(2)
    assert level.condition.available
    assert level.condition.outage_count == 1
    assert recorder.phases == [Phase.NORMAL, Phase.OPEN, Phase.RECOVERING, Phase.NORMAL]
    assert recorder.availabilities == [True, False, False, True]
    assert recorder.failure_count == 5


async def test_only_changes_are_logged(level, store, clock, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    await fail(level, store, 50)
    async with in_background(level.watch()):
        await clock.advance(60)
        store.failure = None
        await clock.advance(60)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
