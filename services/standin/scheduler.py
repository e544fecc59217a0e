"""Which models are loaded, who may use them, and when they go.

The rules are those measured on the real server: a request for a loaded model with the same load
options goes straight to its runner and waits there without bound for a slot; everything else
passes a bounded queue and one loader, which finishes a load (with the evictions and the waiting
that it needs) before it looks at the next request.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.common.clock import Clock
from services.standin.core.catalogue import EMBEDDING, Model
from services.standin.core.options import LoadOptions, effective_context, needs_reload
from services.standin.core.prompt_cache import PromptCache
from services.standin.core.times import FOREVER_SECONDS
from services.standin.totals import Totals

Load = Callable[[Model], Awaitable[None]]

OUT_OF_MEMORY_TEXT = "llama-server process has terminated: error: out of memory"


class QueueFullError(Exception):
    """More requests than the queue holds are waiting for a model to be loaded."""


class LoadError(Exception):
    """A model could not be loaded; the text is for the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server may hold and keep.

    Args:
        num_parallel: Slots of a model; an embedding model always has one.
        max_queue: Requests that may wait for the loader besides the one it works on.
        max_loaded_models: Models loaded at the same time.
        keep_alive_seconds: How long a model stays loaded when no request said otherwise.
        memory_bytes: What the loaded models may take together; 0 is any amount.
        context_tokens: Context length of requests that name none.
        saved_prompt_tokens: Tokens of saved prompts that a loaded model keeps.
    """

    num_parallel: int = 1
    max_queue: int = 512
    max_loaded_models: int = 3
    keep_alive_seconds: float = 300.0
    memory_bytes: int = 0
    context_tokens: int = 4096
    saved_prompt_tokens: int = 65_536


@dataclass(eq=False, slots=True, kw_only=True)
class Runner:
    """A loaded model.

    Args:
        model: The model.
        load: What it was loaded with.
        context_tokens: The context length that it runs with.
        slots: One permit per request that it works on at a time, given in order of arrival.
        prompts: What it remembers of earlier prompts.
        keep_alive_seconds: How long it stays loaded when idle; the last explicit value wins.
        unloaded: Set when it is gone.
        died: Set when its process has ended by itself; the next request loads the model again.
        users: Requests that hold it, waiting for a slot or in one.
        retiring: Whether the loader waits for it to become idle, to unload it.
        expires_at: When it will be unloaded (epoch seconds) as of its last idle moment.
    """

    model: Model
    load: LoadOptions
    context_tokens: int
    slots: asyncio.Semaphore
    prompts: PromptCache
    keep_alive_seconds: float
    unloaded: asyncio.Event = field(default_factory=asyncio.Event)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    users: int = 0
    retiring: bool = False
    expires_at: float | None = None
    expiry: asyncio.Task[None] | None = None


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
        limits: What it may hold and keep.
        totals: Where it counts.
    """

    def __init__(self, *, load: Load, clock: Clock, limits: Limits, totals: Totals) -> None:
        self._load = load
        self._clock = clock
        self._limits = limits
        self._totals = totals
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue()
        self._is_loading = False
        self._runners: dict[str, Runner] = {}

    async def run(self) -> None:
        """Load what is asked for, one request at a time, until cancelled."""
        try:
            while True:
                pending = await self._queue.get()
                self._is_loading = True
                await self._serve(pending)
                self._is_loading = False
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
            LoadError: It could not be loaded.
        """
        runner = self._runners.get(model.file)
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
        runner = self._runners.get(model.file)
        if runner is not None:
            runner.keep_alive_seconds = 0.0
            self._unload_if_due(runner)

    def kill(self, model: Model | None) -> None:
        """End the process of a loaded model, or of all of them."""
        for runner in self._runners.values():
            if model is None or runner.model.file == model.file:
                runner.died.set()

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
        # The loader takes one out of the queue, even if it has not had the time to do so yet.
        if self._queue.qsize() >= self._limits.max_queue + (not self._is_loading):
            self._totals.refused += 1
            raise QueueFullError
        self._queue.put_nowait(pending)
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._release(granted.result())
            raise

    async def _serve(self, pending: _Pending) -> None:
        while not pending.granted.done():
            runner = self._runners.get(pending.model.file)
            if runner is not None and not self._differs(runner, pending.load):
                self._take(runner, pending.keep_alive_seconds)
                pending.granted.set_result(runner)
                return
            if runner is None and self._fits(pending.model):
                await self._load_for(pending)
            elif runner is None and not self._runners:
                self._totals.failed_loads += 1
                pending.granted.set_exception(LoadError(OUT_OF_MEMORY_TEXT))
            else:
                await self._retire(runner or self._victim())

    def _fits(self, model: Model) -> bool:
        limits = self._limits
        if len(self._runners) >= limits.max_loaded_models:
            return False
        used = sum(runner.model.size_bytes for runner in self._runners.values())
        return not limits.memory_bytes or used + model.size_bytes <= limits.memory_bytes

    async def _load_for(self, pending: _Pending) -> None:
        """Load a model, or stop when the request that wants it goes away."""
        self._totals.loads += 1
        loading: asyncio.Future[Any] = asyncio.ensure_future(self._load(pending.model))
        granted: asyncio.Future[Any] = pending.granted
        try:
            await asyncio.wait({loading, granted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loading.cancel()
        if pending.granted.cancelled():
            self._totals.aborted_loads += 1
            return
        try:
            loading.result()
        except LoadError as error:
            self._totals.failed_loads += 1
            pending.granted.set_exception(error)
            return
        self._runners[pending.model.file] = self._make_runner(pending)

    def _make_runner(self, pending: _Pending) -> Runner:
        model, limits = pending.model, self._limits
        parallel = model.parallel or limits.num_parallel
        if model.capability == EMBEDDING:
            parallel = 1
        own = pending.keep_alive_seconds
        return Runner(
            model=model,
            load=pending.load,
            context_tokens=effective_context(
                pending.load, trained_tokens=model.context_tokens, default=limits.context_tokens
            ),
            slots=asyncio.Semaphore(parallel),
            prompts=PromptCache(slots=parallel, saved_tokens=limits.saved_prompt_tokens),
            keep_alive_seconds=limits.keep_alive_seconds if own is None else own,
        )

    async def _retire(self, runner: Runner) -> None:
        """Wait until a runner is idle and unload it; meanwhile others may still use it."""
        runner.retiring = True
        self._totals.evictions += not runner.died.is_set()
        self._unload_if_due(runner)
        await runner.unloaded.wait()

    def _victim(self) -> Runner:
        """The runner to evict: idle before busy, then shortest keep-alive, then name."""
        return min(
            self._runners.values(),
            key=lambda runner: (runner.users > 0, runner.keep_alive_seconds, runner.model.name.key),
        )

    def _differs(self, runner: Runner, load: LoadOptions) -> bool:
        return runner.died.is_set() or needs_reload(
            runner.load,
            load,
            trained_tokens=runner.model.context_tokens,
            default=self._limits.context_tokens,
        )

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
        self._totals.unloads += 1
        self._runners.pop(runner.model.file, None)
        runner.unloaded.set()
