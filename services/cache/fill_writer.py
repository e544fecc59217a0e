"""What goes on beside a fill: other replicas get to read along, and the lease is kept up."""

import asyncio

from services.cache.core.errors import LeaseLost
from services.cache.core.failures import Failure, FailureKind
from services.cache.core.fills import Cursor, LiveText
from services.cache.core.keys import EntryKey
from services.cache.lease_store import LeaseStore
from services.cache.leases import Leases
from services.cache.ports import StoreFailure
from services.common.clock import Clock

__all__ = ["LONGEST_SILENCE_SECONDS", "FillWriter"]

LONGEST_SILENCE_SECONDS = 120.0
"""How long a lease is prolonged although nothing is generated: a model may have to be loaded."""

_BATCH_SECONDS = 0.05
_BATCH_COUNT = 16
# A lease is prolonged when this share of it is over.
_EXTENSION_RATIO = 1 / 3

_LOST = Failure(FailureKind.TRANSIENT, "the one who computed the answer has lost its lease")


class FillWriter:
    """Writes the text of a fill to the shared store in batches.

    The one who generates never waits for it: while a batch is on its way, the next one grows. If
    the store fails, the rest of the text is not written; other replicas wait for the whole answer.

    The lease is prolonged for as long as something comes, and for up to 120 s after the last delta
    or the opening. Then it is left to expire, so that one who hangs is succeeded; if the text goes
    on before that, the lease is prolonged at once.

    Args:
        leases: Leases of this replica.
        store: Where other replicas read along.
        clock: Time.
        key: What the answer is an answer to.
        text: The answer so far.
        lease_seconds: How long the lease lasts.
        is_shared: Whether the lease holds for other replicas, too.

    Attributes:
        is_lost: Whether the lease is not held any more.
    """

    def __init__(
        self,
        leases: Leases,
        store: LeaseStore,
        clock: Clock,
        key: EntryKey,
        text: LiveText,
        *,
        lease_seconds: float,
        is_shared: bool,
    ) -> None:
        self._leases = leases
        self._store = store
        self._clock = clock
        self._key = key
        self._text = text
        self._lease_seconds = lease_seconds
        self._is_writing = is_shared
        self._cursor = Cursor()
        self._entry_count = 0
        self._delta_count = 0
        self._heard_at = clock.monotonic()
        self._has_news = asyncio.Event()
        self._has_batch = asyncio.Event()
        self.is_lost = False

    def note_delta(self) -> None:
        """Learns that the text has grown."""
        self._delta_count += 1
        self._heard_at = self._clock.monotonic()
        self._has_news.set()
        # The beginning goes at once: those who follow see it as early as they can.
        if self._delta_count >= _BATCH_COUNT or self._entry_count == 0:
            self._has_batch.set()

    async def run(self) -> None:
        """Does all that until the lease is lost; to be cancelled when the fill ends."""
        extend_at = self._clock.monotonic() + self._lease_seconds * _EXTENSION_RATIO
        while not self.is_lost:
            wait_seconds = None if self._is_silent() else extend_at - self._clock.monotonic()
            await _wait(self._has_news, wait_seconds)
            if self._has_news.is_set():
                await _wait(self._has_batch, _BATCH_SECONDS)
                await self._write()
            if self._clock.monotonic() >= extend_at and not self._is_silent():
                await self._extend()
                extend_at = self._clock.monotonic() + self._lease_seconds * _EXTENSION_RATIO

    def _is_silent(self) -> bool:
        return self._clock.monotonic() - self._heard_at >= LONGEST_SILENCE_SECONDS

    async def _write(self) -> None:
        self._has_news.clear()
        self._has_batch.clear()
        self._delta_count = 0
        if not self._is_writing:
            return
        pieces = list(self._text.read(self._cursor))
        try:
            is_held = await self._store.append(
                self._key,
                self._text,
                self._entry_count,
                pieces,
                seconds=self._lease_seconds,
            )
        except StoreFailure:
            self._is_writing = False
            return
        if is_held:
            self._entry_count += len(pieces)
            return
        # The store may have forgotten the lease, with the text; then all of it is written anew.
        self._cursor, self._entry_count = Cursor(), 0
        await self._extend()
        self._has_news.set()

    async def _extend(self) -> None:
        try:
            await self._leases.extend(self._key, self._text.token, self._lease_seconds)
        except LeaseLost:
            self.is_lost = True
            self._text.close(_LOST)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
