"""Taking an answer while it is generated, so that others can follow it at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.cache.background import Background
from services.cache.core.errors import LeaseLost
from services.cache.core.failures import Failure, FailureKind
from services.cache.core.fills import LiveText, Part, Piece
from services.cache.core.flight_tally import FlightEvent
from services.cache.core.keys import EntryKey
from services.cache.core.leases import GenerationTimes
from services.cache.core.model import Keeping, Kept, Scope
from services.cache.fill_writer import FillWriter
from services.cache.flights import Flights
from services.cache.lease_store import LeaseStore
from services.cache.leases import Leases, Released
from services.cache.levels import Levels
from services.cache.store_inference import InferenceStores, NewInference
from services.cache.tails import TEXT_LIMIT_BYTES

__all__ = ["Fill", "InferenceFills"]

_OUTDATED = Failure(FailureKind.TRANSIENT, "the answer cannot be given to others")
_BROKEN_OFF = Failure(FailureKind.TRANSIENT, "the one who computed the answer has gone")


class InferenceFills:
    """Takes answers.

    Args:
        levels: Where they are kept.
        leases: Leases of this replica.
        flights: Those who wait here.
        stores: Keeps what is complete.
        store: Where those who wait elsewhere read along.
        times: How long answers take.
        background: Runs what is done beside the taking.
    """

    def __init__(
        self,
        levels: Levels,
        leases: Leases,
        flights: Flights,
        stores: InferenceStores,
        store: LeaseStore,
        times: GenerationTimes,
        *,
        background: Background,
    ) -> None:
        self._levels = levels
        self._leases = leases
        self._flights = flights
        self._stores = stores
        self._store = store
        self._times = times
        self._background = background

    @asynccontextmanager
    async def open(
        self, key: EntryKey, scope: Scope, token: str, keeping: Keeping
    ) -> AsyncIterator["Fill"]:
        """Begins to take an answer; its lease is prolonged while that goes on, see `FillWriter`.

        A fill that is neither committed nor aborted gives its lease back.

        Args:
            key: What the answer is an answer to.
            scope: What it belongs to.
            token: Token of the lease.
            keeping: How to keep it.

        Raises:
            LeaseLost: The lease is not held.
        """
        lease_seconds = self._times.lease_seconds(scope.model_digest)
        extended = await self._leases.extend(key, token, lease_seconds)
        text = LiveText(
            token,
            limit_bytes=TEXT_LIMIT_BYTES,
            tags=keeping.tags,
            basis_ms=keeping.basis_ms,
        )
        writer = FillWriter(
            self._leases,
            self._store,
            self._levels.clock,
            key,
            text,
            lease_seconds=lease_seconds,
            is_shared=not self._leases.is_local(key, token),
        )
        fill = Fill(
            self._levels,
            self._leases,
            self._stores,
            writer,
            text,
            key=key,
            scope=scope,
            keeping=keeping,
        )
        given = self._leases.given(key)
        if not extended.degraded or (given is not None and given.token == token):
            self._flights.open_text(key, text)
        writing = self._background.start(writer.run())
        try:
            yield fill
        finally:
            writing.cancel()
            if not fill.has_ended:
                self._leases.release_soon(key, token)
            self._flights.close_text(key, text, fill.failure)


class Fill:
    """An answer that is being taken.

    Args:
        levels: Where it is kept.
        leases: Leases of this replica.
        stores: Keeps it when it is complete.
        writer: Lets other replicas read along.
        text: The answer so far.
        key: What it is an answer to.
        scope: What it belongs to.
        keeping: How to keep it.

    Attributes:
        has_ended: Whether its lease has been dealt with.
        failure: What to tell those who followed it in vain.
    """

    def __init__(
        self,
        levels: Levels,
        leases: Leases,
        stores: InferenceStores,
        writer: FillWriter,
        text: LiveText,
        *,
        key: EntryKey,
        scope: Scope,
        keeping: Keeping,
    ) -> None:
        self._levels = levels
        self._leases = leases
        self._stores = stores
        self._writer = writer
        self._text = text
        self._key = key
        self._scope = scope
        self._keeping = keeping
        self.has_ended = False
        self.failure = _BROKEN_OFF

    @property
    def text(self) -> str:
        """What has come of the answer itself."""
        return self._text.whole(Part.TEXT)

    @property
    def thinking(self) -> str:
        """What has come of the thoughts before it."""
        return self._text.whole(Part.THINKING)

    @property
    def size_bytes(self) -> int:
        """How much of it there is, its thoughts included."""
        return self._text.size_bytes

    def append(self, piece: Piece) -> None:
        """Takes what was generated next; what is too much for an answer to keep is dropped.

        Raises:
            LeaseLost: The lease is not held any more.
        """
        if self._text.append(piece):
            self._writer.note_delta()
        elif not self._text.is_full:
            self.has_ended = True
            self._levels.recorder.flight(FlightEvent.REJECTED)
            raise LeaseLost
        elif not self.has_ended:
            # Nobody will get this answer: others may as well begin now.
            self.has_ended = True
            self._leases.release_soon(self._key, self._text.token)

    async def commit(self, inference: NewInference, *, for_waiters: bool = False) -> Kept:
        """Keeps the answer, which is complete.

        Args:
            inference: All of it.
            for_waiters: Whether only those get it who wait for it by now.

        Raises:
            LeaseLost: The lease is not held; nothing was stored.
        """
        self.failure = _OUTDATED
        if self._text.is_full:
            return self._stores.decline_too_large()
        token = self._text.token
        kept = await self._stores.store_leased(
            self._key, self._scope, token, inference, self._keeping, for_waiters=for_waiters
        )
        self.has_ended = True
        return kept

    async def abort(self, failure: Failure) -> Released:
        """Ends without an answer.

        Raises:
            LeaseLost: The lease is not held.
        """
        self.failure = failure
        released = await self._leases.release(self._key, self._text.token, failure)
        self.has_ended = True
        return released
