"""An answer while it is generated: its text so far, for its store and for all who follow it.

Followers read the one text each at its own pace, by a cursor of their own, so that a slow one holds
up nobody; the text is bounded, and so is what a growing number of tiny deltas costs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from services.cache.core.failures import Failure
from services.cache.core.leases import granted_ms

__all__ = [
    "MAXIMUM_PIECE_BYTES",
    "Cursor",
    "LiveText",
    "Part",
    "Piece",
    "split_text",
]

MAXIMUM_PIECE_BYTES = 4096

_TOO_LARGE = Failure(message="the answer is too large to be kept")


class Part(Enum):
    """What a text belongs to, by the name of its field in the store's streams."""

    TEXT = "x"
    THINKING = "h"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the answer.

    Attributes:
        part: What it belongs to.
        text: What to append, not empty.
    """

    part: Part
    text: str


@dataclass(slots=True)
class _Run:
    part: Part
    text: str
    size_bytes: int


@dataclass(slots=True)
class Cursor:
    """How far a follower has read."""

    index: int = 0
    offset: int = 0


class LiveText:
    """The text of an answer that is being generated under one lease.

    Args:
        token: Token of the lease.
        limit_bytes: Most bytes to hold; a text that grows beyond is closed.
        tags: What the answer depends on.
        basis_ms: When the lookup was made that it is based on, by the store's clock, milliseconds
            since the Unix epoch; None where that is not known.

    Attributes:
        token: The same.
        tags: The same.
        created_ms: What the answer is dated: the earlier of the lease's grant and the basis.
        size_bytes: How much it is so far, in UTF-8.
        closed: Whether nothing will come any more.
        is_full: Whether that is for its size.
        failure: Why it is closed.
    """

    def __init__(
        self,
        token: str,
        *,
        limit_bytes: int,
        tags: tuple[str, ...] = (),
        basis_ms: int | None = None,
    ) -> None:
        since_ms = granted_ms(token) or 0
        self.token = token
        self.tags = tags
        self.created_ms = since_ms if basis_ms is None else min(since_ms, basis_ms)
        self.size_bytes = 0
        self.closed = False
        self.is_full = False
        self.failure = Failure()
        self._limit_bytes = limit_bytes
        self._runs: list[_Run] = []
        self._listeners: set[Callable[[], None]] = set()

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come yet."""
        return not self._runs

    def append(self, piece: Piece) -> bool:
        """Adds what was generated and tells the followers.

        Returns:
            Whether it was added; not where the text is closed, or closes for its size.
        """
        size_bytes = len(piece.text.encode())
        if self.closed:
            return False
        if self.size_bytes + size_bytes > self._limit_bytes:
            self.is_full = True
            self.close(_TOO_LARGE)
            return False
        self.size_bytes += size_bytes
        last = self._runs[-1] if self._runs else None
        if (
            last is not None
            and last.part is piece.part
            and last.size_bytes + size_bytes <= MAXIMUM_PIECE_BYTES
        ):
            last.text += piece.text
            last.size_bytes += size_bytes
        else:
            for text in split_text(piece.text):
                self._runs.append(_Run(piece.part, text, len(text.encode())))
        self._tell()
        return True

    def close(self, failure: Failure) -> None:
        """Says that nothing will come any more, since the one who generates has failed."""
        if not self.closed:
            self.closed = True
            self.failure = failure
            self._tell()

    def read(self, cursor: Cursor) -> Iterator[Piece]:
        """Yields what has come since a follower has last read, and moves its cursor."""
        while cursor.index < len(self._runs):
            run = self._runs[cursor.index]
            text = run.text[cursor.offset :]
            if cursor.index + 1 < len(self._runs):
                cursor.index, cursor.offset = cursor.index + 1, 0
            else:
                cursor.offset = len(run.text)
                if not text:
                    return
            if text:
                yield Piece(run.part, text)

    def whole(self, part: Part) -> str:
        """Returns all that has come of one part."""
        return "".join(run.text for run in self._runs if run.part is part)

    def read_before(self, cursor: Cursor, part: Part) -> str:
        """Returns all that a follower has read of one part."""
        texts = [run.text for run in self._runs[: cursor.index] if run.part is part]
        if cursor.index < len(self._runs) and self._runs[cursor.index].part is part:
            texts.append(self._runs[cursor.index].text[: cursor.offset])
        return "".join(texts)

    def listen(self, listener: Callable[[], None]) -> None:
        """Has a follower told of whatever comes."""
        self._listeners.add(listener)

    def leave(self, listener: Callable[[], None]) -> None:
        """Ends that."""
        self._listeners.discard(listener)

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()


def split_text(text: str, limit_bytes: int = MAXIMUM_PIECE_BYTES) -> Iterator[str]:
    """Cuts a text into pieces of bounded size, behind a line or a word where there is one.

    Args:
        text: The text; together the pieces are exactly this.
        limit_bytes: Most bytes of a piece in UTF-8, at least 4.
    """
    start = 0
    while start < len(text):
        end = start + _fitting_length(text[start : start + limit_bytes], limit_bytes)
        if end < len(text):
            end = _boundary(text, start, end)
        yield text[start:end]
        start = end


def _fitting_length(text: str, limit_bytes: int) -> int:
    data = text.encode()
    if len(data) <= limit_bytes:
        return len(text)
    return len(data[:limit_bytes].decode(errors="ignore"))


def _boundary(text: str, start: int, end: int) -> int:
    # Not in the first half: a piece for each word would help nobody.
    middle = (start + end) // 2
    for mark in ("\n", " "):
        found = text.rfind(mark, middle, end)
        if found >= 0:
            return found + 1
    return end
