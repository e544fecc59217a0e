"""Freeing slots that Ollama has lost.

A model that is loaded and does not answer is probed with a single token, or, where it has several
slots, with as many answers at once as there are free ones. If that hangs too, or they do not
overlap, a slot is lost (ollama #17131): the model is unloaded and loaded again, which cures it
without a restart. Meanwhile it is given nothing.
"""

import asyncio
import logging
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Tracer

from services.balancer.backend import Backend, ModelState
from services.balancer.claim_loads import CureClaim, claimed_cure
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.outcomes import LoadCause
from services.balancer.core.shares import Reservations
from services.balancer.core.snapshot import Residency
from services.balancer.core.stalls import (
    Cure,
    CureAction,
    CureEvent,
    CureStep,
    StallLimits,
    action_of,
    after_event,
    expires_at,
)
from services.balancer.core.standing import Signal
from services.balancer.fleet import Fleet
from services.balancer.own_spans import context_of, current_causes, start_own_span
from services.balancer.ports import KEEP_FOR_EVER, Servers
from services.balancer.try_slots import answers_at_once
from services.common.clock import Clock
from services.common.metrics import Metrics
from services.common.tracing import mark_failed

__all__ = ["StallCurer"]

_logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
_HUNG_POLL_SECONDS = 2.0
_RESTART_SECONDS = 300.0
_LISTING_LIMIT_SECONDS = 3.0


