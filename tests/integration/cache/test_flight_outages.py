"""Without Redis each replica goes on by itself; when Redis is back, nothing old comes with it."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from pannier.cache.v1 import cache_service_pb2 as pb
from services.cache.core.errors import LeaseLost
from services.cache.recorder import FlightEvent
from tests.kit.cache_replicas import (
    Replica,
    answer,
    eventually,
    fill_messages,
    question,
    running_replica,
)
from tests.kit.lateness import measured_lateness
from tests.kit.redis import RedisServer

MISS, LOCAL, COALESCED, NEGATIVE = (
    pb.LOOKUP_OUTCOME_MISS,
    pb.LOOKUP_OUTCOME_HIT_LOCAL,
    pb.LOOKUP_OUTCOME_HIT_COALESCED,
    pb.LOOKUP_OUTCOME_HIT_NEGATIVE,
)
# A restarted Redis is used again within 10 s.
RECOVERY_SECONDS = 12.0
# What is not there fails at once; this is for what does not answer.
TIMEOUT_SECONDS = 1.0
SHORT_TIMEOUT_SECONDS = 0.1


@pytest.fixture
async def replicas(private_redis: RedisServer) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas that know their tenant, in front of a Redis to be treated badly."""
    await asyncio.to_thread(private_redis.start)
    async with (
        running_replica(private_redis.url) as one,
        running_replica(private_redis.url) as two,
    ):
        for replica in (one, two):
            await warm_up(replica)
        yield one, two
        await eventually(lambda: one.is_idle and two.is_idle, seconds=RECOVERY_SECONDS)


async def warm_up(replica: Replica) -> None:
    """Has a replica learn of its tenant, and Redis of the scripts."""
    question = "a question to warm up"
    found = await replica.look_up(question, wait=0.0)
    if found.lease.token:
        await replica.release(found.lease.token, text=question)
        found = await replica.look_up(question, wait=0.0)
        await replica.store(question, token=found.lease.token)


async def all_away(*replicas: Replica) -> None:
    await eventually(lambda: not any(each.levels.shared.available for each in replicas))


async def all_back(*replicas: Replica) -> None:
    await eventually(
        lambda: all(each.levels.shared.available and each.notices.connected for each in replicas),
        seconds=RECOVERY_SECONDS,
    )


async def kill(server: RedisServer, *replicas: Replica) -> None:
    await asyncio.to_thread(server.kill)
    await all_away(*replicas)


async def test_without_redis_one_caller_of_each_replica_computes(replicas, private_redis) -> None:
    one, two = replicas
    await kill(private_redis, one, two)
    callers = [asyncio.create_task((one, two)[number % 2].look_up()) for number in range(100)]
    await eventually(lambda: sum(caller.done() for caller in callers) == 2)
    await asyncio.sleep(0.1)
    leaders = [caller for caller in callers if caller.done()]
    assert len(leaders) == 2
    for replica, number in ((one, 0), (two, 1)):
        (leader,) = [caller for caller in leaders if callers.index(caller) % 2 == number]
        found = leader.result()
        assert (found.outcome, found.degraded) == (MISS, True)
        stored = await replica.store(token=found.lease.token)
        assert (stored.stored, stored.degraded) == (False, True)
    await asyncio.wait(callers)
    followers = [caller.result() for caller in callers if caller not in leaders]
    assert {(each.outcome, each.degraded) for each in followers} == {(COALESCED, True)}
    assert (await one.look_up()).outcome == LOCAL


async def test_what_was_computed_without_redis_does_not_come_back_with_it(
    replicas, private_redis
) -> None:
    one, two = replicas
    await kill(private_redis, one, two)
    lease = (await one.look_up()).lease
    other = (await one.look_up("another question")).lease
    await one.store(token=lease.token, inference=answer("computed alone"))
    await asyncio.to_thread(private_redis.start)
    await all_back(one, two)
    # Its lease is one of the time without Redis: stored it is not even now.
    late = await one.store("another question", token=other.token)
    assert not late.stored
    async with Redis(port=private_redis.port, db=1) as redis:
        assert not await redis.keys("*:v")
    found = await two.look_up()
    assert found.outcome == MISS
    await two.release(found.lease.token)
    with pytest.raises(LeaseLost):
        await two.store("another question", token=other.token)


