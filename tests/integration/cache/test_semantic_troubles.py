"""The semantic layer while Redis loses data, restarts, hangs and is away."""

import asyncio
import random
import time

import numpy as np
import pytest
from redis.asyncio import Redis

from pannier.cache.v1 import semantic_pb2 as pb
from services.cache.core.semantic.names import PartitionName
from services.cache.core.semantic.partition import Partition
from services.cache.semantic_store import SemanticStore
from tests.kit.redis import RedisServer
from tests.kit.semantic import (
    SemanticReplica,
    StartReplica,
    answer,
    at_similarity,
    start_replica,
    unit,
    until,
)

__all__ = ["start_replica"]

QUESTION = "How is a forgotten password reset?"
BASE = unit(1)
HIT, MISS = pb.SEMANTIC_OUTCOME_HIT_EXACT, pb.SEMANTIC_OUTCOME_MISS
DATABASE = 1


@pytest.fixture
async def one(start_replica: StartReplica, redis_server: RedisServer) -> SemanticReplica:
    return await start_replica(redis_server.url)


@pytest.fixture
async def other(start_replica: StartReplica, redis_server: RedisServer) -> SemanticReplica:
    return await start_replica(redis_server.url)


def command(server: RedisServer, *words: str | bytes | int):
    """Sends a command to the database of the semantic layer."""
    script = "redis.call('SELECT', ARGV[1]) return redis.call(unpack(ARGV, 2))"
    return server.command("EVAL", script, 0, DATABASE, *words)


def keys(replica: SemanticReplica) -> tuple[bytes, bytes]:
    name = replica.where().name
    return name.entries_key, name.changes_key


def loaded(replica: SemanticReplica) -> Partition:
    """Returns what was loaded; following changes changes it, loading again replaces it."""
    return replica.layer.feed.partition(replica.where().name)


async def keep_some(replica: SemanticReplica, count: int, *, start: int = 0) -> None:
    for number in range(start, start + count):
        stored = await replica.keep(f"question number {number}", unit(number))
        assert stored.stored


async def test_everything_in_redis_has_an_end(one: SemanticReplica, redis_server: RedisServer):
    stored = await one.keep(QUESTION, BASE)
    await one.report(stored.entry_id)
    found = command(redis_server, "KEYS", "pannier:2:*")
    kinds = {"sem" if "sem:" in key else "cal" if "cal:" in key else key[-2:] for key in found}
    assert kinds == {"sem", "cal", ":v", "t}"}
    for key in found:
        # Invalidations are what must never be evicted.
        assert command(redis_server, "PTTL", key) > 0 or ":ep:" in key


