"""A master dies, freezes or is replaced: the store is found again without anybody's help."""

import asyncio
import logging
from contextlib import suppress

import pytest

from services.cache.core.layers import Layer
from services.cache.notices import Notices
from services.cache.ports import Script, StoreFailure, Write
from services.common.clock import SystemClock
from services.common.tasks import in_background
from tests.kit.lateness import Lateness
from tests.kit.redis import RedisServer
from tests.kit.redis_sentinel import RedisSentinels
from tests.kit.redis_stores import HASTY, PATIENT_SECONDS
from tests.kit.shared_levels import make_level

RECOVERY_LIMIT_SECONDS = 10.0
WAIT_LIMIT_SECONDS = 0.3
COUNT_UP = Script("count_up", "return redis.call('INCR', KEYS[1])")
PUBLISH = Script("publish", "return redis.call('PUBLISH', ARGV[1], redis.call('INCR', KEYS[1]))")

_logger = logging.getLogger(__name__)


class Load:
    """Callers that go on whatever happens."""

    def __init__(self, level, keys: list[bytes], lateness: Lateness) -> None:
        self._level = level
        self._lateness = lateness
        self.keys = keys
        self.waits: list[float] = []
        self.answered_at = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for key in self.keys:
                started, late = loop.time(), self._lateness.seconds
                await self._level.write(Layer.CHUNK, [Write(key, b"value", 60_000)])
                found = await self._level.read(Layer.CHUNK, [key])
                with suppress(StoreFailure):
                    await self._level.run(Layer.CHUNK, COUNT_UP, [b"counter of " + key])
                waited = loop.time() - started - (self._lateness.seconds - late)
                self.waits.append(waited / 3)
                if found is not None:
                    self.answered_at = loop.time()
            await asyncio.sleep(0.005)


