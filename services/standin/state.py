"""What the handlers of one server share."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from services.common.clock import Clock
from services.standin.core.catalogue import Model
from services.standin.core.options import Options
from services.standin.core.times import nanoseconds
from services.standin.engines import Engines
from services.standin.faults import BreakStreamError, Fault, FaultPlan
from services.standin.journal import ENTRY, Journal
from services.standin.library import Library
from services.standin.machine import Machine
from services.standin.scheduler import LoadError, QueueFullError, Runner, Scheduler
from services.standin.settings import Settings
from services.standin.totals import Totals
from services.standin.wire import CRASH_TEXT, QUEUE_FULL_TEXT, ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The parts of one server, and the steps that its working endpoints have in common."""

    settings: Settings
    clock: Clock
    library: Library
    engines: Engines
    scheduler: Scheduler
    machine: Machine
    faults: FaultPlan
    journal: Journal
    totals: Totals

    @asynccontextmanager
    async def hold(
        self,
        http: web.Request,
        model: Model,
        options: Options,
        keep_alive_seconds: float | None,
        started_at: float,
    ) -> AsyncIterator[Runner]:
        """Hold a loaded model, as `Scheduler.hold` does.

        Args:
            http: The request.
            model: The model.
            options: The request's options.
            keep_alive_seconds: Its own keep-alive, or None.
            started_at: When it came, on the monotonic clock.

        Raises:
            ApiError: 503, too many requests wait for models to be loaded; 500, it does not load.
        """
        with self.totals.request(model.name.short):
            try:
                async with self.scheduler.hold(model, options.load, keep_alive_seconds) as runner:
                    http[ENTRY].load_seconds = self.clock.monotonic() - started_at
                    yield runner
            except QueueFullError:
                raise ApiError(503, QUEUE_FULL_TEXT) from None
            except LoadError as error:
                raise ApiError(500, str(error)) from None

    async def take_slot(self, http: web.Request, runner: Runner) -> None:
        """Wait for a slot of a runner, in order of arrival; the caller gives it back.

        Raises:
            ApiError: The model's process has died meanwhile.
        """
        began_at = self.clock.monotonic()
        must_wait = runner.slots.locked()
        await runner.slots.acquire()
        http[ENTRY].had_slot = True
        if must_wait:
            seconds = self.clock.monotonic() - began_at
            http[ENTRY].queue_seconds += seconds
            self.totals.note_slot_wait(seconds)
        if runner.died.is_set():
            runner.slots.release()
            raise ApiError(500, CRASH_TEXT)

    def begin_work(self, http: web.Request, model_text: str) -> Fault:
        """Note that a request does work, and take the fault that is meant for it.

        Raises:
            ApiError: The fault is an error status.
        """
        entry = http[ENTRY]
        entry.model = model_text
        fault = self.faults.take(http.path, model_text)
        entry.faults = fault.names()
        check_status(fault)
        return fault

    async def stall(self, fault: Fault, runner: Runner) -> None:
        """Do to a request in its slot what the fault wants before the first token.

        Raises:
            BreakStreamError: The model's process has died while it hung.
        """
        if fault.hang:
            await runner.died.wait()
            raise BreakStreamError
        if fault.delay_seconds:
            await self.clock.sleep(fault.delay_seconds)

    def slowdown(self, runner: Runner) -> Callable[[], float]:
        """What a request on a runner hands to `Machine.work`."""

        def now() -> float:
            if runner.died.is_set():
                raise BreakStreamError
            return self.faults.slowdown(runner.model.name.key)

        return now

    async def prefill(self, http: web.Request, runner: Runner, tokens: int) -> None:
        """Take the time that reading so many tokens takes.

        Raises:
            BreakStreamError: The model's process has died.
        """
        began_at = self.clock.monotonic()
        rate = runner.model.speed.prefill_tokens_per_second / tokens
        async for _ in self.machine.work(1, rate, self.slowdown(runner)):
            pass
        http[ENTRY].prefill_seconds += self.clock.monotonic() - began_at

    def elapsed(self, since: float) -> int:
        """Nanoseconds since an instant of the monotonic clock."""
        return nanoseconds(self.clock.monotonic() - since)

    def note_prompt(self, http: web.Request, tokens: int, cached_tokens: int = 0) -> None:
        """Note a prompt of so many tokens."""
        entry = http[ENTRY]
        entry.prompt_tokens += tokens
        entry.cached_tokens += cached_tokens
        self.totals.prompt_tokens += tokens
        self.totals.cached_tokens += cached_tokens

    def note_output(self, http: web.Request, tokens: int) -> None:
        """Note that tokens were produced, and whether there still was a client for them."""
        entry = http[ENTRY]
        entry.tokens += tokens
        entry.output_tokens += tokens
        self.totals.output_tokens += tokens
        if is_gone(http):
            entry.tokens_after_disconnect += tokens
            self.totals.tokens_after_disconnect += tokens


def is_gone(http: web.Request) -> bool:
    """Whether the client of a request has left."""
    return http.transport is None or http.transport.is_closing()


def check_status(fault: Fault) -> None:
    """Answer with the fault's status if it has one.

    Raises:
        ApiError: It has one.
    """
    if fault.status:
        text = QUEUE_FULL_TEXT if fault.status == 503 else "fault injected into the stand-in"
        raise ApiError(fault.status, fault.message or text)


async def load_model(clock: Clock, faults: FaultPlan, timeout_seconds: float, model: Model) -> None:
    """Take the time that loading a model takes.

    Args:
        clock: Time.
        faults: What may go wrong.
        timeout_seconds: How long a load without progress goes on.
        model: The model.

    Raises:
        LoadError: A fault wants it.
    """
    fault = faults.take_load(model.name.key)
    if fault.load_stalls:
        await clock.sleep(timeout_seconds)
        raise LoadError(fault.message or "timed out waiting for llama-server to start - ")
    await clock.sleep(model.speed.load_seconds + fault.load_delay_seconds)
    if fault.load_fails:
        raise LoadError(fault.message or "llama-server process has terminated: exit status 1")
