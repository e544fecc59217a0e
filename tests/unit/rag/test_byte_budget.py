import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.byte_budget import ByteBudget


async def waiting(budget, byte_count):
    """Starts to acquire bytes, and returns once that waits or is done."""
    task = asyncio.create_task(budget.acquire(byte_count))
    await asyncio.sleep(0)
    return task


async def test_bytes_within_the_limit_are_had_at_once():
    budget = ByteBudget(10)
    await budget.acquire(4)
    await budget.acquire(6)
    assert budget.held_bytes == 10


async def test_bytes_over_the_limit_are_waited_for():
    budget = ByteBudget(10)
    await budget.acquire(7)
    second = await waiting(budget, 4)
    assert not second.done()
    budget.release(7)
    await second
    assert budget.held_bytes == 4


async def test_who_comes_later_does_not_overtake():
    budget = ByteBudget(10)
    await budget.acquire(7)
    large, small = await waiting(budget, 8), await waiting(budget, 1)
    assert not small.done()
    budget.release(7)
    await large
    await small
    assert budget.held_bytes == 9


async def test_more_than_the_limit_is_had_alone():
    budget = ByteBudget(10)
    await budget.acquire(1)
    huge = await waiting(budget, 1000)
    assert not huge.done()
    budget.release(1)
    await huge
    assert budget.held_bytes == 10
    budget.release(1000)
    assert budget.held_bytes == 0


@pytest.mark.parametrize("granted_already", [False, True])
async def test_who_leaves_takes_nothing_and_lets_those_behind_in(granted_already):
    budget = ByteBudget(10)
    await budget.acquire(7)
    large, small = await waiting(budget, 8), await waiting(budget, 3)
    if granted_already:
        budget.release(7)
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    await small
    assert budget.held_bytes == (3 if granted_already else 10)


@given(
    uses=st.lists(
        st.tuples(st.integers(0, 150), st.integers(0, 4), st.none() | st.integers(0, 8)),
        max_size=20,
    )
)
def test_whatever_comes_and_goes_the_limit_holds_and_all_comes_back(uses):
    budget = ByteBudget(100)

    async def use(byte_count, turns):
        await budget.acquire(byte_count)
        try:
            assert 0 <= budget.held_bytes <= 100
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            budget.release(byte_count)

    async def leave(task, turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def all_of_them():
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for byte_count, turns, turns_until_left in uses:
                task = group.create_task(use(byte_count, turns))
                if turns_until_left is not None:
                    group.create_task(leave(task, turns_until_left))

    asyncio.run(all_of_them())
    assert budget.held_bytes == 0