async def recovery_seconds(level, load: Load, since: float) -> float:
    """Waits until the store is in use, written to and read, for all keys of the load."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(RECOVERY_LIMIT_SECONDS + since - loop.time()):
        while True:
            writes = [Write(key, b"value", 60_000) for key in load.keys]
            if await level.write(Layer.CHUNK, writes) == [True] * len(writes):
                return loop.time() - since
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
async def test_a_master_that_sentinels_replace_is_found(
    make_store, private_sentinels, lateness, trouble: str
) -> None:
    await asyncio.to_thread(private_sentinels.start)
    store = make_store(private_sentinels.url, connection_limit=32, **HASTY)
    level = make_level(store)
    load = Load(level, [b"a", b"b"], lateness)
    loop = asyncio.get_running_loop()
    await level.settle()
    async with in_background(level.watch(), load.run(), load.run()):
        await asyncio.sleep(0.3)
        await recovery_seconds(level, load, loop.time())
        getattr(private_sentinels.master, trouble)()
        await asyncio.to_thread(private_sentinels.wait_for_promotion)
        promoted_at = loop.time()
        seconds = await recovery_seconds(level, load, promoted_at)
        _logger.info(
            "sentinel, %s: in use %.2f s after promotion, longest wait %.0f ms, %s",
            trouble,
            seconds,
            1e3 * max(load.waits),
            level.condition,
        )
        if trouble == "freeze":
            # The old master comes back as a master, and is told later that it is one no more.
            private_sentinels.master.thaw()
            await asyncio.sleep(1.0)
            async with asyncio.timeout(RECOVERY_LIMIT_SECONDS):
                # Not at all is another matter than nothing.
                while (found := await level.read(Layer.CHUNK, [b"a"])) is None:
                    await asyncio.sleep(0.02)
            assert found == [b"value"]
    assert max(load.waits) < WAIT_LIMIT_SECONDS
    assert private_sentinels.replica.command("GET", "a") == "value"


async def test_a_planned_change_of_masters_is_followed(
    make_store, private_sentinels, lateness
) -> None:
    await asyncio.to_thread(private_sentinels.start)
    level = make_level(make_store(private_sentinels.url, connection_limit=32, **HASTY))
    load = Load(level, [b"a"], lateness)
    loop = asyncio.get_running_loop()
    await level.settle()
    async with in_background(level.watch(), load.run()):
        private_sentinels.sentinels[0].command("SENTINEL", "FAILOVER", "pannier")
        await asyncio.to_thread(private_sentinels.wait_for_promotion)
        seconds = await recovery_seconds(level, load, loop.time())
        _logger.info("sentinel, planned: in use %.2f s after promotion", seconds)
    assert private_sentinels.replica.command("GET", "a") == "value"


async def test_a_sentinel_that_was_cut_off_misleads_nobody(
    make_store, private_sentinels, private_redis
) -> None:
    await asyncio.to_thread(private_sentinels.start)
    await asyncio.to_thread(private_redis.start)
    private_sentinels.sentinels[0].command("SENTINEL", "FAILOVER", "pannier")
    await asyncio.to_thread(private_sentinels.wait_for_promotion)
    # It knows no fail-over, and a server that would take every write.
    cut_off = RedisServer(
        options={"sentinel monitor": f"pannier 127.0.0.1 {private_redis.port} 2"}, sentinel=True
    )
    await asyncio.to_thread(cut_off.start)
    try:
        url = private_sentinels.url.replace("//", f"//127.0.0.1:{cut_off.port},")
        store = make_store(url)
        for _ in range(30):
            # Who answers first is believed until the others have, and then left in mid-check.
            with suppress(StoreFailure):
                await store.check(timeout_seconds=PATIENT_SECONDS)
        private_redis.flush()
        for _ in range(30):
            await store.check(timeout_seconds=PATIENT_SECONDS)
            write = Write(b"key", b"value", 60_000)
            await store.write(0, [write], timeout_seconds=PATIENT_SECONDS)
        assert private_redis.command("DBSIZE") == 0
    finally:
        cut_off.stop()


async def test_sentinels_may_want_a_password_of_their_own(make_store) -> None:
    sentinels = RedisSentinels(sentinel_password="open-sesame")
    try:
        await asyncio.to_thread(sentinels.start)
        store = make_store(sentinels.url, sentinel_password="open-sesame")
        await store.check(timeout_seconds=PATIENT_SECONDS)
        with pytest.raises(StoreFailure, match="authentication failed"):
            await make_store(sentinels.url).check(timeout_seconds=PATIENT_SECONDS)
    finally:
        sentinels.stop()


@pytest.mark.parametrize("trouble", ["kill", "freeze"])
async def test_a_master_of_a_cluster_that_is_replaced_is_found(
    make_store, private_cluster, lateness, trouble: str
) -> None:
    await asyncio.to_thread(private_cluster.start)
    level = make_level(make_store(private_cluster.url, connection_limit=32, **HASTY))
    keys = [key for master in private_cluster.masters for key in private_cluster.keys_of(master, 2)]
    load = Load(level, keys, lateness)
    loop = asyncio.get_running_loop()
    await level.settle()
    victim, successor = private_cluster.masters[0], private_cluster.replicas[0]

    async with in_background(level.watch(), load.run(), load.run()):
        await asyncio.sleep(0.3)
        getattr(victim, trouble)()
        await asyncio.to_thread(private_cluster.wait_for_promotion, victim)
        seconds = await recovery_seconds(level, load, loop.time())
        _logger.info(
            "cluster, %s: in use %.2f s after promotion, longest wait %.0f ms, %s",
            trouble,
            seconds,
            1e3 * max(load.waits),
            level.condition,
        )
    assert max(load.waits) < WAIT_LIMIT_SECONDS
    assert successor.command("GET", keys[0]) == "value"


async def test_one_check_is_enough_to_find_the_new_master(make_store, private_sentinels) -> None:
    await asyncio.to_thread(private_sentinels.start)
    store = make_store(private_sentinels.url)
    await store.check(timeout_seconds=PATIENT_SECONDS)
    private_sentinels.master.kill()
    await asyncio.to_thread(private_sentinels.wait_for_promotion)
    await store.check(timeout_seconds=PATIENT_SECONDS)


async def test_one_check_is_enough_to_find_the_new_node(make_store, private_cluster) -> None:
    await asyncio.to_thread(private_cluster.start)
    store = make_store(private_cluster.url)
    await store.check(timeout_seconds=PATIENT_SECONDS)
    private_cluster.masters[0].kill()
    with pytest.raises(StoreFailure):
        await store.check(timeout_seconds=PATIENT_SECONDS)
    await asyncio.to_thread(private_cluster.wait_for_promotion, private_cluster.masters[0])
    await store.check(timeout_seconds=PATIENT_SECONDS)


async def test_slots_that_move_are_followed(make_store, private_cluster) -> None:
    await asyncio.to_thread(private_cluster.start)
    source, target, _ = private_cluster.masters
    store = make_store(private_cluster.url)
    (key, other) = private_cluster.keys_of(source, 2)
    writes = [Write(each, b"value", 60_000) for each in (key, other)]
    await store.write(0, writes, timeout_seconds=PATIENT_SECONDS)
    await asyncio.to_thread(private_cluster.move_slot, key, target)

    found = await store.read(0, [key, other, key], timeout_seconds=PATIENT_SECONDS)
    assert found == [b"value"] * 3
    counted = await store.run(0, COUNT_UP, [b"{" + key + b"}"], [], timeout_seconds=PATIENT_SECONDS)
    assert counted == 1
    assert target.command("GET", b"{" + key + b"}") == "1"


async def test_keys_on_their_way_to_another_node_are_asked_for_there(
    make_store, private_cluster
) -> None:
    await asyncio.to_thread(private_cluster.start)
    source, target, _ = private_cluster.masters
    store = make_store(private_cluster.url)
    (key,) = private_cluster.keys_of(source, 1)
    write = Write(key, b"value", 60_000)
    await store.write(0, [write], timeout_seconds=PATIENT_SECONDS)
    await asyncio.to_thread(private_cluster.move_slot, key, target, finished=False)
    assert await store.read(0, [key], timeout_seconds=PATIENT_SECONDS) == [b"value"]
    assert await store.write(0, [write], timeout_seconds=PATIENT_SECONDS) == [True]
    name = b"{" + key + b"}"
    assert await store.run(0, COUNT_UP, [name], [], timeout_seconds=PATIENT_SECONDS) == 1
    assert await store.read_map(0, b"{" + key + b"}:map", timeout_seconds=PATIENT_SECONDS) == {}
    assert source.command("DBSIZE") == 0


async def test_a_cluster_with_a_part_missing_says_so(make_store, private_cluster) -> None:
    await asyncio.to_thread(private_cluster.start)
    victim, survivor = private_cluster.masters[:2]
    level = make_level(make_store(private_cluster.url, **HASTY))
    for replica in private_cluster.replicas:
        replica.kill()
    victim.kill()
    (key,) = private_cluster.keys_of(survivor, 1)
    async with asyncio.timeout(RECOVERY_LIMIT_SECONDS):
        while level.condition.last_failure != "cluster is down":
            await level.read(Layer.CHUNK, [key])
            await asyncio.sleep(0.02)


async def test_a_listener_survives_a_fail_over(make_store, private_sentinels) -> None:
    await asyncio.to_thread(private_sentinels.start)
    store = make_store(private_sentinels.url, connection_limit=32, **HASTY)
    level = make_level(store)
    notices = Notices(store, clock=SystemClock())
    heard: list[bytes] = []
    gaps: list[bool] = []
    notices.on(b"inv", heard.append)
    notices.on_gap(lambda: gaps.append(True))
    await level.settle()

    async def until_heard() -> None:
        before = len(heard)
        async with asyncio.timeout(3 * RECOVERY_LIMIT_SECONDS):
            while len(heard) == before:
                with suppress(StoreFailure):
                    await level.run(Layer.CHUNK, PUBLISH, [b"counter"], [b"inv"])
                await asyncio.sleep(0.02)

    async with in_background(level.watch(), notices.run()):
        await until_heard()
        assert len(gaps) == 1
        private_sentinels.master.freeze()
        await asyncio.to_thread(private_sentinels.wait_for_promotion)
        await until_heard()
        assert notices.connected
        assert len(gaps) >= 2
