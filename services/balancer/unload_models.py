"""Unloading models: to make room for others, and by order of an operator."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from services.balancer.backend import Backend, ModelState
from services.balancer.core.shares import Reservations
from services.balancer.core.snapshot import Residency
from services.balancer.failing import FailureEffects
from services.balancer.fleet import Fleet
from services.balancer.ports import Servers
from services.common.clock import Clock

__all__ = ["LoadLimits", "ModelUnloader"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """How long what may take, in seconds.

    Attributes:
        load: Loading a model.
        unload: Until a model that was told to go is gone.
        listing: Listing the models in memory.
        poll: Pause between two looks whether a model is idle, or gone.
    """

    load: float = 330.0
    unload: float = 30.0
    listing: float = 3.0
    poll: float = 0.1


class ModelUnloader:
    """Unloads models that are not in use, and those that are as soon as they are not.

    Args:
        fleet: The backends.
        servers: What reaches them.
        reservations: What other replicas of the balancer do.
        effects: What follows from failures.
        clock: Measures the limits.
        limits: How long what may take.
        until_loaded: Waits for the load under way on a backend.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Servers,
        reservations: Reservations,
        effects: FailureEffects,
        *,
        clock: Clock,
        limits: LoadLimits,
        until_loaded: Callable[[str], Awaitable[object]],
    ) -> None:
        self._fleet = fleet
        self._servers = servers
        self._reservations = reservations
        self._effects = effects
        self._clock = clock
        self._limits = limits
        self._until_loaded = until_loaded
        # By the model itself: the first of its names changes where a name is added or goes.
        self._unloads: dict[str, dict[ModelState, asyncio.Task[bool]]] = {}
        self._closed = False

    def close(self) -> list[asyncio.Task[bool]]:
        """Begins no more, and returns those under way."""
        self._closed = True
        return [task for tasks in self._unloads.values() for task in tasks.values()]

    def leaving(self, backend_id: str) -> tuple[asyncio.Task[bool], ...]:
        """Returns the unloadings under way on a backend that an operator has ordered."""
        return tuple(self._unloads.get(backend_id, {}).values())

    def in_use(self, backend: Backend, state: ModelState) -> bool:
        """Tells whether requests hold slots of a model, those of other replicas included."""
        held_elsewhere = self._reservations.held_by_others(backend.id, state.key)
        return bool(state.occupancies) or held_elsewhere > 0

    async def unload(self, backend: Backend, state: ModelState) -> bool:
        """Has a backend unload a model as soon as it is idle; until then it is given nothing more.

        Returns:
            Whether it is gone; not where it is busy, when that is not waited for.

        Raises:
            AttemptFailed: The backend did not do it.
        """
        busy = self.in_use(backend, state) or state.residency is not Residency.WARM
        task = self._unloads.get(backend.id, {}).get(state)
        if task is None:
            if self._closed or state.residency is Residency.INSTALLED:
                return state.residency is Residency.INSTALLED
            task = asyncio.get_running_loop().create_task(self._unload(backend, state))
            self._unloads.setdefault(backend.id, {})[state] = task
            task.add_done_callback(partial(self._settle_unload, backend, state))
            if state.residency is Residency.WARM:
                self._note_leaving(state)
        if busy:
            return False
        await asyncio.wait([task])
        if task.cancelled():
            return False
        return task.result()

    def _note_leaving(self, state: ModelState) -> None:
        state.residency = Residency.UNLOADING
        state.view = None
        self._fleet.changed()

    async def _unload(self, backend: Backend, state: ModelState) -> bool:
        if state.residency is Residency.LOADING:
            await self._until_loaded(backend.id)
            if not _is_warm(state):
                return False
            self._note_leaving(state)
        while self.in_use(backend, state):
            await self._clock.sleep(self._limits.poll)
        return await self.send_away(backend, state)

    def _settle_unload(
        self, backend: Backend, state: ModelState, unload: asyncio.Task[bool]
    ) -> None:
        del self._unloads[backend.id][state]
        if state.residency is Residency.UNLOADING:
            state.residency = Residency.WARM
        state.settled_at = self._clock.monotonic()
        state.view = None
        if not unload.cancelled() and (error := unload.exception()) is not None:
            extra = {"backend": backend.id, "model": state.installed.name, "failure": str(error)}
            _logger.warning("model not unloaded", extra=extra)
        self._effects.look(backend)
        self._fleet.changed()

    async def send_away(self, backend: Backend, state: ModelState) -> bool:
        """Tells a model to go, and tells whether it has gone within the limit.

        Raises:
            AttemptFailed: The backend did not do it.
        """
        server = self._servers[backend.id]
        began_at = self._clock.monotonic()
        await server.unload(state.installed.name)
        until = self._clock.monotonic() + self._limits.unload
        while state.find(await server.loaded(self._limits.listing)) is not None:
            if self._clock.monotonic() >= until:
                return False
            await self._clock.sleep(self._limits.poll)
        state.residency = Residency.INSTALLED
        state.settled_at = self._clock.monotonic()
        self._fleet.note_unloaded(state.settled_at - began_at)
        state.expires_at = None
        state.view = None
        self._fleet.prefixes.forget(backend.id, state.placement_key)
        return True


def _is_warm(state: ModelState) -> bool:
    return state.residency is Residency.WARM
