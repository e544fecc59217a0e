"""All lines of this process: who waits for which answer, and which are handed over here."""

from services.cache.background import Background
from services.cache.core.failures import Failure
from services.cache.core.fills import LiveText
from services.cache.core.flight_tally import FlightEvent
from services.cache.core.flights import Granted, Missed, WaitEnded
from services.cache.core.keys import EntryKey
from services.cache.core.model import Scope
from services.cache.flight import Flight
from services.cache.lease_store import DONE_CHANNEL
from services.cache.leases import Leases
from services.cache.levels import Levels
from services.cache.notices import Notices
from services.cache.tails import Tails
from services.cache.waiters import Waiter

__all__ = ["Flights"]


class Flights:
    """Brings those together who want the same answer.

    Args:
        levels: Where values are kept.
        leases: Leases of this replica.
        tails: Follows what other replicas compute.
        notices: Tells what other replicas have done.
        background: Runs what asks for the callers in line.
        origin: Marks the notices of this process, without spaces.
    """

    def __init__(
        self,
        levels: Levels,
        leases: Leases,
        tails: Tails,
        *,
        notices: Notices,
        background: Background,
        origin: bytes,
    ) -> None:
        self._levels = levels
        self._leases = leases
        self._tails = tails
        self._background = background
        self._origin = origin
        self._flights: dict[bytes, Flight] = {}
        self._texts: dict[bytes, LiveText] = {}
        leases.on_ended(self.wake)
        notices.on(DONE_CHANNEL, self._note)
        notices.on_gap(self._wake_all)

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def text_count(self) -> int:
        """Answers that are being handed to this replica."""
        return len(self._texts)

    def join(self, key: EntryKey, scope: Scope, waiter: Waiter, *, reachable: bool) -> None:
        """Puts a caller in line.

        Args:
            key: What it wants.
            scope: What that belongs to; `levels.epochs.ready` was awaited before.
            waiter: The caller.
            reachable: Whether the shared store is worth asking; False where it just was not.
        """
        flight = self._flights.get(key.value)
        if flight is None:
            flight = Flight(self._levels, self._leases, self._tails, key, scope)
            self._flights[key.value] = flight
            text = self._texts.get(key.value)
            if text is not None:
                flight.show(text, is_local=True)
            self._background.detach(self._run(key, flight, reachable=reachable))
        flight.add(waiter)

    def leave(self, key: EntryKey, waiter: Waiter, *, is_served: bool) -> None:
        """Takes a caller out of the line.

        Args:
            key: What it wanted.
            waiter: The caller.
            is_served: Whether its outcome reaches it; a lease that does not is given back.
        """
        flight = self._flights.get(key.value)
        if flight is not None:
            flight.remove(waiter)
        if not is_served and isinstance(waiter.outcome, Granted):
            self._leases.release_soon(key, waiter.outcome.lease.token)
        waiter.settle(Missed())
        if waiter.waited_seconds is not None:
            self._levels.recorder.waiting(-1)
            self._levels.recorder.waited(waiter.waited_seconds)
        if isinstance(waiter.outcome, WaitEnded):
            self._levels.recorder.flight(FlightEvent.WAIT_ENDED)

    def wake(self, value_key: bytes) -> None:
        """Has a line look again, since something may have happened to its answer."""
        flight = self._flights.get(value_key)
        if flight is not None:
            flight.wake()

    def offer(self, key: EntryKey, data: bytes) -> None:
        """Gives a value that was stored through this replica to those who wait for it here."""
        flight = self._flights.get(key.value)
        if flight is not None:
            flight.offer(data)
            flight.wake()

    def open_text(self, key: EntryKey, text: LiveText) -> None:
        """Lets those who wait here follow an answer that is being handed to this replica."""
        self._texts[key.value] = text
        flight = self._flights.get(key.value)
        if flight is not None:
            flight.show(text, is_local=True)

    def close_text(self, key: EntryKey, text: LiveText, failure: Failure) -> None:
        """Ends that; whoever has got the answer meanwhile is not concerned.

        Args:
            key: What was computed.
            text: What was generated.
            failure: What to tell the others.
        """
        if self._texts.get(key.value) is text:
            del self._texts[key.value]
        text.close(failure)
        self.wake(key.value)

    def end_waits(self) -> None:
        """Has nobody wait any longer who has not been sent any text; for the end of the process."""
        for flight in self._flights.values():
            flight.end_waits()

    async def _run(self, key: EntryKey, flight: Flight, *, reachable: bool) -> None:
        try:
            await flight.run(reachable=reachable)
        finally:
            # In one step with its last look at the line: whoever comes now begins another one.
            del self._flights[key.value]
            flight.abandon()

    def _note(self, payload: bytes) -> None:
        origin, token, value_key = payload.split(b" ", 2)
        if origin != self._origin:
            self._leases.note_ended(value_key, token.decode())
            self.wake(value_key)

    def _wake_all(self) -> None:
        for flight in self._flights.values():
            flight.wake()
