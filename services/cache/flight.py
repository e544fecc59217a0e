"""The line for one answer, and the task that asks for everybody in it.

The pilot asks the shared store for the value, or else for the lease to compute it, which goes to
the caller who has waited for longest. While somebody has the lease, the pilot asks again when a
notice comes, when the lease ends, and every second, since notices may get lost. Everybody is in
line before the store is asked, so that no notice is missed.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager

from opentelemetry import trace

from services.cache.core.failures import Failure, FailureKind, KnownFailure
from services.cache.core.fills import LiveText
from services.cache.core.flights import Found, Granted, Interrupted, Missed, Refused, WaitEnded
from services.cache.core.frames import FrameRejected
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.leases import Lease
from services.cache.core.model import Control, Hit, Scope
from services.cache.lease_store import MARK_BYTES, Held, NoLease, StoredValue, Unread
from services.cache.leases import Leases
from services.cache.levels import Levels
from services.cache.look_up import accept
from services.cache.ports import StoreFailure
from services.cache.tails import Tails
from services.cache.waiters import Waiter

__all__ = ["Flight"]

_LAYER = Layer.INFERENCE
_RECHECK_SECONDS = 1.0
_JITTER_SECONDS = 0.05
_SHORTEST_PAUSE_SECONDS = 0.01
_USELESS_PAUSE_SECONDS = 0.1

_SUPERSEDED = Failure(FailureKind.TRANSIENT, "the one who computed the answer has lost its lease")


class Flight:
    """Everybody in this process who waits for one answer.

    Args:
        levels: Where values are kept.
        leases: Leases of this replica.
        tails: Follows what other replicas compute.
        key: What everybody wants.
        scope: What that belongs to.
    """

    def __init__(
        self, levels: Levels, leases: Leases, tails: Tails, key: EntryKey, scope: Scope
    ) -> None:
        self._levels = levels
        self._leases = leases
        self._tails = tails
        self._key = key
        self._scope = scope
        self._waiters: dict[Waiter, None] = {}
        self._signal = asyncio.Event()
        self._text: LiveText | None = None
        self._tail: asyncio.Task[None] | None = None
        # The last bytes of a stored value that is of no use to those in line.
        self._mark = b""
        # How many such have come in a row.
        self._useless_count = 0
        self._leader: Held | None = None
        self._leader_until = 0.0

    def add(self, waiter: Waiter) -> None:
        """Puts a caller in line."""
        self._waiters[waiter] = None
        if self._text is not None:
            self._offer_text(waiter, self._text)
        if self._leader is not None:
            self._keep_waiting(waiter, self._leader.token)
            self._follow()

    def remove(self, waiter: Waiter) -> None:
        """Takes a caller out of the line."""
        self._waiters.pop(waiter, None)
        if not self._waiters:
            self.wake()

    def wake(self) -> None:
        """Has the pilot look again."""
        self._signal.set()

    async def run(self, *, reachable: bool) -> None:
        """Is the pilot: asks until nobody is in line any more.

        Args:
            reachable: Whether the shared store is worth asking; False where it just was not.
        """
        given = self._leases.given(self._key)
        if given is not None:
            pause_seconds = self._hold(given)
        else:
            pause_seconds = 0.0 if reachable else self._go_alone()
        while self._is_wanted():
            await self._rest(pause_seconds)
            if self._is_wanted():
                pause_seconds = await self._ask()

    def end_waits(self) -> None:
        """Ends the wait of those who have not been sent any text."""
        for waiter in self._pending():
            if not waiter.has_begun:
                waiter.settle(WaitEnded())

    def abandon(self) -> None:
        """Ends what the pilot has begun, and leaves nobody behind."""
        if self._tail is not None:
            self._tail.cancel()
        for waiter in self._waiters:
            waiter.settle(Missed())

    def offer(self, data: bytes) -> bool:
        """Gives a stored value to those in line whom it suits; returns whether there were any."""
        is_useful = False
        self._mark = data[-MARK_BYTES:]
        hits: dict[Control, Hit | None] = {}
        for waiter in self._pending():
            if waiter.control not in hits:
                hits[waiter.control] = self._check(data, waiter)
            hit = hits[waiter.control]
            if hit is not None and waiter.may_have(hit):
                is_new = waiter.waits_since is not None or hit.handed_over_ms is not None
                waiter.settle(Found(hit, coalesced=is_new))
                is_useful = True
        return is_useful

    def show(self, text: LiveText, *, is_local: bool = False) -> None:
        """Has the callers in line follow a text; of two, that of the later lease.

        Args:
            text: The text.
            is_local: Whether it is handed to this replica, so that none need be read elsewhere.
        """
        if self._text is not None and self._text.token > text.token:
            return
        if is_local and self._tail is not None:
            self._tail.cancel()
        if self._text is not None:
            self._text.close(_SUPERSEDED)
            self.wake()
        self._text = text
        for waiter in self._pending():
            self._offer_text(waiter, text)

    async def _rest(self, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._signal.wait()
            except TimeoutError:
                pass
        # Before the store is asked: what happens from now on is not in its answer.
        self._signal.clear()

    async def _ask(self) -> float:
        """Asks once and draws the conclusions; returns when to ask again, in seconds."""
        given = self._leases.given(self._key)
        if given is not None and self._leases.is_local(self._key, given.token):
            return self._hold(given)
        first = next(self._pending())
        try:
            with _on_behalf_of(first):
                answer = await self._leases.take(
                    self._key, seconds=first.lease_seconds, unread=Unread(self._mark)
                )
        except StoreFailure:
            return self._do_without_store()
        match answer:
            case StoredValue(data):
                self._useless_count = 0 if self.offer(data) else self._useless_count + 1
                # One that serves nobody is known by its mark, and not sent again; another may be.
                return 0.0 if self._useless_count < 2 else _USELESS_PAUSE_SECONDS
            case KnownFailure():
                return self._refuse(answer)
            case Lease():
                return self._grant(answer)
            case Held():
                return self._hold(answer)
            case NoLease():
                return self._go_alone()

    def _do_without_store(self) -> float:
        given = self._leases.given(self._key)
        if given is not None:
            return self._hold(given)
        now = self._levels.clock.monotonic()
        if self._leader is not None and self._levels.shared.available and now < self._leader_until:
            return _RECHECK_SECONDS
        return self._go_alone()

    def _go_alone(self) -> float:
        """Carries on without the store, in this process."""
        known = self._leases.known_failure(self._key)
        if known is not None:
            return self._refuse(known)
        first = next(self._pending(), None)
        if first is None:
            return 0.0
        with _on_behalf_of(first):
            lease = self._leases.take_alone(self._key, seconds=first.lease_seconds)
        return self._grant(lease)

    def _refuse(self, known: KnownFailure) -> float:
        for waiter in self._pending():
            waiter.settle(Refused(known))
        return 0.0

    def _grant(self, lease: Lease) -> float:
        first = next(self._pending(), None)
        if first is None:
            self._leases.release_soon(self._key, lease.token)
            return 0.0
        first.settle(Granted(lease))
        return self._hold(Held(lease.token, lease.seconds))

    def _hold(self, held: Held) -> float:
        """Has everybody wait for the one who has the lease; returns for how long, in seconds."""
        self._leader = held
        self._leader_until = self._levels.clock.monotonic() + held.seconds
        if self._text is not None and self._text.token < held.token:
            self._text.close(_SUPERSEDED)
            self._text = None
        for waiter in self._pending():
            # Where its own leader still has the lease, it is being given back right now.
            if waiter.is_void and waiter.text is not None and waiter.text.token != held.token:
                waiter.settle(Interrupted(waiter.text.failure))
            else:
                self._keep_waiting(waiter, held.token)
        self._follow()
        seconds = max(held.seconds, _SHORTEST_PAUSE_SECONDS)
        return min(_RECHECK_SECONDS, seconds + _JITTER_SECONDS * self._levels.draw())

    def _follow(self) -> None:
        """Begins to read what another replica computes, where somebody here wants to follow it."""
        if self._leader is None or (self._text is not None and not self._text.closed):
            return
        if self._tail is not None and not self._tail.done():
            return
        reader = next((waiter for waiter in self._pending() if waiter.streaming), None)
        if reader is not None:
            with _on_behalf_of(reader):
                self._tail = self._tails.follow(
                    self._key, self._leader.token, show=self.show, wake=self.wake
                )

    def _keep_waiting(self, waiter: Waiter, leader: str) -> None:
        if waiter.outcome is not None:
            return
        if waiter.waits_since is None:
            self._levels.recorder.waiting(1)
        waiter.begin_waiting(leader)

    def _offer_text(self, waiter: Waiter, text: LiveText) -> None:
        """Lets a caller follow a text, unless the answer would not do for it in the end."""
        if (
            not text.closed
            and waiter.control.accepts(text.created_ms, self._levels.store_now_ms())
            and self._levels.epochs.is_valid(self._scope, text.created_ms, text.tags)
        ):
            waiter.offer_text(text)

    def _check(self, data: bytes, waiter: Waiter) -> Hit | None:
        try:
            return accept(
                self._levels,
                _LAYER,
                self._key,
                data,
                scope=self._scope,
                control=waiter.control,
                faults=waiter.faults,
                for_waiters=True,
            )
        except FrameRejected:
            waiter.faults.rejected_count += 1
            return None

    def _pending(self) -> Iterator[Waiter]:
        return (waiter for waiter in tuple(self._waiters) if waiter.outcome is None)

    def _is_wanted(self) -> bool:
        return any(self._pending())


def _on_behalf_of(waiter: Waiter) -> AbstractContextManager[object]:
    """Has what is done meanwhile stand in the trace of a caller in line."""
    return trace.use_span(waiter.span, record_exception=False, set_status_on_exception=False)
