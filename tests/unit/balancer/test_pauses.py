import asyncio

import pytest

from services.balancer.adapters.pauses import AwakeTimeout, Pauses
from tests.kit.virtual_time import LoopClock, run_virtually, stand_still

LIMIT = 2.0


async def seconds_until_timeout(*pauses_at):
    """Waits for something that never comes; returns for how long.

    Args:
        pauses_at: When the process stands still, and for how long, in the order they come.
    """
    loop = asyncio.get_running_loop()
    began_at = loop.time()

    async def stand_still_now_and_then():
        for at, seconds in pauses_at:
            await asyncio.sleep(began_at + at - loop.time())
            stand_still(seconds)

    with Pauses(LoopClock()) as pauses:
        task = asyncio.create_task(stand_still_now_and_then())
        with pytest.raises(TimeoutError), AwakeTimeout(LIMIT, pauses):
            await asyncio.Event().wait()
        await task
    return loop.time() - began_at


def test_a_process_that_runs_waits_as_long_as_it_may():
    assert run_virtually(seconds_until_timeout()) == pytest.approx(LIMIT)


@pytest.mark.parametrize("at", [0.0, 0.55, 1.95])
@pytest.mark.parametrize("seconds", [0.5, 7.0, 3600.0])
def test_the_time_in_which_it_stands_still_does_not_count(at, seconds):
    waited = run_virtually(seconds_until_timeout((at, seconds)))
    assert LIMIT + seconds - 0.15 <= waited <= LIMIT + seconds + 0.25


def test_what_came_meanwhile_is_read_although_the_time_was_up():
    async def main():
        with Pauses(LoopClock()) as pauses:
            came = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.call_later(LIMIT - 0.01, stand_still, 30.0)
            # Is due while it stands still, and comes after the timer.
            loop.call_later(LIMIT + 5.0, came.set)
            with AwakeTimeout(LIMIT, pauses):
                await came.wait()

    run_virtually(main())


def test_each_pause_is_left_out_also_one_while_the_first_is_made_up_for():
    waited = run_virtually(seconds_until_timeout((0.5, 3.0), (4.5, 2.0)))
    assert LIMIT + 5.0 - 0.3 <= waited <= LIMIT + 5.0 + 0.25


def test_a_loop_that_is_merely_busy_does_not_wait_longer():
    pauses = [(0.095 + 0.14 * number, 0.04) for number in range(12)]
    assert run_virtually(seconds_until_timeout(*pauses)) <= LIMIT + 0.05


def test_what_comes_in_time_is_no_timeout_and_other_errors_stay_what_they_are():
    async def main():
        with Pauses(LoopClock()) as pauses:
            with AwakeTimeout(LIMIT, pauses):
                await asyncio.sleep(LIMIT / 2)
            await asyncio.sleep(LIMIT)
            with pytest.raises(ZeroDivisionError), AwakeTimeout(LIMIT, pauses):
                raise ZeroDivisionError

            async def wait():
                with AwakeTimeout(LIMIT, pauses):
                    await asyncio.Event().wait()

            waiting = asyncio.create_task(wait())
            await asyncio.sleep(LIMIT / 2)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()

    run_virtually(main())


def test_pauses_add_up():
    async def main():
        with Pauses(LoopClock()) as pauses:
            assert pauses.total_seconds == 0.0
            for _ in range(3):
                await asyncio.sleep(1.0)
                stand_still(5.0)
                # At once, before any timer has run.
                before = pauses.total_seconds
                await asyncio.sleep(1.0)
                assert pauses.total_seconds == pytest.approx(before, abs=0.02)
            assert 15.0 - 3 * 0.15 <= pauses.total_seconds <= 15.0
        stand_still(5.0)
        assert pauses.total_seconds <= 15.0

    run_virtually(main())


def test_the_limit_is_that_of_each_block_and_not_of_what_is_between_them():
    async def main():
        with Pauses(LoopClock()) as pauses:
            limit = AwakeTimeout(LIMIT, pauses)
            for _ in range(5):
                with limit:
                    await asyncio.sleep(0.75 * LIMIT)
                # The timer comes now and then while nothing is limited.
                await asyncio.sleep(1.5 * LIMIT)
            loop = asyncio.get_running_loop()
            for _ in range(2):
                with limit:
                    await asyncio.sleep(0.75 * LIMIT)
                began_at = loop.time()
                with pytest.raises(TimeoutError), limit:
                    await asyncio.Event().wait()
                assert loop.time() - began_at == pytest.approx(LIMIT, abs=0.002)
            limit.close()
            assert asyncio.current_task().cancelling() == 0

    run_virtually(main())


@pytest.mark.parametrize("seconds_before_the_limit", [0.005, -0.005])
def test_who_is_cancelled_when_the_time_is_up_stays_cancelled(seconds_before_the_limit):
    async def main():
        with Pauses(LoopClock()) as pauses:

            async def wait():
                with AwakeTimeout(LIMIT, pauses):
                    await asyncio.Event().wait()

            waiting = asyncio.create_task(wait())
            loop = asyncio.get_running_loop()
            # Both come in one turn of the loop, which is a little late.
            loop.call_later(LIMIT - 0.01, stand_still, 0.02)
            loop.call_later(LIMIT - seconds_before_the_limit, waiting.cancel)
            await asyncio.wait([waiting])
            assert waiting.cancelled()

    run_virtually(main())
