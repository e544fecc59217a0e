"""Following answers that are handed to another replica while they are generated.

One reader per answer serves everybody who follows it in this process. A text that cannot be
followed from its beginning is left alone: its followers wait for the whole answer instead.
"""

import asyncio
from collections.abc import Callable, Mapping

from services.cache.background import Background
from services.cache.core.failures import Failure, FailureKind
from services.cache.core.fills import LiveText, Part, Piece
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.lease_store import decode_failure
from services.cache.ports import StoreFailure, StreamEntry
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = ["TEXT_LIMIT_BYTES", "Tails"]

TEXT_LIMIT_BYTES = 1024 * 1024
"""Longer answers are not kept, so that their text is of no use to others."""

_LAYER = Layer.INFERENCE
_PARTS = {part.value.encode(): part for part in Part}
# Each reader takes a connection while it waits, of the 32 that the store has for that.
_MAXIMUM_READERS = 24
_WAIT_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_BATCH = 512

_ENDED = Failure(FailureKind.TRANSIENT, "the answer was replaced while it was generated")


class Tails:
    """The readers of this process.

    Args:
        shared: Where the texts appear.
        clock: Time.
        background: Runs the readers.
    """

    def __init__(self, shared: SharedLevel, clock: Clock, background: Background) -> None:
        self._shared = shared
        self._clock = clock
        self._background = background
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def follow(
        self,
        key: EntryKey,
        leader: str,
        *,
        show: Callable[[LiveText], None],
        wake: Callable[[], None],
    ) -> asyncio.Task[None] | None:
        """Starts to follow an answer; cancel the task to end it.

        Args:
            key: What is computed.
            leader: Token of the lease it is computed under; texts of earlier ones are ignored.
            show: Is given each text that begins.
            wake: Is told when a text has ended.

        Returns:
            The reader, or None where there are too many.
        """
        if self._count >= _MAXIMUM_READERS:
            return None
        self._count += 1
        task = self._background.start(self._read(key, _Reader(leader, show, wake)))
        task.add_done_callback(self._leave)
        return task

    def _leave(self, _task: asyncio.Task[None]) -> None:
        self._count -= 1

    async def _read(self, key: EntryKey, reader: "_Reader") -> None:
        last_id = b"0"
        while reader.can_follow:
            try:
                entries = await self._shared.read_stream(
                    _LAYER, key.stream, last_id, wait_seconds=_WAIT_SECONDS, limit=_BATCH
                )
            except StoreFailure:
                # What to do without the store is for the pilot to decide.
                await self._clock.sleep(_PAUSE_SECONDS)
                continue
            for entry in entries:
                last_id = entry.entry_id
                reader.take(entry)


class _Reader:
    """Turns the entries of a stream into texts."""

    def __init__(
        self, leader: str, show: Callable[[LiveText], None], wake: Callable[[], None]
    ) -> None:
        self._leader = leader
        self._show = show
        self._wake = wake
        self._text: LiveText | None = None
        self._number = 0
        self.can_follow = True

    def take(self, entry: StreamEntry) -> None:
        """Takes the next entry."""
        fields = entry.fields
        if b"b" in fields:
            self._begin(fields[b"b"].decode(errors="replace"), fields)
        elif b"e" in fields:
            self._end(_ENDED)
        elif b"a" in fields:
            self._end(decode_failure(fields[b"a"]))
        elif self._text is not None:
            self._append(self._text, fields)

    def _begin(self, token: str, fields: Mapping[bytes, bytes]) -> None:
        self._text = None
        basis, tags = fields.get(b"m", b""), fields.get(b"t")
        # What it depends on must be known: otherwise it might have been invalidated.
        if token < self._leader or tags is None or not basis.isdigit():
            return
        self._leader, self._number = token, 0
        self._text = LiveText(
            token,
            limit_bytes=TEXT_LIMIT_BYTES,
            tags=tuple(tags.decode(errors="replace").split()),
            basis_ms=int(basis),
        )
        self._show(self._text)

    def _append(self, text: LiveText, fields: Mapping[bytes, bytes]) -> None:
        self._number += 1
        part = next((part for name, part in _PARTS.items() if name in fields), None)
        if part is None or fields.get(b"n") != b"%d" % self._number:
            # Entries are missing: they were trimmed before they could be read.
            self.can_follow = False
            return
        text.append(Piece(part, fields[part.value.encode()].decode(errors="replace")))

    def _end(self, failure: Failure) -> None:
        if self._text is not None:
            self._text.close(failure)
            self._text = None
        self._wake()
