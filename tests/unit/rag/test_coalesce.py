"""Who wants the same at the same time shares one computation, whoever of them stays."""

import asyncio

import pytest

from services.common.errors import PeerUnavailable
from services.rag.coalesce import Coalescer


class Computation:
    def __init__(self):
        self.count = 0
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self):
        self.count += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.count


async def begun(*tasks):
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_one_computation_serves_all_who_ask_meanwhile():
    flights, compute = Coalescer(), Computation()
    tasks = [asyncio.create_task(flights.run("key", compute)) for _ in range(5)]
    other = asyncio.create_task(flights.run("other", compute))
    await begun()
    compute.go.set()
    assert [await task for task in tasks] == [2] * 5
    assert await other == 2
    assert await flights.run("key", compute) == 3


async def test_whoever_begins_may_leave():
    flights, compute = Coalescer(), Computation()
    first, second = (asyncio.create_task(flights.run("key", compute)) for _ in range(2))
    await begun()
    first.cancel()
    await asyncio.wait([first])
    compute.go.set()
    assert await second == 1


async def test_when_all_have_left_the_computation_ends():
    flights, compute = Coalescer(), Computation()
    tasks = [asyncio.create_task(flights.run("key", compute)) for _ in range(2)]
    await begun()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    async with asyncio.timeout(30):
        await compute.cancelled.wait()
    compute.go.set()
    assert await flights.run("key", compute) == 2


async def test_a_failure_is_everybodys_and_is_not_remembered():
    flights = Coalescer()

    async def fail():
        await asyncio.sleep(0)
        raise PeerUnavailable("peer", "away")

    tasks = [asyncio.create_task(flights.run("key", fail)) for _ in range(2)]
    for task in tasks:
        with pytest.raises(PeerUnavailable):
            await task
    compute = Computation()
    compute.go.set()
    assert await flights.run("key", compute) == 1
