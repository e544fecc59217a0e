"""The scripts do what the unit tests take them to do, on a real server."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from services.cache.core.epochs import RETENTION_MS, parse_table
from services.cache.epoch_scripts import BUMP, CHANNEL, READ, SET_THRESHOLD, epochs_key
from tests.kit.epoch_notes import EpochNotes

KEY = epochs_key("acme")
DAY_MS = 86_400_000


@pytest.fixture
async def redis(redis_server):
    async with Redis(port=redis_server.port) as client:
        yield client


async def run(redis, script, *arguments, known: bytes | int = 0, tolerance_ms: int = 0):
    common = ["acme", CHANNEL, tolerance_ms, known]
    return await redis.eval(script.source, 1, KEY, *common, *arguments)


async def bump(redis, *fields: str, tolerance_ms: int = 0):
    return await run(redis, BUMP, RETENTION_MS, DAY_MS, *fields, tolerance_ms=tolerance_ms)


def without_times(part: object, known: dict[bytes, bytes]) -> object:
    """Replaces times by their rank of appearance, so that two runs can be compared."""
    if isinstance(part, bytes) and part.isdigit() and len(part) == 13:
        return known.setdefault(part, b"time %d" % len(known))
    return part


async def test_the_first_reader_makes_the_first_note_and_dates_it_back(redis) -> None:
    seconds, microseconds, table = await run(redis, READ)
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    notes = parse_table(table)
    assert (notes.flushed_ms, notes.version, notes.invalidated_ms("*")) == (now_ms - 1, now_ms, 0)
    assert await redis.ttl(KEY) == -1


async def test_who_knows_the_version_gets_the_time_only(redis) -> None:
    *_, table = await run(redis, READ)
    version = parse_table(table).version
    assert len(await run(redis, READ, known=version)) == 2
    _, _, before, after, previous = await bump(redis, "d:1")
    assert (int(before), previous) == (version, b"0")
    *_, table = await run(redis, READ, known=version)
    notes = parse_table(table)
    assert notes.version == notes.invalidated_ms("d:1") == int(after)


async def test_each_bump_is_later_than_the_one_before_even_if_the_clock_is_not(redis) -> None:
    await run(redis, READ)
    ahead_ms = 4_000_000_000_000
    await redis.hset(KEY, "@v", ahead_ms)
    for number in (1, 2):
        *_, after, _ = await bump(redis, "d:1")
        assert int(after) == ahead_ms + number


async def test_a_note_is_put_off_by_what_clocks_may_differ(redis) -> None:
    seconds, microseconds, _, after, *_ = await bump(redis, "d:1", tolerance_ms=100)
    assert int(after) == int(seconds) * 1000 + int(microseconds) // 1000 + 100


async def test_a_notice_says_what_has_changed_from_which_version_to_which(redis) -> None:
    async with redis.pubsub() as listening:
        await listening.subscribe(CHANNEL)
        await listening.get_message(timeout=5)
        _, _, before, after, *_ = await bump(redis, "d:1", "n:")
        message = await listening.get_message(timeout=5)
        assert message["data"] == b"\n".join((b"acme", before, after, b"d:1", b"n:"))
        *_, threshold_version, _ = await run(redis, SET_THRESHOLD, "t:faq", "0.97")
        message = await listening.get_message(timeout=5)
        assert message["data"] == b"acme\n-1\n" + threshold_version


async def test_notes_that_nothing_can_depend_on_any_more_are_cleared_out_once_a_day(redis) -> None:
    seconds, *_ = await run(redis, READ)
    now_ms = int(seconds) * 1000
    ages_days = {"d:old": 32, "m:old": 40, "x:young": 30, "t:faq": None}
    for field, days in ages_days.items():
        await redis.hset(KEY, field, 0.97 if days is None else now_ms - days * DAY_MS)
    await redis.hset(KEY, "@p", now_ms - DAY_MS + 60_000)
    await bump(redis, "d:1")
    assert await redis.hexists(KEY, "d:old")
    await redis.hset(KEY, "@p", now_ms - DAY_MS - 60_000)
    await redis.hset(KEY, "*", now_ms - 400 * DAY_MS)
    await bump(redis, "d:1")
    left = {field.decode() for field in await redis.hkeys(KEY)}
    assert left == {"*", "@v", "@b", "@p", "@h", "d:1", "x:young", "t:faq"}


async def test_a_note_for_the_whole_tenant_replaces_all_others_but_thresholds(redis) -> None:
    await bump(redis, "d:1", "g:1", "n:")
    await run(redis, SET_THRESHOLD, "t:faq", "0.97")
    *_, after, previous = await bump(redis, "*")
    assert previous == b"0"
    assert {field.decode() for field in await redis.hkeys(KEY)} == {
        "*",
        "@v",
        "@b",
        "@p",
        "@h",
        "t:faq",
    }
    *_, previous = await bump(redis, "*")
    assert previous == after


@pytest.mark.parametrize("field", ["*", "n:"])
async def test_spoilt_notes_do_not_keep_anybody_from_invalidating(redis, field) -> None:
    spoilt = {"*": "soon", "d:1": "never", "@v": "latest", "@h": await replication_id(redis)}
    await redis.hset(KEY, mapping=spoilt)
    await bump(redis, field)
    *_, table = await run(redis, READ)
    assert parse_table(table).flushed_ms > 0


async def test_notes_that_another_server_left_are_made_void_once(redis) -> None:
    await bump(redis, "d:1")
    await run(redis, SET_THRESHOLD, "t:faq", "0.97")
    assert await redis.hget(KEY, "@h") == await replication_id(redis)
    await redis.hset(KEY, "@h", "0" * 40)
    before = int(await redis.hget(KEY, "@v"))
    seconds, microseconds, table = await run(redis, READ)
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    notes = parse_table(table)
    assert notes.version == max(now_ms, before + 1)
    assert notes.flushed_ms == notes.version - 1
    assert (notes.invalidated_ms("*"), notes.invalidated_ms("d:1")) == (0, 0)
    assert notes.thresholds == {"faq": 0.97}
    assert await redis.hget(KEY, "@h") == await replication_id(redis)
    assert len(await run(redis, READ, known=notes.version)) == 2


async def replication_id(redis) -> bytes:
    return (await redis.info("replication"))["master_replid"].encode()


async def test_all_are_told_that_notes_were_made_void(redis) -> None:
    await run(redis, READ)
    await redis.hset(KEY, "@h", "0" * 40)
    async with redis.pubsub() as listening:
        await listening.subscribe(CHANNEL)
        await listening.get_message(timeout=5)
        *_, table = await run(redis, READ)
        message = await listening.get_message(timeout=5)
        assert message["data"] == b"acme\n-1\n%d" % parse_table(table).version


async def test_what_replaces_another_server_s_notes_is_put_off_by_what_clocks_may_differ(
    redis,
) -> None:
    await run(redis, READ)
    await redis.hset(KEY, "@h", "0" * 40)
    seconds, microseconds, table = await run(redis, READ, tolerance_ms=100)
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    assert parse_table(table).flushed_ms == now_ms + 99


async def test_notes_older_than_those_that_are_known_are_made_void(redis) -> None:
    *_, table = await run(redis, READ)
    known = parse_table(table).version + 60_000
    *_, table = await run(redis, READ, known=known)
    assert (parse_table(table).flushed_ms, parse_table(table).version) == (known, known + 1)


async def test_who_may_not_ask_for_the_replication_id_is_told(redis) -> None:
    await redis.execute_command(
        "ACL", "SETUSER", "half", "on", ">word", "~*", "&*", "+@all", "-info"
    )
    port = redis.connection_pool.connection_kwargs["port"]
    try:
        async with Redis(port=port, username="half", password="word") as half:
            with pytest.raises(NoPermissionError):
                await run(half, READ)
    finally:
        await redis.execute_command("ACL", "DELUSER", "half")


async def test_the_stand_in_of_the_unit_tests_does_the_same(redis) -> None:
    calls = [
        (READ, []),
        (BUMP, [RETENTION_MS, DAY_MS, "d:1", "g:1"]),
        (SET_THRESHOLD, ["t:faq", "0.97"]),
        (BUMP, [RETENTION_MS, DAY_MS, "d:1", "n:x", "*"]),
        (BUMP, [RETENTION_MS, DAY_MS, "*"]),
        (BUMP, [RETENTION_MS, DAY_MS, "d:1"]),
        (None, []),
        (BUMP, [RETENTION_MS, DAY_MS, "d:2"]),
        (None, []),
        (READ, []),
        (SET_THRESHOLD, ["t:faq", ""]),
        (SET_THRESHOLD, ["t:faq", ""]),
        (READ, []),
    ]
    now = 1_763_700_000.0
    notes = EpochNotes(lambda: now)
    real, stand_in = {}, {}
    for script, arguments in calls:
        now += 1.0
        if script is None:
            # A copy takes over.
            notes.history += b"1"
            await redis.hset(KEY, "@h", "f00")
            continue
        encoded = [each.encode() if isinstance(each, str) else each for each in arguments]
        expected = notes.run(script.name, KEY, [b"acme", CHANNEL, 0, 0, *encoded])
        found = await run(redis, script, *arguments)
        assert len(found) == len(expected)
        for part, other in zip(found[2:], expected[2:], strict=True):
            if isinstance(part, list):
                assert sorted(part[::2]) == sorted(other[::2])
            else:
                assert without_times(part, real) == without_times(other, stand_in)
