"""Keeping an answer, under the lease it was computed under or without one."""

from dataclasses import dataclass, replace

from services.cache.core.errors import LeaseLost
from services.cache.core.flight_tally import FlightEvent
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.leases import GenerationTimes, granted_ms
from services.cache.core.model import Keeping, Kept, NewValue, Scope, WriteOutcome
from services.cache.core.savings import Savings
from services.cache.core.tags import handed_over_tag
from services.cache.flights import Flights
from services.cache.keep import MAXIMUM_VALUE_BYTES, keep, seal
from services.cache.leases import FillOutcome, Leases
from services.cache.levels import Levels
from services.cache.look_up import accept

__all__ = ["InferenceStores", "NewInference"]

_LAYER = Layer.INFERENCE
# For those who wait on other replicas: they are told at once, and look by themselves each second.
_HANDED_OVER_SECONDS = 5.0
_OUTCOMES = {
    FillOutcome.KEPT: WriteOutcome.STORED,
    FillOutcome.REFUSED: WriteOutcome.REFUSED,
    FillOutcome.LOCAL: WriteOutcome.DROPPED,
    FillOutcome.DROPPED: WriteOutcome.DROPPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInference:
    """An answer to keep.

    Attributes:
        payload: Its own encoding.
        is_reusable: Whether it would do for the next caller.
        cost: What it has cost; its time is 0 where it is not known.
    """

    payload: bytes
    is_reusable: bool
    cost: Savings


class InferenceStores:
    """Keeps answers.

    Args:
        levels: Where to keep them.
        leases: Leases of this replica.
        flights: Those who wait for answers.
        times: Learns how long answers take.
    """

    def __init__(
        self, levels: Levels, leases: Leases, flights: Flights, times: GenerationTimes
    ) -> None:
        self._levels = levels
        self._leases = leases
        self._flights = flights
        self._times = times

    async def store(
        self, key: EntryKey, scope: Scope, inference: NewInference, keeping: Keeping
    ) -> Kept:
        """Keeps an answer that was computed without a lease."""
        if not inference.is_reusable:
            return self._decline(WriteOutcome.NOT_REUSABLE)
        kept = await keep(
            self._levels,
            _LAYER,
            [NewValue(key, inference.payload)],
            scope=scope,
            keeping=keeping,
            delta_ms=round(inference.cost.seconds * 1000),
        )
        self._note(scope, inference, kept)
        self._flights.wake(key.value)
        return kept

    async def store_leased(
        self,
        key: EntryKey,
        scope: Scope,
        token: str,
        inference: NewInference,
        keeping: Keeping,
        *,
        for_waiters: bool = False,
    ) -> Kept:
        """Keeps an answer that was computed under a lease, which ends in any case.

        Args:
            key: What it is an answer to.
            scope: What it belongs to.
            token: Token of the lease.
            inference: The answer.
            keeping: How to keep it.
            for_waiters: Whether only those get it who wait for it by now, on whichever replica.

        Raises:
            LeaseLost: The lease is not held; nothing was stored.
        """
        since_ms = granted_ms(token)
        if since_ms is None:
            self._levels.recorder.flight(FlightEvent.REJECTED)
            raise LeaseLost
        await self._levels.epochs.ready(scope.tenant_id)
        created_ms = since_ms if keeping.basis_ms is None else min(since_ms, keeping.basis_ms)
        reason = self._objection(scope, inference, keeping, created_ms)
        if reason is not None:
            await self._leases.release(key, token)
            return self._decline(reason)
        seconds = inference.cost.seconds or max(0, self._levels.store_now_ms() - since_ms) / 1000
        if for_waiters:
            keeping = _for_waiters(keeping, self._levels.store_now_ms())
        _, write = seal(
            self._levels,
            _LAYER,
            key,
            inference.payload,
            created_ms=created_ms,
            ttl_seconds=keeping.ttl_seconds,
            tags=keeping.tags,
            delta_ms=round(seconds * 1000),
        )
        outcome = await self._leases.fill(key, token, write)
        if outcome is not FillOutcome.DROPPED:
            # Only now, when the lease has proved to be held, is the value one to go by.
            accept(self._levels, _LAYER, key, write.data, scope=scope)
            self._flights.offer(key, write.data)
        degraded = outcome in (FillOutcome.LOCAL, FillOutcome.DROPPED)
        became = WriteOutcome.NOT_REUSABLE if for_waiters else _OUTCOMES[outcome]
        kept = Kept((became,), degraded=degraded)
        self._levels.recorder.wrote(_LAYER, kept.outcomes)
        self._note(scope, inference, kept)
        return kept

    def decline_too_large(self) -> Kept:
        """Counts an answer that is too large to be kept."""
        return self._decline(WriteOutcome.TOO_LARGE)

    def _objection(
        self, scope: Scope, inference: NewInference, keeping: Keeping, created_ms: int
    ) -> WriteOutcome | None:
        """Returns why an answer is not kept; None where it is."""
        if not inference.is_reusable:
            return WriteOutcome.NOT_REUSABLE
        if len(inference.payload) > MAXIMUM_VALUE_BYTES:
            return WriteOutcome.TOO_LARGE
        if not self._levels.epochs.is_valid(scope, created_ms, keeping.tags):
            return WriteOutcome.INVALIDATED
        return None

    def _decline(self, outcome: WriteOutcome) -> Kept:
        kept = Kept((outcome,), degraded=not self._levels.shared.available)
        self._levels.recorder.wrote(_LAYER, kept.outcomes)
        return kept

    def _note(self, scope: Scope, inference: NewInference, kept: Kept) -> None:
        self._times.note(scope.model_digest, inference.cost.seconds)
        if kept.stored_count:
            self._levels.recorder.generated(_LAYER, inference.cost)


def _for_waiters(keeping: Keeping, now_ms: int) -> Keeping:
    """Returns how a value is kept for those only who wait for it by now."""
    tags = (*keeping.tags, handed_over_tag(now_ms))
    return replace(keeping, tags=tags, ttl_seconds=_HANDED_OVER_SECONDS)
