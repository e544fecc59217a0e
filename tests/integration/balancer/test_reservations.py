"""Several replicas on one fleet, in front of a real Redis."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from services.balancer.adapters.reservations import (
    TIMEOUT_SECONDS,
    RedisReservations,
    open_reservations,
)
from services.balancer.core.shares import Resource, slot_owners
from services.balancer.share_slots import SharedReservations
from services.balancer.share_store import SharingPolicy
from services.common.clock import SystemClock
from tests.kit.lateness import measured_lateness
from tests.kit.redis import (
    RedisServer,
    find_redis_server,
    private_redis,
    redis_server,
    shared_redis,
)
from tests.kit.reservation_worker import Interval, most_at_once, read_intervals

__all__ = ["private_redis", "redis_server", "shared_redis"]

BACKEND, MODEL = "backend:11434", "model:latest"
QUICK = SharingPolicy(settle_seconds=0.05)
# For those to whom nothing happens: however late the machine may be, they have not lost the store.
PATIENT = SharingPolicy(
    settle_seconds=0.05, lease_seconds=20.0, silence_seconds=10.0, patience_seconds=12.0
)
PATIENT_SECONDS = 5.0
KEY = "pannier:balancer:slots"


@asynccontextmanager
async def replica(
    server: RedisServer,
    replica_id: str,
    policy: SharingPolicy = PATIENT,
    timeout_seconds: float = PATIENT_SECONDS,
) -> AsyncIterator[SharedReservations]:
    async with open_reservations(
        server.url,
        clock=SystemClock(),
        replica_id=replica_id,
        policy=policy,
        timeout_seconds=timeout_seconds,
        connect_timeout_seconds=timeout_seconds,
    ) as reservations:
        yield reservations


def lone_store(server: RedisServer, replica_id: str, policy: SharingPolicy) -> RedisReservations:
    return RedisReservations(
        server.url,
        replica_id=replica_id,
        policy=policy,
        timeout_seconds=PATIENT_SECONDS,
        connect_timeout_seconds=PATIENT_SECONDS,
    )


async def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> float:
    """Waits; returns for how long."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "has not come true"
        await asyncio.sleep(0.005)
    return time.monotonic() - started


@asynccontextmanager
async def replicas(
    server: RedisServer,
    count: int = 2,
    policy: SharingPolicy = PATIENT,
    timeout_seconds: float = PATIENT_SECONDS,
) -> AsyncIterator[list[SharedReservations]]:
    async with AsyncExitStack() as stack:
        some = [
            await stack.enter_async_context(replica(server, f"{number:x}", policy, timeout_seconds))
            for number in range(count)
        ]
        await until(lambda: all(not each.divided and each.replica_count == count for each in some))
        yield some


async def fields(server: RedisServer) -> dict[bytes, bytes]:
    async with Redis.from_url(server.url) as client:
        return await client.hgetall(KEY)


async def test_replicas_together_get_no_more_than_there_are_slots(redis_server) -> None:
    async with replicas(redis_server, 3) as some:
        tokens = []
        async with asyncio.TaskGroup() as group:
            for each in some * 5:
                tokens.append(group.create_task(each.take(BACKEND, MODEL, 4)))
        assert sum(token.result() is not None for token in tokens) == 4
        # The slots of another model are other slots.
        assert await some[0].take(BACKEND, "another:latest", 1)
        assert await some[0].take("backend2:11434", MODEL, 1)


async def test_a_refusal_brings_what_the_others_hold(redis_server) -> None:
    async with replicas(redis_server) as (one, other):
        assert await one.take(BACKEND, MODEL, 2)
        assert await one.take(BACKEND, MODEL, 2)
        assert await other.take(BACKEND, MODEL, 2) is None
        assert other.held_by_others(BACKEND, MODEL) == 2
        assert other.usable_slots(BACKEND, MODEL, 2) == 0
        assert one.held_by_others(BACKEND, MODEL) == 0
        assert one.usable_slots(BACKEND, MODEL, 2) == 2


async def test_a_slot_that_another_replica_frees_is_heard_of_at_once(redis_server) -> None:
    # No beat would tell of it in time.
    slow = replace(PATIENT, beat_seconds=2.0)
    async with replicas(redis_server, policy=slow) as (one, other):
        token = await one.take(BACKEND, MODEL, 1)
        await until(lambda: other.held_by_others(BACKEND, MODEL) == 1)
        freed = asyncio.Event()
        other.watch(freed.set)
        one.release(token)
        async with asyncio.timeout(slow.beat_seconds * 3 / 4):
            await freed.wait()
        assert await other.take(BACKEND, MODEL, 1)


