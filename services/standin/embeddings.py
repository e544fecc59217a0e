"""`/api/embed` and the legacy `/api/embeddings`."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from aiohttp import web

from services.standin.core.catalogue import EMBEDDING
from services.standin.core.decode import DecodeError
from services.standin.core.minilm import DIMENSIONS, Floats
from services.standin.core.options import OptionError, parse_options
from services.standin.core.requests import EmbedRequest, parse_embed, parse_embeddings
from services.standin.core.times import nanoseconds
from services.standin.core.tokens import SEP
from services.standin.faults import DropConnectionError, Fault
from services.standin.journal import ENTRY
from services.standin.scheduler import Runner
from services.standin.state import State
from services.standin.wire import (
    BROKEN_STREAM_TEXT,
    TOO_LONG_TEXT,
    ApiError,
    reply,
    without_zeros,
)

# Texts computed in one go: more tokens hardly raise the rate, and delay other requests.
_GROUP_TOKENS = 1024


class EmbeddingHandlers:
    """The endpoints of the embedding model.

    Args:
        state: The server's parts.
        worker: One thread, so that work whose client has gone cannot pile up beside other work.
    """

    def __init__(self, state: State, worker: ThreadPoolExecutor) -> None:
        self._state = state
        self._worker = worker

    async def embed(self, http: web.Request) -> web.Response:
        """Embed a list of texts as vectors of unit length."""
        started_at = self._state.clock.monotonic()
        request = parse_embed(await http.read())
        vectors, tokens, load_seconds = await self._work(http, request, started_at)
        if 0 < request.dimensions < DIMENSIONS:
            vectors = np.ascontiguousarray(vectors[:, : request.dimensions])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return reply(
            {"model": request.model, "embeddings": vectors}
            | without_zeros(
                {
                    "total_duration": self._state.elapsed(started_at),
                    "load_duration": nanoseconds(load_seconds),
                    "prompt_eval_count": tokens,
                }
            )
        )

    async def embed_one(self, http: web.Request) -> web.Response:
        """Embed one prompt."""
        started_at = self._state.clock.monotonic()
        request = parse_embeddings(await http.read())
        vectors, _, _ = await self._work(http, request, started_at)
        return reply({"embedding": vectors[0] if len(vectors) else []})

    async def _work(
        self, http: web.Request, request: EmbedRequest, started_at: float
    ) -> tuple[Floats, int, float]:
        """The vectors, the number of tokens read, and the seconds until a runner was had."""
        if not request.model:
            raise DecodeError("model is required")
        model = self._state.find(request.model)
        if model is None:
            raise ApiError(404, f'model "{request.model}" not found, try pulling it first')
        if model.capability != EMBEDDING:
            raise ApiError(501, "this model does not support embeddings")
        try:
            options = parse_options(request.options)
        except OptionError as error:
            raise ApiError(500, str(error)) from error
        fault = self._state.begin_work(http, request.model) if request.texts else Fault()
        http[ENTRY].inputs = len(request.texts)
        async with self._state.hold(model, options, request.keep_alive_seconds) as runner:
            load_seconds = self._state.clock.monotonic() - started_at
            vectors, tokens = await self._compute(http, request, runner, fault)
        return vectors, tokens, load_seconds

    async def _compute(
        self, http: web.Request, request: EmbedRequest, runner: Runner, fault: Fault
    ) -> tuple[Floats, int]:
        loop = asyncio.get_running_loop()
        encoded = await loop.run_in_executor(
            self._worker, self._state.codec.encode, list(request.texts)
        )
        limit = runner.context_tokens
        if not request.truncate and any(len(ids) > limit for ids in encoded):
            raise ApiError(400, TOO_LONG_TEXT)
        texts = [ids if len(ids) <= limit else [*ids[: limit - 1], SEP] for ids in encoded]
        vectors = [np.empty((0, DIMENSIONS), np.float32)]
        for group in _group(texts):
            async with runner.slots:
                if len(vectors) == 1:
                    await self._stall_or_break(fault)
                vectors.append(
                    await loop.run_in_executor(self._worker, self._state.encoder.embed, group)
                )
            self._state.count_token(http, sum(map(len, group)))
        return np.concatenate(vectors), sum(map(len, texts))

    async def _stall_or_break(self, fault: Fault) -> None:
        """Apply a fault; any break comes here, as there are no partial embeddings."""
        await self._state.stall(fault)
        if fault.error_line_after_tokens is not None:
            raise ApiError(500, BROKEN_STREAM_TEXT)
        if fault.drop_after_tokens is not None:
            raise DropConnectionError


def _group(texts: list[list[int]]) -> Iterator[list[list[int]]]:
    """Consecutive texts of together at most `_GROUP_TOKENS`, or one longer text."""
    group: list[list[int]] = []
    tokens = 0
    for text in texts:
        if group and tokens + len(text) > _GROUP_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(text)
        tokens += len(text)
    if group:
        yield group
