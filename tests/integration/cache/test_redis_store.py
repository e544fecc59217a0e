"""What the port promises, on one server, on a master behind Sentinels and on a cluster."""

import asyncio
import random
from contextlib import suppress

import pytest

from services.cache.ports import Notice, Script, StoreFailure, StoreRefusal, StreamEntry, Write
from tests.kit.redis_stores import PATIENT_SECONDS

SET_IF_ABSENT = Script(
    "set_if_absent",
    """
    if redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') then
        return {1, redis.call('TIME')}
    end
    return {0, redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])}
    """,
)
APPEND = Script("append", "return redis.call('XADD', KEYS[1], '*', 'text', ARGV[1])")
FILL_MAP = Script(
    "fill_map",
    "for number = 1, ARGV[1] do redis.call('HSET', KEYS[1], 'f' .. number, number) end",
)
PUBLISH = Script(
    "publish", "redis.call('SET', KEYS[1], '1') return redis.call('PUBLISH', ARGV[1], ARGV[2])"
)
KEYS = [b"key %d" % number for number in range(200)]


@pytest.fixture
def store(patient_store):
    return patient_store


async def append(store, key: bytes, text: bytes) -> bytes:
    return await store.run(1, APPEND, [key], [text], timeout_seconds=PATIENT_SECONDS)


async def write(store, *keys: bytes, database: int = 0) -> list[bool]:
    writes = [Write(key, b"value of " + key, 60_000) for key in keys]
    return await store.write(database, writes, timeout_seconds=PATIENT_SECONDS)


async def test_values_are_read_in_the_order_asked_for_wherever_they_are_kept(store) -> None:
    assert await write(store, *KEYS) == [True] * len(KEYS)
    asked = [*reversed(KEYS), b"absent", KEYS[0]]
    found = await store.read(0, asked, timeout_seconds=PATIENT_SECONDS)
    assert found == [b"value of " + key for key in reversed(KEYS)] + [None, b"value of " + KEYS[0]]


async def test_a_value_is_gone_after_its_time(store) -> None:
    await store.write(0, [Write(b"short", b"1", 1)], timeout_seconds=PATIENT_SECONDS)
    async with asyncio.timeout(PATIENT_SECONDS):
        while await store.read(0, [b"short"], timeout_seconds=PATIENT_SECONDS) != [None]:
            await asyncio.sleep(0.002)


async def test_a_later_write_replaces_an_earlier_one(store) -> None:
    writes = [Write(b"key", b"old", 60_000), Write(b"key", b"new", 60_000)]
    await store.write(0, writes, timeout_seconds=PATIENT_SECONDS)
    assert await store.read(0, [b"key"], timeout_seconds=PATIENT_SECONDS) == [b"new"]


async def test_databases_are_apart_where_there_are_several(make_store, shared_redis) -> None:
    shared_redis.flush()
    store = make_store(shared_redis.url)
    await write(store, b"key", database=0)
    assert await store.read(1, [b"key"], timeout_seconds=PATIENT_SECONDS) == [None]


async def test_in_a_cluster_every_database_is_the_one_there_is(make_store, shared_cluster) -> None:
    shared_cluster.flush()
    store = make_store(shared_cluster.url)
    await write(store, b"key", database=1)
    assert await store.read(0, [b"key"], timeout_seconds=PATIENT_SECONDS) == [b"value of key"]


async def test_a_script_returns_numbers_bytes_nothing_and_lists_of_these(store) -> None:
    keys = [b"{tag}:a", b"{tag}:b"]

    async def run() -> object:
        return await store.run(
            1, SET_IF_ABSENT, keys, [b"\x00\xff", 60_000], timeout_seconds=PATIENT_SECONDS
        )

    taken, (seconds, microseconds) = await run()
    assert taken == 1
    assert int(seconds) > 1_700_000_000
    assert 0 <= int(microseconds) < 1_000_000
    assert await run() == [0, b"\x00\xff", None]


