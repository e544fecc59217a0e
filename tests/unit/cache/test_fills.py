"""Texts in the making are the same for everybody who follows them, whenever and how fast."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.core.failures import Failure, FailureKind
from services.cache.core.fills import Cursor, LiveText, Part, Piece, split_text

PIECES = st.lists(
    st.builds(Piece, st.sampled_from(Part), st.text(min_size=1, max_size=40)), max_size=60
)


def joined(pieces, part: Part) -> str:
    return "".join(piece.text for piece in pieces if piece.part is part)


@given(PIECES, st.lists(st.integers(0, 60)))
def test_a_follower_reads_exactly_what_was_generated_in_order(pieces, pauses) -> None:
    text = LiveText("t", limit_bytes=1 << 20)
    cursor = Cursor()
    read: list[Piece] = []
    for number, piece in enumerate(pieces):
        assert text.append(piece)
        if number in pauses:
            read += text.read(cursor)
            for part in Part:
                assert text.read_before(cursor, part) == joined(read, part)
    read += text.read(cursor)
    late = list(text.read(Cursor()))
    for part in Part:
        assert joined(read, part) == joined(late, part) == joined(pieces, part)
        assert text.whole(part) == joined(pieces, part)
        assert text.read_before(cursor, part) == joined(pieces, part)
    runs = [piece.part for piece in late]
    expected = [piece.part for piece in pieces]
    assert _without_repeats(runs) == _without_repeats(expected)


def _without_repeats(parts: list[Part]) -> list[Part]:
    return [part for index, part in enumerate(parts) if index == 0 or parts[index - 1] is not part]


def test_what_comes_while_a_follower_is_reading_is_read_as_well() -> None:
    text = LiveText("t", limit_bytes=100)
    text.append(Piece(Part.TEXT, "one "))
    reading = text.read(Cursor())
    assert next(reading).text == "one "
    text.append(Piece(Part.TEXT, "two"))
    assert [piece.text for piece in reading] == ["two"]


def test_many_tiny_deltas_cost_few_pieces() -> None:
    text = LiveText("t", limit_bytes=1 << 20)
    for _ in range(100_000):
        text.append(Piece(Part.TEXT, "x"))
    pieces = list(text.read(Cursor()))
    assert len(pieces) <= 100_000 // 4096 + 1
    assert max(len(piece.text) for piece in pieces) <= 4096


def test_one_large_delta_is_read_in_pieces() -> None:
    text = LiveText("t", limit_bytes=1 << 20)
    text.append(Piece(Part.TEXT, "é" * 5000))
    pieces = list(text.read(Cursor()))
    assert max(len(piece.text.encode()) for piece in pieces) <= 4096
    assert joined(pieces, Part.TEXT) == "é" * 5000


def test_a_text_beyond_its_limit_is_closed() -> None:
    text = LiveText("t", limit_bytes=5)
    assert text.append(Piece(Part.TEXT, "12345"))
    assert not text.append(Piece(Part.THINKING, "6"))
    assert text.closed
    assert text.is_full
    assert text.whole(Part.TEXT) == "12345"


def test_a_closed_text_takes_nothing_and_keeps_its_first_reason() -> None:
    text = LiveText("t", limit_bytes=100)
    text.close(Failure(FailureKind.REJECTED, "no"))
    text.close(Failure())
    assert not text.append(Piece(Part.TEXT, "x"))
    assert not text.is_full
    assert text.failure == Failure(FailureKind.REJECTED, "no")


def test_followers_are_told_until_they_leave() -> None:
    text = LiveText("t", limit_bytes=100)
    told: list[str] = []

    def listener() -> None:
        told.append("news")

    text.listen(listener)
    text.append(Piece(Part.TEXT, "x"))
    text.close(Failure())
    assert told == ["news", "news"]
    text.leave(listener)
    text.append(Piece(Part.TEXT, "y"))
    assert len(told) == 2


@given(st.text(max_size=400), st.integers(4, 64))
def test_pieces_make_the_text_and_none_is_too_large(text, limit_bytes) -> None:
    pieces = list(split_text(text, limit_bytes))
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= limit_bytes for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("short", ["short"]),
        ("", []),
        ("one two three", ["one two ", "three"]),
        ("one\ntwo three", ["one\ntwo ", "three"]),
        ("a line\nand more", ["a line\n", "and more"]),
        ("unbreakable-word", ["unbreakabl", "e-word"]),
    ],
)
def test_pieces_end_behind_lines_or_words(text, pieces) -> None:
    assert list(split_text(text, 10)) == pieces
