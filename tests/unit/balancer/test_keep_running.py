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
