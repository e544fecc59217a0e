"""Shares the slots of the fleet with the other replicas through a store.

One task converses with the store, one call at a time: whatever has come up during a call goes into
the next one, so that a busy replica needs few calls and their order is the order of events. A call
is made at least each tenth of a second; it keeps the lease of everything held. What others do is
pushed, and made up for by those calls where a push is lost.

A call that fails ends all waiting at once. From then on nobody waits for the store; whether it is
back is found out in the background.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

from services.balancer.core.share_ledger import Holding, Phase, ShareLedger
from services.balancer.core.shares import Resource, load_of
from services.balancer.share_store import (
    Answer,
    Attempt,
    ReservationStore,
    SharingPolicy,
    StoreLost,
)
from services.common.clock import Clock

__all__ = ["SharedReservations", "share_slots"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    resource: Resource
    slots: int
    note: str
    token: asyncio.Future[str | None]


class SharedReservations:
    """The reservations of one replica among others; see `Reservations`.

    Args:
        store: Where the replicas meet.
        replica_id: Name of this replica; no other may have had it.
        clock: Time.
        policy: The times of the conversation.
    """

    shared = True

    def __init__(
        self, store: ReservationStore, *, replica_id: str, clock: Clock, policy: SharingPolicy
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy
        self._ledger = ShareLedger(
            replica_id,
            now=clock.monotonic(),
            lease_seconds=policy.lease_seconds,
            silence_seconds=policy.silence_seconds,
            patience_seconds=policy.patience_seconds,
        )
        self._session = 0
        self._wishes: list[_Wish] = []
        self._released: list[Holding] = []
        self._something_to_say = asyncio.Event()
        self._asked_at = -math.inf
        self._on_change: Callable[[], None] = _ignore

    @property
    def replica_count(self) -> int:
        """How many replicas there are as last seen, this one included."""
        return self._ledger.replica_count

    @property
    def divided(self) -> bool:
        """Whether each replica keeps to the slots it owns."""
        return self._ledger.phase is not Phase.SHARED

    @property
    def immediate(self) -> bool:
        """Whether takes are decided without asking the store."""
        return self._ledger.phase is Phase.APART

    def watch(self, on_change: Callable[[], None]) -> None:
        """Names the one who is told of changes; see `Reservations.watch`."""
        self._on_change = on_change

    def usable_slots(self, backend_id: str, model: str, slots: int) -> int:
        """Returns how many slots could be held at once; see `Reservations.usable_slots`."""
        resource = Resource(backend_id, model)
        return self._ledger.usable(resource, slots, self._clock.monotonic())

    def held_by_others(self, backend_id: str, model: str) -> int:
        """Returns how many slots other replicas hold, as last seen."""
        return len(self._ledger.others(Resource(backend_id, model), self._clock.monotonic()))

    def may_load(self, backend_id: str) -> bool:
        """Tells whether this replica could take the right to load into a backend."""
        return self._ledger.usable(load_of(backend_id), 1, self._clock.monotonic()) > 0

    def is_loading_elsewhere(self, backend_id: str) -> str | None:
        """Returns the model that another replica is loading into a backend, as last seen."""
        others = self._ledger.others(load_of(backend_id), self._clock.monotonic())
        return others[0].note if others else None

    def try_take(self, backend_id: str, model: str, slots: int) -> str | None:
        """Takes an own slot while apart; see `Reservations.try_take`."""
        return self._take_own(Resource(backend_id, model), slots, "")

    async def take(self, backend_id: str, model: str, slots: int) -> str | None:
        """Takes a slot; see `Reservations.take`."""
        return await self._take(Resource(backend_id, model), slots, "")

    async def take_load(self, backend_id: str, model: str) -> str | None:
        """Takes the right to load a model; see `Reservations.take_load`."""
        return await self._take(load_of(backend_id), 1, model)

    def release(self, token: str) -> None:
        """Gives back what was taken, and does not wait for the store to hear of it."""
        holding = self._ledger.remove(token)
        if holding is not None and not self.immediate:
            self._released.append(holding)
            self._something_to_say.set()

    async def join(self) -> None:
        """Makes one attempt to meet the other replicas."""
        try:
            await self._store.check()
            await self._register()
        except StoreLost as lost:
            self._ledger.stay_apart()
            _logger.debug("reservation store is still away", extra={"failure": str(lost)})
            self._decide_waiting()
        # Slots fall to their owners in time, and when the store is back.
        self._on_change()

    async def run(self) -> None:
        """Converses with the store until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                if self._ledger.phase is Phase.APART:
                    await self.join()
                if self._ledger.phase is Phase.APART:
                    await self._clock.sleep(self._policy.retry_seconds)
                else:
                    await self._until_something_to_say()
                    await self._exchange()

    async def leave(self) -> None:
        """Gives up everything that is held; others then need not wait for the lease to end."""
        self._ledger.stay_apart()
        self._decide_waiting()
        with suppress(StoreLost):
            await self._store.leave(self._session)

    def _take_own(self, resource: Resource, slots: int, note: str) -> str | None:
        return self._ledger.take_own(resource, slots, note, self._clock.monotonic())

    async def _take(self, resource: Resource, slots: int, note: str) -> str | None:
        if self.immediate:
            return self._take_own(resource, slots, note)
        token: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._wishes.append(_Wish(resource=resource, slots=slots, note=note, token=token))
        self._something_to_say.set()
        try:
            return await token
        except asyncio.CancelledError:
            if token.done() and not token.cancelled():
                # Granted in the very moment in which nobody wanted it any more.
                self.release(token.result() or "")
            raise

    async def _until_something_to_say(self) -> None:
        patience = self._asked_at + self._policy.beat_seconds - self._clock.monotonic()
        if patience > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._something_to_say.wait()

    def _ask_soon(self) -> None:
        self._asked_at = -math.inf
        self._something_to_say.set()

    async def _exchange(self) -> None:
        self._something_to_say.clear()
        now = self._clock.monotonic()
        released, self._released = self._released, []
        wishes = [wish for wish in self._wishes if not wish.token.done()]
        self._wishes = []
        attempts = [
            Attempt(
                resource=wish.resource,
                slots=wish.slots,
                candidates=self._ledger.candidates(wish.resource, wish.slots, now),
                note=wish.note,
            )
            for wish in wishes
        ]
        is_beat = now >= self._asked_at + self._policy.beat_seconds
        if is_beat:
            self._asked_at = now
        try:
            answer = await self._store.exchange(
                self._session,
                released,
                attempts,
                seen_version=self._ledger.version if is_beat else None,
            )
        except StoreLost as lost:
            self._lose(str(lost), wishes)
        except asyncio.CancelledError:
            # They are told when the conversation ends.
            self._wishes += wishes
            raise
        else:
            if answer is None:
                self._lose("the store does not know this replica", wishes)
            else:
                self._note(answer, wishes)

    def _note(self, answer: Answer, wishes: Sequence[_Wish]) -> None:
        changed = self._ledger.hear(self._clock.monotonic(), answer.silent)
        changed |= self._ledger.settle(settling=answer.settling)
        for wish, slot, occupants in zip(wishes, answer.granted, answer.occupants, strict=True):
            changed |= self._ledger.see(wish.resource, occupants)
            token = None
            if slot is not None:
                token = self._ledger.add(Holding(wish.resource, slot, wish.note))
            if not wish.token.done():
                wish.token.set_result(token)
            elif token is not None:
                self.release(token)
        if answer.snapshot is not None:
            changed |= self._ledger.observe(answer.snapshot)
        if changed:
            self._on_change()

    async def _register(self) -> None:
        away = self._ledger.has_been_away(self._clock.monotonic())
        self._ledger.join()
        self._released.clear()
        self._session += 1
        answer = await self._store.register(self._session, self._ledger.holdings, away=away)
        if answer is None or answer.snapshot is None:
            raise StoreLost("a later session has begun")
        self._ledger.hear(self._clock.monotonic(), answer.silent)
        self._ledger.joined(answer.snapshot, settling=answer.settling)
        # The others may use the slots of this replica when it has confirmed that it has heard.
        self._ask_soon()
        _logger.info("reservation store answers", extra={"settling": answer.settling})

    def _lose(self, failure: str, wishes: Sequence[_Wish]) -> None:
        self._ledger.lose(self._clock.monotonic())
        self._wishes += wishes
        self._decide_waiting()
        _logger.warning("slots are divided among the replicas", extra={"failure": failure})

    def _decide_waiting(self) -> None:
        wishes, self._wishes = self._wishes, []
        for wish in wishes:
            if not wish.token.done():
                wish.token.set_result(self._take_own(wish.resource, wish.slots, wish.note))

    async def _listen(self) -> None:
        while True:
            with suppress(StoreLost):
                async with aclosing(self._store.changes()) as changes:
                    async for change in changes:
                        if change.resource is None:
                            self._ask_soon()
                        if self._ledger.apply(change):
                            self._on_change()
            await self._clock.sleep(self._policy.retry_seconds)


@asynccontextmanager
async def share_slots(
    store: ReservationStore, *, replica_id: str, clock: Clock, policy: SharingPolicy
) -> AsyncIterator[SharedReservations]:
    """Shares slots while the context is open.

    Args:
        store: Where the replicas meet; is closed in the end.
        replica_id: Name of this replica, random.
        clock: Time.
        policy: The times of the conversation.
    """
    reservations = SharedReservations(store, replica_id=replica_id, clock=clock, policy=policy)
    try:
        await reservations.join()
        async with asyncio.TaskGroup() as group:
            conversation = group.create_task(reservations.run())
            try:
                yield reservations
            finally:
                conversation.cancel()
        await reservations.leave()
    finally:
        await store.close()


def _ignore() -> None:
    """Nobody watches."""