@pytest.fixture
async def hasty_replica(private_redis: RedisServer) -> AsyncIterator[Replica]:
    """One that waits for Redis hardly longer than for users."""
    await asyncio.to_thread(private_redis.start)
    async with running_replica(private_redis.url, timeout_seconds=SHORT_TIMEOUT_SECONDS) as one:
        await warm_up(one)
        yield one
        await eventually(lambda: one.is_idle, seconds=RECOVERY_SECONDS)


async def test_a_frozen_redis_costs_no_caller_more_than_its_time_limit(
    hasty_replica, private_redis
) -> None:
    one = hasty_replica
    private_redis.freeze()
    try:
        slowest = 0.0
        for number in range(20):
            async with measured_lateness() as lateness:
                started = time.monotonic()
                found = await one.look_up(f"question {number}", wait=0.0)
                waited = time.monotonic() - started - lateness.seconds
            slowest = max(slowest, waited)
            assert (found.outcome, found.degraded) == (MISS, True)
            await one.release(found.lease.token, text=f"question {number}")
        assert slowest < 0.15
        async with measured_lateness() as lateness:
            started = time.monotonic()
            found = await one.look_up()
            # Not even once the time limit of the store.
            assert time.monotonic() - started - lateness.seconds < 0.05
        await one.release(found.lease.token)
    finally:
        private_redis.thaw()
    await all_back(one)


async def test_a_restart_of_redis_sets_nobody_loose(replicas, private_redis) -> None:
    one, two = replicas
    callers = [asyncio.create_task((one, two)[number % 2].look_up()) for number in range(200)]
    await eventually(lambda: any(caller.done() for caller in callers))
    await asyncio.sleep(0.1)
    assert sum(caller.done() for caller in callers) == 1
    await asyncio.to_thread(private_redis.kill)
    await asyncio.to_thread(private_redis.start)
    given = 0
    seen: set[asyncio.Task[pb.LookupInferenceResponse]] = set()
    while not all(caller.done() for caller in callers) or len(seen) < len(callers):
        for caller in [each for each in callers if each.done() and each not in seen]:
            seen.add(caller)
            found = caller.result()
            if found.lease.token:
                given += 1
                replica = (one, two)[callers.index(caller) % 2]
                await asyncio.sleep(0.3)
                await try_to_store(replica, found.lease.token)
        await asyncio.sleep(0.01)
    # One before; one on each replica that had to do without, and one after all was forgotten.
    assert given <= 4
    await all_back(one, two)


async def try_to_store(replica: Replica, token: str) -> None:
    try:
        await replica.store(token=token)
    except LeaseLost:
        return


async def test_redis_forgets_a_lease_and_followers_do_not_rush(replicas, private_redis) -> None:
    one, two = replicas
    given = one.count(FlightEvent.LEASED)
    lease = (await one.look_up(lease=20.0)).lease
    callers = [asyncio.create_task(one.look_up()) for _ in range(50)]
    await asyncio.sleep(0.1)
    await asyncio.to_thread(private_redis.kill)
    await asyncio.to_thread(private_redis.start)
    await all_back(one, two)
    await asyncio.sleep(1.5)
    assert not any(caller.done() for caller in callers)
    assert one.count(FlightEvent.LEASED) - given == 1
    async with Redis(port=private_redis.port, db=1) as redis:
        (key,) = await redis.keys("*:l")
        assert await redis.get(key) == lease.token.encode()
    # What it computes is older than what a Redis that has lost everything lets count.
    assert not (await one.store(token=lease.token)).stored
    await eventually(lambda: any(caller.done() for caller in callers))
    (second,) = [caller.result().lease for caller in callers if caller.done()]
    await one.store(token=second.token)
    await asyncio.wait(callers)
    assert one.count(FlightEvent.LEASED) - given == 2


