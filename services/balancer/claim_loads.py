"""What a replica must have before it does anything of its own to a backend that others share.

Before it loads a model: what it knows of the backend's memory may be a second old, and another
replica may be about to send a request to the very model that is to go. So it takes the right to
load, and every slot of all models that the load touches: nobody can then ask for one of them, and
nobody is asking. Before it asks for a token to see whether a model answers: a slot, as for any
other request. Before it cures a model that does not answer: the right to load and a slot, and
before it tries several slots of that model, or unloads it, every other slot that can be had.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.balancer.backend import ModelState
from services.balancer.core.shares import Reservations

__all__ = ["CureClaim", "claimed", "claimed_cure", "claimed_slot"]

# Time for the others to list what is in memory now, before they can ask for what is gone.
_LISTING_SECONDS = 0.3


@asynccontextmanager
async def claimed(
    reservations: Reservations, backend_id: str, state: ModelState, victims: Sequence[ModelState]
) -> AsyncIterator[str]:
    """Holds what a load takes while the context is open.

    Yields:
        What is in the way; empty where nothing is.

    Args:
        reservations: What the replicas hold together.
        backend_id: Where the model is to be loaded.
        state: The model.
        victims: Who has to go for it.
    """
    right = await reservations.take_load(backend_id, state.key)
    if right is None:
        yield "another replica of the balancer loads there"
        return
    own: list[str] = []
    others: list[str] = []
    try:
        complete = await _take_all(reservations, backend_id, [state], own)
        complete &= await _take_all(reservations, backend_id, victims, others)
        # Who cannot ask the others does with what is his.
        in_the_way = not complete and not reservations.divided
        yield "another replica of the balancer sends requests there" if in_the_way else ""
    finally:
        for token in [*own, right]:
            reservations.release(token)
        asyncio.get_running_loop().call_later(_LISTING_SECONDS, _release, reservations, others)


@asynccontextmanager
async def claimed_slot(
    reservations: Reservations, backend_id: str, state: ModelState
) -> AsyncIterator[bool]:
    """Holds a slot for a request of the balancer's own while the context is open.

    Yields:
        Whether there was one.

    Args:
        reservations: What the replicas hold together.
        backend_id: Where the request goes.
        state: The model.
    """
    token = await reservations.take(backend_id, state.key, state.slot_count)
    try:
        yield token is not None
    finally:
        if token is not None:
            reservations.release(token)


class CureClaim:
    """What is held for the cure of a model.

    Args:
        reservations: What the replicas hold together.
        backend_id: Where.
        state: The model.
    """

    def __init__(self, reservations: Reservations, backend_id: str, state: ModelState) -> None:
        self._reservations = reservations
        self._backend_id = backend_id
        self._state = state
        self._right: str | None = None
        self._slots: list[str] = []

    async def take(self) -> bool:
        """Takes the right to load and a slot, and tells whether the cure may begin."""
        its, state = self._reservations, self._state
        self._right = await its.take_load(self._backend_id, state.key)
        slot = await its.take(self._backend_id, state.key, state.slot_count)
        if slot is not None:
            self._slots.append(slot)
        # Where all slots are this replica's, what hangs in them is what is to be cured.
        has_slot = slot is not None or not its.held_by_others(self._backend_id, state.key)
        # Who cannot ask the others does with what is his.
        return its.divided or (self._right is not None and has_slot)

    async def take_rest(self) -> None:
        """Takes what slots are left, so that others send nothing to a model that is to go."""
        await _take_all(self._reservations, self._backend_id, [self._state], self._slots)

    async def take_free(self) -> int:
        """Takes what slots are left and returns how many may be used besides those in use here."""
        await self.take_rest()
        unused_count = self._state.slot_count - len(self._state.occupancies)
        return min(len(self._slots), unused_count)

    @property
    def others_go_on(self) -> bool:
        """Whether other replicas hold slots of the model, as last seen."""
        return self._reservations.held_by_others(self._backend_id, self._state.key) > 0

    def release(self) -> None:
        """Gives everything back; the slots when others have seen what is in memory now."""
        if self._right is not None:
            self._reservations.release(self._right)
        loop = asyncio.get_running_loop()
        loop.call_later(_LISTING_SECONDS, _release, self._reservations, self._slots)


@asynccontextmanager
async def claimed_cure(
    reservations: Reservations, backend_id: str, state: ModelState
) -> AsyncIterator[CureClaim | None]:
    """Holds what the cure of a model takes while the context is open.

    Yields:
        What is held, to which more can be added; None where another replica loads there or has the
        slots, and will find out itself whether the model answers.

    Args:
        reservations: What the replicas hold together.
        backend_id: Where the model is.
        state: The model.
    """
    claim = CureClaim(reservations, backend_id, state)
    try:
        yield claim if await claim.take() else None
    finally:
        claim.release()


async def _take_all(
    reservations: Reservations, backend_id: str, models: Sequence[ModelState], tokens: list[str]
) -> bool:
    """Takes all slots of some models, and tells whether it got them; notes what it got."""

    async def take(model: ModelState) -> bool:
        token = await reservations.take(backend_id, model.key, model.slot_count)
        if token is not None:
            tokens.append(token)
        return token is not None

    async with asyncio.TaskGroup() as group:
        takes = [
            group.create_task(take(model)) for model in models for _ in range(model.slot_count)
        ]
    return all(task.result() for task in takes)


def _release(reservations: Reservations, tokens: Sequence[str]) -> None:
    for token in tokens:
        reservations.release(token)
