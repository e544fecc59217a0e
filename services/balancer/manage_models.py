"""What an operator may order of models: to load, to unload, to download."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from services.balancer.backend import Backend, ModelState
from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.errors import (
    BackendNotFound,
    ModelLoadFailed,
    ModelNotFound,
    ModelPullFailed,
)
from services.balancer.core.failures import AttemptFailed
from services.balancer.core.names import model_key
from services.balancer.core.outcomes import LoadCause
from services.balancer.core.plan import plan
from services.balancer.core.requests import PullProgress
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import takes_requests
from services.balancer.fleet import Fleet
from services.balancer.load_models import Loaded, ModelLoader
from services.balancer.membership import Membership
from services.balancer.own_spans import current_causes
from services.balancer.ports import Servers
from services.common.clock import Clock

__all__ = ["ModelManager", "PullStep", "Pulled"]

_POLL_SECONDS = 0.1
_QUEUED_STEPS = 64


@dataclass(frozen=True, slots=True)
class PullStep:
    """A step of a download on a backend."""

    backend_id: str
    progress: PullProgress


@dataclass(frozen=True, slots=True)
class Pulled:
    """A backend has a model now.

    Attributes:
        backend_id: The backend.
        digest: Digest of the model; empty where the backend does not list it.
    """

    backend_id: str
    digest: str


_Steps = asyncio.Queue[PullStep | Pulled | ModelPullFailed]


class ModelManager:
    """Loads, unloads and downloads models by order.

    Args:
        fleet: The backends.
        servers: What reaches them.
        loader: Loads and unloads.
        membership: Finds backends.
        clock: Measures what loads take.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Servers,
        loader: ModelLoader,
        membership: Membership,
        *,
        clock: Clock,
    ) -> None:
        self._fleet = fleet
        self._servers = servers
        self._loader = loader
        self._membership = membership
        self._clock = clock

    # Loading.

    async def preload(self, model: str, backend_id: str) -> tuple[str, float]:
        """Loads a model and waits until it is there; the load goes on when the caller leaves.

        A load of it that is under way is joined.

        Args:
            model: Its name.
            backend_id: Where; empty for where it costs least.

        Returns:
            The backend, and what that took in seconds; 0 where it was loaded.

        Raises:
            ModelNotFound: No backend asked has it.
            BackendNotFound: There is no such backend.
            ModelLoadFailed: It cannot be loaded.
        """
        began_at = self._clock.monotonic()
        for _, state in self._holders(model, backend_id):
            # Whoever orders it may know that the cause of failures before is gone.
            state.load_barred_until = began_at
            state.view = None
        while True:
            holders = self._holders(model, backend_id)
            warm = [each for each, state in holders if state.residency is Residency.WARM]
            if warm:
                return warm[0].id, 0.0
            loading = [each for each, state in holders if state.residency is Residency.LOADING]
            if not loading:
                loading = self._begin(model, [each for each, _ in holders])
            result = await self._loader.wait(loading[0].id) if loading else None
            if isinstance(result, Loaded):
                return loading[0].id, self._clock.monotonic() - began_at
            if isinstance(result, AttemptFailed):
                raise ModelLoadFailed(loading[0].id, model, result.message)
            await self._clock.sleep(_POLL_SECONDS)

    def _begin(self, model: str, holders: Sequence[Backend]) -> list[Backend]:
        """Begins a load where the planner finds that it costs least, unless none can begin now."""
        serving = [each for each in holders if takes_requests(each.standing)]
        names, key = ", ".join(each.id for each in holders), model_key(model)
        if not serving:
            raise ModelLoadFailed(names, model, "takes no requests")
        made = plan(self._fleet.snapshot(), [self._demand(key, serving)], {}, quick=False)
        now = self._clock.monotonic()
        barred = any((each.models or {})[key].load_barred_until > now for each in serving)
        if made.placements[0].backend_id is None and not barred:
            raise ModelLoadFailed(names, model, "what is in memory has to stay there")
        return [
            self._fleet.backends[order.backend_id]
            for order in made.loads
            if self._loader.begin(order, current_causes(), cause=LoadCause.OPERATOR)
        ]

    def _demand(self, key: str, holders: Sequence[Backend]) -> Demand:
        """Returns what a request would ask for whose load is the one to be ordered."""
        states = [(each.models or {})[key] for each in holders]
        embeds = any(each.installed.only_embeds for each in states)
        return Demand(
            id=0,
            model_key=key,
            digest=self._fleet.needed_digest(key) if len(states) > 1 else None,
            kind=Kind.EMBED if embeds else Kind.CHAT,
            tenant="",
            priority=Priority.SYSTEM,
            arrived_at=self._clock.monotonic(),
            prompt_token_count=0,
            output_token_count=0.0,
            context_token_count=0 if embeds else self._fleet.policy.context_classes[0],
            tried=frozenset(self._fleet.backends) - {each.id for each in holders},
        )

    # Unloading.

    async def unload(self, model: str, backend_id: str) -> tuple[list[str], list[str]]:
        """Unloads a model; one that is pinned is not loaded again before it is asked for.

        Args:
            model: Its name.
            backend_id: Where; empty for everywhere.

        Returns:
            Backends that have unloaded it, and those that have not yet: they are busy with it and
            will when it is idle.

        Raises:
            ModelNotFound: No backend asked has it.
            BackendNotFound: There is no such backend.
        """
        loaded = [
            (each, state)
            for each, state in self._holders(model, backend_id)
            if state.residency is not Residency.INSTALLED
        ]
        for _, state in loaded:
            state.dismissed_at = self._clock.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = {
                each.id: group.create_task(self._try_unload(each, state)) for each, state in loaded
            }
        gone = sorted(id_ for id_, task in tasks.items() if task.result())
        return gone, sorted(tasks.keys() - set(gone))

    async def _try_unload(self, backend: Backend, state: ModelState) -> bool:
        try:
            return await self._loader.unloader.unload(backend, state)
        except AttemptFailed:
            return False

    # Downloading.

    async def pull(self, model: str, backend_id: str) -> AsyncGenerator[PullStep | Pulled, None]:
        """Downloads a model to one backend or to all, all at once.

        Args:
            model: Its name.
            backend_id: Where; empty for everywhere.

        Raises:
            BackendNotFound: There is no such backend.
            ModelPullFailed: A backend could not; said when the others are done.
        """
        backends = self._asked(backend_id)
        steps: _Steps = asyncio.Queue(_QUEUED_STEPS)
        tasks = [asyncio.create_task(self._pull(model, each, steps)) for each in backends]
        failures: list[ModelPullFailed] = []
        left = len(tasks)
        try:
            while left:
                step = await steps.get()
                left -= not isinstance(step, PullStep)
                if isinstance(step, ModelPullFailed):
                    failures.append(step)
                else:
                    yield step
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        if failures:
            raise failures[0]

    async def _pull(self, model: str, backend: Backend, steps: _Steps) -> None:
        end: Pulled | ModelPullFailed
        try:
            end = await self._download(model, backend, steps)
        except AttemptFailed as failure:
            end = ModelPullFailed(backend.id, model, failure.message)
        except BackendNotFound:
            end = ModelPullFailed(backend.id, model, "it has left the fleet")
        await steps.put(end)

    async def _download(self, model: str, backend: Backend, steps: _Steps) -> Pulled:
        server = self._servers.get(backend.id)
        if server is None:
            raise BackendNotFound(backend.id, list(self._fleet.backends))
        async with aclosing(server.pull(model)) as progress:
            async for each in progress:
                await steps.put(PullStep(backend.id, each))
        # Usable from now on, rather than from the next check on.
        await self._membership.check(backend.id)
        state = (backend.models or {}).get(model_key(model))
        return Pulled(backend.id, state.installed.digest if state else "")

    # Finding.

    def _asked(self, backend_id: str) -> list[Backend]:
        if backend_id:
            return [self._membership.find(backend_id)]
        return list(self._fleet.backends.values())

    def _holders(self, model: str, backend_id: str) -> list[tuple[Backend, ModelState]]:
        key = model_key(model)
        holders = [
            (backend, state)
            for backend in self._asked(backend_id)
            if (state := (backend.models or {}).get(key)) is not None
        ]
        if not holders:
            raise ModelNotFound(model, self._fleet.model_names())
        return holders