async def test_one_replica_at_a_time_loads_a_model_into_a_backend(redis_server) -> None:
    model = "registry.example/team, of/größe:7b"
    async with replicas(redis_server) as (one, other):
        assert one.may_load(BACKEND)
        token = await one.take_load(BACKEND, model)
        assert await other.take_load(BACKEND, "another:latest") is None
        assert other.is_loading_elsewhere(BACKEND) == model
        assert not other.may_load(BACKEND)
        assert one.is_loading_elsewhere(BACKEND) is None
        assert await other.take(BACKEND, model, 1)
        one.release(token)
        await until(lambda: other.is_loading_elsewhere(BACKEND) is None)
        assert await other.take_load(BACKEND, "another:latest")


async def test_a_token_is_good_for_one_release(redis_server) -> None:
    async with replicas(redis_server) as (one, other):
        first = await one.take(BACKEND, MODEL, 1)
        one.release(first)
        second = await one.take(BACKEND, MODEL, 1)
        one.release(first)
        assert await other.take(BACKEND, MODEL, 1) is None
        one.release(second)
        await until(lambda: other.held_by_others(BACKEND, MODEL) == 0)


async def test_takes_that_are_cancelled_at_any_moment_leave_nothing_held(redis_server) -> None:
    draw = random.Random(3)
    async with replicas(redis_server) as (one, _):

        async def use() -> None:
            token = await one.take(BACKEND, MODEL, 4)
            if token is not None:
                one.release(token)

        for _ in range(300):
            tasks = [asyncio.create_task(use()) for _ in range(4)]
            await asyncio.sleep(draw.random() * 0.001)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        # What is left of them goes out before this.
        tokens = [await one.take(BACKEND, MODEL, 4) for _ in range(4)]
        assert None not in tokens


async def test_leaving_gives_everything_back(redis_server) -> None:
    async with replica(redis_server, "a") as one:
        await until(lambda: not one.divided)
        async with replica(redis_server, "b") as other:
            await until(lambda: not other.divided)
            assert await other.take(BACKEND, MODEL, 1)
        assert await one.take(BACKEND, MODEL, 1)
        await until(lambda: one.replica_count == 1)
    assert await fields(redis_server) == {}


async def test_a_newcomer_to_a_store_in_use_need_not_wait(redis_server) -> None:
    slow = replace(PATIENT, settle_seconds=60.0)
    async with replicas(redis_server), replica(redis_server, "c", slow) as newcomer:
        assert not newcomer.divided
        assert await newcomer.take(BACKEND, MODEL, 1)


async def test_a_store_found_empty_gives_out_nothing_until_all_have_told_what_they_hold(
    redis_server,
) -> None:
    policy = replace(PATIENT, settle_seconds=1.0)
    async with replicas(redis_server, policy=policy) as (one, other):
        token = await one.take(BACKEND, MODEL, 1)
        redis_server.flush()
        started = time.monotonic()
        while await other.take(BACKEND, MODEL, 2) is None:
            await asyncio.sleep(0.01)
        assert time.monotonic() - started >= 0.9
        assert await other.take(BACKEND, MODEL, 2) is None
        one.release(token)
        await until(lambda: other.usable_slots(BACKEND, MODEL, 2) == 2)


async def test_what_a_silent_replica_holds_falls_free_after_its_lease(redis_server) -> None:
    policy = SharingPolicy(settle_seconds=0.05, silence_seconds=1.5, patience_seconds=1.8)
    store = lone_store(redis_server, "dead", policy)
    async with replica(redis_server, "a", policy) as one:
        await until(lambda: not one.divided)
        assert await store.register(1, [], away=False)
        await one.take(BACKEND, MODEL, 1)
        await until(lambda: one.replica_count == 2)
        assert 1.6 <= await until(lambda: one.replica_count == 1) < 4.0
        # It is told so when it speaks again.
        assert await store.exchange(1, [], [], seen_version=None) is None
    await store.close()


async def test_what_a_silent_replica_owns_is_lent_to_nobody_while_it_may_be_using_it(
    redis_server,
) -> None:
    ids = ("a", "dead")
    models = [f"model-{number}" for number in range(20)]
    owners = {slot_owners(Resource(BACKEND, each), 1, ids)[0]: each for each in models}
    foreign, own = owners["dead"], owners["a"]
    policy = SharingPolicy(
        settle_seconds=0.05, lease_seconds=4.0, silence_seconds=1.5, patience_seconds=2.0
    )
    store = lone_store(redis_server, "dead", policy)
    async with replica(redis_server, "a", policy) as one:
        await until(lambda: not one.divided)
        assert await store.register(1, [], away=False)
        await until(lambda: one.replica_count == 2)
        assert await store.exchange(1, [], [], seen_version=None)
        await until(lambda: one.usable_slots(BACKEND, foreign, 1) == 1)
        token = await one.take(BACKEND, foreign, 1)
        assert token
        one.release(token)
        await until(lambda: one.usable_slots(BACKEND, foreign, 1) == 0, seconds=3.0)
        assert await one.take(BACKEND, foreign, 1) is None
        assert await one.take(BACKEND, own, 1)
        await until(lambda: one.usable_slots(BACKEND, foreign, 1) == 1)
        assert one.replica_count == 1
        assert await one.take(BACKEND, foreign, 1)
    await store.close()


