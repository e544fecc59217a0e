"""A Redis that comes back with older data brings back nothing that was invalidated."""

import asyncio

import pytest
import redis

from services.cache.core import tags
from services.cache.epoch_scripts import epochs_key
from tests.kit.cache_replicas import Replica, eventually, pb, question, running_replica
from tests.kit.redis import RedisServer

MISS, LOCAL, SHARED = (
    pb.LOOKUP_OUTCOME_MISS,
    pb.LOOKUP_OUTCOME_HIT_LOCAL,
    pb.LOOKUP_OUTCOME_HIT_SHARED,
)
TENANT = "default"
EPOCHS_KEY = epochs_key(TENANT).decode()
# What a fail-over takes, of a busy machine.
PATIENCE_SECONDS = 30.0


async def look_up(replica: Replica, text: str = "why?") -> pb.LookupInferenceResponse:
    request = pb.LookupInferenceRequest(key=question(text))
    return await replica.calls.look_up_inference(request)


async def outcome(replica: Replica, text: str = "why?") -> int:
    """Looks an answer up as soon as the replica has its Redis."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (found := await look_up(replica, text)).degraded:
            await asyncio.sleep(0.02)
    return found.outcome


async def store(replica: Replica, text: str = "why?") -> None:
    """Stores an answer as soon as it is taken: right after a fail-over clocks may differ."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (await replica.store(text)).stored:
            await asyncio.sleep(0.02)


async def invalidate(replica: Replica) -> None:
    await replica.levels.epochs.bump(TENANT, [tags.EVERYTHING])


def cut_off_copies(master: RedisServer) -> None:
    """Lets nothing that happens from now on reach the copies of a master."""
    master.command("ACL", "SETUSER", "default", "-psync", "-sync")
    master.command("CLIENT", "KILL", "TYPE", "replica")


def version(server: RedisServer) -> bytes:
    with redis.Redis(port=server.port, db=1) as client:
        return client.hget(EPOCHS_KEY, "@v")


async def until_in_step(master: RedisServer, copy: RedisServer) -> None:
    """Waits until a copy has all that its master has."""

    def reached(server: RedisServer, name: str) -> int:
        with redis.Redis(port=server.port) as client:
            return int(client.info("replication").get(name, -1))

    wanted = reached(master, "master_repl_offset")
    await eventually(lambda: reached(copy, "slave_repl_offset") >= wanted, seconds=PATIENCE_SECONDS)


@pytest.fixture
async def snapshots():
    """A server that keeps its data, when told to, over its death."""
    server = RedisServer(options={"save": "3600 1000000"})
    await asyncio.to_thread(server.start)
    yield server
    server.stop()


@pytest.fixture
async def pair():
    """A master and its copy, without anybody to watch them."""
    first = RedisServer()
    second = RedisServer(options={"replicaof": f"127.0.0.1 {first.port}"})
    try:
        for server in (first, second):
            await asyncio.to_thread(server.start)
        yield first, second
    finally:
        second.stop()
        first.stop()


async def test_a_server_that_starts_again_from_a_snapshot(snapshots) -> None:
    async with running_replica(snapshots.url) as one:
        await store(one)
        snapshots.command("SAVE")
        await invalidate(one)
        snapshots.kill()
        await asyncio.to_thread(snapshots.start)
        async with running_replica(snapshots.url) as new:
            assert await outcome(new) == MISS
            assert await outcome(one) == MISS
            await store(new)
            assert await outcome(one) == SHARED


async def test_one_that_is_told_of_an_invalidation_first(snapshots) -> None:
    async with running_replica(snapshots.url) as one:
        for text in ("why?", "how?"):
            await store(one, text)
        snapshots.command("SAVE")
        await invalidate(one)
        snapshots.kill()
        await asyncio.to_thread(snapshots.start)
    async with running_replica(snapshots.url) as new:
        await new.levels.epochs.bump(TENANT, ["d:1"])
        assert [await outcome(new, text) for text in ("why?", "how?")] == [MISS, MISS]