async def test_a_script_that_is_wrong_is_a_refusal(store) -> None:
    with pytest.raises(StoreRefusal, match=r"refused: ResponseError"):
        await store.run(
            0, Script("wrong", "return nothing()"), [b"key"], [], timeout_seconds=PATIENT_SECONDS
        )


async def test_scripts_run_on_although_the_server_forgets_them(store, any_redis) -> None:
    for _ in range(2):
        assert await append(store, b"stream", b"text")
        for server in getattr(any_redis, "masters", [getattr(any_redis, "master", any_redis)]):
            server.command("SCRIPT", "FLUSH")


@pytest.mark.parametrize("field_count", [0, 1, 10_000])
async def test_a_hash_is_read_whole(store, field_count: int) -> None:
    await store.run(1, FILL_MAP, [b"map"], [field_count], timeout_seconds=PATIENT_SECONDS)
    found = await store.read_map(1, b"map", timeout_seconds=PATIENT_SECONDS)
    assert found == {b"f%d" % number: b"%d" % number for number in range(1, field_count + 1)}


async def test_a_value_is_no_hash(store) -> None:
    await write(store, b"key")
    with pytest.raises(StoreRefusal, match="key holds something else"):
        await store.read_map(0, b"key", timeout_seconds=PATIENT_SECONDS)


async def test_a_stream_is_read_from_where_the_reader_stands(store) -> None:
    ids = [await append(store, b"stream", b"%d" % number) for number in range(5)]
    entries = [StreamEntry(ids[n], {b"text": b"%d" % n}) for n in range(5)]

    async def read(after_id: bytes, limit: int = 100) -> list[StreamEntry]:
        return await store.read_stream(1, b"stream", after_id, wait_seconds=0, limit=limit)

    assert await read(b"0") == entries
    assert await read(ids[1]) == entries[2:]
    assert await read(b"0", limit=2) == entries[:2]
    assert await read(ids[4]) == []


async def test_a_reader_of_a_stream_is_woken_by_an_entry(store) -> None:
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(
            store.read_stream(1, b"new stream", b"0", wait_seconds=30.0, limit=10)
        )
        await asyncio.sleep(0.05)
        assert not reading.done()
        entry_id = await append(store, b"new stream", b"text")
    assert reading.result() == [StreamEntry(entry_id, {b"text": b"text"})]


async def test_a_reader_of_a_silent_stream_waits_for_as_long_as_told(store) -> None:
    started = asyncio.get_running_loop().time()
    assert await store.read_stream(1, b"silent", b"0", wait_seconds=0.2, limit=1) == []
    waited = asyncio.get_running_loop().time() - started
    assert 0.19 < waited < 2.0


async def test_readers_of_streams_keep_nobody_else_waiting(make_store, any_redis) -> None:
    # For how long a busy machine may keep them waiting, and no reader.
    store = make_store(any_redis.url, connection_limit=1, stream_connection_limit=2)
    readers = [
        asyncio.create_task(store.read_stream(1, b"silent", b"0", wait_seconds=60.0, limit=1))
        for _ in range(6)
    ]
    await asyncio.sleep(0.05)
    for _ in range(20):
        await write(store, b"key", database=1)
    assert not any(reader.done() for reader in readers)
    for reader in readers:
        reader.cancel()
    await asyncio.wait(readers)


async def test_readers_beyond_the_limit_find_what_there_is_at_the_end_of_their_wait(
    make_store, redis_server
) -> None:
    store = make_store(redis_server.url, stream_connection_limit=1)
    await append(store, b"stream", b"text")
    async with asyncio.TaskGroup() as group:
        group.create_task(store.read_stream(1, b"silent", b"0", wait_seconds=0.4, limit=1))
        await asyncio.sleep(0.05)
        late = await store.read_stream(1, b"stream", b"0", wait_seconds=0.1, limit=1)
    assert [entry.fields for entry in late] == [{b"text": b"text"}]


