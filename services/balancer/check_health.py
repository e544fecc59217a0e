"""Watching backends in the background, never on the way of a request.

Each backend is checked at an interval, suspects sooner; one that comes back, or that has not
succeeded at anything for a while, has to show with a single token that it can; and what it has in
memory is listed every second or two, as models come and go without a word.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import replace
from random import Random

from opentelemetry.trace import SpanKind, Tracer

from services.balancer.backend import Backend, ModelState
from services.balancer.claim_loads import claimed_slot
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import ModelDescription, ServerReport
from services.balancer.core.outcomes import TrialOutcome
from services.balancer.core.shares import Reservations
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import (
    Signal,
    needs_canary,
    next_probe_at,
    takes_requests,
)
from services.balancer.fleet import Fleet
from services.balancer.own_spans import start_own_span
from services.balancer.ports import Servers
from services.common.clock import Clock
from services.common.metrics import Metrics
from services.common.tracing import mark_failed

__all__ = ["HealthMonitor"]

_logger = logging.getLogger(__name__)

# Spread, so that several balancers and several backends do not check in step.
_JITTER_RATIO = 0.1
_PUBLISH_SECONDS = 1.0
_SHORTEST_PAUSE_SECONDS = 0.01


class HealthMonitor:
    """Keeps the fleet's state up to date.

    Args:
        fleet: The backends.
        servers: What reaches them.
        reservations: What other replicas of the balancer do.
        clock: Measures how long checks take.
        rng: Spreads the checks.
        metrics: Receives their outcomes.
        tracer: Makes the spans of canaries.
        interval_seconds: Time between two checks of a backend without failures.
        limit_seconds: Longest time a check may take.
        canary_limit_seconds: Longest time a canary may take.
        listing_seconds: Time between two listings of the models in memory.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Servers,
        reservations: Reservations,
        *,
        clock: Clock,
        rng: Random,
        metrics: Metrics,
        tracer: Tracer,
        interval_seconds: float,
        limit_seconds: float,
        canary_limit_seconds: float,
        listing_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._servers = servers
        self._reservations = reservations
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._tracer = tracer
        self._interval_seconds = interval_seconds
        self._limit_seconds = limit_seconds
        self._canary_limit_seconds = canary_limit_seconds
        self._listing_seconds = listing_seconds
        self.suspect: Callable[[Backend, ModelState], None] = _ignore
        """Called when a canary hangs; set by whoever cures that."""
        self._descriptions: dict[str, ModelDescription] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._looks: dict[str, asyncio.Event] = {}
        self._shown_memory: dict[tuple[str, ...], float] = {}

    async def check_all(self) -> None:
        """Checks every backend now; takes up to the limit of one check."""
        async with asyncio.TaskGroup() as group:
            for backend in list(self._fleet.backends.values()):
                group.create_task(self.check(backend))

    async def run(self) -> None:
        """Watches the backends, those that come later too, until cancelled."""
        try:
            while True:
                self._attend()
                self._show_all(self._fleet.backends.values())
                await self._clock.sleep(_PUBLISH_SECONDS)
        finally:
            watches = list(self._watches.values())
            # Whoever runs this again watches anew.
            self._watches.clear()
            for watch in watches:
                watch.cancel()
            if watches:
                await asyncio.wait(watches)

    def look(self, backend: Backend) -> None:
        """Has the models in a backend's memory listed at once."""
        if backend.id in self._looks:
            self._looks[backend.id].set()

    def attend(self, backend: Backend) -> None:
        """Begins to watch a backend."""
        if backend.id not in self._watches:
            self._looks[backend.id] = asyncio.Event()
            # Whoever has added it is done with it when it is watched.
            task = asyncio.get_running_loop().create_task(self._watch(backend), context=Context())
            self._watches[backend.id] = task

    def dismiss(self, backend_id: str) -> None:
        """Ceases to watch a backend that leaves; one of the same id may come later."""
        watch = self._watches.pop(backend_id, None)
        self._looks.pop(backend_id, None)
        # Its series go; were another of the same id the same, they would not come again.
        self._shown_memory = {}
        if watch is not None:
            watch.cancel()

    def _attend(self) -> None:
        for backend in self._fleet.backends.values():
            self.attend(backend)
        for backend_id in self._watches.keys() - self._fleet.backends.keys():
            self.dismiss(backend_id)

    async def _watch(self, backend: Backend) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_checking(backend))
                group.create_task(self._keep_listing(backend))
        except ExceptionGroup as errors:
            # Never expected; without this the backend would silently go unwatched.
            _logger.exception("watch ended", exc_info=errors, extra={"backend": backend.id})
            self._watches.pop(backend.id, None)

    async def _keep_checking(self, backend: Backend) -> None:
        while True:
            await self._describe(backend)
            await self._try(backend)
            # Checked above, or by somebody else; only what happens from here on counts.
            backend.standing_changed.clear()
            await self._until_due(backend)
            await self.check(backend)

    async def _until_due(self, backend: Backend) -> None:
        while True:
            now = self._clock.monotonic()
            due_at = next_probe_at(backend.standing, self._interval_seconds, self._fleet.rules)
            pause = max(due_at - now, _SHORTEST_PAUSE_SECONDS)
            pause *= 1.0 + self._rng.uniform(-_JITTER_RATIO, _JITTER_RATIO)
            try:
                async with asyncio.timeout(min(pause, self._interval_seconds)):
                    await backend.standing_changed.wait()
            except TimeoutError:
                return
            backend.standing_changed.clear()
            await self._try(backend)

    async def check(self, backend: Backend) -> None:
        """Checks one backend now; one that has just left is left alone."""
        server = self._servers.get(backend.id)
        if server is None:
            return
        began_at = self._clock.monotonic()
        result: ServerReport | AttemptFailed
        try:
            result = await server.check(self._limit_seconds)
        except AttemptFailed as failure:
            result = failure
        if self._fleet.backends.get(backend.id) is not backend:
            return
        backend.checked_at = self._clock.now()
        backend.check_seconds = self._clock.monotonic() - began_at
        self._note(backend, result, began_at)
        self._metrics.count("balancer_health_checks_total", backend.id, _outcome(result).value)
        self._show(backend)

    def _note(
        self, backend: Backend, result: ServerReport | AttemptFailed, asked_at: float
    ) -> None:
        if isinstance(result, AttemptFailed):
            lost = result.kind is FailureKind.CONNECTION
            signal = Signal.CHECK_CONNECTION_LOST if lost else Signal.CHECK_FAILED
            self._fleet.signal(backend, signal, result.message)
            return
        self._fleet.note_report(backend, self._with_descriptions(result), asked_at)
        if backend.models is None:
            message = "the server does not list its models"
            self._fleet.signal(backend, Signal.CHECK_FAILED, message)
        else:
            self._fleet.signal(backend, Signal.CHECK_SUCCEEDED)

    # Canaries.

    async def _try(self, backend: Backend) -> None:
        """Has a backend show that it can do something, if that is in doubt."""
        if not needs_canary(backend.standing, self._clock.monotonic(), self._fleet.rules):
            return
        if backend.loading_key is not None:
            # Neither proof nor disproof: after the next check.
            return
        busy = backend.in_flight_count > 0 and takes_requests(backend.standing)
        model = _canary_model(backend)
        if model is None or busy:
            # What it has to do already shows as well whether it can.
            self._fleet.signal(backend, Signal.CANARY_SKIPPED)
            return
        try:
            model.canary_until = self._clock.monotonic() + self._canary_limit_seconds
            model.view = None
            async with claimed_slot(self._reservations, backend.id, model) as free:
                if free:
                    await self._send_canary(backend, model)
                else:
                    # Others have it busy, which shows as well.
                    self._fleet.signal(backend, Signal.CANARY_SKIPPED)
        finally:
            model.canary_until = -math.inf
            model.view = None
            self._fleet.changed()

    async def _send_canary(self, backend: Backend, model: ModelState) -> None:
        outcome = TrialOutcome.SUCCESS
        span = start_own_span(self._tracer, "canary", backend, model, kind=SpanKind.CLIENT)
        try:
            await self._servers[backend.id].probe(
                model.installed.name,
                model.installed.only_embeds,
                self._canary_limit_seconds,
                context_token_count=model.context_token_count or None,
            )
        except AttemptFailed as failure:
            outcome = _outcome(failure)
            mark_failed(span, failure.kind.value)
            if failure.kind is FailureKind.REJECTED:
                self._fleet.signal(backend, Signal.CANARY_SKIPPED)
            else:
                self._fleet.signal(backend, Signal.CANARY_FAILED, failure.message)
        else:
            self._fleet.signal(backend, Signal.CANARY_SUCCEEDED)
        finally:
            span.end()
        self._metrics.count("balancer_canaries_total", backend.id, outcome.value)
        if outcome is TrialOutcome.TIMEOUT and model.residency is Residency.WARM:
            self.suspect(backend, model)

    # What is in memory.

    async def _keep_listing(self, backend: Backend) -> None:
        look = self._looks[backend.id]
        while True:
            with_jitter = self._listing_seconds * (
                1.0 + self._rng.uniform(-_JITTER_RATIO, _JITTER_RATIO)
            )
            try:
                async with asyncio.timeout(with_jitter):
                    await look.wait()
            except TimeoutError:
                pass
            look.clear()
            await self._list(backend)

    async def _list(self, backend: Backend) -> None:
        if backend.models is None or not takes_requests(backend.standing):
            return
        asked_at = self._clock.monotonic()
        try:
            listed = await self._servers[backend.id].loaded(self._limit_seconds)
        except AttemptFailed:
            # Slow while it loads; whether it is ill is for the checks to say.
            return
        self._fleet.note_loaded(backend, listed, asked_at)

    async def _describe(self, backend: Backend) -> None:
        """Asks what each model can do, where the list of models does not say so (before 0.30)."""
        for state in backend.states():
            model = state.installed
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
            state.installed = replace(model, description=description)
            state.view = None

    def _with_descriptions(self, report: ServerReport) -> ServerReport:
        if report.installed is None:
            return report
        described = (
            replace(model, description=self._descriptions.get(model.digest, model.description))
            for model in report.installed
        )
        return replace(report, installed=tuple(described))

    # What is shown.

    def _show_all(self, backends: Iterable[Backend]) -> None:
        scores = self._fleet.load_scores()
        for backend in backends:
            self._metrics.set_gauge("balancer_backend_load_score", scores[backend.id], backend.id)
            self._show(backend)
        self._show_memory()

    def _show_memory(self) -> None:
        """Shows what models take of the graphics memory, where that is known."""
        taken: dict[tuple[str, ...], float] = {
            (backend.id, each.installed.name): float(each.vram_bytes)
            for backend in self._fleet.backends.values()
            if not backend.standing.down
            for each in backend.warm_models()
        }
        if taken != self._shown_memory:
            self._shown_memory = taken
            self._metrics.replace_gauge("balancer_backend_model_vram_bytes", taken)

    def _show(self, backend: Backend) -> None:
        # Slots that were given and taken back without an attempt show here only.
        self._metrics.set_gauge("balancer_backend_inflight", backend.in_flight_count, backend.id)
        healthy = takes_requests(backend.standing)
        self._metrics.set_gauge("balancer_backend_healthy", healthy, backend.id)
        if backend.checked_at is not None:
            self._metrics.set_gauge(
                "balancer_backend_last_check_timestamp_seconds", backend.checked_at, backend.id
            )


def _canary_model(backend: Backend) -> ModelState | None:
    """Chooses what a canary asks of: a model in memory, as any other would be loaded for it."""
    idle = [each for each in backend.warm_models() if len(each.occupancies) < each.slot_count]
    return min(idle, key=lambda each: (not each.installed.only_embeds, each.key), default=None)


def _ignore(*_: object) -> None:
    pass


def _outcome(result: ServerReport | AttemptFailed) -> TrialOutcome:
    if not isinstance(result, AttemptFailed):
        return TrialOutcome.SUCCESS
    silent = result.kind in (FailureKind.TIMEOUT, FailureKind.STALLED)
    return TrialOutcome.TIMEOUT if silent else TrialOutcome.ERROR