class StallCurer:
    """Cures one model per backend at a time.

    Args:
        fleet: The backends.
        servers: What reaches them.
        reservations: What other replicas of the balancer do.
        clock: Measures the steps.
        metrics: Receives their outcomes.
        tracer: Makes the spans of cures.
        limits: How long what may take.
        keep_alive: How long a backend is told to keep the model afterwards.
    """

    def __init__(
        self,
        fleet: Fleet,
        servers: Servers,
        reservations: Reservations,
        *,
        clock: Clock,
        metrics: Metrics,
        tracer: Tracer,
        limits: StallLimits,
        keep_alive: str,
    ) -> None:
        self._tracer = tracer
        self._fleet = fleet
        self._servers = servers
        self._reservations = reservations
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._keep_alive = keep_alive
        self._cures: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Ends all cures."""
        cures = list(self._cures.values())
        for cure in cures:
            cure.cancel()
        if cures:
            await asyncio.wait(cures)

    async def abandon(self, backend_id: str) -> None:
        """Ends the cure of a backend that leaves."""
        cure = self._cures.get(backend_id)
        if cure is not None:
            cure.cancel()
            await asyncio.wait([cure])

    def suspect(self, backend: Backend, model: ModelState) -> None:
        """Begins the cure of a model that has not answered, unless the backend is busy loading."""
        if backend.id in self._cures or backend.loading_key is not None:
            return
        backend.loading_key = model.key
        backend.loading_until = self._clock.monotonic() + self._limits.probe
        model.residency = Residency.UNLOADING
        model.view = None
        span = start_own_span(
            self._tracer, "cure", backend, model, kind=SpanKind.INTERNAL, causes=current_causes()
        )
        task = asyncio.get_running_loop().create_task(
            self._cure(backend, model), context=context_of(span)
        )
        self._cures[backend.id] = task
        task.add_done_callback(lambda _: self._cures.pop(backend.id, None))
        # Also where it is cancelled before it has begun.
        task.add_done_callback(lambda _: span.end())

    async def _cure(self, backend: Backend, model: ModelState) -> None:
        loaded = True
        try:
            async with claimed_cure(self._reservations, backend.id, model) as claim:
                if claim is not None:
                    loaded = False
                    loaded = await self._take_steps(claim, backend, model)
        finally:
            backend.loading_key = None
            model.residency = Residency.WARM if loaded else Residency.INSTALLED
            model.settled_at = self._clock.monotonic()
            model.view = None
            self._fleet.changed()

    async def _take_steps(self, claim: CureClaim, backend: Backend, model: ModelState) -> bool:
        """Returns whether the model is in memory in the end."""
        cure = Cure(step=CureStep.SUSPECT, since=self._clock.monotonic())
        event = CureEvent.TIME_PASSED
        while action_of(cure) is not CureAction.NOTHING:
            before = cure.step
            event = await self._step(cure, claim, backend, model)
            cure = after_event(cure, event, self._clock.monotonic(), self._limits)
            if cure.step is CureStep.LEAKED:
                await claim.take_rest()
            if cure.step is not before:
                self._note(cure, backend, model)
                if cure.step is CureStep.LEAKED:
                    await self._until_idle(model)
                    cure = replace(cure, since=self._clock.monotonic())
            backend.loading_until = self._predicted_end(cure, backend, model)
        return event in (CureEvent.PROBE_ANSWERED, CureEvent.LOADED)

    def _predicted_end(self, cure: Cure, backend: Backend, model: ModelState) -> float:
        """Says when the model may have requests again, for those who could wait for it."""
        now, estimates = self._clock.monotonic(), self._fleet.estimates
        reload_seconds = estimates.load_seconds(
            backend.id, model.placement_key, model.size_bytes, now
        )
        match cure.step:
            case CureStep.SUSPECT | CureStep.LEAKED | CureStep.UNLOADING:
                return (expires_at(cure, self._limits) or now) + reload_seconds
            case CureStep.HUNG:
                # Until somebody restarts the server.
                return now + _RESTART_SECONDS
            case _:
                return max(now, cure.since + reload_seconds)

    async def _until_idle(self, model: ModelState) -> None:
        """Waits for what still goes on in other slots: the model would not go before."""
        while any(not each.zombie for each in model.occupancies.values()):
            await self._clock.sleep(_POLL_SECONDS)

    async def _step(
        self, cure: Cure, claim: CureClaim, backend: Backend, model: ModelState
    ) -> CureEvent:
        server, name = self._servers[backend.id], model.installed.name
        embedding = model.installed.only_embeds
        context = model.context_token_count or None
        try:
            match action_of(cure):
                case CureAction.PROBE if _has_several_slots(model):
                    if await self._all_slots_answer(claim, backend, model):
                        return CureEvent.PROBE_ANSWERED
                    return CureEvent.PROBE_TIMED_OUT
                case CureAction.PROBE:
                    await server.probe(
                        name, embedding, self._limits.probe, context_token_count=context
                    )
                    return CureEvent.PROBE_ANSWERED
                case CureAction.UNLOAD:
                    await server.unload(name)
                    return CureEvent.UNLOAD_ASKED
                case CureAction.LOAD:
                    self._fleet.counters.load_count += 1
                    self._metrics.count("balancer_model_loads_total", LoadCause.CURE.value)
                    await server.load(
                        name,
                        embedding=embedding,
                        keep_alive=KEEP_FOR_EVER if model.pinned else self._keep_alive,
                        context_token_count=context,
                        limit_seconds=self._limits.load,
                    )
                    await self._verify(claim, backend, model)
                    return CureEvent.LOADED
                case _:
                    return await self._look(cure, backend, model)
        except AttemptFailed as failure:
            event = _event_of(cure, failure)
            if event is CureEvent.TIME_PASSED:
                await self._pause(cure)
            return event

    async def _all_slots_answer(
        self, claim: CureClaim, backend: Backend, model: ModelState
    ) -> bool:
        """Tells whether what slots are free answer beside what goes on in the others."""
        await claim.take_rest()
        until = self._clock.monotonic() + self._limits.probe
        while claim.others_go_on and self._clock.monotonic() < until:
            # In which of the slots, and whether they have a token yet, only they know.
            await self._clock.sleep(_POLL_SECONDS)
        return await answers_at_once(
            self._servers[backend.id],
            model,
            free_count=claim.take_free,
            limit_seconds=self._limits.probe,
            clock=self._clock,
        )

    async def _verify(self, claim: CureClaim, backend: Backend, model: ModelState) -> None:
        """Has a model that is loaded again show that it has all slots, lest it be cured of none."""
        if not _has_several_slots(model):
            return
        try:
            model.answers_fewer = not await self._all_slots_answer(claim, backend, model)
        except AttemptFailed:
            # Loaded it is; what ails it now is for its requests to find out.
            return
        if model.answers_fewer:
            _logger.warning(
                "model answers fewer requests at once than it is given",
                extra={
                    "backend": backend.id,
                    "model": model.installed.name,
                    "slots": model.slot_count,
                },
            )

    async def _look(self, cure: Cure, backend: Backend, model: ModelState) -> CureEvent:
        server = self._servers[backend.id]
        if cure.step is CureStep.HUNG:
            # A server that stood still has lost what it was asked meanwhile; now it may do it.
            await server.unload(model.installed.name)
        listed = await server.loaded(_LISTING_LIMIT_SECONDS)
        if all(each.name != model.installed.name for each in listed):
            self._fleet.prefixes.forget(backend.id, model.placement_key)
            return CureEvent.GONE
        await self._pause(cure)
        return CureEvent.TIME_PASSED

    async def _pause(self, cure: Cure) -> None:
        hung = expires_at(cure, self._limits) is None
        await self._clock.sleep(_HUNG_POLL_SECONDS if hung else _POLL_SECONDS)

    def _note(self, cure: Cure, backend: Backend, model: ModelState) -> None:
        extra = {"backend": backend.id, "model": model.installed.name, "step": cure.step.value}
        span = trace.get_current_span()
        span.add_event(cure.step.value)
        span.set_attribute("app.cure.step", cure.step.value)
        if cure.step.is_outcome:
            _logger.warning("stalled model", extra=extra)
            self._metrics.count("balancer_stalls_total", cure.step.value)
        if cure.step is CureStep.LEAKED:
            backend.stall_count += 1
        if cure.step is CureStep.HUNG:
            mark_failed(span, cure.step.value)
            self._fleet.signal(backend, Signal.CANARY_FAILED, "a model hangs and does not unload")


def _has_several_slots(model: ModelState) -> bool:
    """Tells whether it has several slots, as far as it has not shown otherwise."""
    return model.slot_count > 1 and not model.answers_fewer


def _event_of(cure: Cure, failure: AttemptFailed) -> CureEvent:
    """Says what a step that failed means."""
    action = action_of(cure)
    if action is CureAction.PROBE:
        silent = failure.kind in (FailureKind.TIMEOUT, FailureKind.STALLED)
        return CureEvent.PROBE_TIMED_OUT if silent else CureEvent.PROBE_ANSWERED
    return CureEvent.LOAD_FAILED if action is CureAction.LOAD else CureEvent.TIME_PASSED
