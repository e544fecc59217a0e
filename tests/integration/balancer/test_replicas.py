"""Several balancers as processes on one fleet: together they never ask too much of a backend."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from redis.asyncio import Redis

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.balancer_process import BalancerProcess, fleet_of_processes
from tests.kit.generations import chat, kinds
from tests.kit.redis import private_redis

__all__ = ["private_redis"]

KEY = "pannier:balancer:slots"
SLOTS = 2
# Two answers of 30 to 90 ms at a time for each model of each backend.
PROFILE = """
builtin_models = false
[[models]]
name = "talk"
load_seconds = 0.1
decode_tokens_per_second = 300
[[models]]
name = "code"
load_seconds = 0.1
decode_tokens_per_second = 300
[[models]]
name = "embed"
capability = "embedding"
load_seconds = 0.1
prefill_tokens_per_second = 2000
[[models]]
name = "slow-to-load"
load_seconds = 1.0
[[models]]
name = "slow-to-load-too"
load_seconds = 1.0
"""


class Fleet:
    """Stand-ins and a Redis server, and the replicas of the balancer between them.

    Args:
        backends: The stand-ins.
        redis: The server.
        stack: Ends the replicas.
        log_folder: Where the replicas' logs go.
    """

    def __init__(self, backends, redis, stack, log_folder):
        self.backends = backends
        self.redis = redis
        self._stack = stack
        self._log_folder = log_folder
        self._count = 0

    async def add_replica(self, **settings):
        """Starts one more balancer."""
        self._count += 1
        replica = BalancerProcess(
            *(backend.url for backend in self.backends),
            log=self._log_folder / f"replica-{self._count}.log",
            SHARED_REDIS_URL=self.redis.url,
            SLOTS_PER_MODEL=str(SLOTS),
            **settings,
        )
        self._stack.push_async_callback(replica.kill)
        await replica.start()
        return replica

    async def add_replicas(self, count, **settings):
        """Starts several, and returns them when they know each other."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.add_replica(**settings)) for _ in range(count)]
        replicas = [task.result() for task in tasks]
        for replica in replicas:
            await replica.until(lambda stats: stats.fleet.replica_count == count)
            await replica.until(lambda stats: not stats.fleet.slots_divided)
        return replicas

    async def held(self):
        """Returns what the replicas hold according to Redis."""
        async with Redis.from_url(self.redis.url, decode_responses=True) as client:
            fields = await client.hgetall(KEY)
        return {name: value for name, value in fields.items() if name.startswith("slots ")}

    async def check_never_overfull(self):
        """No request has waited at a backend, as more would have been there than it has slots."""
        for backend in self.backends:
            totals = await backend.totals()
            assert totals["slot_waits"] == 0, totals
            limits = {"embed": 1}
            for model, highest in totals["max_concurrent_requests"].items():
                assert highest <= limits.get(model.split(":")[0], SLOTS), totals

    async def check_idle(self, *replicas):
        """Nothing is under way any more, and nothing is thought to be."""
        for replica in replicas:
            await replica.until(is_idle)
        async with asyncio.timeout(3):
            while await self.held():
                await asyncio.sleep(0.02)
        for backend in self.backends:
            active = [each for each in await backend.requests() if each["outcome"] == "active"]
            assert [each["path"] for each in active] == ["/standin/requests"]


def is_idle(stats):
    return (
        stats.fleet.in_flight_count == 0
        and all(queue.waiting_count == 0 for queue in stats.fleet.queues)
        and all(
            backend.in_flight_count == 0
            and all(
                model.in_flight_count == 0 and model.zombie_count == 0 for model in backend.models
            )
            for backend in stats.backends
        )
    )


class Load:
    """Callers, each of which asks a random replica for something, again and again.

    Args:
        targets: The replicas; may be changed meanwhile.
        seed: Of their choices.
        leave_ratio: Share of the callers who leave before the end.
    """

    def __init__(self, targets, seed=0, leave_ratio=0.0):
        self.targets = list(targets)
        self.dying = set()
        self.asked = 0
        self.ends = Counter()
        self.served = Counter()
        self.waits = []
        self.last_served_at = {}
        self._rng = random.Random(seed)
        self._leave_ratio = leave_ratio
        self._stopping = asyncio.Event()
        self._tasks = []

    def begin(self, count):
        self._tasks = [asyncio.create_task(self._call_on()) for _ in range(count)]

    async def end(self):
        """Lets every request come to its end."""
        self._stopping.set()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for task in self._tasks:
                group.create_task(_result(task))

    async def until_served(self, *targets, count=1, within_seconds=10.0):
        """Waits until each of the replicas has served so many more requests."""
        before = {target: self.served[target] for target in targets}
        async with asyncio.timeout(within_seconds):
            while any(self.served[each] < before[each] + count for each in targets):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def _call_on(self):
        while not self._stopping.is_set():
            target = self._rng.choice(self.targets)
            self.asked += 1
            began_at = time.monotonic()
            try:
                end = await self._ask(target)
            except grpc.aio.AioRpcError as error:
                lost = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                if target not in self.dying or not lost:
                    raise
                end = "died"
            self.ends[end] += 1
            self.waits.append(time.monotonic() - began_at)
            if end == "served":
                self.served[target] += 1
                self.last_served_at[target] = time.monotonic()

    async def _ask(self, target):
        if self._rng.random() < 0.3:
            count = self._rng.randint(1, 4)
            texts = [f"{self._rng.random()} is a text" for _ in range(count)]
            reply = await target.stub.Embed(
                pb.EmbedRequest(model="embed", texts=texts), timeout=30
            )
            assert len(reply.vectors) == count
            return "served"
        model = self._rng.choice(["talk", "code"])
        prompt = f"{self._rng.random()} <<tokens={self._rng.randint(10, 30)}>>"
        call = target.stub.Chat(chat(prompt, model), timeout=30)
        if self._rng.random() < self._leave_ratio:
            await asyncio.sleep(self._rng.uniform(0.0, 0.1))
            call.cancel()
            return "left"
        events = [event async for event in call]
        found = kinds(events)
        assert found[0] == "started"
        assert found[-1] == "completed"
        assert found.count("started") == found.count("completed") == 1
        return "served"


async def _result(task):
    await task


@pytest.fixture
async def fleet(private_redis, tmp_path):
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE)
    await asyncio.to_thread(private_redis.start)
    async with AsyncExitStack() as stack:
        backends = await fleet_of_processes(stack, 3, profile, f"--num-parallel={SLOTS}")
        yield Fleet(backends, private_redis, stack, tmp_path)


@asynccontextmanager
async def under_load(targets, callers=12, **fields):
    load = Load(targets, **fields)
    load.begin(callers)
    try:
        yield load
    except BaseException:
        load._stopping.set()
        raise
    await load.end()


@pytest.mark.parametrize("count", [2, 3])
async def test_replicas_together_never_give_a_backend_more_requests_than_it_has_slots(fleet, count):
    replicas = await fleet.add_replicas(count)
    async with under_load(replicas) as load:
        await load.until_served(*replicas, count=100, within_seconds=30)
    assert load.ends == {"served": load.asked}
    await fleet.check_idle(*replicas)
    await fleet.check_never_overfull()
    print(load.asked, load.served.values(), max(load.waits), sorted(load.waits)[len(load.waits) // 2])
    for backend in fleet.backends:
        totals = await backend.totals()
        print(totals)
        assert totals["requests"] > load.asked / 3 / 2