async def test_a_fill_goes_on_when_redis_goes(replicas, private_redis) -> None:
    one, _ = replicas
    token = (await one.look_up()).lease.token
    follower = asyncio.create_task(one.look_up())
    gone = asyncio.Event()

    async def messages() -> AsyncIterator[pb.FillInferenceRequest]:
        async for message in fill_messages(token, ["half ", "whole"]):
            yield message
            if message.text_delta == "half ":
                await gone.wait()

    fill = asyncio.create_task(one.fill(messages()))
    await eventually(lambda: one.calls.under_way()["texts"] == 1)
    await kill(private_redis, one)
    gone.set()
    response = await fill
    assert (response.stored, response.degraded) == (False, True)
    found = await follower
    assert (found.outcome, found.inference.text) == (COALESCED, "half whole")
    assert (await one.look_up()).outcome == LOCAL


async def test_a_lease_whose_reply_was_lost_holds_nobody_up(redis_server, redis_line) -> None:
    async with (
        running_replica(redis_line.url, timeout_seconds=TIMEOUT_SECONDS) as one,
        running_replica(redis_server.url) as two,
    ):
        await warm_up(one)
        redis_line.loses_replies = True
        found = await one.look_up(lease=60.0)
        assert (found.outcome, found.degraded) == (MISS, True)
        redis_line.loses_replies = False
        second = await two.look_up_afresh(wait=8.0)
        assert (second.outcome, second.degraded) == (MISS, False)
        await two.release(second.lease.token)
        await one.release(found.lease.token)
        await eventually(lambda: one.is_idle)


async def test_a_lease_that_could_not_be_given_back_is_given_back_later(
    redis_server, redis_line
) -> None:
    async with (
        running_replica(redis_line.url, timeout_seconds=TIMEOUT_SECONDS) as one,
        running_replica(redis_server.url) as two,
    ):
        await warm_up(one)
        lease = (await one.look_up(lease=60.0)).lease
        redis_line.loses_requests = True
        assert (await one.release(lease.token)).degraded
        redis_line.loses_requests = False
        found = await two.look_up_afresh(wait=8.0)
        assert (found.outcome, found.degraded) == (MISS, False)
        await two.release(found.lease.token)
        await eventually(lambda: one.is_idle)


async def test_failures_are_remembered_without_redis(replicas, private_redis) -> None:
    one, two = replicas
    await kill(private_redis, one, two)
    lease = (await one.look_up()).lease
    follower = asyncio.create_task(one.look_up())
    await eventually(lambda: one.levels.recorder.flights.waiting_count == 1)
    released = await one.release(
        lease.token, kind=pb.FAILURE_KIND_MODEL_NOT_FOUND, message="no such model"
    )
    assert (released.remembered_for.ToSeconds(), released.degraded) == (30, True)
    for found in (await follower, await one.look_up()):
        assert (found.outcome, found.degraded) == (NEGATIVE, True)
        assert found.failure.message == "no such model"


async def test_leases_of_the_time_without_redis_can_be_prolonged(replicas, private_redis) -> None:
    one, two = replicas
    await kill(private_redis, one, two)
    lease = (await one.look_up(lease=1.0)).lease
    extended = await one.calls.extend_lease(
        pb.ExtendLeaseRequest(key=question(), lease_token=lease.token)
    )
    assert extended.degraded
    await asyncio.sleep(1.2)
    assert (await one.look_up(wait=0.0)).outcome == pb.LOOKUP_OUTCOME_MISS_WAITED
    await one.release(lease.token)


async def test_a_full_redis_stops_nobody(replicas, private_redis) -> None:
    one, two = replicas
    await asyncio.to_thread(private_redis.command, "CONFIG", "SET", "maxmemory", "1")
    lookups = [await replica.look_up() for replica in replicas]
    assert {(found.outcome, found.degraded) for found in lookups} == {(MISS, True)}
    waiting = asyncio.create_task(one.look_up())
    stored = await one.store(token=lookups[0].lease.token)
    assert not stored.stored
    assert (await waiting).outcome in (COALESCED, LOCAL)
    await two.release(lookups[1].lease.token)


async def test_lost_scripts_are_no_reason_to_fail(private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    url = private_redis.url
    async with running_replica(url) as one, running_replica(url) as two:
        lease = (await one.look_up()).lease
        await asyncio.to_thread(private_redis.command, "SCRIPT", "FLUSH")
        assert (await two.store(token=lease.token)).stored
        await asyncio.to_thread(private_redis.command, "SCRIPT", "FLUSH")
        assert (await one.look_up()).inference.text == "because"
