"""`/api/embed` and the legacy `/api/embeddings`."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from aiohttp import web

from services.standin.core.catalogue import Engine, Model
from services.standin.core.decode import DecodeError
from services.standin.core.minilm import Floats
from services.standin.core.options import OptionError, parse_options
from services.standin.core.requests import EmbedRequest, parse_embed, parse_embeddings
from services.standin.core.times import nanoseconds
from services.standin.engines import Text
from services.standin.faults import NO_FAULT, BreakStreamError, DropConnectionError, Fault
from services.standin.journal import ENTRY
from services.standin.scheduler import Runner
from services.standin.state import State
from services.standin.wire import (
    BROKEN_STREAM_TEXT,
    JSON_TYPE,
    TOO_LONG_TEXT,
    ApiError,
    encode,
    without_zeros,
)

# Texts that MiniLM computes in one go: more tokens hardly raise the rate, and delay others.
_GROUP_TOKENS = 1024


class EmbeddingHandlers:
    """The endpoints of embedding models."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def embed(self, http: web.Request) -> web.Response:
        """Embed a list of texts as vectors of unit length."""
        started_at = self._state.clock.monotonic()
        request = parse_embed(await http.read())
        vectors, fault = await self._work(http, request, started_at)
        if 0 < request.dimensions < vectors.shape[1]:
            vectors = np.ascontiguousarray(vectors[:, : request.dimensions])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        entry = http[ENTRY]
        body = {"model": fault.echo_model or request.model, "embeddings": _spoil(vectors, fault)}
        return _reply(
            body
            | without_zeros(
                {
                    "total_duration": self._state.elapsed(started_at),
                    "load_duration": nanoseconds(entry.load_seconds),
                    "prompt_eval_count": entry.prompt_tokens,
                }
            ),
            fault,
        )

    async def embed_one(self, http: web.Request) -> web.Response:
        """Embed one prompt."""
        started_at = self._state.clock.monotonic()
        request = parse_embeddings(await http.read())
        vectors, fault = await self._work(http, request, started_at)
        vectors = _spoil(vectors, fault)
        return _reply({"embedding": vectors[0] if len(vectors) else []}, fault)

    async def _work(
        self, http: web.Request, request: EmbedRequest, started_at: float
    ) -> tuple[Floats, Fault]:
        if not request.model:
            raise DecodeError("model is required")
        model = self._state.library.find(request.model)
        if model is None:
            raise ApiError(404, f'model "{request.model}" not found, try pulling it first')
        if not model.embedding_length:
            raise ApiError(501, "this model does not support embeddings")
        try:
            options = parse_options({**model.parameters, **request.options})
        except OptionError as error:
            raise ApiError(500, str(error)) from error
        fault = self._state.begin_work(http, request.model) if request.texts else NO_FAULT
        http[ENTRY].inputs = len(request.texts)
        keep_alive_seconds = request.keep_alive_seconds
        async with self._state.hold(http, model, options, keep_alive_seconds, started_at) as runner:
            return await self._compute(http, request, runner, fault), fault

    async def _compute(
        self, http: web.Request, request: EmbedRequest, runner: Runner, fault: Fault
    ) -> Floats:
        engines, model = self._state.engines, runner.model
        texts = await engines.tokenize(model, list(request.texts))
        limit = runner.context_tokens
        if not request.truncate and any(text.tokens > limit for text in texts):
            raise ApiError(400, TOO_LONG_TEXT)
        vectors = [np.empty((0, model.embedding_length), np.float32)]
        if not texts:
            return vectors[0]
        # All texts of a call queue for the slot at once, so nothing comes between them.
        await self._state.take_slot(http, runner)
        try:
            await self._stall_or_break(fault, runner)
            for group in _group(model, [text.cut(limit) for text in texts]):
                vectors.append(await self._embed(http, runner, group))  # noqa: PERF401
        except BreakStreamError:
            raise ApiError(500, BROKEN_STREAM_TEXT) from None
        finally:
            runner.slots.release()
        return np.concatenate(vectors)

    async def _embed(self, http: web.Request, runner: Runner, group: list[Text]) -> Floats:
        """Embed the texts of a group, one after another."""
        state, tokens = self._state, sum(text.tokens for text in group)
        if runner.model.engine is not Engine.MINILM:
            with state.machine.use():
                await state.prefill(http, runner, tokens)
        vectors = await state.engines.embed(runner.model, group)
        state.note_prompt(http, tokens)
        http[ENTRY].tokens += tokens
        return vectors

    async def _stall_or_break(self, fault: Fault, runner: Runner) -> None:
        """Apply a fault; any break comes here, as there are no partial embeddings.

        Raises:
            BreakStreamError: The model is to fail.
            DropConnectionError: The connection is to be cut.
        """
        await self._state.stall(fault, runner)
        if fault.kill_child_after_tokens is not None:
            self._state.scheduler.kill(runner.model)
        if fault.error_line_after_tokens is not None or runner.died.is_set():
            raise BreakStreamError
        if fault.drop_after_tokens is not None or fault.cut_chunk_after_tokens is not None:
            raise DropConnectionError


def _group(model: Model, texts: list[Text]) -> Iterator[list[Text]]:
    """What is worked on together: the texts that MiniLM computes at once, or all."""
    if model.engine is not Engine.MINILM:
        yield texts
        return
    group: list[Text] = []
    tokens = 0
    for text in texts:
        if group and tokens + text.tokens > _GROUP_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(text)
        tokens += text.tokens
    yield group


def _spoil(vectors: Floats, fault: Fault) -> Floats:
    """Make the vectors as wrong as a fault wants them."""
    if fault.embeddings_missing > 0:
        vectors = vectors[: -fault.embeddings_missing]
    elif fault.embeddings_missing < 0:
        vectors = np.concatenate([vectors, *[vectors[-1:]] * -fault.embeddings_missing])
    if fault.embedding_dimensions:
        vectors = np.resize(vectors, (len(vectors), fault.embedding_dimensions))
    if fault.embedding_nan:
        vectors = vectors.copy()
        vectors[:, 0] = np.nan
    return np.ascontiguousarray(vectors)


def _reply(body: dict[str, Any], fault: Fault) -> web.Response:
    data = encode(body)
    if fault.embedding_nan:
        # What other programs write for it; no JSON.
        data = data.replace(b"[null", b"[NaN")
    return web.Response(body=data, headers={"Content-Type": JSON_TYPE})
