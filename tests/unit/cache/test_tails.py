"""Texts of other replicas are followed from their beginning, or not at all."""

import asyncio

import pytest

from services.cache.background import Background
from services.cache.core.failures import Failure, FailureKind
from services.cache.core.fills import Cursor, LiveText, Part
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.ports import StoreFailure, StreamEntry
from services.cache.tails import Tails
from tests.kit.virtual_time import LoopClock, run_virtually

KEY = EntryKey(b"a" * 27)
FIRST, SECOND = "1700000000000001-a", "1700000000000002-b"


class Streams:
    """Hands out what a test has put in; fails where it has put in a failure."""

    def __init__(self) -> None:
        self.replies: list[list[dict[bytes, bytes]] | StoreFailure] = []
        self.asked_after: list[bytes] = []
        self._count = 0

    async def read_stream(
        self, layer: Layer, key: bytes, after_id: bytes, *, wait_seconds: float, limit: int
    ) -> list[StreamEntry]:
        assert (layer, key) == (Layer.INFERENCE, KEY.stream)
        self.asked_after.append(after_id)
        if not self.replies:
            await asyncio.sleep(wait_seconds)
            return []
        reply = self.replies.pop(0)
        if isinstance(reply, StoreFailure):
            raise reply
        entries = []
        for fields in reply:
            self._count += 1
            entries.append(StreamEntry(b"%d-0" % self._count, fields))
        return entries


def begin(token: str, basis_ms: bytes = b"1700000000000", tags: bytes = b"") -> dict[bytes, bytes]:
    return {b"b": token.encode(), b"m": basis_ms, b"t": tags}


def text(number: int, value: str, part: bytes = b"x") -> dict[bytes, bytes]:
    return {b"n": b"%d" % number, part: value.encode()}


def follow(*replies: list[dict[bytes, bytes]] | StoreFailure, leader: str = FIRST, seconds=5.0):
    """Follows a stream for a while; returns texts, how often the line was woken, and the stream."""

    async def run():
        streams, background = Streams(), Background()
        streams.replies = list(replies)
        tails = Tails(streams, LoopClock(), background)  # type: ignore[arg-type]
        texts: list[LiveText] = []
        woken: list[None] = []
        task = tails.follow(KEY, leader, show=texts.append, wake=lambda: woken.append(None))
        assert task is not None
        await asyncio.sleep(seconds)
        await background.close()
        assert len(tails) == 0
        return texts, len(woken), streams

    return run_virtually(run())


def test_a_text_is_followed_in_order_and_by_part() -> None:
    texts, woken, streams = follow(
        [begin(FIRST), text(1, "hm", b"h"), text(2, "one ")], [text(3, "two")]
    )
    (only,) = texts
    assert only.token == FIRST
    assert [piece.part for piece in only.read(Cursor())] == [Part.THINKING, Part.TEXT]
    assert (only.whole(Part.THINKING), only.whole(Part.TEXT)) == ("hm", "one two")
    assert (only.closed, woken) == (False, 0)
    assert streams.asked_after[:3] == [b"0", b"3-0", b"4-0"]


def test_a_text_says_what_it_depends_on_and_since_when() -> None:
    texts, _, _ = follow([begin(FIRST, b"1600000000000", b"d:abc c:def")])
    (only,) = texts
    assert (only.created_ms, only.tags) == (1_600_000_000_000, ("d:abc", "c:def"))


def test_a_text_is_no_younger_than_its_lease() -> None:
    texts, _, _ = follow([begin(FIRST, b"1900000000000")])
    (only,) = texts
    assert (only.created_ms, only.tags) == (1_700_000_000_000, ())


@pytest.mark.parametrize(
    "fields",
    [
        {b"b": FIRST.encode()},
        {b"b": FIRST.encode(), b"m": b"1600000000000"},
        {b"b": FIRST.encode(), b"t": b"d:abc"},
        begin(FIRST, b"soon"),
    ],
)
def test_a_text_that_does_not_say_what_it_depends_on_is_left_alone(fields) -> None:
    texts, _, _ = follow([fields, text(1, "text"), begin(SECOND), text(1, "new")])
    assert [(each.token, each.whole(Part.TEXT)) for each in texts] == [(SECOND, "new")]


def test_what_an_earlier_leader_has_left_is_ignored() -> None:
    texts, _, _ = follow(
        [begin(FIRST), text(1, "stale"), begin(SECOND), text(1, "new")], leader=SECOND
    )
    assert [(each.token, each.whole(Part.TEXT)) for each in texts] == [(SECOND, "new")]


def test_a_later_leader_begins_another_text() -> None:
    texts, _, _ = follow([begin(FIRST), text(1, "old"), begin(SECOND), text(1, "new")])
    assert [each.whole(Part.TEXT) for each in texts] == ["old", "new"]


def test_a_text_whose_beginning_was_trimmed_is_left_alone() -> None:
    texts, _, _ = follow([text(7, "in the middle"), text(8, "of it")])
    assert texts == []


def test_a_text_with_a_gap_grows_no_more() -> None:
    texts, _, streams = follow([begin(FIRST), text(1, "one "), text(3, "three")], [text(4, "four")])
    (only,) = texts
    assert only.whole(Part.TEXT) == "one "
    assert not only.closed
    assert len(streams.asked_after) == 1


def test_foreign_entries_end_the_following() -> None:
    texts, _, _ = follow([begin(FIRST), {b"n": b"1", b"?": b"what"}])
    (only,) = texts
    assert only.is_empty


def test_the_end_of_a_text_closes_it_and_wakes_the_line() -> None:
    texts, woken, _ = follow([begin(FIRST), text(1, "done"), {b"e": b"1"}])
    assert texts[0].closed
    assert woken == 1


def test_an_abort_tells_why() -> None:
    texts, woken, _ = follow([begin(FIRST), text(1, "half"), {b"a": b"rtoo long"}])
    assert texts[0].failure == Failure(FailureKind.REJECTED, "too long")
    assert woken == 1


def test_a_failure_of_the_store_is_waited_out() -> None:
    texts, _, streams = follow(StoreFailure("away"), StoreFailure("away"), [begin(FIRST)])
    assert len(texts) == 1
    assert streams.asked_after[:3] == [b"0", b"0", b"0"]


def test_the_number_of_readers_is_bounded() -> None:
    async def run() -> None:
        background = Background()
        tails = Tails(Streams(), LoopClock(), background)  # type: ignore[arg-type]
        tasks = [
            tails.follow(KEY, FIRST, show=lambda _text: None, wake=lambda: None) for _ in range(25)
        ]
        assert tasks[23] is not None
        assert tasks[24] is None
        await background.close()

    run_virtually(run())
