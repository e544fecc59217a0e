"""The semantic layer while Redis loses data, restarts, hangs and is away."""

import asyncio
import gc
import random
import time
import tracemalloc

import numpy as np
import pytest
from redis.asyncio import Redis

from pannier.cache.v1 import semantic_pb2 as pb
from services.cache.core.semantic.bins import NO_VERDICTS
from services.cache.core.semantic.names import PartitionName
from services.cache.core.semantic.partition import Partition
from services.cache.follower import Knowledge
from services.cache.semantic_calibration import Subject
from services.cache.semantic_store import SemanticStore
from tests.kit.lateness import measured_lateness
from tests.kit.redis import RedisServer
from tests.kit.semantic import (
    SemanticReplica,
    StartReplica,
    answer,
    at_similarity,
    partition,
    start_replica,
    unit,
    until,
)

__all__ = ["start_replica"]

QUESTION = "How is a forgotten password reset?"
BASE = unit(1)
HIT, MISS = pb.SEMANTIC_OUTCOME_HIT_EXACT, pb.SEMANTIC_OUTCOME_MISS
DATABASE = 1
FOREIGN = b"\xff\xfe garbage"


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


def form_of(entry_id: str) -> bytes:
    return entry_id.partition(".")[0].encode()


async def until_found(replica: SemanticReplica, query: str, outcome: int, **where) -> None:
    """Waits until a lookup ends in a certain way."""
    async with asyncio.timeout(20):
        while (await replica.look_up(query, **where)).outcome != outcome:
            await asyncio.sleep(0.05)


async def keep_some(replica: SemanticReplica, count: int, *, start: int = 0) -> None:
    for number in range(start, start + count):
        # A write that Redis does not take in time is dropped, on a busy machine also without cause.
        async with asyncio.timeout(20):
            while not (await replica.keep(f"question number {number}", unit(number))).stored:
                await asyncio.sleep(0.05)


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
    # On a slow machine the partition may still be read.
    await until_found(one, QUESTION, HIT)
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
    async with asyncio.timeout(20):
        # On a machine that is slow enough, a tenth of a second is not.
        while not (stored := await one.keep(QUESTION, BASE)).stored:
            assert stored.degraded
            await asyncio.sleep(0.02)
    await until_found(other, QUESTION, HIT)
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


async def test_a_wrong_entry_that_redis_was_not_told_of_stays_gone_without_its_partition(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.start()
    one = await start_replica(private_redis.url, memory_limit_bytes=3500)
    where, elsewhere = partition(namespace="one"), partition(namespace="two")
    stored = await one.keep(QUESTION, BASE, partition=where)
    await one.keep("another question", unit(2), partition=elsewhere)
    assert (await one.look_up(QUESTION, partition=where)).outcome == HIT
    private_redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    wrong = {"verdict": pb.MATCH_VERDICT_WRONG, "judge": pb.MATCH_JUDGE_PERSON}
    assert (await one.report(stored.entry_id, partition=where, **wrong)).degraded
    held = one.layer.feed.partition(one.where(namespace="one").name)
    await until_found(one, "another question", HIT, partition=elsewhere)
    assert (await one.look_up(QUESTION, partition=where)).outcome == MISS
    # It was dropped and read again, with the entry that Redis still has.
    assert one.layer.feed.partition(one.where(namespace="one").name) is not held
    await until_found(one, "another question", HIT, partition=elsewhere)
    private_redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
    entries_key = one.where(namespace="one").name.entries_key
    async with asyncio.timeout(20):
        while form_of(stored.entry_id) in await one.store.read_map(
            1, entries_key, timeout_seconds=1
        ):
            await asyncio.sleep(0.05)
    other = await start_replica(private_redis.url)
    assert (await other.look_up(QUESTION, partition=where)).outcome == MISS


async def test_a_foreign_field_is_left_out_and_counted(
    one: SemanticReplica, start_replica: StartReplica, redis_server: RedisServer
):
    await one.keep(QUESTION, BASE)
    entries_key, changes_key = keys(one)
    async with Redis(port=redis_server.port, db=DATABASE) as client:
        await client.hset(entries_key, FOREIGN, b"x")
        late = await start_replica(redis_server.url, listening=False)
        assert (await late.look_up(QUESTION)).outcome == HIT
        assert late.metric("cache_rejected_values_total", layer="semantic") == 1
        await client.hset(entries_key, "#n", 2)
        await client.xadd(changes_key, {b"f": FOREIGN, b"t": b"0"}, id="2-0")
        await until(lambda: loaded(late).sequence == 2)
    assert late.metric("cache_rejected_values_total", layer="semantic") == 2
    assert (await late.look_up(QUESTION)).outcome == HIT


async def test_a_foreign_count_is_left_out(one: SemanticReplica, redis_server: RedisServer):
    await one.prove(0.975, count=2)
    (key,) = command(redis_server, "KEYS", "pannier:2:cal:*")
    async with Redis(port=redis_server.port, db=DATABASE) as client:
        await client.hset(key, mapping={FOREIGN: b"5"})
    one.layer.calibration.fall_behind()
    assert await one.layer.calibration.ready("default", 5) is Knowledge.IN_STEP
    assert sum(one.layer.calibration.verdicts(one.where().subject).right) == 2


async def test_a_fault_of_one_partition_leaves_the_others_in_step(
    one: SemanticReplica,
    start_replica: StartReplica,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    deaf = await start_replica(redis_server.url, listening=False)
    assert (await deaf.look_up(QUESTION, partition=partition(namespace="faulty"))).outcome == MISS
    assert (await deaf.look_up(QUESTION)).outcome == MISS
    faulty, real_remove = deaf.where(namespace="faulty").name, SemanticStore.remove

    async def remove(self: SemanticStore, name: PartitionName, *rest, **options) -> None:
        if name == faulty:
            raise ValueError("a mistake")
        await real_remove(self, name, *rest, **options)

    monkeypatch.setattr(SemanticStore, "remove", remove)
    await one.keep(QUESTION, BASE)
    await until(lambda: deaf.known() == 1)
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_without_redis_memory_stays_within_its_limits(
    start_replica: StartReplica, private_redis: RedisServer
):
    private_redis.start()
    one = await start_replica(private_redis.url)
    await one.keep(QUESTION, BASE)
    await asyncio.to_thread(private_redis.kill)
    await until(lambda: not one.layer.levels.shared.available)
    feed, calibration = one.layer.feed, one.layer.calibration
    for number in range(1500):
        where = one.where(namespace=f"n{number}")
        feed.partition(where.name)
        assert calibration.verdicts(where.subject) == NO_VERDICTS
    await until(lambda: (one.metric("cache_semantic_partitions") or 0) > 1)
    assert one.metric("cache_semantic_partitions") == 1000
    # What is known is worth more than the names of what is not.
    assert (await one.look_up(QUESTION)).outcome == HIT


async def test_subjects_without_verdicts_take_no_memory(one: SemanticReplica):
    await one.prove(0.975, count=1)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(2000):
            subject = Subject("default", f"namespace {number}", "a" * 64)
            assert one.layer.calibration.verdicts(subject) == NO_VERDICTS
        grown_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown_bytes < 100_000


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
            async with measured_lateness() as lateness:
                started = time.perf_counter()
                await one.look_up(f"question number {number % 5}", unit(number))
                waits.append(time.perf_counter() - started - lateness.seconds)
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
    late = await start_replica(redis_server.url, timeout_seconds=1.0)
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
