"""Checking backends in the background, never on the way of a request."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.health import seconds_until_check
from services.balancer.core.models import ModelDescription, ServerReport
from services.balancer.fleet import Backend, Fleet
from services.balancer.ports import ModelServer
from services.common.clock import Clock
from services.common.metrics import Metrics

__all__ = ["HealthMonitor"]

_logger = logging.getLogger(__name__)

# Spread, so that several balancers and several backends do not check in step.
_JITTER_RATIO = 0.1
_PUBLISH_SECONDS = 1.0


class HealthMonitor:
    """Keeps the fleet's state up to date.

    Args:
        fleet: The backends.
        servers: What reaches them, by backend id.
        clock: Measures how long checks take.
        rng: Spreads the checks.
        metrics: Receives their outcomes.
        interval_seconds: Time between two checks of a backend without failures.
        limit_seconds: Longest time a check may take.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Mapping[str, ModelServer],
        *,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
        interval_seconds: float,
        limit_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._servers = servers
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._limit_seconds = limit_seconds
        self._descriptions: dict[str, ModelDescription] = {}

    async def check_all(self) -> None:
        """Checks every backend now; takes up to the limit of one check."""
        async with asyncio.TaskGroup() as group:
            for backend in self._fleet.backends.values():
                group.create_task(self._check(backend))

    async def run(self) -> None:
        """Checks each backend when it is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish())
            for backend in self._fleet.backends.values():
                group.create_task(self._watch(backend))

    async def _watch(self, backend: Backend) -> None:
        while True:
            await self._describe(backend)
            # Checked above, or by somebody else; only what happens from here on counts.
            backend.health_changed.clear()
            await self._until_due(backend)
            await self._check(backend)

    async def _until_due(self, backend: Backend) -> None:
        while True:
            pause = seconds_until_check(backend.health, self._interval_seconds)
            pause *= 1.0 + self._rng.uniform(-_JITTER_RATIO, _JITTER_RATIO)
            try:
                async with asyncio.timeout(pause):
                    await backend.health_changed.wait()
            except TimeoutError:
                return
            backend.health_changed.clear()

    async def _check(self, backend: Backend) -> None:
        began_at = self._clock.monotonic()
        result: ServerReport | AttemptFailed
        try:
            result = await self._servers[backend.id].check(self._limit_seconds)
        except AttemptFailed as failure:
            result = failure
        seconds = self._clock.monotonic() - began_at
        self._fleet.note_check(backend, self._with_descriptions(result), seconds)
        self._metrics.count("balancer_health_checks_total", backend.id, _outcome(result))
        self._show(backend)

    async def _describe(self, backend: Backend) -> None:
        """Asks what each model can do, where the list of models does not say so (before 0.30)."""
        for key, model in list((backend.installed or {}).items()):
            if model.description.capabilities is not None or model.digest in self._descriptions:
                continue
            try:
                description = await self._servers[backend.id].describe(model.name)
            except AttemptFailed as failure:
                _logger.info(
                    "model not described",
                    extra={"backend": backend.id, "model": model.name, "failure": failure.message},
                )
                return
            self._descriptions[model.digest] = description
            if backend.installed is not None and key in backend.installed:
                backend.installed[key] = replace(model, description=description)

    def _with_descriptions(
        self, result: ServerReport | AttemptFailed
    ) -> ServerReport | AttemptFailed:
        if isinstance(result, AttemptFailed) or result.installed is None:
            return result
        described = (
            replace(model, description=self._descriptions.get(model.digest, model.description))
            for model in result.installed
        )
        return replace(result, installed=tuple(described))

    async def _publish(self) -> None:
        """Shows load scores and health in the metrics, often enough for any scrape interval."""
        while True:
            self._show_all(self._fleet.backends.values())
            await self._clock.sleep(_PUBLISH_SECONDS)

    def _show_all(self, backends: Iterable[Backend]) -> None:
        scores = self._fleet.load_scores()
        for backend in backends:
            self._metrics.set_gauge("balancer_backend_load_score", scores[backend.id], backend.id)
            self._show(backend)

    def _show(self, backend: Backend) -> None:
        self._metrics.set_gauge("balancer_backend_healthy", backend.health.healthy, backend.id)
        if backend.checked_at is not None:
            self._metrics.set_gauge(
                "balancer_backend_last_check_timestamp_seconds", backend.checked_at, backend.id
            )


def _outcome(result: ServerReport | AttemptFailed) -> str:
    if not isinstance(result, AttemptFailed):
        return "success"
    return "timeout" if result.kind in (FailureKind.TIMEOUT, FailureKind.STALLED) else "error"
