"""Which models are loaded, who may use them, and when they go.

The rules are those measured on the real server: a request for a loaded model with the same load
options goes straight to its runner and waits there without bound for a slot; everything else
passes a bounded queue and one loader, which finishes a load (with the evictions and the waiting
that it needs) before it looks at the next request.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from services.common.clock import Clock
from services.standin.core.catalogue import EMBEDDING, Model
from services.standin.core.options import LoadOptions, effective_context, needs_reload
from services.standin.core.times import FOREVER_SECONDS

Load = Callable[[Model], Awaitable[None]]


class QueueFullError(Exception):
    """More requests than the queue holds are waiting for a model to be loaded."""


@dataclass(eq=False, slots=True, kw_only=True)
class Runner:
    """A loaded model.

    Args:
        model: The model.
        load: What it was loaded with.
        slots: One permit per request that it works on at a time, given in order of arrival.
        keep_alive_seconds: How long it stays loaded when idle; the last explicit value wins.
        unloaded: Set when it is gone.
        users: Requests that hold it, waiting for a slot or in one.
        retiring: Whether the loader waits for it to become idle, to unload it.
        expires_at: When it will be unloaded (epoch seconds) as of its last idle moment.
    """

    model: Model
    load: LoadOptions
    slots: asyncio.Semaphore
    keep_alive_seconds: float
    unloaded: asyncio.Event
    users: int = 0
    retiring: bool = False
    expires_at: float | None = None
    expiry: asyncio.Task[None] | None = None

    @property
    def context_tokens(self) -> int:
        """The context length that it runs with."""
        return effective_context(self.load, self.model.context_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    model: Model
    load: LoadOptions
    keep_alive_seconds: float | None
    granted: asyncio.Future[Runner]


class Scheduler:
    """The loaded models of one server.

    Args:
        load: Loads a model; cancelled when the request that caused it goes away.
        clock: Time for keep-alive.
        num_parallel: Slots of a chat model; an embedding model always has one.
        max_queue: Requests that may wait for the loader besides the one it works on.
        max_loaded_models: Models loaded at the same time.
        keep_alive_seconds: How long a model stays loaded when no request said otherwise.
    """

    def __init__(
        self,
        *,
        load: Load,
        clock: Clock,
        num_parallel: int,
        max_queue: int,
        max_loaded_models: int,
        keep_alive_seconds: float,
    ) -> None:
        self._load = load
        self._clock = clock
        self._num_parallel = num_parallel
        self._max_loaded_models = max_loaded_models
        self._keep_alive_seconds = keep_alive_seconds
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(max_queue)
        self._runners: dict[str, Runner] = {}

    async def run(self) -> None:
        """Load what is asked for, one request at a time, until cancelled."""
        try:
            while True:
                await self._serve(await self._queue.get())
        finally:
            for runner in list(self._runners.values()):
                self._unload(runner)

    @asynccontextmanager
    async def hold(
        self, model: Model, load: LoadOptions, keep_alive_seconds: float | None
    ) -> AsyncIterator[Runner]:
        """Hold a loaded model; it is not unloaded meanwhile.

        Args:
            model: The model.
            load: The load options of the request.
            keep_alive_seconds: The request's own keep-alive, or None where it names none.

        Raises:
            QueueFullError: The model must be loaded and too many requests wait for that already.
        """
        runner = self._runners.get(model.name.key)
        if runner is None or self._differs(runner, load):
            runner = await self._wait(model, load, keep_alive_seconds)
        else:
            self._take(runner, keep_alive_seconds)
        try:
            yield runner
        finally:
            self._release(runner)

    def expire(self, model: Model) -> None:
        """Unload a model as soon as no request holds it."""
        runner = self._runners.get(model.name.key)
        if runner is not None:
            runner.keep_alive_seconds = 0.0
            self._unload_if_due(runner)

    def loaded(self) -> list[tuple[Runner, float]]:
        """The loaded models and when they expire (epoch seconds), the latest first."""
        entries = [
            (runner, runner.expires_at or self._clock.now() + runner.keep_alive_seconds)
            for runner in self._runners.values()
        ]
        return sorted(entries, key=lambda entry: entry[1], reverse=True)

    async def _wait(
        self, model: Model, load: LoadOptions, keep_alive_seconds: float | None
    ) -> Runner:
        granted: asyncio.Future[Runner] = asyncio.get_running_loop().create_future()
        pending = _Pending(
            model=model, load=load, keep_alive_seconds=keep_alive_seconds, granted=granted
        )
        try:
            self._queue.put_nowait(pending)
        except asyncio.QueueFull:
            raise QueueFullError from None
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(granted.result())
            raise

    async def _serve(self, pending: _Pending) -> None:
        while not pending.granted.cancelled():
            runner = self._runners.get(pending.model.name.key)
            if runner is not None and not self._differs(runner, pending.load):
                self._take(runner, pending.keep_alive_seconds)
                pending.granted.set_result(runner)
                return
            if runner is None and len(self._runners) < self._max_loaded_models:
                await self._load_for(pending)
            else:
                await self._retire(runner or self._victim())

    async def _load_for(self, pending: _Pending) -> None:
        """Load a model, or stop when the request that wants it goes away."""
        loading: asyncio.Future[Any] = asyncio.ensure_future(self._load(pending.model))
        granted: asyncio.Future[Any] = pending.granted
        try:
            await asyncio.wait({loading, granted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loading.cancel()
        if pending.granted.cancelled():
            return
        loading.result()
        keep_alive_seconds = pending.keep_alive_seconds
        is_embedding = pending.model.capability == EMBEDDING
        self._runners[pending.model.name.key] = Runner(
            model=pending.model,
            load=pending.load,
            slots=asyncio.Semaphore(1 if is_embedding else self._num_parallel),
            keep_alive_seconds=(
                self._keep_alive_seconds if keep_alive_seconds is None else keep_alive_seconds
            ),
            unloaded=asyncio.Event(),
        )

    async def _retire(self, runner: Runner) -> None:
        """Wait until a runner is idle and unload it; meanwhile others may still use it."""
        runner.retiring = True
        self._unload_if_due(runner)
        await runner.unloaded.wait()

    def _victim(self) -> Runner:
        """The runner to evict: idle before busy, then shortest keep-alive, then name."""
        return min(
            self._runners.values(),
            key=lambda runner: (runner.users > 0, runner.keep_alive_seconds, runner.model.name.key),
        )

    def _differs(self, runner: Runner, load: LoadOptions) -> bool:
        return needs_reload(runner.load, load, trained_tokens=runner.model.context_tokens)

    def _take(self, runner: Runner, keep_alive_seconds: float | None) -> None:
        runner.users += 1
        if keep_alive_seconds is not None:
            runner.keep_alive_seconds = keep_alive_seconds
        if runner.expiry is not None:
            runner.expiry.cancel()
            runner.expiry = None

    def _release(self, runner: Runner) -> None:
        runner.users -= 1
        if runner.users > 0:
            return
        runner.expires_at = self._clock.now() + runner.keep_alive_seconds
        self._unload_if_due(runner)
        if not runner.unloaded.is_set() and runner.keep_alive_seconds < FOREVER_SECONDS:
            runner.expiry = asyncio.ensure_future(self._expire_later(runner))

    async def _expire_later(self, runner: Runner) -> None:
        await self._clock.sleep(runner.keep_alive_seconds)
        runner.expiry = None
        self._unload(runner)

    def _unload_if_due(self, runner: Runner) -> None:
        if runner.users == 0 and (runner.retiring or runner.keep_alive_seconds <= 0):
            self._unload(runner)

    def _unload(self, runner: Runner) -> None:
        if runner.expiry is not None:
            runner.expiry.cancel()
            runner.expiry = None
        self._runners.pop(runner.model.name.key, None)
        runner.unloaded.set()
