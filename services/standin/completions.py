"""`/api/generate` and `/api/chat`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from services.standin.checks import check_completion, with_system
from services.standin.core.catalogue import Model
from services.standin.core.complete import Completion, TooLongError, repeat
from services.standin.core.decode import DecodeError
from services.standin.core.options import Options
from services.standin.core.requests import CompletionRequest, parse_chat, parse_generate
from services.standin.core.times import nanoseconds
from services.standin.faults import BreakStreamError, DropConnectionError, Fault
from services.standin.journal import ENTRY
from services.standin.lines import Lines
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

# The server ends an answer that goes on repeating one token for longer.
_MAX_REPEATS = 31


@dataclass(slots=True, kw_only=True)
class _Job:
    """A request that has its model; instants on the monotonic clock.

    Args:
        tokens: How much of the answer has been given.
        content: What the slot holds.
        answer_began_at: When its first token was begun; None while the prompt is read.
    """

    request: CompletionRequest
    completion: Completion
    fault: Fault
    runner: Runner
    lines: Lines
    started_at: float
    content: str = ""
    tokens: int = 0
    answer_began_at: float | None = None


class CompletionHandlers:
    """The endpoints of chat models."""

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
        lines = Lines(request, request.model, self._state.clock)
        if request.is_empty and request.keep_alive_seconds == 0:
            self._state.scheduler.expire(model)
            return reply(lines.line("", done=True) | {"done_reason": "unload"})
        options = check_completion(request, model)
        fault = Fault() if request.is_empty else self._state.begin_work(http, request.model)
        if fault.echo_model:
            lines = Lines(request, fault.echo_model, self._state.clock)
        keep_alive_seconds = request.keep_alive_seconds
        async with self._state.hold(http, model, options, keep_alive_seconds, started_at) as runner:
            if request.is_empty:
                return reply(lines.line("", done=True) | {"done_reason": "load"})
            completion = await self._plan(request, model, options, runner)
            if request.render_only:
                return reply(_rendered(request, completion, lines))
            if fault.repeat_guard:
                completion = repeat(completion, _MAX_REPEATS)
            job = _Job(
                request=request,
                completion=completion,
                fault=fault,
                runner=runner,
                lines=lines,
                started_at=started_at,
            )
            return await self._run(http, job)

    async def _plan(
        self, request: CompletionRequest, model: Model, options: Options, runner: Runner
    ) -> Completion:
        try:
            return await self._state.engines.complete(
                model, with_system(request, model), options, runner.context_tokens
            )
        except TooLongError:
            raise ApiError(400, TOO_LONG_TEXT) from None

    async def _run(self, http: web.Request, job: _Job) -> web.StreamResponse:
        """Answer in a slot, and give it back unless it is to leak."""
        runner = job.runner
        await self._state.take_slot(http, runner)
        lease = runner.prompts.begin(job.completion.prompt)
        leaked = False
        try:
            return await (self._stream if job.request.stream else self._collect)(
                http, job, lease.cached_tokens
            )
        except (asyncio.CancelledError, ConnectionError):
            leaked = job.fault.leak_on_disconnect and job.request.stream and job.tokens > 0
            raise
        finally:
            if not leaked:
                runner.prompts.end(lease, job.content)
                runner.slots.release()

    async def _produce(
        self, http: web.Request, job: _Job, cached_tokens: int
    ) -> AsyncGenerator[tuple[int, int], None]:
        """Read the prompt, then give the answer.

        Yields:
            Indices of the first token that is due, and of the one behind the last.
        """
        state, runner, fault, completion = self._state, job.runner, job.fault, job.completion
        prompt = completion.prompt
        await state.stall(fault, runner)
        with state.machine.use():
            job.content = prompt.content[: cached_tokens * prompt.characters_per_token]
            state.note_prompt(http, prompt.tokens, cached_tokens)
            await state.prefill(http, runner, prompt.tokens - cached_tokens)
            job.content = prompt.content
            job.answer_began_at = state.clock.monotonic()
            rate = runner.model.speed.decode_tokens_per_second
            work = state.machine.work(len(completion.texts), rate, state.slowdown(runner))
            try:
                self._break(job)
                async for due in work:
                    while job.tokens < due:
                        begin = job.tokens
                        job.tokens = min(due, fault.next_break(begin + 1) or due)
                        state.note_output(http, job.tokens - begin)
                        yield begin, job.tokens
                        self._break(job)
            finally:
                job.content = completion.content_after(job.tokens)
                http[ENTRY].decode_seconds = state.clock.monotonic() - job.answer_began_at

    def _break(self, job: _Job) -> None:
        if job.fault.kill_child_after_tokens == job.tokens:
            self._state.scheduler.kill(job.runner.model)
        job.fault.check(job.tokens)

    async def _stream(self, http: web.Request, job: _Job, cached_tokens: int) -> web.StreamResponse:
        stream = LineStream(http)
        try:
            # Closed at once when a write fails, so that the machine is not busy for nobody.
            async with aclosing(self._produce(http, job, cached_tokens)) as produced:
                async for begin, end in produced:
                    if data := job.lines.tokens(job.completion, begin, end):
                        await stream.write_bytes(data)
                    if end == job.fault.garbage_after_tokens:
                        await stream.write_bytes(b'}{ "done": fal\n')
        except BreakStreamError:
            if not stream.started:
                raise ApiError(500, BROKEN_STREAM_TEXT, STREAM_ERROR_TYPE) from None
            await stream.write({"error": BROKEN_STREAM_TEXT})
            return await stream.end()
        except DropConnectionError:
            if job.fault.cut_chunk_after_tokens is not None:
                stream.write_half_a_chunk()
            raise
        if job.fault.no_done or job.fault.repeat_guard:
            return await stream.end()
        calls = job.completion.tool_calls
        if calls:
            await stream.write(job.lines.line("", done=False, tool_calls=calls))
        await stream.write(job.lines.line("", done=True) | self._metrics(http, job))
        return await stream.end()

    async def _collect(
        self, http: web.Request, job: _Job, cached_tokens: int
    ) -> web.StreamResponse:
        try:
            async for _ in self._produce(http, job, cached_tokens):
                pass
        except BreakStreamError:
            raise ApiError(500, BROKEN_STREAM_TEXT) from None
        completion, lines = job.completion, job.lines
        texts, thinking = completion.texts, completion.thinking_tokens
        is_done = not (job.fault.no_done or job.fault.repeat_guard)
        whole = lines.line(
            "" if completion.tool_calls else "".join(texts[thinking:]),
            done=is_done,
            thinking="".join(texts[:thinking]),
            tool_calls=completion.tool_calls,
        )
        if job.request.logprobs:
            whole["logprobs"] = [lines.logprob(text) for text in texts]
        return reply(whole | (self._metrics(http, job) if is_done else {}))

    def _find(self, request: CompletionRequest) -> Model:
        model = self._state.library.find(request.model) if request.model else None
        if model is None:
            raise ApiError(404, f"model '{request.model}' not found")
        return model

    def _metrics(self, http: web.Request, job: _Job) -> dict[str, Any]:
        completion, entry = job.completion, http[ENTRY]
        return without_zeros(
            {
                "done_reason": completion.done_reason,
                "context": completion.context,
                "total_duration": self._state.elapsed(job.started_at),
                "load_duration": nanoseconds(entry.load_seconds),
                "prompt_eval_count": completion.prompt.tokens,
                "prompt_eval_duration": nanoseconds(entry.prefill_seconds),
                "eval_count": len(completion.texts),
                "eval_duration": nanoseconds(entry.decode_seconds),
            }
        )


def _rendered(request: CompletionRequest, completion: Completion, lines: Lines) -> dict[str, Any]:
    images = sum(len(message.images) for message in request.messages)
    info = {"rendered_template": completion.rendered} | without_zeros({"image_count": images})
    return lines.line("", done=False) | {"_debug_info": info}
