"""Callers in line wait as long as they wish and can, and learn one outcome."""

import asyncio

import pytest

from services.cache.core.failures import Failure
from services.cache.core.fills import LiveText, Part, Piece
from services.cache.core.flights import Interrupted, Missed, WaitEnded
from services.cache.core.model import Control, Hit, Level
from services.cache.waiters import Waiter
from tests.kit.virtual_time import run_virtually

TOKEN = "1700000000000001-a"


def make_waiter(
    *, wait_seconds: float = 30.0, remaining_seconds: float = 100.0, streaming: bool = True
) -> Waiter:
    return Waiter(
        control=Control(),
        lease_seconds=10.0,
        wait_seconds=wait_seconds,
        remaining_seconds=remaining_seconds,
        streaming=streaming,
        came_ms=1000,
    )


async def seconds_until_settled(waiter: Waiter) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    while waiter.outcome is None:
        await waiter.news()
    return loop.time() - started


@pytest.mark.parametrize(
    ("wait_seconds", "remaining_seconds", "expected"),
    [(30.0, 100.0, 30.0), (30.0, 10.0, 9.95), (0.0, 10.0, 0.0), (5.0, 0.01, 0.0)],
)
def test_the_wait_for_others_ends_with_its_limit_or_before_the_deadline(
    wait_seconds, remaining_seconds, expected
) -> None:
    async def run() -> None:
        waiter = make_waiter(wait_seconds=wait_seconds, remaining_seconds=remaining_seconds)
        waiter.begin_waiting(TOKEN)
        assert await seconds_until_settled(waiter) == pytest.approx(expected, abs=1e-6)
        assert waiter.outcome == WaitEnded()
        assert waiter.waited_seconds == pytest.approx(expected, abs=1e-6)

    run_virtually(run())


@pytest.mark.parametrize(
    ("over_ms", "may_have"), [(None, True), (999, False), (1000, True), (2000, True)]
)
def test_what_was_handed_over_before_it_came_is_not_for_it(over_ms, may_have) -> None:
    async def run() -> None:
        waiter = make_waiter(wait_seconds=1.0, remaining_seconds=1.0)
        hit = Hit(
            payload=b"",
            level=Level.SHARED,
            created_ms=0,
            age_seconds=0.0,
            remaining_seconds=1.0,
            handed_over_ms=over_ms,
        )
        assert waiter.may_have(hit) is may_have
        waiter.settle(Missed())

    run_virtually(run())


def test_before_anybody_computes_the_limit_does_not_count() -> None:
    async def run() -> None:
        waiter = make_waiter(wait_seconds=1.0, remaining_seconds=10.0)
        assert await seconds_until_settled(waiter) == pytest.approx(10.0)
        assert waiter.outcome == Missed()
        assert waiter.waited_seconds is None

    run_virtually(run())


def test_who_has_begun_a_text_follows_it_to_the_end() -> None:
    async def run() -> None:
        waiter = make_waiter(wait_seconds=1.0, remaining_seconds=10.0)
        waiter.begin_waiting(TOKEN)
        waiter.offer_text(LiveText(TOKEN, limit_bytes=100))
        waiter.begin_text()
        assert await seconds_until_settled(waiter) == pytest.approx(9.95)

    run_virtually(run())


def test_only_the_first_outcome_counts() -> None:
    async def run() -> None:
        waiter = make_waiter()
        waiter.settle(Interrupted(Failure()))
        waiter.settle(Missed())
        waiter.begin_waiting(TOKEN)
        assert waiter.outcome == Interrupted(Failure())
        assert waiter.waits_since is None

    run_virtually(run())


def test_text_wakes_those_who_stream_and_nobody_else() -> None:
    async def run() -> None:
        text = LiveText(TOKEN, limit_bytes=100)
        streaming, unary = make_waiter(), make_waiter(streaming=False)
        for waiter in (streaming, unary):
            waiter.offer_text(text)
        await streaming.news()
        text.append(Piece(Part.TEXT, "x"))
        await streaming.news()
        assert unary.text is None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await unary.news()

    run_virtually(run())


def test_who_has_been_sent_text_changes_to_no_other() -> None:
    async def run() -> None:
        first, second, third = (LiveText(TOKEN, limit_bytes=100) for _ in range(3))
        waiter = make_waiter()
        waiter.offer_text(first)
        waiter.offer_text(second)
        assert waiter.text is second
        waiter.begin_text()
        waiter.offer_text(third)
        assert waiter.text is second
        assert not waiter.is_void
        second.close(Failure())
        assert waiter.is_void

    run_virtually(run())
