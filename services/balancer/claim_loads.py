"""What a replica must have before it loads a model into a backend that it shares with others.

What it knows of the backend's memory may be a second old, and another replica may be about to send
a request to the very model that is to go. So it takes the right to load, and every slot of all
models that the load touches: nobody can then ask for one of them, and nobody is asking.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from services.balancer.backend import ModelState
from services.balancer.core.shares import Reservations

__all__ = ["claimed"]

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