async def test_calls_of_an_older_session_that_arrive_late_have_no_effect(redis_server) -> None:
    store = lone_store(redis_server, "a", QUICK)
    assert await store.register(2, [], away=False)
    assert await store.register(1, [], away=False) is None
    assert await store.exchange(1, [], [], seen_version=None) is None
    assert await store.exchange(2, [], [], seen_version=None) is not None
    await store.close()


async def test_each_keeps_to_its_share_while_the_store_is_frozen_and_nothing_waits(
    private_redis,
) -> None:
    await asyncio.to_thread(private_redis.start)
    slots = 6
    async with replicas(private_redis, 2, QUICK, TIMEOUT_SECONDS) as (one, other):
        async with asyncio.timeout(PATIENT_SECONDS):
            while not (held := await one.take(BACKEND, MODEL, slots)):
                await asyncio.sleep(0.02)
        private_redis.freeze()
        async with measured_lateness() as lateness:
            started = time.monotonic()
            await one.take(BACKEND, MODEL, slots)
            assert time.monotonic() - started - lateness.seconds < TIMEOUT_SECONDS + 0.2
        await until(lambda: one.immediate and other.immediate)
        tokens: dict[SharedReservations, list[str]] = {one: [held], other: []}

        def take_all() -> int:
            for each, mine in tokens.items():
                while token := each.try_take(BACKEND, MODEL, slots):
                    mine.append(token)
            return sum(len(mine) for mine in tokens.values())

        await until(lambda: take_all() == slots, seconds=5.0)
        await asyncio.sleep(0)
        assert one.divided
        assert one.replica_count == 2
        assert len(tokens[other]) == slot_owners(Resource(BACKEND, MODEL), slots, ("0", "1")).count(
            "1"
        )
        taking = asyncio.ensure_future(one.take(BACKEND, MODEL, slots))
        await asyncio.sleep(0)
        assert taking.done(), "waits for the store"
        assert taking.result() is None
        private_redis.thaw()
        await until(lambda: not one.divided and not other.divided)
        await until(lambda: one.held_by_others(BACKEND, MODEL) == len(tokens[other]))
        assert other.held_by_others(BACKEND, MODEL) == len(tokens[one])
        assert await one.take(BACKEND, MODEL, slots) is None
        for each, mine in tokens.items():
            for token in mine:
                each.release(token)
        await until(lambda: one.usable_slots(BACKEND, MODEL, slots) == slots)


async def test_a_store_that_hangs_for_a_moment_is_waited_for(private_redis) -> None:
    """Each loss costs half a second in which nothing is taken, so hiccups must not be losses."""
    await asyncio.to_thread(private_redis.start)
    async with replicas(private_redis, 2, QUICK, TIMEOUT_SECONDS) as (one, other):
        # On a late machine it may seem longer, but not each time.
        for _ in range(20):
            await until(lambda: not one.divided and not other.divided)
            private_redis.freeze()
            taking = asyncio.create_task(one.take(BACKEND, MODEL, 1))
            await asyncio.sleep(0.17)
            private_redis.thaw()
            if token := await taking:
                one.release(token)
                if not one.divided:
                    return
        pytest.fail("a hiccup is taken for a loss")


async def test_replicas_get_over_a_clock_that_is_set_back(redis_server) -> None:
    async with (
        replicas(redis_server, policy=QUICK) as (one, other),
        Redis.from_url(redis_server.url) as client,
    ):
        token = await one.take(BACKEND, MODEL, 1)
        hour_ms = 3_600_000
        members = orjson.loads(await client.hget(KEY, "members"))
        for times in members.values():
            times[0] += hour_ms
            times[2] += hour_ms
        later = int(await client.hget(KEY, "touched_at")) + hour_ms
        changes = {"members": orjson.dumps(members), "touched_at": later, "settled_at": later}
        await client.hset(KEY, mapping=changes)
        await until(lambda: one.divided or other.divided)
        await until(lambda: not one.divided and not other.divided)
        assert await other.take(BACKEND, MODEL, 1) is None
        one.release(token)
        await until(lambda: other.usable_slots(BACKEND, MODEL, 1) == 1)
        assert await other.take(BACKEND, MODEL, 1)