async def test_readers_that_go_away_leave_their_connections_to_others(
    make_store, redis_server
) -> None:
    for step_count in range(25):
        # On a connection that is yet to be made.
        store = make_store(redis_server.url, stream_connection_limit=1)
        await append(store, b"stream", b"text")
        task = asyncio.create_task(
            store.read_stream(1, b"silent", b"0", wait_seconds=60.0, limit=1)
        )
        for _ in range(step_count):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(30):
            assert await store.read_stream(1, b"stream", b"0", wait_seconds=60.0, limit=1)


async def test_who_listens_ends_when_told_to_at_any_moment(make_store, redis_server) -> None:
    store = make_store(redis_server.url)

    async def hear() -> None:
        async with store.listen([b"inv"]) as notices:
            async for _ in notices:
                pass

    for step_count in range(25):
        hearing = asyncio.create_task(hear())
        for _ in range(step_count):
            await asyncio.sleep(0)
        hearing.cancel()
        done, _ = await asyncio.wait([hearing], timeout=30)
        assert done
        assert hearing.cancelled()


async def test_what_is_published_anywhere_is_heard_by_all_who_listen(make_store, any_redis) -> None:
    hearing, speaking = make_store(any_redis.url), make_store(any_redis.url)
    async with hearing.listen([b"inv", b"done"]) as first, speaking.listen([b"inv"]) as second:
        # In a cluster, the keys are kept by different servers.
        for key in KEYS[:6]:
            await speaking.run(0, PUBLISH, [key], [b"inv", key], timeout_seconds=PATIENT_SECONDS)
        await speaking.run(0, PUBLISH, [b"k"], [b"done", b"end"], timeout_seconds=PATIENT_SECONDS)
        async with asyncio.timeout(PATIENT_SECONDS):
            heard_first = [await anext(first) for _ in range(7)]
            heard_second = [await anext(second) for _ in range(6)]
    assert sorted(heard_second, key=repr) == sorted(
        (Notice(b"inv", key) for key in KEYS[:6]), key=repr
    )
    assert sorted(heard_first, key=repr) == sorted(
        [*heard_second, Notice(b"done", b"end")], key=repr
    )


async def test_a_listener_hears_after_a_long_silence(store, monkeypatch) -> None:
    for name, seconds in (("_SILENCE_SECONDS", 0.05), ("_ANSWER_SECONDS", 0.3)):
        monkeypatch.setattr(f"services.cache.adapters.redis_listener.{name}", seconds)
    async with store.listen([b"inv"]) as notices:
        hearing = asyncio.ensure_future(anext(notices))
        await asyncio.sleep(0.8)
        assert not hearing.done()
        await store.run(0, PUBLISH, [b"k"], [b"inv", b"1"], timeout_seconds=PATIENT_SECONDS)
        async with asyncio.timeout(PATIENT_SECONDS):
            assert await hearing == Notice(b"inv", b"1")


async def test_all_of_the_store_is_checked(store) -> None:
    await store.check(timeout_seconds=PATIENT_SECONDS)


async def test_cancelled_calls_cost_no_connection_and_mix_up_no_replies(
    make_store, any_redis
) -> None:
    store = make_store(any_redis.url)
    keys = KEYS[:12]
    await write(store, *keys)
    draw = random.Random(7)
    loop = asyncio.get_running_loop()

    async def read(key: bytes, timeout_seconds: float) -> None:
        with suppress(StoreFailure):
            found = await store.read(0, [key], timeout_seconds=timeout_seconds)
            assert found == [b"value of " + key]

    for _ in range(50):
        tasks = [asyncio.create_task(read(key, draw.choice([0.1, 0.001]))) for key in keys]
        for task in tasks:
            for _ in range(draw.randrange(3)):
                loop.call_later(draw.random() * 0.004, task.cancel)
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None
    for key in keys:
        found = await store.read(0, [key], timeout_seconds=PATIENT_SECONDS)
        assert found == [b"value of " + key]
