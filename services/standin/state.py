"""What the handlers of one server share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from services.common.clock import Clock
from services.standin.core.catalogue import Model
from services.standin.core.minilm import MiniLM
from services.standin.core.names import parse_name
from services.standin.core.options import Options
from services.standin.core.times import nanoseconds
from services.standin.core.tokens import TokenCodec
from services.standin.faults import Fault, FaultPlan
from services.standin.journal import ENTRY, Journal
from services.standin.scheduler import QueueFullError, Runner, Scheduler
from services.standin.settings import Settings
from services.standin.wire import QUEUE_FULL_TEXT, ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The parts of one server, and the steps that its working endpoints have in common."""

    settings: Settings
    clock: Clock
    models: tuple[Model, ...]
    codec: TokenCodec
    encoder: MiniLM
    scheduler: Scheduler
    faults: FaultPlan
    journal: Journal

    def find(self, text: str) -> Model | None:
        """The model that a client means by a name; None where it is not here.

        Raises:
            ApiError: The text is not a model name.
        """
        name = parse_name(text)
        if name is None:
            raise ApiError(400, "invalid model name")
        return next((model for model in self.models if model.name.key == name.key), None)

    @asynccontextmanager
    async def hold(
        self, model: Model, options: Options, keep_alive_seconds: float | None
    ) -> AsyncIterator[Runner]:
        """Hold a loaded model, as `Scheduler.hold` does.

        Raises:
            ApiError: 503, too many requests wait for models to be loaded.
        """
        try:
            async with self.scheduler.hold(model, options.load, keep_alive_seconds) as runner:
                yield runner
        except QueueFullError:
            raise ApiError(503, QUEUE_FULL_TEXT) from None

    def begin_work(self, request: web.Request, model_text: str) -> Fault:
        """Note that a request does work, and take the fault that is meant for it.

        Raises:
            ApiError: The fault is an error status.
        """
        entry = request[ENTRY]
        entry.model = model_text
        fault = self.faults.take(request.path)
        entry.faults = fault.names()
        if fault.status:
            raise ApiError(fault.status, fault.message)
        return fault

    async def stall(self, fault: Fault) -> None:
        """Do to a request in its slot what the fault wants before the first token."""
        if fault.hang:
            await asyncio.Event().wait()
        if fault.delay_seconds:
            await self.clock.sleep(fault.delay_seconds)

    def elapsed(self, since: float) -> int:
        """Nanoseconds since an instant of the monotonic clock."""
        return nanoseconds(self.clock.monotonic() - since)

    def count_token(self, request: web.Request, tokens: int = 1) -> None:
        """Note that tokens were produced, and whether there still was a client for them."""
        entry = request[ENTRY]
        entry.tokens += tokens
        if request.transport is None or request.transport.is_closing():
            entry.tokens_after_disconnect += tokens