async def test_a_take_that_waits_for_the_store_ends_with_the_replica(private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    async with replicas(private_redis) as (one, _):
        private_redis.freeze()
        waiting = asyncio.create_task(one.take(BACKEND, MODEL, 1))
        await asyncio.sleep(0)
    assert waiting.done()
    assert waiting.result() is None


async def test_fleets_of_different_names_do_not_meet(redis_server) -> None:
    open_named = partial(
        open_reservations,
        redis_server.url,
        clock=SystemClock(),
        policy=PATIENT,
        timeout_seconds=PATIENT_SECONDS,
        connect_timeout_seconds=PATIENT_SECONDS,
    )
    async with open_named(name="here") as one, open_named(name="there") as other:
        await until(lambda: not one.divided and not other.divided)
        assert await one.take(BACKEND, MODEL, 1)
        assert await other.take(BACKEND, MODEL, 1)
        assert one.replica_count == other.replica_count == 1


async def test_a_replica_without_a_store_serves_alone_and_meets_the_others_later(
    private_redis,
) -> None:
    policy = SharingPolicy(lease_seconds=0.5, settle_seconds=0.05)
    async with replica(private_redis, "a", policy) as one:
        assert one.divided
        assert await one.take(BACKEND, MODEL, 2) is None
        await until(lambda: one.try_take(BACKEND, MODEL, 2) is not None)
        await asyncio.to_thread(private_redis.start)
        async with replica(private_redis, "b", policy) as other:
            await until(lambda: not one.divided and not other.divided)
            await until(lambda: one.replica_count == other.replica_count == 2)
            assert await other.take(BACKEND, MODEL, 2)
            assert await other.take(BACKEND, MODEL, 2) is None


@pytest.fixture
async def cluster_node(tmp_path) -> AsyncIterator[RedisServer]:
    """A server in cluster mode, which is strict about the keys of scripts, with all hash slots."""
    node = RedisServer()
    # The nodes of a cluster talk to each other at a port 10,000 higher.
    while node.port > 55_535:
        node.stop()
        node = RedisServer()
    process = await asyncio.create_subprocess_exec(
        *(find_redis_server(), "--port", str(node.port), "--bind", "127.0.0.1"),
        *("--dir", str(tmp_path), "--save", "", "--cluster-enabled", "yes"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with Redis.from_url(node.url, retry=Retry(ConstantBackoff(0.02), 200)) as client:
            await client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):
                await asyncio.sleep(0.02)
        yield node
    finally:
        process.kill()
        await process.wait()
        node.stop()


async def test_the_script_runs_in_redis_cluster(cluster_node) -> None:
    async with replicas(cluster_node) as (one, other):
        token = await one.take(BACKEND, MODEL, 1)
        assert await other.take(BACKEND, MODEL, 1) is None
        one.release(token)
        await until(lambda: other.held_by_others(BACKEND, MODEL) == 0)


class Worker:
    """A replica as a process."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.ended_at = 0.0
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, url: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.kit.reservation_worker", url, str(self.log)),
            # While Redis is away each of a, b and c owns some slots, whichever of them has died.
            self.log.name,
            stdin=asyncio.subprocess.PIPE,
        )

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
            self.ended_at = time.monotonic()

    async def stop(self) -> None:
        assert self._process is not None
        await self._process.communicate(b"\n")
        assert self._process.returncode == 0

    def intervals(self) -> list[Interval]:
        return read_intervals(self.log, ended_at=self.ended_at or time.monotonic())

    def grants_since(self, at: float) -> int:
        return sum(each.since >= at for each in self.intervals())


@pytest.mark.slow
async def test_no_slot_is_used_twice_whoever_dies_and_whatever_the_store_does(
    private_redis, tmp_path
) -> None:
    await asyncio.to_thread(private_redis.start)
    async with AsyncExitStack() as stack:
        workers = [Worker(tmp_path / name) for name in "abc"]
        for worker in workers:
            worker.log.touch()
            await worker.start(private_redis.url)
            stack.push_async_callback(worker.kill)

        async def all_get_slots(some: list[Worker]) -> float:
            since = time.monotonic()
            while not all(worker.grants_since(since) >= 20 for worker in some):
                assert time.monotonic() - since < 30.0, "slots are no longer given out"
                await asyncio.sleep(0.1)
            return since

        await all_get_slots(workers)
        victim, *survivors = workers
        await victim.kill()
        await all_get_slots(survivors)

        private_redis.freeze()
        await all_get_slots(survivors)
        await asyncio.sleep(2.5)  # Everything that was known of the others has grown old.
        await all_get_slots(survivors)
        private_redis.thaw()
        await all_get_slots(survivors)

        private_redis.kill()
        await all_get_slots(survivors)
        await asyncio.to_thread(private_redis.start)
        await all_get_slots(survivors)
        private_redis.flush()
        await all_get_slots(survivors)
        await asyncio.sleep(1.0)

        for worker in survivors:
            await worker.stop()
        intervals = [each for worker in workers for each in worker.intervals()]
        assert set(most_at_once(intervals).values()) == {1}
        assert await fields(private_redis) == {}