async def test_missed_changes_are_read_from_the_stream(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    deaf = await start_replica(redis_server.url, listening=False)
    await keep_some(one, 3)
    assert (await deaf.look_up("question number 0")).outcome == HIT
    await keep_some(one, 300, start=3)
    before = loaded(deaf)
    await until(lambda: deaf.known() == 303)
    assert loaded(deaf) is before
    assert (await deaf.look_up("question number 302")).outcome == HIT


async def test_a_replica_that_finds_a_gap_reads_everything(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    deaf = await start_replica(redis_server.url, listening=False)
    await keep_some(one, 3)
    assert (await deaf.look_up("question number 0")).outcome == HIT
    stored = await one.keep(QUESTION, BASE)
    await one.report(stored.entry_id, verdict=pb.MATCH_VERDICT_WRONG, judge=pb.MATCH_JUDGE_PERSON)
    await keep_some(one, 5, start=3)
    command(redis_server, "XTRIM", keys(one)[1], "MAXLEN", 2)
    before = loaded(deaf)
    await until(lambda: deaf.known() == 8)
    assert loaded(deaf) is not before
    assert (await deaf.look_up(QUESTION)).outcome == MISS


async def test_a_lost_stream_is_a_gap(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    deaf = await start_replica(redis_server.url, listening=False)
    await keep_some(one, 2)
    assert (await deaf.look_up("question number 0")).outcome == HIT
    command(redis_server, "DEL", keys(one)[1])
    await keep_some(one, 2, start=2)
    await until(lambda: deaf.known() == 4)
    assert command(redis_server, "PTTL", keys(one)[1]) > 0


async def test_a_partition_evicted_from_redis_is_dropped(
    one: SemanticReplica, redis_server: RedisServer
):
    await keep_some(one, 2)
    command(redis_server, "DEL", keys(one)[0])
    await until(lambda: one.known() == 0)
    assert (await one.look_up("question number 0")).outcome == MISS


async def test_a_partition_made_anew_is_told_from_the_one_before(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    deaf = await start_replica(redis_server.url, listening=False)
    await keep_some(one, 2)
    assert (await deaf.look_up("question number 0")).outcome == HIT
    command(redis_server, "DEL", keys(one)[0])
    await until(lambda: one.known() == 0)
    # As many changes as before, and one more: the numbers alone would look like one missed change.
    await keep_some(one, 3, start=10)
    await until(lambda: deaf.known() == 3)
    assert (await deaf.look_up("question number 0")).outcome == MISS
    assert (await deaf.look_up("question number 12")).outcome == HIT


async def test_a_question_whose_answer_was_evicted_is_a_miss_and_forgotten(
    one: SemanticReplica, other: SemanticReplica, redis_server: RedisServer
):
    await one.keep(QUESTION, BASE)
    await one.keep("another question", at_similarity(BASE, 0.5))
    for key in command(redis_server, "KEYS", "pannier:2:{*}:v"):
        command(redis_server, "DEL", key)
    assert (await other.look_up(QUESTION)).outcome == MISS
    assert other.known() == 1


async def test_poisoned_entries_are_left_out(
    one: SemanticReplica, other: SemanticReplica, redis_server: RedisServer
):
    await keep_some(one, 3)
    entries, _ = keys(one)
    script = """
    redis.call('SELECT', ARGV[2])
    local names = {}
    for _, name in ipairs(redis.call('HKEYS', ARGV[1])) do
      if string.sub(name, 1, 1) ~= '#' then names[#names + 1] = name end
    end
    local first = redis.call('HGET', ARGV[1], names[1])
    redis.call('HSET', ARGV[1], names[2], first)
    redis.call('HSET', ARGV[1], names[3], string.sub(first, 1, 40))
    """
    redis_server.command("EVAL", script, 0, entries, DATABASE)
    outcomes = [(await other.look_up(f"question number {number}")).outcome for number in range(3)]
    assert sorted(outcomes) == [HIT, MISS, MISS]


async def test_nothing_comes_back_after_redis_has_lost_everything(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.start()
    one = await start_replica(private_redis.url)
    other = await start_replica(private_redis.url)
    await keep_some(one, 3)
    assert (await other.look_up("question number 1")).outcome == HIT
    await asyncio.to_thread(private_redis.kill)
    await asyncio.to_thread(private_redis.start)
    for replica in (one, other):
        async with asyncio.timeout(20):
            while True:
                found = await replica.look_up("question number 1", unit(1))
                if not found.degraded and found.outcome == MISS:
                    break
                await asyncio.sleep(0.05)
    stored = await one.keep(QUESTION, BASE)
    assert stored.stored
    async with asyncio.timeout(10):
        while (await other.look_up(QUESTION)).outcome != HIT:
            await asyncio.sleep(0.02)
    assert other.known() == 1


async def test_without_redis_answers_come_from_memory_and_nothing_is_kept(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.start()
    one = await start_replica(private_redis.url)
    stored = await one.keep(QUESTION, BASE, "from memory")
    await asyncio.to_thread(private_redis.kill)
    await until(lambda: not one.layer.levels.shared.available)
    found = await one.look_up(QUESTION)
    assert found.outcome == HIT
    assert found.degraded
    assert found.match.answer == answer("from memory")
    kept = await one.keep("another question", unit(2))
    assert kept.degraded
    assert not kept.stored
    assert not kept.entry_id
    missed = await one.look_up("another question")
    assert missed.outcome == MISS
    assert missed.degraded
    wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_MODEL}
    reported = await one.report(stored.entry_id, **wrong)
    assert reported.degraded
    assert (await one.look_up(QUESTION)).outcome == MISS


async def test_a_wrong_entry_reported_while_redis_hangs_is_removed_when_it_answers(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.start()
    one = await start_replica(private_redis.url, timeout_seconds=0.1)
    other = await start_replica(private_redis.url)
    stored = await one.keep(QUESTION, BASE)
    assert (await other.look_up(QUESTION)).outcome == HIT
    private_redis.freeze()
    try:
        await until(lambda: not one.layer.levels.shared.available)
        wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_PERSON}
        assert (await one.report(stored.entry_id, **wrong)).degraded
    finally:
        private_redis.thaw()
    async with asyncio.timeout(20):
        while (await other.look_up(QUESTION)).outcome != MISS or other.known():
            await asyncio.sleep(0.02)
    assert (await one.look_up(QUESTION)).outcome == MISS


async def test_no_lookup_waits_long_for_a_redis_that_hangs(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.start()
    one = await start_replica(private_redis.url, timeout_seconds=0.1)
    await keep_some(one, 3)
    assert (await one.look_up("question number 0")).outcome == HIT
    private_redis.freeze()
    try:
        # Everything known is out of date, so that the first lookups have to ask.
        one.layer.feed.fall_behind()
        one.layer.calibration.fall_behind()
        waits = []
        for number in range(30):
            started = time.perf_counter()
            await one.look_up(f"question number {number % 5}", unit(number))
            waits.append(time.perf_counter() - started)
    finally:
        private_redis.thaw()
    assert max(waits) < 0.3
    assert sorted(waits)[len(waits) // 2] < 0.15


async def test_a_full_redis_refuses_answers_without_an_error(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.options["maxmemory"] = "2500000"
    private_redis.options["maxmemory-policy"] = "noeviction"
    private_redis.start()
    one = await start_replica(private_redis.url)
    rng = np.random.default_rng(1)
    for number in range(40):
        stored = await one.keep(f"question number {number}", unit(number), rng.bytes(100_000).hex())
        if not stored.stored:
            break
    assert 0 < number < 39
    assert (await one.look_up(f"question number {number}")).outcome == MISS
    assert (await one.look_up("question number 0")).outcome == HIT


@pytest.mark.parametrize("seed", range(3))
async def test_replicas_that_change_a_partition_at_the_same_time_come_to_agree(
    start_replica: StartReplica, redis_server: RedisServer, seed: int
):
    rng = random.Random(seed)
    replicas = [await start_replica(redis_server.url, listening=each < 2) for each in range(3)]

    async def change(replica: SemanticReplica) -> None:
        number = rng.randrange(12)
        await asyncio.sleep(rng.random() * 0.02)
        stored = await replica.keep(f"question {number}", unit(number), f"{rng.random()}")
        assert stored.stored
        if rng.random() < 0.4:
            wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_PERSON}
            await rng.choice(replicas).report(stored.entry_id, **wrong)

    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            for _ in range(40):
                group.create_task(change(rng.choice(replicas)))
        command(redis_server, "XTRIM", keys(replicas[0])[1], "MAXLEN", rng.randrange(10))
    name = replicas[0].where().name
    (stored,) = [await replicas[0].store.read_map(1, name.entries_key, timeout_seconds=1)]
    expected = {
        (form.decode(), data[:8]) for form, data in stored.items() if not form.startswith(b"#")
    }
    number = int(stored[b"#n"])
    await until(lambda: all(loaded(each).sequence == number for each in replicas))
    for replica in replicas:
        assert {entry.key for entry in replica.layer.held()} == expected


async def test_a_lookup_does_not_wait_for_a_long_load(
    one: SemanticReplica,
    start_replica: StartReplica,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
):
    await keep_some(one, 3)
    late = await start_replica(redis_server.url)
    go_on = asyncio.Event()
    read_all = SemanticStore.read_all

    async def read_all_later(self: SemanticStore, name: PartitionName) -> dict[bytes, bytes]:
        await go_on.wait()
        return await read_all(self, name)

    monkeypatch.setattr(SemanticStore, "read_all", read_all_later)
    missed = await late.look_up("question number 1")
    assert missed.outcome == MISS
    assert not missed.degraded
    go_on.set()
    await until(lambda: late.known() == 3)
    assert (await late.look_up("question number 1")).outcome == HIT


async def test_an_entry_that_was_tampered_with_is_a_miss_and_counted(
    one: SemanticReplica, other: SemanticReplica, redis_server: RedisServer
) -> None:
    await keep_some(one, 3)
    entries_key, _ = keys(one)
    async with Redis(port=redis_server.port, db=DATABASE) as client:
        entries = await client.hgetall(entries_key)
        form, data = max(entries.items(), key=lambda each: len(each[1]))
        await client.hset(entries_key, form, data[:-1] + bytes([data[-1] ^ 1]))
    await other.layer.ready(other.where())
    assert len(loaded(other)) == 2
    assert other.metric("cache_rejected_values_total", layer="semantic") == 1
