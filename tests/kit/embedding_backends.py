"""An embedding server whose speed, faults and order of replies a test decides."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import orjson
from aiohttp import web

__all__ = ["EmbeddingBackend"]


class EmbeddingBackend:
    """Lets a scripted server embed `text number i` as the i-th unit vector, so that order shows.

    Its model is an embedding model, loaded from the start, which serves one call at a time.

    Args:
        server: A scripted server of `tests/integration/balancer/conftest.py`.
        name: Its model.
        digest: Digest of the model.
        dimension: Length of the vectors.
    """

    def __init__(
        self, server: Any, *, name: str = "m:latest", digest: str = "1" * 64, dimension: int = 600
    ) -> None:
        self.backend_id: str = server.backend_id
        self.url: str = server.url
        self.dimension = dimension
        self.calls: list[list[str]] = []
        """The texts of each call, in the order of their arrival."""
        self.active_count = 0
        self.highest_active_count = 0
        self.abandoned_count = 0
        self.call_seconds = 0.0
        self.text_seconds = 0.0
        self.refused: frozenset[str] = frozenset()
        """Texts that make a call fail with 400."""
        self.most_texts = 1000
        self.before: Callable[[list[str]], Awaitable[None]] | None = None
        """Awaited before each reply."""
        self.vectors: Callable[[list[str]], Any] = self._rows
        model = {
            "name": name,
            "model": name,
            "digest": digest,
            "size": 50_000_000,
            "details": {"family": "bert"},
            "capabilities": ["embedding"],
        }
        loaded = model | {"size_vram": 50_000_000, "expires_at": "2099-01-01T00:00:00Z"}
        server.replies["/api/tags"] = lambda request: web.json_response({"models": [model]})
        server.replies["/api/ps"] = lambda request: web.json_response({"models": [loaded]})
        server.replies["/api/embed"] = self._reply

    @property
    def texts(self) -> list[str]:
        """All texts that it was given."""
        return [text for call in self.calls for text in call]

    def _rows(self, texts: list[str]) -> list[list[float]]:
        numbers = [int(text.rsplit(" ", 1)[1]) for text in texts]
        rows: list[list[float]] = np.eye(self.dimension)[numbers].tolist()
        return rows

    async def _reply(self, request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        self.calls.append(texts)
        self.active_count += 1
        self.highest_active_count = max(self.highest_active_count, self.active_count)
        try:
            return await self._embed(texts)
        except asyncio.CancelledError:
            self.abandoned_count += 1
            raise
        finally:
            self.active_count -= 1

    async def _embed(self, texts: list[str]) -> web.Response:
        if self.before is not None:
            await self.before(texts)
        seconds = self.call_seconds + self.text_seconds * len(texts)
        if seconds:
            await asyncio.sleep(seconds)
        if self.refused & set(texts):
            return web.json_response({"error": "input cannot be embedded"}, status=400)
        if len(texts) > self.most_texts:
            return web.json_response({"error": "too many inputs"}, status=400)
        body = {
            "model": "m",
            "embeddings": self.vectors(texts),
            "prompt_eval_count": sum(len(text) // 4 for text in texts),
        }
        return web.Response(body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY))
