"""Notices reach all who asked, gaps are told, and a lost connection is made again, not in haste."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.cache.notices import Notices
from services.cache.ports import Notice, StoreFailure
from services.common.tasks import in_background

LOST = StoreFailure("connection lost")


class Switchboard:
    """Passes on what the test puts in; a failure put in ends the subscription."""

    def __init__(self) -> None:
        self.attempts: list[float] = []
        self.channels: list[bytes] = []
        self.reachable = True
        self.incoming: asyncio.Queue[Notice | StoreFailure] = asyncio.Queue()
        self.clock = None

    @asynccontextmanager
    async def listen(self, channels) -> AsyncIterator[AsyncIterator[Notice]]:
        self.attempts.append(self.clock.monotonic())
        self.channels = list(channels)
        if not self.reachable:
            raise LOST

        async def received() -> AsyncIterator[Notice]:
            while True:
                item = await self.incoming.get()
                if isinstance(item, StoreFailure):
                    raise item
                yield item

        yield received()


@pytest.fixture
def board(clock) -> Switchboard:
    one = Switchboard()
    one.clock = clock
    return one


@pytest.fixture
def notices(board, clock) -> Notices:
    return Notices(board, clock=clock)


async def test_a_notice_reaches_all_who_asked_for_its_channel(notices, board, clock) -> None:
    heard: list[tuple[str, bytes]] = []
    notices.on(b"a", lambda payload: heard.append(("first", payload)))
    notices.on(b"a", lambda payload: heard.append(("second", payload)))
    notices.on(b"b", lambda payload: heard.append(("third", payload)))
    async with in_background(notices.run()):
        await clock.advance(0)
        assert notices.connected
        assert board.channels == [b"a", b"b"]
        for notice in (Notice(b"a", b"1"), Notice(b"b", b"2"), Notice(b"c", b"3")):
            board.incoming.put_nowait(notice)
        await clock.advance(0)
    assert heard == [("first", b"1"), ("second", b"1"), ("third", b"2")]


async def test_every_connection_is_a_gap_the_first_included(notices, board, clock) -> None:
    gaps: list[bool] = []
    notices.on_gap(lambda: gaps.append(notices.connected))
    async with in_background(notices.run()):
        await clock.advance(0)
        assert gaps == [True]
        board.incoming.put_nowait(LOST)
        await clock.advance(0)
        assert not notices.connected
        await clock.advance(0.1)
        assert gaps == [True, True]


async def test_pauses_grow_while_nobody_is_reached(notices, board, clock) -> None:
    board.reachable = False
    async with in_background(notices.run()):
        await clock.advance(7.5)
        started = board.attempts[0]
        passed = [round(at - started, 1) for at in board.attempts]
        assert passed == [0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1, 7.1]
        board.reachable = True
        await clock.advance(2)
        assert notices.connected


async def test_a_connection_that_breaks_at_once_over_and_over_is_not_made_in_haste(
    notices, board, clock
) -> None:
    for _ in range(1000):
        board.incoming.put_nowait(LOST)
    async with in_background(notices.run()):
        await clock.advance(60)
    assert len(board.attempts) < 40


async def test_after_a_lasting_connection_the_next_is_made_soon(notices, board, clock) -> None:
    board.reachable = False
    async with in_background(notices.run()):
        await clock.advance(20)
        board.reachable = True
        await clock.advance(20)
        board.attempts.clear()
        board.incoming.put_nowait(LOST)
        await clock.advance(0.15)
        assert len(board.attempts) == 1
        assert notices.connected


async def test_the_mistake_of_one_handler_is_logged_and_costs_nobody_else(
    notices, board, clock, caplog
) -> None:
    heard: list[bytes] = []

    def stumble(payload: bytes) -> None:
        raise KeyError(payload)

    notices.on(b"a", stumble)
    notices.on(b"a", heard.append)
    async with in_background(notices.run()):
        await clock.advance(0)
        board.incoming.put_nowait(Notice(b"a", b"1"))
        board.incoming.put_nowait(Notice(b"a", b"2"))
        await clock.advance(0)
        assert notices.connected
    assert heard == [b"1", b"2"]
    assert [record.message for record in caplog.records] == ["a notice was not taken"] * 2
