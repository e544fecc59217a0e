"""Keeping in step with the shared store: together, in the background, within bounds."""

import asyncio

import pytest

from services.cache.follower import Follower, Knowledge
from services.cache.ports import StoreFailure
from tests.kit.virtual_time import LoopClock, run_virtually


class Store:
    """Takes some time for each step, and may fail."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds
        self.step_count = 0
        self.away = False
        self.faulty = False

    async def follow(self) -> None:
        self.step_count += 1
        await asyncio.sleep(self.seconds)
        if self.away:
            raise StoreFailure("away")
        if self.faulty:
            raise ValueError("a mistake")


def test_callers_share_one_step():
    async def main() -> None:
        store = Store()
        follower = Follower(store.follow, clock=LoopClock())
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(follower.ready(1)) for _ in range(20)]
        assert {call.result() for call in calls} == {Knowledge.IN_STEP}
        assert store.step_count == 1

    run_virtually(main())


@pytest.mark.parametrize(("age", "steps"), [(4.9, 1), (5.2, 2)])
def test_what_is_known_is_used_for_five_seconds(age, steps):
    async def main() -> None:
        store = Store()
        follower = Follower(store.follow, clock=LoopClock())
        await follower.ready(1)
        await asyncio.sleep(age)
        assert await follower.ready(1) is Knowledge.IN_STEP
        assert store.step_count == steps

    run_virtually(main())


def test_a_change_that_is_heard_of_makes_a_step_at_once():
    async def main() -> None:
        store = Store()
        follower = Follower(store.follow, clock=LoopClock())
        await follower.ready(1)
        follower.fall_behind()
        assert not follower.is_current
        await follower.ready(1)
        assert store.step_count == 2

    run_virtually(main())


def test_a_change_that_is_heard_of_during_a_step_makes_another():
    async def main() -> None:
        store = Store()
        follower = Follower(store.follow, clock=LoopClock())
        step = follower.step()
        await asyncio.sleep(0.005)
        follower.fall_behind()
        assert await step
        assert store.step_count == 2
        assert follower.is_current

    run_virtually(main())


def test_nobody_waits_longer_than_he_will_and_the_step_goes_on():
    async def main() -> None:
        clock = LoopClock()
        store = Store(seconds=3)
        follower = Follower(store.follow, clock=clock)
        started = clock.monotonic()
        assert await follower.ready(0.1) is Knowledge.PENDING
        assert clock.monotonic() - started == pytest.approx(0.1)
        await asyncio.sleep(3)
        assert await follower.ready(0.1) is Knowledge.IN_STEP
        assert store.step_count == 1

    run_virtually(main())


def test_a_caller_who_leaves_ends_nobody_elses_step():
    async def main() -> None:
        store = Store()
        follower = Follower(store.follow, clock=LoopClock())
        first = asyncio.create_task(follower.ready(1))
        second = asyncio.create_task(follower.ready(1))
        await asyncio.sleep(0.001)
        first.cancel()
        assert await second is Knowledge.IN_STEP
        assert store.step_count == 1

    run_virtually(main())


def test_a_store_that_is_away_leaves_what_was_known():
    async def main() -> None:
        store = Store()
        store.away = True
        follower = Follower(store.follow, clock=LoopClock())
        assert await follower.ready(1) is Knowledge.NONE
        store.away = False
        assert await follower.ready(1) is Knowledge.IN_STEP
        store.away = True
        follower.fall_behind()
        knowledge = await follower.ready(1)
        assert knowledge is Knowledge.BEHIND
        assert knowledge.degraded
        assert not follower.is_current

    run_virtually(main())


def test_a_step_under_way_ends_with_the_follower():
    async def main() -> None:
        store = Store(seconds=1e6)
        follower = Follower(store.follow, clock=LoopClock())
        call = asyncio.create_task(follower.ready(1e9))
        await asyncio.sleep(1)
        await follower.close()
        assert await call is Knowledge.NONE

    run_virtually(main())


def test_a_mistake_is_a_failed_step_and_said_once(caplog):
    async def main() -> None:
        store = Store()
        follower = Follower(store.follow, clock=LoopClock())
        assert await follower.ready(1) is Knowledge.IN_STEP
        for said_count in (1, 2):
            store.faulty = True
            follower.fall_behind()
            for _ in range(3):
                assert await follower.ready(1) is Knowledge.BEHIND
                assert not await follower.step()
            assert len(caplog.records) == said_count
            store.faulty = False
            assert await follower.ready(1) is Knowledge.IN_STEP

    run_virtually(main())
