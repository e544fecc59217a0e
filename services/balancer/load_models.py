"""Loading models, on the balancer's own account.

A load dies with the request that started it (ollama #8006, #9625), so no caller's request ever
starts one: it waits in the queue, and may be served elsewhere, while a call of the balancer's own,
with a patience of its own, loads the model.

However a load ends, failed or cancelled included, one place notes it (`_settle`), called by the
event loop when the task is over, so that no state can be left behind.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from opentelemetry.trace import SpanContext, Tracer

from services.balancer.aliases import note_alias
from services.balancer.backend import Backend, ModelState
from services.balancer.claim_loads import claimed
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import LoadedModel
from services.balancer.core.outcomes import LoadCause
from services.balancer.core.plan import LoadOrder
from services.balancer.core.shares import Reservations
from services.balancer.core.snapshot import Residency
from services.balancer.failing import FailureEffects
from services.balancer.fleet import Fleet
from services.balancer.load_results import (
    Loaded,
    LoadResult,
    NotLoaded,
    end_load_span,
    result_of,
    start_load_span,
)
from services.balancer.own_spans import context_of
from services.balancer.ports import KEEP_FOR_EVER, Servers
from services.balancer.unload_models import LoadLimits, ModelUnloader
from services.common.clock import Clock
from services.common.metrics import Metrics

__all__ = ["LoadLimits", "Loaded", "ModelLoader", "NotLoaded"]

_logger = logging.getLogger(__name__)

_FIRST_BAR_SECONDS = 5.0
_LONGEST_BAR_SECONDS = 300.0
# When others were in the way, which they will not be for long.
_CONFLICT_BAR_SECONDS = 1.0


class ModelLoader:
    """Loads models, one at a time per backend, and has others unloaded for them.

    Args:
        fleet: The backends.
        servers: What reaches them.
        reservations: What other replicas of the balancer do.
        effects: What follows from failures.
        clock: Measures what loads take.
        metrics: Receives it.
        tracer: Makes the spans of loads.
        limits: How long what may take.
        keep_alive: How long a backend is told to keep a model loaded that is not pinned.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Servers,
        reservations: Reservations,
        effects: FailureEffects,
        *,
        clock: Clock,
        metrics: Metrics,
        tracer: Tracer,
        limits: LoadLimits,
        keep_alive: str,
    ) -> None:
        self._tracer = tracer
        self._fleet = fleet
        self._servers = servers
        self._reservations = reservations
        self._effects = effects
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._keep_alive = keep_alive
        self._loads: dict[str, asyncio.Task[LoadResult]] = {}
        self._closed = False
        self.unloader = ModelUnloader(
            fleet,
            servers,
            reservations,
            effects,
            clock=clock,
            limits=limits,
            until_loaded=self.wait,
        )
        self.load_failed: Callable[[str, str, str], None] = _ignore
        """Called with model key, backend id and what was said when a load has failed."""

    async def close(self) -> None:
        """Ends all loads and unloadings, and begins no more."""
        self._closed = True
        await _end([*self.unloader.close(), *self._loads.values()])

    async def abandon(self, backend_id: str) -> None:
        """Ends what is loaded and unloaded on a backend that leaves."""
        load = self._loads.get(backend_id)
        await _end([*self.unloader.leaving(backend_id), *([load] if load else [])])

    def begin(
        self,
        order: LoadOrder,
        callers: Sequence[SpanContext] = (),
        *,
        cause: LoadCause = LoadCause.DEMAND,
    ) -> bool:
        """Begins a load on a backend that loads nothing else.

        Args:
            order: What to load, and what to unload for it.
            callers: The calls that wait for it.
            cause: Why.

        Returns:
            Whether it has begun; not where the backend loads already, or where the model or one
            that would have to go is in use.
        """
        backend = self._fleet.backends.get(order.backend_id)
        state = (backend.models or {}).get(order.model_key) if backend is not None else None
        if backend is None or state is None or not self._is_free(backend):
            return False
        models = backend.models or {}
        named = [models[key] for key in order.evicted_keys if key in models and key != state.key]
        victims = [each for each in named if each.residency is Residency.WARM]
        settled = state.residency in (Residency.INSTALLED, Residency.WARM)
        if not settled or any(self.unloader.in_use(backend, each) for each in (state, *victims)):
            return False
        self._note_begin(backend, state, victims, order)
        self._metrics.count("balancer_model_loads_total", cause.value)
        if cause is not LoadCause.PIN:
            # What is only kept in memory is not in use for that.
            state.used_at = state.load_began_at
        leaving = self.unloader.leaving(backend.id)
        absent = [each for each in models.values() if each.residency is Residency.INSTALLED]
        span = start_load_span(
            self._tracer, backend, state, order, cause, evicted_count=len(victims), callers=callers
        )
        context = context_of(span)
        load = self._load(backend, state, victims, leaving, absent, order)
        task = asyncio.get_running_loop().create_task(load, context=context)
        self._loads[backend.id] = task
        settle = partial(self._settle, backend, state, victims, order)
        task.add_done_callback(settle, context=context)
        return True

    def _is_free(self, backend: Backend) -> bool:
        return not self._closed and backend.loading_key is None and backend.id in self._servers

    def _note_begin(
        self, backend: Backend, state: ModelState, victims: Sequence[ModelState], order: LoadOrder
    ) -> None:
        now = self._clock.monotonic()
        backend.loading_key = state.key
        backend.loading_until = now + order.predicted_seconds
        state.residency = Residency.LOADING
        state.load_began_at = now
        state.ready_at = backend.loading_until
        state.view = None
        for each in victims:
            each.residency = Residency.UNLOADING
            each.view = None
        self._fleet.counters.load_count += 1

    async def wait(self, backend_id: str) -> LoadResult | None:
        """Waits for the load under way on a backend; the load goes on when the waiter leaves.

        Returns:
            What came of it; None where there is none.
        """
        load = self._loads.get(backend_id)
        if load is None:
            return None
        await asyncio.wait([load])
        return result_of(load)

    async def _load(
        self,
        backend: Backend,
        state: ModelState,
        victims: Sequence[ModelState],
        leaving: Sequence[asyncio.Task[bool]],
        absent: Sequence[ModelState],
        order: LoadOrder,
    ) -> LoadResult:
        if leaving:
            # The room of what an operator has told to go may be what was counted on.
            await asyncio.wait(leaving)
        if not self._reservations.shared:
            return await self._try_load(backend, state, victims, order)
        async with claimed(self._reservations, backend.id, state, victims) as obstacle:
            if obstacle:
                return NotLoaded(obstacle)
            # What others have loaded a moment ago.
            asked_at, listed = self._clock.monotonic(), await self._list(backend) or ()
            found = state.find(listed)
            if found is not None and found.context_token_count >= order.context_token_count:
                return Loaded(0.0, listed, asked_at)
            if any(each.find(listed) is not None for each in absent):
                return NotLoaded("other models are in memory there than the order counted on")
            return await self._try_load(backend, state, victims, order)

    async def _try_load(
        self, backend: Backend, state: ModelState, victims: Sequence[ModelState], order: LoadOrder
    ) -> LoadResult:
        began_at = self._clock.monotonic()
        try:
            for each in victims:
                if not await self.unloader.send_away(backend, each):
                    return NotLoaded(f"{each.installed.name} is in use and does not go")
                self._fleet.counters.eviction_count += 1
                self._metrics.count("balancer_model_evictions_total")
            seconds = await self._servers[backend.id].load(
                state.installed.name,
                embedding=order.embeds or state.installed.only_embeds,
                keep_alive=self._keep_alive_of(state),
                context_token_count=order.context_token_count or None,
                limit_seconds=self._limits.load,
            )
        except AttemptFailed as failure:
            return failure
        now = self._clock.monotonic()
        self._metrics.observe("balancer_model_load_seconds", seconds)
        self._metrics.count("balancer_backend_loads_total", backend.id)
        self._fleet.estimates.note_load(
            backend.id,
            state.placement_key,
            seconds=seconds,
            size_bytes=state.size_bytes,
            now=now,
        )
        return Loaded(now - began_at, await self._list(backend), now)

    def _keep_alive_of(self, state: ModelState) -> str | int:
        return KEEP_FOR_EVER if state.pinned else self._keep_alive

    async def _list(self, backend: Backend) -> tuple[LoadedModel, ...] | None:
        try:
            return await self._servers[backend.id].loaded(self._limits.listing)
        except AttemptFailed:
            return None

    def _settle(
        self,
        backend: Backend,
        state: ModelState,
        victims: Sequence[ModelState],
        order: LoadOrder,
        load: asyncio.Task[LoadResult],
    ) -> None:
        """Notes the end of a load, however it has ended."""
        del self._loads[backend.id]
        result, now = result_of(load), self._clock.monotonic()
        end_load_span(result)
        backend.loading_key = None
        state.residency = Residency.WARM if isinstance(result, Loaded) else Residency.INSTALLED
        state.settled_at = now
        state.view = None
        for each in victims:
            if each.residency is Residency.UNLOADING:
                # Never told to go, or not seen gone.
                each.residency = Residency.WARM
                each.view = None
        match result:
            case Loaded():
                self._note_loaded(backend, state, order, result)
            case NotLoaded():
                state.load_barred_until = now + _CONFLICT_BAR_SECONDS
            case AttemptFailed():
                self._note_failure(backend, state, order, result)
        self._effects.look(backend)
        self._fleet.changed()

    def _note_loaded(
        self, backend: Backend, state: ModelState, order: LoadOrder, result: Loaded
    ) -> None:
        fleet, asked = self._fleet, order.context_token_count
        state.load_ended_at = state.settled_at
        state.context_token_count = asked
        backend.loaded_lately = True
        fleet.prefixes.forget(backend.id, state.placement_key)
        if result.listed is not None:
            # What it was loaded with is what the backend says, whatever was asked for.
            state.settled_at = result.asked_at
            note_alias(state, result.listed, backend.models or {})
            fleet.note_loaded(backend, result.listed, result.asked_at)
            if 0 < state.context_token_count < asked:
                state.context_limit = state.context_token_count
        others_run = any(each.model is not state for each in backend.occupancies())
        if state.residency is not Residency.WARM and (others_run or backend.warm_models()):
            # Pushed out again by another model: they do not fit together, which is known now.
            state.load_barred_until = state.settled_at + _CONFLICT_BAR_SECONDS
            return
        if state.residency is not Residency.WARM:
            text = "the model is not in memory after it was loaded"
            failure = AttemptFailed(FailureKind.BROKEN_REPLY, text)
            self._note_failure(backend, state, order, failure)
            return
        state.load_failure_count = 0
        _logger.info(
            "model loaded",
            extra={
                "backend": backend.id,
                "model": state.installed.name,
                "seconds": result.seconds,
                "context_token_count": state.context_token_count,
            },
        )

    def _note_failure(
        self, backend: Backend, state: ModelState, order: LoadOrder, failure: AttemptFailed
    ) -> None:
        _logger.warning(
            "model not loaded",
            extra={
                "backend": backend.id,
                "model": state.installed.name,
                "context_token_count": order.context_token_count,
                "failure": failure.message,
            },
        )
        smaller = [
            each for each in self._fleet.policy.context_classes if each < order.context_token_count
        ]
        if failure.kind is FailureKind.SERVER_ERROR and smaller:
            # One request that asks for a long context must not take the model from all others.
            state.context_limit = smaller[-1]
            return
        if failure.kind is FailureKind.REJECTED:
            # It cannot do what some request asks of it, which others need not suffer for.
            state.load_barred_until = self._clock.monotonic() + _CONFLICT_BAR_SECONDS
            self.load_failed(state.key, backend.id, failure.message)
            return
        state.load_failure_count += 1
        bar = _FIRST_BAR_SECONDS * 2.0 ** min(state.load_failure_count - 1, 16)
        state.load_barred_until = self._clock.monotonic() + min(bar, _LONGEST_BAR_SECONDS)
        self._effects.note(backend, state, failure, state.load_began_at)
        self.load_failed(state.key, backend.id, failure.message)

    def renew(self, backend: Backend, state: ModelState) -> bool:
        """Has a backend keep a model in memory for longer; it is used meanwhile.

        Returns:
            Whether that has begun; not where the backend loads, or the model is not in memory.
        """
        if not self._is_free(backend) or state.residency is not Residency.WARM:
            return False
        backend.loading_key = state.key
        backend.loading_until = self._clock.monotonic()
        task = asyncio.get_running_loop().create_task(self._renew(backend, state))
        self._loads[backend.id] = task
        task.add_done_callback(partial(self._settle_renewal, backend))
        return True

    async def _renew(self, backend: Backend, state: ModelState) -> LoadResult:
        only_embeds = state.installed.only_embeds
        began_at = self._clock.monotonic()
        try:
            await self._servers[backend.id].load(
                state.installed.name,
                embedding=only_embeds,
                keep_alive=self._keep_alive_of(state),
                # Any other window would load it anew.
                context_token_count=None if only_embeds else state.context_token_count or None,
                limit_seconds=self._limits.load,
            )
        except AttemptFailed as failure:
            return failure
        return Loaded(self._clock.monotonic() - began_at, None, began_at)

    def _settle_renewal(self, backend: Backend, renewal: asyncio.Task[LoadResult]) -> None:
        del self._loads[backend.id]
        backend.loading_key = None
        result = result_of(renewal)
        if isinstance(result, AttemptFailed):
            extra = {"backend": backend.id, "failure": result.message}
            _logger.warning("model not kept in memory", extra=extra)
        self._effects.look(backend)
        self._fleet.changed()


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _ignore(*_: object) -> None:
    pass
