"""Looking an answer up, together with all others who want the same one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from services.cache.core.flight_tally import FlightEvent
from services.cache.core.flights import Found, Granted, Missed, Refused
from services.cache.core.frames import FrameRejected
from services.cache.core.inference import Finding, FlightWish, Kind, Query
from services.cache.core.layers import Layer
from services.cache.core.leases import GenerationTimes, Lease
from services.cache.core.model import Hit, Level, Lookup
from services.cache.core.refresh import refresh_is_due
from services.cache.flights import Flights
from services.cache.lease_store import StoredValue, Unread
from services.cache.leases import Leases
from services.cache.levels import Levels
from services.cache.look_up import Faults, accept, find_local, look_up
from services.cache.ports import StoreFailure
from services.cache.waiters import Waiter

__all__ = ["InferenceLookups", "Visit"]

_LAYER = Layer.INFERENCE
# Of callers without a deadline.
_LONGEST_STAY_SECONDS = 3600.0
# Kept back from the caller's deadline, so that a late store shows as a miss and not as an error.
_DEADLINE_MARGIN_SECONDS = 0.01


_KINDS = {Level.LOCAL: Kind.LOCAL, Level.SHARED: Kind.SHARED}


@dataclass(slots=True, kw_only=True)
class Visit:
    """A caller's place in a line.

    Attributes:
        query: What the caller wants.
        waiter: The caller.
        started: When it came, seconds on the monotonic clock.
        read_ms: The same by the store's clock, milliseconds since the Unix epoch.
        is_counted: Whether its lookup was counted.
    """

    query: Query
    waiter: Waiter
    started: float
    read_ms: int
    is_counted: bool = False


class InferenceLookups:
    """Looks answers up.

    Args:
        levels: Where they are kept.
        leases: Leases of this replica.
        flights: Those who wait for the same answers.
        times: How long answers take.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        levels: Levels,
        leases: Leases,
        flights: Flights,
        times: GenerationTimes,
        *,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._levels = levels
        self._leases = leases
        self._flights = flights
        self._times = times
        self._remaining_seconds = remaining_seconds
        self._refreshing: set[bytes] = set()

    async def look_up(self, query: Query) -> Finding:
        """Looks an answer up, and waits for it where another caller computes it.

        Returns:
            What was found. A lease in it is the caller's from now on.
        """
        visit = await self.enter(query, streaming=False)
        if isinstance(visit, Finding):
            return visit
        is_served = False
        try:
            while visit.waiter.outcome is None:
                await visit.waiter.news()
            finding = await self.conclude(visit)
            is_served = True
            return finding
        finally:
            self.leave(visit, is_served=is_served)

    async def enter(self, query: Query, *, streaming: bool) -> Finding | Visit:
        """Looks an answer up as far as that goes without waiting for others.

        Args:
            query: What is wanted.
            streaming: Whether the caller follows the text of an answer that is being computed.

        Returns:
            What was found; or a place in line, which must be left in the end.
        """
        if query.wish is None or query.is_bypassed:
            return await self._look_up_plainly(query)
        started = self._levels.clock.monotonic()
        reachable = await self._levels.epochs.ready(query.scope.tenant_id)
        read_ms = self._levels.store_now_ms()
        faults = Faults()
        hit = find_local(
            self._levels,
            _LAYER,
            query.key,
            scope=query.scope,
            control=query.control,
            faults=faults,
        )
        if hit is not None:
            degraded = not (reachable and self._levels.shared.available)
            self._record(query, hit, started=started, degraded=degraded, faults=faults)
            hit, lease = await self._refresh(query, query.wish, hit)
            return Finding(
                kind=Kind.LOCAL, read_ms=read_ms, degraded=degraded, hit=hit, lease=lease
            )
        waiter = self._make_waiter(query, query.wish, streaming=streaming, came_ms=read_ms)
        waiter.faults = faults
        self._flights.join(query.key, query.scope, waiter, reachable=reachable)
        return Visit(query=query, waiter=waiter, started=started, read_ms=read_ms)

    def leave(self, visit: Visit, *, is_served: bool) -> None:
        """Takes a caller out of its line.

        Args:
            visit: Its place.
            is_served: Whether it has got what came of it; a lease it has not is given back.
        """
        if not visit.is_counted:
            # It did not stay to the end, having found nothing at once.
            self._count(visit, None, degraded=not self._levels.shared.available)
        self._flights.leave(visit.query.key, visit.waiter, is_served=is_served)

    async def conclude(self, visit: Visit) -> Finding:
        """Turns the outcome of a visit, which must be there, into what was found, and counts it."""
        query, waiter = visit.query, visit.waiter
        outcome = waiter.outcome
        found = outcome if isinstance(outcome, Found) else None
        hit = found.hit if found is not None and not found.coalesced else None
        degraded = (
            isinstance(outcome, Missed)
            or (isinstance(outcome, Granted) and outcome.lease.local)
            or not self._levels.shared.available
        )
        self._count(visit, hit, degraded=degraded)
        finding = Finding(
            kind=Kind.MISS,
            read_ms=visit.read_ms,
            degraded=degraded,
            waited=waiter.waited_seconds is not None,
        )
        match outcome:
            case Found(hit, coalesced=True):
                self._levels.recorder.flight(
                    FlightEvent.COALESCED, mode=query.mode, tenant_id=query.scope.tenant_id
                )
                return replace(finding, kind=Kind.COALESCED, hit=hit)
            case Found(hit):
                self._times.note(query.scope.model_digest, hit.delta_seconds)
                lease = None
                if query.wish is not None:
                    hit, lease = await self._refresh(query, query.wish, hit)
                return replace(finding, kind=Kind.SHARED, hit=hit, lease=lease)
            case Granted(lease):
                return replace(finding, lease=lease, read_ms=lease.granted_ms)
            case Refused(known):
                self._levels.recorder.flight(FlightEvent.NEGATIVE)
                return replace(finding, kind=Kind.NEGATIVE, failure=known)
            case Missed():
                return finding
            case _:
                return replace(finding, kind=Kind.WAITED)

    async def _look_up_plainly(self, query: Query) -> Finding:
        lookup = await look_up(
            self._levels,
            _LAYER,
            [query.key],
            scope=query.scope,
            control=replace(query.control, bypass=query.is_bypassed),
            mode=query.mode,
        )
        (hit,) = lookup.hits
        kind = Kind.BYPASSED if lookup.bypassed else Kind.MISS
        return Finding(
            kind=kind if hit is None else _KINDS[hit.level],
            read_ms=lookup.read_ms or self._levels.store_now_ms(),
            degraded=lookup.degraded,
            hit=hit,
            question_scope=query.question_scope,
        )

    def _make_waiter(
        self, query: Query, wish: FlightWish, *, streaming: bool, came_ms: int
    ) -> Waiter:
        remaining_seconds = self._remaining_seconds()
        if remaining_seconds is None:
            remaining_seconds = _LONGEST_STAY_SECONDS
        return Waiter(
            control=query.control,
            lease_seconds=self._lease_seconds(query, wish),
            wait_seconds=wish.wait_seconds,
            remaining_seconds=max(0.0, remaining_seconds - _DEADLINE_MARGIN_SECONDS),
            streaming=streaming,
            came_ms=came_ms,
        )

    def _lease_seconds(self, query: Query, wish: FlightWish) -> float:
        if wish.lease_seconds is not None:
            return wish.lease_seconds
        return self._times.lease_seconds(query.scope.model_digest)

    async def _refresh(self, query: Query, wish: FlightWish, hit: Hit) -> tuple[Hit, Lease | None]:
        """Finds out whether the caller is the one to compute an answer anew before it expires."""
        key = query.key
        ttl_seconds = hit.remaining_seconds + hit.age_seconds
        if (
            key.value in self._refreshing
            or self._leases.given(key) is not None
            or not self._levels.shared.available
            or not refresh_is_due(
                left_seconds=hit.remaining_seconds,
                ttl_seconds=ttl_seconds,
                delta_seconds=hit.delta_seconds,
                draw=self._levels.draw(),
            )
        ):
            return hit, None
        self._refreshing.add(key.value)
        try:
            # A value with clearly more time left is another one: somebody was faster.
            left_ms = int(1000 * (hit.remaining_seconds + min(1.0, 0.1 * ttl_seconds)))
            answer = await self._leases.take(
                key,
                seconds=self._lease_seconds(query, wish),
                unread=Unread(left_ms=left_ms),
                event=FlightEvent.REFRESH_LEASED,
            )
        except StoreFailure:
            return hit, None
        finally:
            self._refreshing.discard(key.value)
        match answer:
            case Lease():
                return hit, answer
            case StoredValue(data):
                return self._accept(query, data) or hit, None
            case _:
                return hit, None

    def _accept(self, query: Query, data: bytes) -> Hit | None:
        try:
            return accept(
                self._levels,
                _LAYER,
                query.key,
                data,
                scope=query.scope,
                control=query.control,
            )
        except FrameRejected:
            # The lookup itself was counted when its own value was found.
            self._levels.recorder.rejected(_LAYER, 1)
            return None

    def _count(self, visit: Visit, hit: Hit | None, *, degraded: bool) -> None:
        """Counts the lookup of a visit, once; what it waited for others is no part of its time."""
        visit.is_counted = True
        self._record(
            visit.query,
            hit,
            started=visit.started + (visit.waiter.waited_seconds or 0.0),
            degraded=degraded,
            faults=visit.waiter.faults,
        )

    def _record(
        self, query: Query, hit: Hit | None, *, started: float, degraded: bool, faults: Faults
    ) -> None:
        """Counts a lookup.

        Args:
            query: What was wanted.
            hit: What was there at once.
            started: When it began, seconds on the monotonic clock, waits for others left out.
            degraded: Whether the shared store could not be asked.
            faults: What was there and did not count.
        """
        self._levels.recorder.looked_up(
            _LAYER,
            Lookup(
                hits=(hit,),
                degraded=degraded,
                rejected_count=faults.rejected_count,
                invalidated_count=faults.invalidated_count,
            ),
            mode=query.mode,
            tenant_id=query.scope.tenant_id,
            duration_seconds=self._levels.clock.monotonic() - started,
        )
