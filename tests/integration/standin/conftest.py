"""A stand-in server in this process, and a client for it."""

import asyncio
import json
from contextlib import AsyncExitStack

import httpx
import pytest

CHAT = "extractive-standin"
EMBED = "all-minilm"
SENTENCE = (
    "The quick server answers every request about servers with many small words in a row, and it "
    "goes on for a good while, since the tests that read this need an answer of some length to be "
    "able to look at it while it is being given, token by token, at a rate that they choose. "
)


class Client:
    """An HTTP client of one server, with what the tests do most."""

    def __init__(self, http):
        self.http = http

    async def post(self, path, /, **fields):
        return await self.http.post(path, json=fields)

    async def chat(self, text="What do servers answer?", **fields):
        """A conversation of one message, not streamed unless asked for."""
        messages = [{"role": "user", "content": SENTENCE + text}]
        return await self.post(
            "/api/chat", **{"model": CHAT, "messages": messages, "stream": False} | fields
        )

    async def embed(self, *texts, **fields):
        return await self.post("/api/embed", **{"model": EMBED, "input": list(texts)} | fields)

    async def load(self, model=CHAT, **fields):
        """Load a model and wait for it."""
        path = "/api/generate" if model == CHAT else "/api/embed"
        assert (await self.post(path, model=model, **fields)).status_code == 200

    async def loaded(self):
        return (await self.http.get("/api/ps")).json()["models"]

    async def requests(self, path):
        entries = (await self.http.get("/standin/requests")).json()["requests"]
        return [entry for entry in entries if entry["path"] == path]

    async def until(self, path, condition, count=1):
        """Wait until so many requests to `path` meet a condition, and return the last."""
        async with asyncio.timeout(10):
            while True:
                entries = [entry for entry in await self.requests(path) if condition(entry)]
                if len(entries) >= count:
                    return entries[-1]
                await asyncio.sleep(0.005)

    def stream(self, path="/api/chat", **fields):
        body = {"model": CHAT, "messages": [{"role": "user", "content": SENTENCE + "Servers?"}]}
        return self.http.stream("POST", path, json=body | fields)

    async def lines(self, **fields):
        async with self.stream(**fields) as response:
            return [json.loads(line) async for line in response.aiter_lines()]


@pytest.fixture
async def start():
    """Start servers with the given settings; returns a client each."""
    from services.common.clock import SystemClock
    from services.standin.server import run_server
    from services.standin.settings import Settings

    async with AsyncExitStack() as stack:

        async def starter(**settings):
            fast = {"load_seconds": 0.01, "tokens_per_second": 2000.0}
            made = Settings(port=0, **fast | settings)
            port = await stack.enter_async_context(run_server(made, SystemClock()))
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
            return Client(await stack.enter_async_context(http))

        yield starter
