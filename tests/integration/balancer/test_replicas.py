"""Several balancers as processes on one fleet: together they never ask too much of a backend."""

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
from redis.asyncio import Redis

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.balancer_process import BalancerProcess, fleet_of_processes, is_idle
from tests.kit.generations import chat, kinds, read
from tests.kit.redis import private_redis
from tests.kit.reservation_worker import Interval, most_at_once

__all__ = ["private_redis"]

pytestmark = pytest.mark.slow

_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL)
WORK = ("/api/chat", "/api/generate", "/api/embed")
KEY = "pannier:balancer:slots"
SLOTS = 2
# A slot is given to the next before the backend has noticed that the one before has left.
NOTICE_SECONDS = 0.02
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
prefill_tokens_per_second = 250
[[models]]
name = "slow-to-load"
load_seconds = 1.0
"""
CROWD = [f"m{number}" for number in range(5)]
CROWDED_PROFILE = "builtin_models = false\n" + "".join(
    f'[[models]]\nname = "{name}"\nload_seconds = 0.3\ndecode_tokens_per_second = 300\n'
    for name in CROWD
)


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
        """No backend was given more requests than it has slots, so none has waited for another."""
        for backend in self.backends:
            totals, requests = await backend.totals(), await backend.requests()
            assert totals["max_slot_wait_seconds"] < NOTICE_SECONDS, json.dumps(totals)
            for model, highest in most_at_once([work_of(each) for each in requests]).items():
                assert highest <= (1 if model == "embed:latest" else SLOTS), (model, highest)

    async def check_idle(self, *replicas):
        """Nothing is under way any more, and nothing is thought to be."""
        for replica in replicas:
            await replica.until(is_idle)
        async with asyncio.timeout(3):
            while await self.held():
                await asyncio.sleep(0.02)
        for backend in self.backends:
            active = [each for each in await backend.requests() if each["outcome"] == "active"]
            assert not [each for each in active if each["path"] in WORK]


def work_of(request):
    """Returns when a request was worked on for certain; loading a model is not work on it."""
    names = ("load_seconds", "queue_seconds", "prefill_seconds", "decode_seconds")
    seconds = sum(request[name] for name in names) if request["prompt_tokens"] else 0.0
    began_at = request["started_at"]
    return Interval(request["model"], began_at, began_at + max(0.0, seconds - NOTICE_SECONDS))


class Load:
    """Callers, each of which asks a random replica for something, again and again.

    Args:
        targets: The replicas; may be changed meanwhile.
        seed: Of their choices.
        leave_ratio: Share of the callers who leave before the end.
        models: Of whom answers are asked for; vectors are asked for too where none are named.
        pause_seconds: How long a caller rests at most before the next request.
        patience_seconds: How long a caller waits for an answer's end before he leaves.
    """

    def __init__(
        self,
        targets,
        seed=0,
        leave_ratio=0.0,
        models=(),
        pause_seconds=0.0,
        patience_seconds=None,
    ):
        self.targets = list(targets)
        self.dying = set()
        self.asked = 0
        self.ends = Counter()
        self.served = Counter()
        self._rng = random.Random(seed)
        self._leave_ratio = leave_ratio
        self._models = models
        self._pause_seconds = pause_seconds
        self._patience_seconds = patience_seconds
        self._stopping = asyncio.Event()
        self._tasks = []

    def begin(self, count):
        self._tasks = [asyncio.create_task(self._call_on()) for _ in range(count)]

    async def end(self):
        """Lets every request come to its end."""
        self.stop()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for task in self._tasks:
                group.create_task(_result(task))

    def stop(self):
        """Lets no request begin any more."""
        self._stopping.set()

    async def until_served(self, *targets, count, within_seconds=15.0):
        """Waits until each of the replicas has served so many more requests."""
        before = self.served.copy()
        await self._until(
            lambda: all(self.served[each] - before[each] >= count for each in targets),
            within_seconds,
        )

    async def until_served_by_any(self, *, count, within_seconds):
        """Waits until the replicas together have served so many more requests."""
        before = self.served.total()
        await self._until(lambda: self.served.total() - before >= count, within_seconds)

    async def _until(self, condition, within_seconds):
        async with asyncio.timeout(within_seconds):
            while not condition():
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def _call_on(self):
        while not self._stopping.is_set():
            target = self._rng.choice(self.targets)
            self.asked += 1
            try:
                async with asyncio.timeout(self._patience_seconds):
                    end = await self._ask(target)
            except TimeoutError:
                end = "left"
            except grpc.aio.AioRpcError as error:
                if target not in self.dying or error.code() not in _LOST:
                    raise
                end = "died"
            self.ends[end] += 1
            self.served[target] += end == "served"
            await asyncio.sleep(self._rng.uniform(0.0, self._pause_seconds))

    async def _ask(self, target):
        if not self._models and self._rng.random() < 0.3:
            count = self._rng.randint(1, 4)
            texts = [f"{self._rng.random()} is a text" for _ in range(count)]
            reply = await target.stub.Embed(pb.EmbedRequest(model="embed", texts=texts), timeout=30)
            assert len(reply.vectors) == count
            return "served"
        model = self._rng.choice(self._models or ["talk", "code"])
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


@asynccontextmanager
async def running_fleet(redis, folder, profile, *options):
    path = folder / "profile.toml"
    path.write_text(profile)
    await asyncio.to_thread(redis.start)
    async with AsyncExitStack() as stack:
        backends = await fleet_of_processes(stack, 3, path, f"--num-parallel={SLOTS}", *options)
        yield Fleet(backends, redis, stack, folder)


@pytest.fixture
async def fleet(private_redis, tmp_path):
    async with running_fleet(private_redis, tmp_path, PROFILE) as fleet:
        yield fleet


@pytest.fixture
async def crowded_fleet(private_redis, tmp_path):
    """Five models on backends that hold two of them at a time."""
    options = ["--max-loaded-models=2"]
    async with running_fleet(private_redis, tmp_path, CROWDED_PROFILE, *options) as fleet:
        yield fleet


@asynccontextmanager
async def under_load(targets, callers=12, **fields):
    load = Load(targets, **fields)
    load.begin(callers)
    try:
        yield load
    except BaseException:
        load.stop()
        raise
    await load.end()


@pytest.fixture
async def grab(fleet):
    """Has a replica hold every slot of a model, and returns the streams."""
    streams = []

    async def grab(replica, *, token_count):
        for backend in fleet.backends:
            await replica.admin.PreloadModel(
                pb.PreloadModelRequest(model="talk", backend_id=backend.backend_id), timeout=10
            )
        request = chat(f"<<tokens={token_count}>>", "talk")
        calls = [replica.stub.Chat(request) for _ in range(SLOTS * len(fleet.backends))]
        streams.extend(calls)
        for call in calls:
            async with asyncio.timeout(10):
                assert (await call.read()).WhichOneof("event") == "started"
        return calls

    yield grab
    for stream in streams:
        stream.cancel()


async def first_token(replica):
    """Asks a replica for an answer, and returns when its first token came."""
    call = replica.stub.Chat(chat("<<tokens=3>>", "talk"), timeout=20)
    assert (await call.read()).WhichOneof("event") == "started"
    came_at = time.monotonic()
    events, error = await read(call)
    assert error is None
    assert kinds(events)[-1] == "completed"
    return came_at


@pytest.mark.parametrize("count", [2, 3])
async def test_replicas_together_never_give_a_backend_more_requests_than_it_has_slots(fleet, count):
    replicas = await fleet.add_replicas(count)
    async with under_load(replicas) as load:
        await load.until_served(*replicas, count=60, within_seconds=30)
    assert load.ends == {"served": load.asked}
    await fleet.check_idle(*replicas)
    await fleet.check_never_overfull()
    for backend in fleet.backends:
        totals = await backend.totals()
        assert totals["requests"] > load.asked / len(fleet.backends) / 2


async def test_no_slot_is_lost_or_given_twice_while_replicas_come_and_go_and_callers_leave(fleet):
    first, second = await fleet.add_replicas(2)
    async with under_load([first, second], leave_ratio=0.3) as load:
        await load.until_served(first, second, count=20)
        third = await fleet.add_replica()
        load.targets.append(third)
        await load.until_served(first, second, third, count=20)
        load.dying.add(first)
        load.targets.remove(first)
        await first.kill()
        await second.until(lambda stats: stats.fleet.replica_count == 2, within_seconds=6)
        await load.until_served(second, third, count=20)
        # Who asks in this very moment is sent to another replica.
        load.dying.add(second)
        load.targets.remove(second)
        await second.stop()
        await third.until(lambda stats: stats.fleet.replica_count == 1, within_seconds=1.7)
        await load.until_served(third, count=20)
    assert load.ends.total() == load.asked
    assert load.ends["served"] > 100
    await fleet.check_idle(third)
    await fleet.check_never_overfull()


async def test_the_slots_of_a_replica_that_is_killed_are_used_by_others_within_its_lease(
    fleet, grab
):
    killed, other = await fleet.add_replicas(2)
    await grab(killed, token_count=8000)
    waiting = asyncio.create_task(first_token(other))
    await other.until(lambda stats: stats.fleet.in_flight_count == 1)
    await killed.kill()
    killed_at = time.monotonic()
    assert 1.0 < await waiting - killed_at < 3.5
    await fleet.check_idle(other)
    await fleet.check_never_overfull()


async def test_a_replica_that_is_told_to_stop_ends_its_work_and_gives_its_slots_back_at_once(
    fleet, grab
):
    leaving, other = await fleet.add_replicas(2)
    streams = await grab(leaving, token_count=450)
    waiting = asyncio.create_task(first_token(other))
    await other.until(lambda stats: stats.fleet.in_flight_count == 1)
    stopping = asyncio.create_task(leaving.stop())
    for stream in streams:
        events, error = await read(stream)
        assert error is None
        assert kinds(events)[-1] == "completed"
    ended_at = time.monotonic()
    assert await waiting - ended_at < 0.5
    await stopping
    await other.until(lambda stats: stats.fleet.replica_count == 1, within_seconds=1.7)
    await fleet.check_idle(other)
    await fleet.check_never_overfull()


async def test_replicas_keep_to_their_shares_while_redis_does_not_answer(fleet):
    replicas = await fleet.add_replicas(2)
    # Who owns no slot of a model keeps its callers waiting, and chance has it who that is. One of
    # the replicas has one of each, so callers who do not wait for ever are served sooner or later.
    async with under_load(replicas, patience_seconds=0.5) as load:
        await load.until_served(*replicas, count=20)
        fleet.redis.freeze()
        for replica in replicas:
            await replica.until(lambda stats: stats.fleet.slots_divided, within_seconds=5)
        await load.until_served_by_any(count=200, within_seconds=30)
        fleet.redis.thaw()
        for replica in replicas:
            await replica.until(lambda stats: not stats.fleet.slots_divided, within_seconds=10)
            await replica.until(lambda stats: stats.fleet.replica_count == 2, within_seconds=10)
        await load.until_served(*replicas, count=20)
    assert load.ends.total() == load.asked
    assert load.ends["served"] > 200
    await fleet.check_idle(*replicas)
    await fleet.check_never_overfull()


async def test_a_model_that_one_replica_has_loaded_is_used_by_the_others_without_a_load(fleet):
    one, other = await fleet.add_replicas(2)
    there = fleet.backends[1]
    loading = asyncio.ensure_future(
        one.admin.PreloadModel(
            pb.PreloadModelRequest(model="slow-to-load", backend_id=there.backend_id)
        )
    )
    async with asyncio.timeout(5):
        while not await fleet.held():
            await asyncio.sleep(0.01)
    # Waits for the load of the other replica: another one would take longer.
    call = other.stub.Chat(chat("<<tokens=3>>", "slow-to-load"), timeout=10)
    events = [event async for event in call]
    assert events[0].started.backend_id == there.backend_id
    await loading
    assert [(await backend.totals())["loads"] for backend in fleet.backends] == [0, 1, 0]


async def test_replicas_never_load_at_once_into_a_backend_nor_ask_for_what_another_has_unloaded(
    crowded_fleet,
):
    fleet = crowded_fleet
    replicas = await fleet.add_replicas(3, MODELS_PER_BACKEND="2")
    async with under_load(replicas, callers=12, models=CROWD, pause_seconds=0.2) as load:
        await load.until_served(*replicas, count=100, within_seconds=30)
    assert load.ends == {"served": load.asked}
    loads = 0
    for backend in fleet.backends:
        totals, requests = await backend.totals(), await backend.requests()
        # Nothing was pushed out, and no caller's request has loaded a model.
        assert totals["evictions"] == 0
        by_requests = [each for each in requests if each["prompt_tokens"]]
        assert max(each["load_seconds"] for each in by_requests) < 0.15
        calls = [each for each in requests if each["load_seconds"] >= 0.15]
        intervals = [
            Interval("load", each["started_at"], each["started_at"] + each["load_seconds"])
            for each in calls
        ]
        assert most_at_once(intervals)["load"] <= 1
        loads += totals["loads"]
    assert loads >= len(CROWD)
    await fleet.check_idle(*replicas)
    await fleet.check_never_overfull()
