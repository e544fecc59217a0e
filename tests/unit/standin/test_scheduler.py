"""Who gets a model, when it is loaded and when it goes; loads end when the test says so."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

from services.standin.core.catalogue import Speed, builtin_models
from services.standin.core.options import LoadOptions
from services.standin.core.times import FOREVER_SECONDS
from services.standin.scheduler import Limits, LoadError, QueueFullError, Scheduler
from services.standin.server import find_weights
from services.standin.totals import Totals

EMBED, CHAT = builtin_models(find_weights() / "model.safetensors", Speed())
AUTOMATIC = LoadOptions()
SMALL = LoadOptions(context_tokens=2048)


class ManualClock:
    """Time that stands still until it is advanced."""

    def __init__(self):
        self.seconds = 1000.0
        self._sleepers = []

    def monotonic(self):
        return self.seconds

    def now(self):
        return self.seconds

    async def sleep(self, seconds):
        wake = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.seconds + seconds, wake))
        await wake

    async def advance(self, seconds):
        self.seconds += seconds
        for due, wake in self._sleepers:
            if due <= self.seconds and not wake.done():
                wake.set_result(None)
        await settle()


class Loads:
    """Loads that wait to be finished, with a record of what became of them."""

    def __init__(self):
        self.log = []
        self.fail_next = False
        self._finish = asyncio.Event()

    async def __call__(self, model):
        self.log.append(f"start {model.architecture}")
        try:
            await self._finish.wait()
        except asyncio.CancelledError:
            self.log.append(f"abort {model.architecture}")
            raise
        self._finish.clear()
        if self.fail_next:
            self.fail_next = False
            raise LoadError("no")
        self.log.append(f"end {model.architecture}")

    async def finish(self):
        self._finish.set()
        await settle()


async def settle():
    """Let everything run that can run."""
    for _ in range(20):
        await asyncio.sleep(0)


class Holder:
    """A request that holds a model until it is released."""

    def __init__(self, scheduler, model, load=AUTOMATIC, keep_alive=None):
        self.runner = None
        self.error = None
        self._release = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(scheduler, model, load, keep_alive))

    async def _run(self, scheduler, model, load, keep_alive):
        try:
            async with scheduler.hold(model, load, keep_alive) as runner:
                self.runner = runner
                await self._release.wait()
        except (QueueFullError, LoadError) as error:
            self.error = error

    async def release(self):
        self._release.set()
        await settle()

    async def disconnect(self):
        self.task.cancel()
        await settle()


class Fleet:
    """A scheduler with its clock and loads."""

    def __init__(self, **limits):
        self.clock = ManualClock()
        self.loads = Loads()
        self.totals = Totals()
        self.scheduler = Scheduler(
            load=self.loads,
            clock=self.clock,
            limits=Limits(**{"max_queue": 8} | limits),
            totals=self.totals,
        )
        self.holders = []

    async def request(self, model, load=AUTOMATIC, keep_alive=None):
        holder = Holder(self.scheduler, model, load, keep_alive)
        self.holders.append(holder)
        await settle()
        return holder

    async def load(self, model, load=AUTOMATIC, keep_alive=None):
        holder = await self.request(model, load, keep_alive)
        await self.loads.finish()
        assert holder.runner is not None
        return holder

    @property
    def loaded(self):
        return [runner.model.architecture for runner, _ in self.scheduler.loaded()]


@asynccontextmanager
async def fleet(**settings):
    made = Fleet(**settings)
    running = asyncio.ensure_future(made.scheduler.run())
    try:
        yield made
    finally:
        tasks = [running, *(holder.task for holder in made.holders)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_a_model_is_listed_only_when_its_load_is_complete():
    async with fleet() as f:
        holder = await f.request(CHAT)
        assert (holder.runner, f.loaded) == (None, [])
        await f.loads.finish()
        assert holder.runner.model is CHAT
        assert f.loaded == ["extractive"]


async def test_requests_for_a_loading_model_share_its_load():
    async with fleet() as f:
        holders = [await f.request(CHAT) for _ in range(3)]
        await f.loads.finish()
        assert len({id(holder.runner) for holder in holders}) == 1
        assert f.loads.log == ["start extractive", "end extractive"]


async def test_models_are_loaded_one_after_another():
    async with fleet() as f:
        await f.request(CHAT)
        await f.request(EMBED)
        assert f.loads.log == ["start extractive"]
        await f.loads.finish()
        assert f.loads.log == ["start extractive", "end extractive", "start bert"]


async def test_a_loaded_model_serves_while_another_loads():
    async with fleet() as f:
        await f.load(CHAT)
        await f.request(EMBED)
        assert (await f.request(CHAT)).runner is not None


async def test_a_load_ends_with_its_requester_and_starts_anew_for_the_next():
    async with fleet() as f:
        first = await f.request(CHAT)
        second = await f.request(CHAT)
        await first.disconnect()
        assert f.loads.log == ["start extractive", "abort extractive", "start extractive"]
        await f.loads.finish()
        assert second.runner is not None


async def test_a_waiter_that_left_is_skipped():
    async with fleet() as f:
        await f.request(CHAT)
        waiter = await f.request(EMBED)
        await waiter.disconnect()
        await f.loads.finish()
        assert f.loads.log == ["start extractive", "end extractive"]


async def test_the_queue_is_bounded_besides_the_request_in_work():
    async with fleet(max_queue=2) as f:
        holders = [await f.request(CHAT) for _ in range(5)]
        assert [holder.error is not None for holder in holders] == [False] * 3 + [True] * 2


async def test_the_bound_does_not_apply_to_a_loaded_model():
    async with fleet(max_queue=1) as f:
        await f.load(CHAT)
        holders = [await f.request(CHAT) for _ in range(10)]
        assert all(holder.runner for holder in holders)


async def test_slots_are_given_in_order_of_arrival():
    async with fleet(num_parallel=2) as f:
        runner = (await f.load(CHAT)).runner
        order = []

        async def work(number, leave):
            async with runner.slots:
                order.append(number)
                await leave.wait()

        leaves = [asyncio.Event() for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for number, leave in enumerate(leaves):
                group.create_task(work(number, leave))
            await settle()
            assert order == [0, 1]
            leaves[1].set()
            await settle()
            assert order == [0, 1, 2]
            for leave in leaves:
                leave.set()
        assert order == [0, 1, 2, 3]


async def test_an_embedding_model_has_one_slot_whatever_the_setting():
    async with fleet(num_parallel=4) as f:
        runner = (await f.load(EMBED)).runner
        async with runner.slots:
            assert runner.slots.locked()


async def test_other_load_options_drain_and_reload_the_model():
    async with fleet() as f:
        old = await f.load(CHAT)
        new = await f.request(CHAT, SMALL)
        assert new.runner is None
        await old.release()
        await f.loads.finish()
        assert new.runner.context_tokens == 2048
        assert f.loads.log == ["start extractive", "end extractive"] * 2


async def test_a_reload_is_starved_by_requests_with_the_loaded_options():
    async with fleet() as f:
        first = await f.load(CHAT)
        waiting = await f.request(CHAT, SMALL)
        second = await f.request(CHAT)
        await first.release()
        assert second.runner is not None
        assert waiting.runner is None
        await second.release()
        await f.loads.finish()
        assert waiting.runner is not None


async def test_an_idle_model_is_evicted_for_another():
    async with fleet(max_loaded_models=1) as f:
        await (await f.load(CHAT)).release()
        await f.load(EMBED)
        assert f.loaded == ["bert"]


async def test_eviction_waits_until_the_model_is_idle():
    async with fleet(max_loaded_models=1) as f:
        busy = await f.load(CHAT)
        await f.request(EMBED)
        assert f.loaded == ["extractive"]
        await busy.release()
        await f.loads.finish()
        assert f.loaded == ["bert"]


async def test_an_idle_model_goes_when_its_keep_alive_ends():
    async with fleet() as f:
        await (await f.load(CHAT)).release()
        await f.clock.advance(299)
        assert f.loaded == ["extractive"]
        await f.clock.advance(2)
        assert f.loaded == []


async def test_the_timer_starts_when_the_last_request_ends():
    async with fleet() as f:
        first = await f.load(CHAT)
        await f.clock.advance(1000)
        assert f.loaded == ["extractive"]
        await first.release()
        await f.clock.advance(200)
        await (await f.request(CHAT)).release()
        await f.clock.advance(200)
        assert f.loaded == ["extractive"]


async def test_expires_at_is_not_advanced_while_busy():
    async with fleet() as f:
        await (await f.load(CHAT)).release()
        [(_, before)] = f.scheduler.loaded()
        await f.clock.advance(100)
        await f.request(CHAT)
        [(_, during)] = f.scheduler.loaded()
        assert before == during == 1300


async def test_the_last_explicit_keep_alive_sticks():
    async with fleet() as f:
        await (await f.load(CHAT, keep_alive=20)).release()
        await f.clock.advance(10)
        await (await f.request(CHAT)).release()
        await f.clock.advance(19)
        assert f.loaded == ["extractive"]
        await f.clock.advance(2)
        assert f.loaded == []


async def test_keep_alive_for_ever_never_expires():
    async with fleet() as f:
        await (await f.load(CHAT, keep_alive=FOREVER_SECONDS)).release()
        await f.clock.advance(1e9)
        assert f.loaded == ["extractive"]


async def test_keep_alive_zero_unloads_when_the_request_ends():
    async with fleet() as f:
        holder = await f.load(CHAT, keep_alive=0)
        assert f.loaded == ["extractive"]
        await holder.release()
        assert f.loaded == []


async def test_expire_unloads_once_no_request_holds_the_model():
    async with fleet() as f:
        holder = await f.load(CHAT)
        f.scheduler.expire(CHAT)
        assert f.loaded == ["extractive"]
        await holder.release()
        assert f.loaded == []
        f.scheduler.expire(CHAT)


async def test_the_model_that_stays_longest_is_listed_first():
    async with fleet() as f:
        await (await f.load(CHAT, keep_alive=50)).release()
        await (await f.load(EMBED, keep_alive=500)).release()
        assert f.loaded == ["bert", "extractive"]


async def test_a_grant_that_comes_with_the_disconnect_is_given_back():
    async with fleet() as f:
        holder = await f.request(CHAT, keep_alive=0)
        f.loads._finish.set()
        while not f.scheduler.loaded():
            await asyncio.sleep(0)
        await holder.disconnect()
        assert f.loaded == []


async def test_a_load_that_fails_fails_its_requester_only():
    async with fleet() as f:
        first = await f.request(CHAT)
        second = await f.request(EMBED)
        f.loads.fail_next = True
        await f.loads.finish()
        assert isinstance(first.error, LoadError)
        await f.loads.finish()
        assert second.runner.model is EMBED
        assert (f.totals.loads, f.totals.failed_loads) == (2, 1)


async def test_models_are_evicted_until_there_is_memory():
    memory = EMBED.size_bytes
    async with fleet(memory_bytes=memory) as f:
        await (await f.load(CHAT)).release()
        await f.load(EMBED)
        assert f.loaded == ["bert"]
        assert f.totals.evictions == 1


async def test_a_model_larger_than_the_memory_fails_and_the_loader_goes_on():
    async with fleet(memory_bytes=CHAT.size_bytes) as f:
        assert isinstance((await f.request(EMBED)).error, LoadError)
        await f.load(CHAT)
        assert f.loaded == ["extractive"]


async def test_a_dead_model_is_loaded_anew_by_the_next_request():
    async with fleet() as f:
        first = await f.load(CHAT)
        f.scheduler.kill(CHAT)
        second = await f.request(CHAT)
        assert second.runner is None
        await first.release()
        await f.loads.finish()
        assert second.runner is not first.runner
        assert (f.totals.loads, f.totals.evictions) == (2, 0)


async def test_models_with_the_same_weights_share_what_is_loaded():
    twin = replace(CHAT, name=replace(CHAT.name, model="twin"))
    async with fleet() as f:
        first = await f.load(CHAT)
        assert (await f.request(twin)).runner is first.runner


async def test_a_model_may_have_more_or_fewer_slots_than_the_server_says():
    own = replace(CHAT, parallel=3)
    async with fleet(num_parallel=1) as f:
        runner = (await f.load(own)).runner
        for _ in range(3):
            assert not runner.slots.locked()
            await runner.slots.acquire()
        assert runner.slots.locked()


async def test_of_idle_models_the_one_with_the_smallest_keep_alive_is_evicted():
    third = replace(CHAT, name=replace(CHAT.name, model="third"), file="third")
    async with fleet(max_loaded_models=2) as f:
        await (await f.load(CHAT, keep_alive=600)).release()
        await (await f.load(EMBED, keep_alive=60)).release()
        await f.load(third)
        assert {runner.model.name.model for runner, _ in f.scheduler.loaded()} == {
            "extractive-standin",
            "third",
        }