async def test_replicas_that_notice_at_once_agree(snapshots) -> None:
    async with running_replica(snapshots.url) as one:
        await store(one)
        snapshots.command("SAVE")
        snapshots.kill()
        await asyncio.to_thread(snapshots.start)
    async with running_replica(snapshots.url) as one, running_replica(snapshots.url) as two:
        both = (one, two)
        assert await asyncio.gather(*(outcome(each) for each in both)) == [MISS, MISS]
        noticed = version(snapshots)
        await store(one)
        assert await asyncio.gather(*(outcome(each) for each in both)) == [LOCAL, SHARED]
        for each in both:
            await each.levels.epochs.refresh(TENANT)
        assert version(snapshots) == noticed


async def test_a_replica_that_starts_loses_nothing(redis_server) -> None:
    async with running_replica(redis_server.url) as one:
        await store(one)
        before = version(redis_server)
        for _ in range(2):
            async with running_replica(redis_server.url) as new:
                assert await outcome(new) == SHARED
        assert await outcome(one) == LOCAL
        assert version(redis_server) == before


async def test_a_copy_that_sentinels_promote(private_sentinels) -> None:
    await asyncio.to_thread(private_sentinels.start)
    async with running_replica(private_sentinels.url) as one:
        await store(one)
        await until_in_step(private_sentinels.master, private_sentinels.replica)
        cut_off_copies(private_sentinels.master)
        await invalidate(one)
        private_sentinels.master.kill()
        await asyncio.to_thread(private_sentinels.wait_for_promotion)
        async with running_replica(private_sentinels.url) as new:
            assert await outcome(new) == MISS
            assert await outcome(one) == MISS
            await store(new)
            assert await outcome(one) == SHARED


async def test_a_copy_that_takes_over_in_a_cluster(private_cluster) -> None:
    await asyncio.to_thread(private_cluster.start)
    master = private_cluster.master_of(EPOCHS_KEY.encode())
    copy = private_cluster.replicas[private_cluster.masters.index(master)]
    # Values are spread over all masters; the notes of a tenant are with one of them.
    texts = [f"why {number}?" for number in range(12)]
    async with running_replica(private_cluster.url) as one:
        for text in texts:
            await store(one, text)
        await until_in_step(master, copy)
        cut_off_copies(master)
        await invalidate(one)
        master.kill()
        await asyncio.to_thread(private_cluster.wait_for_promotion, master)
        async with running_replica(private_cluster.url) as new:
            for replica in (new, one):
                assert {await outcome(replica, text) for text in texts} == {MISS}
            await store(new, texts[0])
            assert await outcome(one, texts[0]) == SHARED


async def test_a_slot_that_moves_in_a_cluster(private_cluster) -> None:
    """Nothing is lost that way; that cannot be told from a fail-over, so that nothing counts."""
    await asyncio.to_thread(private_cluster.start)
    master = private_cluster.master_of(EPOCHS_KEY.encode())
    target = next(each for each in private_cluster.masters if each is not master)
    async with running_replica(private_cluster.url) as one:
        await store(one)
        await asyncio.to_thread(private_cluster.move_slot, EPOCHS_KEY.encode(), target)
        async with running_replica(private_cluster.url) as new:
            assert await outcome(new) == MISS
            await store(new)
            assert await outcome(new) == LOCAL


async def test_a_master_that_is_replaced_and_comes_back_in_turn(pair) -> None:
    """Its process is the one that the notes were written by, and yet they are not the last ones."""
    first, second = pair
    async with running_replica(first.url) as one:
        await store(one)
    await until_in_step(first, second)
    second.command("REPLICAOF", "NO", "ONE")
    first.command("REPLICAOF", "127.0.0.1", second.port)
    await until_in_step(second, first)
    cut_off_copies(second)
    async with running_replica(second.url) as other:
        await invalidate(other)
    second.kill()
    first.command("REPLICAOF", "NO", "ONE")
    async with running_replica(first.url) as new:
        assert await outcome(new) == MISS
