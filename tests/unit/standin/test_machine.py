"""Rates, contention and batches, in simulated time."""

import asyncio
import heapq

import pytest

from services.standin.machine import Machine


class SteppingClock:
    """Time that jumps to the next sleeper when nothing else can run."""

    def __init__(self):
        self.seconds = 1000.0
        self.sleeps = 0
        self._sleepers = []

    def monotonic(self):
        return self.seconds

    async def sleep(self, seconds):
        self.sleeps += 1
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.seconds + seconds, self.sleeps, wake))
        await wake

    async def run(self, *tasks):
        while not all(task.done() for task in tasks):
            for _ in range(20):
                await asyncio.sleep(0)
            if self._sleepers:
                due, _, wake = heapq.heappop(self._sleepers)
                self.seconds = max(self.seconds, due)
                if not wake.done():
                    wake.set_result(None)
        return [task.result() for task in tasks]


async def work(clock, machine, units, rate, slowdown=lambda: 1.0, after=0.0):
    if after:
        await clock.sleep(after)
    began = clock.seconds
    with machine.use():
        steps = [done async for done in machine.work(units, rate, slowdown)]
    return clock.seconds - began, steps


async def run(*jobs, contention=1.0):
    clock = SteppingClock()
    machine = Machine(clock, contention, 0.005)
    tasks = [asyncio.ensure_future(work(clock, machine, **job)) for job in jobs]
    return await clock.run(*tasks), clock


async def test_work_alone_takes_its_rate():
    [(seconds, steps)], _ = await run({"units": 20, "rate": 40})
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert steps == list(range(1, 21))


async def test_two_share_the_machine():
    results, _ = await run({"units": 20, "rate": 40}, {"units": 20, "rate": 40})
    assert [seconds for seconds, _ in results] == pytest.approx([1.0, 1.0], abs=0.02)


async def test_without_contention_they_do_not_disturb_each_other():
    results, _ = await run(*[{"units": 20, "rate": 40}] * 4, contention=0)
    assert [seconds for seconds, _ in results] == pytest.approx([0.5] * 4, abs=0.02)


async def test_the_share_changes_with_who_is_active():
    long = {"units": 40, "rate": 40}
    short = {"units": 10, "rate": 40, "after": 0.25}
    ((seconds, _), (short_seconds, _)), _ = await run(long, short)
    assert short_seconds == pytest.approx(0.5, abs=0.03)
    assert seconds == pytest.approx(1.25, abs=0.03)


async def test_at_a_high_rate_many_units_come_with_one_timer():
    [(seconds, steps)], clock = await run({"units": 1000, "rate": 2000})
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert steps[0] <= 2
    assert steps[-1] == 1000
    assert clock.sleeps < 110


async def test_a_slowdown_acts_on_work_that_has_begun():
    ratio = [1.0]
    clock = SteppingClock()
    machine = Machine(clock, 1.0, 0.005)

    async def change():
        await clock.sleep(0.25)
        ratio[0] = 3.0

    job = work(clock, machine, units=20, rate=40, slowdown=lambda: ratio[0])
    tasks = [asyncio.ensure_future(job), asyncio.ensure_future(change())]
    (seconds, _), _ = await clock.run(*tasks)
    assert seconds == pytest.approx(0.25 + 0.75, abs=0.06)


async def test_no_units_take_no_time():
    [(seconds, steps)], _ = await run({"units": 0, "rate": 1})
    assert (seconds, steps) == (0, [])
