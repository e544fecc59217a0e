"""Loops that fail begin anew."""

import asyncio
import logging
from itertools import pairwise

import pytest

from services.balancer.keep_running import keep_running
from tests.kit.virtual_time import LoopClock, run_virtually


def test_a_loop_that_fails_is_logged_and_begins_anew_later_each_time(caplog):
    begun = []

    async def run():
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 4:
            # Long enough for what went wrong before to be forgotten.
            await asyncio.sleep(1000)
        if len(begun) < 6:
            raise RuntimeError("a fault of ours")
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(keep_running(run, clock=LoopClock()))
        await asyncio.sleep(1020)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with caplog.at_level(logging.ERROR):
        run_virtually(main())
    pauses = [after - before for before, after in pairwise(begun)]
    assert pauses == [1, 2, 4, 1001, 2]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 5
    assert all(record.exc_info for record in caplog.records)


def test_the_pause_has_a_limit():
    begun = []

    async def run():
        begun.append(asyncio.get_running_loop().time())
        raise RuntimeError("a fault of ours")

    async def main():
        task = asyncio.create_task(keep_running(run, clock=LoopClock()))
        await asyncio.sleep(1000)
        task.cancel()
        await asyncio.wait([task])

    run_virtually(main())
    assert begun[-1] - begun[-2] == 60


def test_a_loop_whose_own_wait_is_cancelled_begins_anew(caplog):
    begun = []

    async def run():
        begun.append(asyncio.get_running_loop().time())
        if len(begun) == 1:
            awaited = asyncio.get_running_loop().create_future()
            awaited.cancel()
            await awaited
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(keep_running(run, clock=LoopClock()))
        await asyncio.sleep(10)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    with caplog.at_level(logging.ERROR):
        run_virtually(main())
    assert len(begun) == 2
    assert len(caplog.records) == 1


def test_a_loop_that_fails_as_it_is_told_to_end_ends():
    begun = []

    async def run():
        begun.append(None)
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("a fault of ours")

    async def main():
        task = asyncio.create_task(keep_running(run, clock=LoopClock()))
        await asyncio.sleep(10)
        task.cancel()
        with pytest.raises(RuntimeError):
            await task

    run_virtually(main())
    assert len(begun) == 1


def test_a_loop_that_waits_to_begin_anew_ends_at_once():
    async def run():
        raise RuntimeError("a fault of ours")

    async def main():
        task = asyncio.create_task(keep_running(run, clock=LoopClock()))
        await asyncio.sleep(60)
        before = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.get_running_loop().time() == before
        assert task.cancelled()

    run_virtually(main())


def test_a_loop_that_ends_by_itself_begins_anew_after_a_pause(caplog):
    begun = []

    async def run():
        begun.append(asyncio.get_running_loop().time())

    async def main():
        task = asyncio.create_task(keep_running(run, clock=LoopClock()))
        await asyncio.sleep(3.5)
        task.cancel()
        await asyncio.wait([task])

    with caplog.at_level(logging.ERROR):
        run_virtually(main())
    assert begun == [1000, 1001, 1003]
    assert len(caplog.records) == 3
