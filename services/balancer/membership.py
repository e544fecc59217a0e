"""Who belongs to the fleet: backends come, are drained, resume and go while the service runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from services.balancer.backend import Backend
from services.balancer.check_health import HealthMonitor
from services.balancer.core.errors import BackendNotFound
from services.balancer.core.standing import Signal
from services.balancer.fleet import Fleet
from services.balancer.ports import ModelServer
from services.balancer.settings import MAXIMUM_BACKENDS, Endpoint
from services.common.clock import Clock
from services.common.metrics import Metrics

__all__ = ["Membership", "ServerOpener"]

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05

ServerOpener = Callable[[Endpoint], AbstractAsyncContextManager[ModelServer]]
"""Opens what reaches a backend, for as long as the context is open."""


class Membership:
    """Takes backends in and lets them go.

    Args:
        fleet: The backends.
        servers: What reaches them; kept in step with the fleet.
        open_server: Opens what reaches a new one.
        monitor: Checks them.
        clock: The time.
        metrics: Receives series for new ones, and loses those of old ones.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: dict[str, ModelServer],
        *,
        open_server: ServerOpener,
        monitor: HealthMonitor,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._fleet = fleet
        self._servers = servers
        self._open_server = open_server
        self._monitor = monitor
        self._clock = clock
        self._metrics = metrics
        self._contexts: dict[str, AbstractAsyncContextManager[ModelServer]] = {}
        self._changing = asyncio.Lock()
        self._farewells: set[asyncio.Task[None]] = set()
        self.departing: Callable[[str], Awaitable[None]] = _ignore
        """Ends what the balancer itself has under way on a backend that leaves."""

    @asynccontextmanager
    async def opened(self, endpoints: Iterable[Endpoint]) -> AsyncIterator[None]:
        """Has the first backends in the fleet, and lets go of all at the end."""
        try:
            for endpoint in endpoints:
                await self._take_in(endpoint)
            yield
        finally:
            for farewell in self._farewells:
                farewell.cancel()
            for backend_id in list(self._contexts):
                await self._close(backend_id)

    async def add(self, endpoint: Endpoint) -> Backend:
        """Takes a backend in and checks it; one that is there already is only checked.

        Raises:
            ValueError: The fleet is full.
        """
        async with self._changing:
            backend = self._fleet.backends.get(endpoint.backend_id)
            if backend is None:
                if len(self._fleet.backends) >= MAXIMUM_BACKENDS:
                    raise ValueError(
                        f"the fleet has {MAXIMUM_BACKENDS} backends, which is the limit"
                    )
                backend = await self._take_in(endpoint)
                _logger.info("backend taken in", extra={"backend": backend.id})
        await self._monitor.check(backend)
        self._monitor.attend(backend)
        return backend

    async def _take_in(self, endpoint: Endpoint) -> Backend:
        context = self._open_server(endpoint)
        self._servers[endpoint.backend_id] = await context.__aenter__()
        self._contexts[endpoint.backend_id] = context
        self._metrics.create_series("backend", endpoint.backend_id)
        self._metrics.set_gauge("balancer_backend_inflight", 0, endpoint.backend_id)
        return self._fleet.add(endpoint)

    def drain(self, backend_id: str) -> Backend:
        """Gives a backend nothing more.

        Raises:
            BackendNotFound: There is none of that id.
        """
        backend = self.find(backend_id)
        self._fleet.signal(backend, Signal.DRAINED)
        return backend

    def resume(self, backend_id: str) -> Backend:
        """Lets a drained backend take requests again.

        Raises:
            BackendNotFound: There is none of that id.
        """
        backend = self.find(backend_id)
        self._fleet.signal(backend, Signal.RESUMED)
        return backend

    async def remove(self, backend_id: str, grace_seconds: float) -> int:
        """Drains a backend and takes it out of the fleet; if cancelled before, it stays drained.

        Args:
            backend_id: The backend.
            grace_seconds: How long its requests may take to end.

        Returns:
            Requests that had not ended by then; they fail over or end.

        Raises:
            BackendNotFound: There is none of that id.
        """
        backend = self.drain(backend_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while backend.in_flight_count:
                    await self._clock.sleep(_POLL_SECONDS)
        abandoned_count = backend.in_flight_count
        async with self._changing:
            # Somebody else may have been quicker, and another of the same id may be there.
            if self._fleet.backends.get(backend_id) is backend:
                await self._let_go(backend)
        return abandoned_count

    async def _let_go(self, backend: Backend) -> None:
        self._fleet.remove(backend.id)
        self._monitor.dismiss(backend.id)
        try:
            await self.departing(backend.id)
        finally:
            # First, as whoever waits for the rest may leave.
            farewell = asyncio.get_running_loop().create_task(self._forget_series(backend))
            self._farewells.add(farewell)
            farewell.add_done_callback(self._farewells.discard)
            await self._close(backend.id)
        _logger.info("backend let go", extra={"backend": backend.id})

    async def _forget_series(self, backend: Backend) -> None:
        """Waits for those still under way, whose end is counted; a successor keeps the series."""
        while backend.in_flight_count:
            await self._clock.sleep(_POLL_SECONDS)
        if backend.id not in self._fleet.backends:
            self._metrics.remove_series("backend", backend.id)

    async def check(self, backend_id: str) -> None:
        """Checks a backend now.

        Raises:
            BackendNotFound: There is none of that id.
        """
        await self._monitor.check(self.find(backend_id))

    def has(self, backend_id: str) -> bool:
        """Tells whether there is a backend of that id."""
        return backend_id in self._fleet.backends

    def find(self, backend_id: str) -> Backend:
        """Returns a backend.

        Raises:
            BackendNotFound: There is none of that id.
        """
        backend = self._fleet.backends.get(backend_id)
        if backend is None:
            raise BackendNotFound(backend_id, list(self._fleet.backends))
        return backend

    async def _close(self, backend_id: str) -> None:
        self._servers.pop(backend_id, None)
        context = self._contexts.pop(backend_id, None)
        if context is not None:
            await context.__aexit__(None, None, None)


async def _ignore(_: str) -> None:
    pass
