"""`/api/generate` and `/api/chat`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from services.standin.core.catalogue import COMPLETION, Model
from services.standin.core.complete import (
    Completion,
    FormatError,
    TooLongError,
    check_format,
    complete,
)
from services.standin.core.decode import DecodeError
from services.standin.core.options import OptionError, Options, parse_options
from services.standin.core.requests import CompletionRequest, parse_chat, parse_generate
from services.standin.core.times import format_utc, nanoseconds
from services.standin.faults import BreakStreamError, Fault
from services.standin.scheduler import Runner
from services.standin.state import State
from services.standin.wire import (
    BROKEN_STREAM_TEXT,
    STREAM_ERROR_TYPE,
    TOO_LONG_TEXT,
    ApiError,
    LineStream,
    reply,
    without_zeros,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A request that has its slot; durations in seconds, instants on the monotonic clock."""

    request: CompletionRequest
    completion: Completion
    fault: Fault
    started_at: float
    load_seconds: float
    prompt_seconds: float
    answer_began_at: float


class CompletionHandlers:
    """The endpoints of the chat model."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def generate(self, http: web.Request) -> web.StreamResponse:
        """Answer a prompt."""
        started_at = self._state.clock.monotonic()
        request = parse_generate(await http.read())
        return await self._answer(http, request, started_at)

    async def chat(self, http: web.Request) -> web.StreamResponse:
        """Answer a conversation."""
        started_at = self._state.clock.monotonic()
        request = parse_chat(await http.read())
        if not request.model:
            raise DecodeError("model is required")
        return await self._answer(http, request, started_at)

    async def _answer(
        self, http: web.Request, request: CompletionRequest, started_at: float
    ) -> web.StreamResponse:
        model = self._find(request)
        if request.is_empty and request.keep_alive_seconds == 0:
            self._state.scheduler.expire(model)
            return reply(self._line(request, "", done=True) | {"done_reason": "unload"})
        options = _check(request, model)
        fault = None if request.is_empty else self._state.begin_work(http, request.model)
        async with self._state.hold(model, options, request.keep_alive_seconds) as runner:
            if fault is None:
                return reply(self._line(request, "", done=True) | {"done_reason": "load"})
            load_seconds = self._state.clock.monotonic() - started_at
            async with runner.slots:
                await self._state.stall(fault)
                job = await self._read_prompt(
                    request, options, fault, runner, started_at, load_seconds
                )
                return await (self._stream if request.stream else self._collect)(http, job)

    async def _read_prompt(
        self,
        request: CompletionRequest,
        options: Options,
        fault: Fault,
        runner: Runner,
        started_at: float,
        load_seconds: float,
    ) -> _Job:
        clock = self._state.clock
        began_at = clock.monotonic()
        try:
            completion = await asyncio.to_thread(
                complete, request, options, self._state.codec, runner.context_tokens
            )
        except TooLongError:
            raise ApiError(400, TOO_LONG_TEXT) from None
        tokens = len(completion.prompt_ids)
        ready_at = began_at + tokens / self._state.settings.prefill_tokens_per_second
        await clock.sleep(max(0.0, ready_at - clock.monotonic()))
        answer_began_at = clock.monotonic()
        return _Job(
            request=request,
            completion=completion,
            fault=fault,
            started_at=started_at,
            load_seconds=load_seconds,
            prompt_seconds=answer_began_at - began_at,
            answer_began_at=answer_began_at,
        )

    async def _produce(self, http: web.Request, job: _Job) -> AsyncIterator[str]:
        """The answer's tokens at the configured rate."""
        clock = self._state.clock
        due_at = job.answer_began_at
        texts = job.completion.pieces.texts
        for index, text in enumerate(texts):
            job.fault.check(index)
            due_at += 1 / self._state.settings.tokens_per_second
            await clock.sleep(max(0.0, due_at - clock.monotonic()))
            self._state.count_token(http)
            yield text
        job.fault.check(len(texts))

    async def _stream(self, http: web.Request, job: _Job) -> web.StreamResponse:
        lines = LineStream(http)
        try:
            async for text in self._produce(http, job):
                if text:
                    await lines.write(self._line(job.request, text, done=False))
        except BreakStreamError:
            if not lines.started:
                raise ApiError(500, BROKEN_STREAM_TEXT, STREAM_ERROR_TYPE) from None
            await lines.write({"error": BROKEN_STREAM_TEXT})
            return await lines.end()
        if not job.fault.no_done:
            await lines.write(self._line(job.request, "", done=True) | self._metrics(job))
        return await lines.end()

    async def _collect(self, http: web.Request, job: _Job) -> web.StreamResponse:
        try:
            text = "".join([text async for text in self._produce(http, job)])
        except BreakStreamError:
            raise ApiError(500, BROKEN_STREAM_TEXT) from None
        if job.fault.no_done:
            return reply(self._line(job.request, text, done=False))
        return reply(self._line(job.request, text, done=True) | self._metrics(job))

    def _find(self, request: CompletionRequest) -> Model:
        model = self._state.find(request.model) if request.model else None
        if model is None:
            raise ApiError(404, f"model '{request.model}' not found")
        return model

    def _line(self, request: CompletionRequest, text: str, *, done: bool) -> dict[str, Any]:
        content: dict[str, Any] = {"response": text}
        if request.chat:
            content = {"message": {"role": "assistant", "content": text}}
        created_at = format_utc(self._state.clock.now())
        return {"model": request.model, "created_at": created_at} | content | {"done": done}

    def _metrics(self, job: _Job) -> dict[str, Any]:
        completion = job.completion
        context = [] if job.request.raw else completion.prompt_ids + completion.pieces.ids
        return without_zeros(
            {
                "done_reason": completion.done_reason,
                "context": context,
                "total_duration": self._state.elapsed(job.started_at),
                "load_duration": nanoseconds(job.load_seconds),
                "prompt_eval_count": len(completion.prompt_ids),
                "prompt_eval_duration": nanoseconds(job.prompt_seconds),
                "eval_count": len(completion.pieces.ids),
                "eval_duration": self._state.elapsed(job.answer_began_at),
            }
        )


def _check(request: CompletionRequest, model: Model) -> Options:
    """Check that the model can do what is asked for, and the options' types."""
    if model.capability != COMPLETION:
        raise ApiError(
            400, f'"{request.model}" does not support {"chat" if request.chat else "generate"}'
        )
    if request.think:
        raise ApiError(400, f'"{request.model}" does not support thinking')
    if request.tools:
        raise ApiError(400, f"{model.name.full} does not support tools")
    if request.suffix:
        raise ApiError(400, f"{model.name.full} does not support insert")
    try:
        check_format(request.output_format)
        return parse_options(request.options)
    except (FormatError, OptionError) as error:
        raise ApiError(500, str(error)) from error
