"""What becomes of those who wait, where nothing but the queue decides."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from services.balancer.core.admission import QueueLimits
from services.balancer.core.demand import Kind, Priority
from services.balancer.core.errors import DeadlineUnreachable, QueueFull
from services.balancer.core.snapshot import Residency
from services.balancer.scheduler import Scheduler
from tests.kit.balancer import (
    FleetUnderTest,
    MemoryServer,
    a_chat_demand,
    a_chat_model,
    an_embedding_model,
)
from tests.kit.virtual_time import run_virtually

LONG, NIMBLE = "long:latest", "nimble:latest"
HUGE_BYTES, SMALL_BYTES = 40_000_000_000, 1_000_000_000
BATCH = Priority.BATCH


class Queue:
    """A queue before two backends with a model in memory each, one much larger than the other."""

    def __init__(self, **limits):
        models = [a_chat_model(LONG, size_bytes=HUGE_BYTES)]
        models.append(a_chat_model(NIMBLE, size_bytes=SMALL_BYTES))
        self.kit = FleetUnderTest(*(MemoryServer(each) for each in models))
        self.fleet = self.kit.fleet
        self.scheduler = Scheduler(
            self.fleet,
            self.kit.reservations,
            clock=self.kit.clock,
            rng=Random(1),
            metrics=self.kit.metrics,
            limits=QueueLimits(**limits),
        )
        self.tasks = []

    async def warm_up(self):
        await self.kit.check()
        for backend in self.fleet.backends.values():
            for state in backend.models.values():
                state.residency = Residency.WARM
                state.view = None

    def demand(self, model=LONG, *, seconds=None, **fields):
        now = self.kit.clock.monotonic()
        deadline = None if seconds is None else now + seconds
        fields = {"id": self.scheduler.new_id(), "deadline": deadline} | fields
        return replace(a_chat_demand(model, now), **fields)

    def ask(self, demand):
        """Puts a request into the queue, which ends with what becomes of it."""
        task = asyncio.get_running_loop().create_task(self.scheduler.take(demand))
        self.tasks.append(task)
        return task

    async def fill(self, count, model=LONG, **fields):
        """Puts requests into the queue behind one that holds the only slot, and returns them."""
        tasks = [self.ask(self.demand(model, **fields)) for _ in range(count + 1)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [True] + [False] * count
        return tasks[1:]

    def explained(self, demand):
        """When its first token would come, as `Explain` says."""
        return self.scheduler.assess(demand)[1].placement.terms.first_token

    async def refused(self, demand):
        """What a request is refused with that is refused before the queue is looked at twice."""
        with pytest.raises((QueueFull, DeadlineUnreachable)) as caught:
            await asyncio.wait_for(self.ask(demand), 0.25)
        return caught.value


@asynccontextmanager
async def opened_queue(limits):
    queue = Queue(**limits)
    await queue.warm_up()
    looking = asyncio.create_task(queue.scheduler.run())
    try:
        yield queue
    finally:
        for task in (looking, *queue.tasks):
            task.cancel()
        await asyncio.gather(looking, *queue.tasks, return_exceptions=True)


def with_queue(test, **limits):
    async def main():
        async with opened_queue(limits) as queue:
            await test(queue)

    run_virtually(main())


# What those are told who are refused.


def test_who_finds_no_room_is_told_of_its_own_wait_and_not_of_that_for_another_model():
    async def test(queue):
        await queue.fill(0, NIMBLE)
        await queue.fill(4)
        for model in (NIMBLE, LONG):
            demand = queue.demand(model)
            error = await queue.refused(demand)
            assert error.reason == "QUEUE_FULL"
            assert error.retry_delay_seconds == pytest.approx(queue.explained(demand))
        assert queue.explained(queue.demand(LONG)) > 20 * queue.explained(queue.demand(NIMBLE))

    with_queue(test, interactive=4)


def test_the_wait_told_is_that_of_the_class_asked_for():
    async def test(queue):
        await queue.fill(2)
        waits = []
        for priority in (Priority.SYSTEM, BATCH):
            demand = queue.demand(priority=priority)
            waits.append(queue.explained(demand))
            error = await queue.refused(demand)
            assert error.retry_delay_seconds == pytest.approx(waits[-1])
        assert 2 * waits[0] < waits[1]

    with_queue(test, system=0, batch=0)


def test_who_has_to_go_for_another_is_told_of_its_own_wait():
    async def test(queue):
        await queue.fill(1)
        batch = queue.demand(priority=BATCH)
        shed = queue.ask(batch)
        await asyncio.sleep(0)
        predicted_seconds = queue.explained(batch)
        queue.ask(queue.demand())
        with pytest.raises(QueueFull) as caught:
            await shed
        assert caught.value.retry_delay_seconds == pytest.approx(predicted_seconds)

    with_queue(test, interactive=1, batch=1)


def test_who_could_be_served_at_once_but_for_the_limit_is_not_asked_to_come_again_at_once():
    async def test(queue):
        await queue.fill(1)
        demand = queue.demand(NIMBLE, prompt_token_count=1)
        error = await queue.refused(demand)
        assert queue.explained(demand) < 0.05
        assert error.metadata["predicted_wait_seconds"] == "0.0"
        assert error.retry_delay_seconds == 0.1

    with_queue(test, interactive=1)


def test_where_nothing_can_be_predicted_those_refused_are_told_something():
    async def test(queue):
        state = queue.fleet.model_of(queue.kit.backend(1), NIMBLE)
        state.residency = Residency.INSTALLED
        state.view = None
        state.load_barred_until = queue.kit.clock.monotonic() + 3600.0
        await queue.fill(1)
        error = await queue.refused(queue.demand(NIMBLE))
        assert error.retry_delay_seconds == 1.0
        impatient = queue.demand(NIMBLE, maximum_wait_seconds=0.5, priority=BATCH)
        assert (await queue.refused(impatient)).reason == "QUEUE_FULL"

    with_queue(test, interactive=1)


# Those so far behind that a plan does not come to them.


def test_a_deadline_that_cannot_be_met_is_refused_at_once_behind_however_many():
    async def test(queue):
        await queue.fill(100, NIMBLE)
        nobody = [queue.ask(queue.demand(NIMBLE, priority=BATCH)) for _ in range(30)]
        error = await queue.refused(queue.demand(NIMBLE, priority=BATCH, seconds=6.0))
        assert error.reason == "DEADLINE_UNREACHABLE"
        # Of those before it, 32 at least are counted.
        assert float(error.metadata["predicted_wait_seconds"]) > 32 * 0.35
        assert float(error.metadata["remaining_seconds"]) == pytest.approx(6.0, abs=0.2)
        assert queue.fleet.counters.unreachable_deadline_count == 1
        assert not any(task.done() for task in nobody)

    with_queue(test)


def test_who_accepts_a_wait_is_refused_where_it_will_be_longer_behind_however_many():
    async def test(queue):
        await queue.fill(100, NIMBLE)
        error = await queue.refused(queue.demand(NIMBLE, priority=BATCH, maximum_wait_seconds=6.0))
        assert error.reason == "QUEUE_FULL"
        assert error.retry_delay_seconds > 32 * 0.35
        patient = queue.ask(queue.demand(NIMBLE, priority=BATCH, maximum_wait_seconds=600.0))
        await asyncio.sleep(0.5)
        assert not patient.done()

    with_queue(test)


def test_who_could_still_be_served_is_not_refused_behind_however_many():
    async def test(queue):
        waiting = await queue.fill(100, NIMBLE)
        other = queue.ask(queue.demand(LONG, priority=BATCH, seconds=6.0))
        for task in waiting:
            task.cancel()
        # Those before it are gone before the queue is looked at.
        next_one = queue.ask(queue.demand(NIMBLE, priority=BATCH, seconds=6.0))
        await asyncio.sleep(1.0)
        assert (await other).backend is queue.kit.backend(0)
        assert not next_one.done()

    with_queue(test)


def test_texts_are_not_refused_because_of_others_with_which_they_share_a_slot():
    async def test(queue):
        queue.kit.servers["h1:11434"].installed[NIMBLE] = an_embedding_model(
            NIMBLE, size_bytes=SMALL_BYTES
        )
        await queue.warm_up()
        texts = {"kind": Kind.EMBED, "output_token_count": 0.0, "prompt_token_count": 1000}
        await queue.fill(100, NIMBLE, **texts)
        late = queue.demand(NIMBLE, priority=BATCH, seconds=1.0, **texts)
        assert queue.explained(late) > 5.0
        task = queue.ask(late)
        await asyncio.sleep(0.25)
        assert not task.done()

    with_queue(test)


def test_what_has_been_waited_counts_where_nothing_gets_on():
    async def test(queue):
        await queue.fill(100, NIMBLE)
        task = queue.ask(queue.demand(NIMBLE, priority=BATCH, maximum_wait_seconds=26.0))
        # The 64 before it take 24 s, as soon as the one that runs has ended.
        await asyncio.sleep(1.0)
        assert not task.done()
        await asyncio.sleep(2.0)
        with pytest.raises(QueueFull):
            task.result()

    with_queue(test)


def test_waits_are_predicted_anew_after_a_moment():
    async def test(queue):
        (waiting,) = await queue.fill(1)
        queue.scheduler.limits = QueueLimits(interactive=0, batch=0)
        first = await queue.refused(queue.demand())
        waiting.cancel()
        await asyncio.sleep(0.25)
        second = await queue.refused(queue.demand())
        assert second.retry_delay_seconds < first.retry_delay_seconds - 10.0

    with_queue(test)


# Why they are refused.


@pytest.mark.parametrize(
    "fields", [{}, {"maximum_wait_seconds": 0.2}, {"seconds": 0.2}], ids=["room", "wait", "late"]
)
@pytest.mark.parametrize("waiting_count", [2, 20, 100])
def test_each_refusal_has_a_decision_that_explains_it(fields, waiting_count):
    async def test(queue):
        await queue.fill(waiting_count, NIMBLE)
        if fields:
            # There is room for it.
            queue.scheduler.limits = QueueLimits()
        demand = queue.demand(NIMBLE, **fields)
        error = await queue.refused(demand)
        decision = queue.scheduler.decisions.find(error.metadata["decision_id"])
        assert decision.refused
        assert decision.demand == demand
        predicted_seconds = decision.assess().placement.terms.first_token
        # What runs has gone on a little, or some of those before it were not counted.
        told_seconds = float(error.metadata["predicted_wait_seconds"])
        assert 0.4 * predicted_seconds < told_seconds < predicted_seconds + 0.06

    with_queue(test, interactive=waiting_count)


def test_those_alike_who_are_refused_together_share_one_decision():
    async def test(queue):
        await queue.fill(2)
        demands = [queue.demand(), queue.demand(), queue.demand(NIMBLE)]
        ids = [(await queue.refused(each)).metadata["decision_id"] for each in demands]
        assert ids[0] == ids[1] != ids[2]

    with_queue(test, interactive=2)
