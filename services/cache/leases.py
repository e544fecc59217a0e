"""The leases that this replica has given, and what is done under any lease.

While the store is away, leases hold in this process only, and so do the values computed under them:
nothing is written later, when it might bring back what was invalidated meanwhile.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from services.cache.background import Background
from services.cache.core.errors import LeaseLost
from services.cache.core.failures import Failure, Failures, KnownFailure
from services.cache.core.flight_tally import FlightEvent
from services.cache.core.keys import EntryKey
from services.cache.core.leases import FIRST_LEASE_SECONDS, Lease, make_token
from services.cache.core.store_clock import StoreClock
from services.cache.lease_origins import link_to_cause, new_nonce
from services.cache.lease_store import Answer, Fill, Held, LeaseStore, Unread
from services.cache.notices import Notices
from services.cache.ports import StoreFailure, Write
from services.cache.recorder import Recorder
from services.common.clock import Clock

__all__ = ["Extended", "FillOutcome", "Leases", "Released"]

_SHORTEST_RETRY_SECONDS = 0.25
_LONGEST_RETRY_SECONDS = 2.0
# Beyond that, leases end by themselves.
_MAXIMUM_UNDER_WAY = 4096


class FillOutcome(Enum):
    """What came of a value that was handed over under its lease.

    Attributes:
        KEPT: The shared store has it.
        REFUSED: The shared store would not take it, for want of memory for example.
        LOCAL: The shared store is away, and the lease is one of this replica: the value may be kept
            here.
        DROPPED: The shared store is away, and whose the lease is cannot be found out.
    """

    KEPT = "kept"
    REFUSED = "refused"
    LOCAL = "local"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Extended:
    """A lease goes on.

    Attributes:
        seconds: For how long.
        degraded: Whether the shared store could not be asked.
    """

    seconds: float
    degraded: bool


@dataclass(frozen=True, slots=True)
class Released:
    """A lease was given back.

    Attributes:
        remembered_seconds: How long its failure is remembered, 0 for not at all.
        degraded: Whether the shared store could not be asked.
    """

    remembered_seconds: float
    degraded: bool


@dataclass(slots=True)
class _Given:
    """A lease given by this replica and not known to have ended."""

    key: EntryKey
    lease: Lease
    given_at: float
    ends_at: float
    timer: asyncio.TimerHandle


class Leases:
    """Gives, prolongs and ends leases.

    Args:
        store: Plays the protocol with the shared store.
        is_available: Whether the shared store is asked at all.
        store_clock: The store's time.
        background: Runs what must be done even when its caller has gone.
        notices: Tells whether the store may have been restarted.
        clock: Time.
        recorder: Counts what happens.
    """

    def __init__(
        self,
        store: LeaseStore,
        *,
        is_available: Callable[[], bool],
        store_clock: StoreClock,
        background: Background,
        notices: Notices,
        clock: Clock,
        recorder: Recorder,
    ) -> None:
        self._store = store
        self._is_available = is_available
        self._store_clock = store_clock
        self._background = background
        self._notices = notices
        self._clock = clock
        self._recorder = recorder
        self._given: dict[bytes, _Given] = {}
        self._failures = Failures()
        self._gap_at = clock.monotonic()
        self._ended: Callable[[bytes], None] = lambda _key: None
        notices.on_gap(self._note_gap)

    def on_ended(self, handler: Callable[[bytes], None]) -> None:
        """Has someone told of the value keys whose leases end here."""
        self._ended = handler

    @property
    def given_count(self) -> int:
        """Leases of this replica that have not ended."""
        return len(self._given)

    def given(self, key: EntryKey) -> Held | None:
        """Returns the lease that this replica has given for a value, if it still holds."""
        given = self._given.get(key.value)
        if given is None:
            return None
        return Held(given.lease.token, max(0.0, given.ends_at - self._clock.monotonic()))

    def is_local(self, key: EntryKey, token: str) -> bool:
        """Returns whether a lease holds in this process only."""
        given = self._find(key, token)
        return given is not None and given.lease.local

    def known_failure(self, key: EntryKey) -> KnownFailure | None:
        """Returns the failure that this replica remembers by itself, while the store is away."""
        return self._failures.known(key.value, self._clock.monotonic())

    async def take(
        self,
        key: EntryKey,
        *,
        seconds: float,
        unread: Unread,
        event: FlightEvent = FlightEvent.LEASED,
    ) -> Answer:
        """Asks the shared store for a value, or else for the lease to compute it.

        A lease that comes when its caller has gone, or of which the store cannot tell, is given
        back.

        Raises:
            StoreFailure: The store is away.
        """
        nonce = new_nonce()
        asking = self._background.start(self._take(key, nonce, seconds=seconds, unread=unread))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(lambda done: self._give_back(key, done))
            raise
        if isinstance(answer, Lease):
            self._note_given(key, answer, event)
        return answer

    async def _take(self, key: EntryKey, nonce: str, *, seconds: float, unread: Unread) -> Answer:
        was_asked = self._is_available()
        try:
            return await self._store.take(
                key, nonce, seconds=seconds, unread=unread, restored=self._maybe_forgotten(key)
            )
        except StoreFailure:
            if was_asked:
                # The store may give the lease late, to nobody: then others would wait for its end.
                self._release_later(key, f"-{nonce}", seconds)
            raise

    def take_alone(self, key: EntryKey, *, seconds: float) -> Lease:
        """Gives a lease that holds in this process only."""
        granted_us = self._store_clock.now_ms(self._clock.monotonic()) * 1000
        lease = Lease(token=make_token(granted_us, new_nonce()), seconds=seconds, local=True)
        self._note_given(key, lease, FlightEvent.LEASED)
        return lease

    async def extend(self, key: EntryKey, token: str, seconds: float) -> Extended:
        """Prolongs a lease.

        Raises:
            LeaseLost: It is not held.
        """
        given = self._find(key, token)
        degraded = given is not None and given.lease.local
        if not degraded:
            restore = given is not None and self._may_be_forgotten(given)
            try:
                if not await self._store.extend(key, token, seconds, restore=restore):
                    self._forget(key, token)
                    raise LeaseLost
            except StoreFailure:
                degraded = True
        given = self._find(key, token)
        if given is not None:
            self._set_end(given, seconds)
        return Extended(seconds, degraded)

    async def release(self, key: EntryKey, token: str, failure: Failure | None = None) -> Released:
        """Ends a lease without a value.

        Args:
            key: What was to be computed.
            token: The lease's token.
            failure: Why there is none; None where it merely is not needed.

        Raises:
            LeaseLost: It is not held.
        """
        given = self._find(key, token)
        degraded = given is not None and given.lease.local
        remembered: float | None = 0.0
        if not degraded:
            try:
                remembered = await self._store.release(key, token, failure)
            except StoreFailure:
                degraded = True
                self.release_soon(key, token)
        if degraded and failure is not None and given is not None:
            remembered = self._failures.note(key.value, failure, self._clock.monotonic())
        self._forget(key, token)
        if remembered is None:
            raise LeaseLost
        if given is not None or not degraded:
            link_to_cause(token)
        self._recorder.flight(FlightEvent.RELEASED)
        return Released(remembered, degraded)

    def release_soon(self, key: EntryKey, token: str) -> None:
        """Ends a lease that nobody will use, whether its caller is still there or not."""
        given = self._find(key, token)
        seconds = FIRST_LEASE_SECONDS
        if given is not None:
            seconds = given.ends_at - self._clock.monotonic()
            self._drop(given)
        if (given is not None and given.lease.local) or not self._release_later(
            key, token, seconds
        ):
            self._ended(key.value)

    async def fill(self, key: EntryKey, token: str, write: Write) -> FillOutcome:
        """Stores a value under its lease, which ends.

        Args:
            key: The value's keys.
            token: The lease's token.
            write: What is stored.

        Raises:
            LeaseLost: The lease is not held; nothing was stored.
        """
        given = self._find(key, token)
        outcome = FillOutcome.LOCAL if given is not None else FillOutcome.DROPPED
        if given is None or not given.lease.local:
            try:
                filled = await self._store.fill(key, token, write)
            except StoreFailure:
                if given is not None:
                    # Whether the store has done it is not known; if not, others would wait.
                    self.release_soon(key, token)
            else:
                if filled is Fill.LOST:
                    self._forget(key, token)
                    self._recorder.flight(FlightEvent.REJECTED)
                    raise LeaseLost
                outcome = FillOutcome.KEPT if filled is Fill.KEPT else FillOutcome.REFUSED
        self._forget(key, token)
        self._failures.forget(key.value)
        if outcome is not FillOutcome.DROPPED:
            link_to_cause(token)
        if outcome in (FillOutcome.KEPT, FillOutcome.LOCAL):
            self._recorder.flight(FlightEvent.FILLED)
        return outcome

    def note_ended(self, value_key: bytes, token: str) -> None:
        """Learns that another replica has ended a lease."""
        given = self._given.get(value_key)
        if given is not None and given.lease.token == token:
            self._drop(given)

    def close(self) -> None:
        """Forgets all leases; what the store knows of them ends by itself."""
        for given in list(self._given.values()):
            self._drop(given)

    def _find(self, key: EntryKey, token: str) -> _Given | None:
        given = self._given.get(key.value)
        return given if given is not None and given.lease.token == token else None

    def _note_given(self, key: EntryKey, lease: Lease, event: FlightEvent) -> None:
        before = self._given.get(key.value)
        if before is not None:
            self._drop(before)
        now = self._clock.monotonic()
        timer = asyncio.get_running_loop().call_later(lease.seconds, self._expire, key, lease.token)
        self._given[key.value] = _Given(key, lease, now, now + lease.seconds, timer)
        self._recorder.held(1)
        self._recorder.flight(event)

    def _set_end(self, given: _Given, seconds: float) -> None:
        given.timer.cancel()
        given.ends_at = self._clock.monotonic() + seconds
        given.timer = asyncio.get_running_loop().call_later(
            seconds, self._expire, given.key, given.lease.token
        )

    def _expire(self, key: EntryKey, token: str) -> None:
        self._recorder.flight(FlightEvent.EXPIRED)
        self._forget(key, token)

    def _forget(self, key: EntryKey, token: str) -> None:
        given = self._find(key, token)
        if given is not None:
            self._drop(given)
        self._ended(key.value)

    def _drop(self, given: _Given) -> None:
        given.timer.cancel()
        del self._given[given.key.value]
        self._recorder.held(-1)

    def _give_back(self, key: EntryKey, asking: asyncio.Task[Answer]) -> None:
        if asking.cancelled() or asking.exception() is not None:
            return
        answer = asking.result()
        if isinstance(answer, Lease):
            self.release_soon(key, answer.token)

    def _release_later(self, key: EntryKey, token: str, seconds: float) -> bool:
        if len(self._background) >= _MAXIMUM_UNDER_WAY:
            return False
        self._background.detach(self._release_and_tell(key, token, seconds))
        return True

    async def _release_and_tell(self, key: EntryKey, token: str, seconds: float) -> None:
        await self._release_within(key, token, seconds)
        # Not before: whoever asked meanwhile was told that the lease is held.
        self._ended(key.value)

    async def _release_within(self, key: EntryKey, token: str, seconds: float) -> None:
        """Releases a lease, and tries for as long as it may last."""
        ends_at = self._clock.monotonic() + seconds
        pause_seconds = _SHORTEST_RETRY_SECONDS
        while True:
            try:
                remembered = await self._store.release(key, token, None)
            except StoreFailure:
                if self._clock.monotonic() + pause_seconds >= ends_at:
                    return
                await self._clock.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, _LONGEST_RETRY_SECONDS)
                continue
            if remembered is not None:
                self._recorder.flight(FlightEvent.RELEASED)
            return

    def _maybe_forgotten(self, key: EntryKey) -> Held | None:
        given = self._given.get(key.value)
        if given is None or given.lease.local or not self._may_be_forgotten(given):
            return None
        return self.given(key)

    def _may_be_forgotten(self, given: _Given) -> bool:
        """Returns whether the store may have been restarted since a lease was given.

        As long as notices have arrived without a gap, a lease that the store does not have was
        ended by another replica.
        """
        return not self._notices.connected or self._gap_at > given.given_at

    def _note_gap(self) -> None:
        self._gap_at = self._clock.monotonic()
