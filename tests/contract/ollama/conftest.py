"""The server that the contract is checked against: a stand-in, or a real one.

    PANNIER_TEST_OLLAMA_URL              a server's address; without it stand-ins are started
    PANNIER_TEST_OLLAMA_CHAT             a model that only completes
    PANNIER_TEST_OLLAMA_EMBED            an embedding model
    PANNIER_TEST_OLLAMA_TOOLS            a model with tools, or absent
    PANNIER_TEST_OLLAMA_THINKING         a model that thinks, or absent

Against a real server, calls that order faults, need settings of their own or look into the
stand-in are skipped, and so are those whose model is not named.
"""

import asyncio
import json
import os
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from services.common.clock import SystemClock
from services.standin.core.profile import ModelSpec
from services.standin.server import run_server
from services.standin.settings import Settings

REAL_URL = os.environ.get("PANNIER_TEST_OLLAMA_URL", "")
_ROLES = ("chat", "embed", "tools", "thinking", "insert", "big", "remote")
_STANDIN_MODELS = (
    ModelSpec(name="chat-model", prefill_tokens_per_second=1e6),
    ModelSpec(name="embed-model", capability="embedding", embedding_length=64, context_tokens=512),
    ModelSpec(name="tools-model", capabilities=("tools",)),
    ModelSpec(name="thinking-model", capabilities=("thinking",)),
    ModelSpec(name="insert-model", capabilities=("insert",)),
    ModelSpec(name="big-model", size_bytes=10**15),
    ModelSpec(name="remote-model", size_bytes=10_000_000, remote=True),
)


class Server:
    """A server, a client for it, and the names of its models by their part in the tests."""

    def __init__(self, http, models):
        self.http = http
        self.models = models
        self.is_real = bool(REAL_URL)

    def model(self, role):
        if role not in self.models:
            pytest.skip(f"no {role} model is named")
        return self.models[role]

    def fill(self, value):
        """Put the names of models for `<chat>`, `<embed>` and so on."""
        text = json.dumps(value)
        for role in _ROLES:
            if f"<{role}>" in text:
                text = text.replace(f"<{role}>", self.model(role))
        return json.loads(text)

    async def post(self, path, /, **body):
        return await self.http.post(path, json=self.fill(body))

    async def answer(self, text="Say something. <<tokens=3>>", **fields):
        """Ask the chat model, without a stream unless asked for."""
        body = {"model": "<chat>", "prompt": text, "stream": False, "options": {"num_predict": 8}}
        return await self.post("/api/generate", **body | fields)

    def stream(self, tokens, model="<chat>", path="/api/generate", **fields):
        prompt = f"Count on and on. <<tokens={tokens}>>"
        body = {"model": model, "prompt": prompt, "options": {"num_predict": tokens}} | fields
        return self.http.stream("POST", path, json=self.fill(body))

    async def loaded(self):
        return {each["name"]: each for each in (await self.http.get("/api/ps")).json()["models"]}

    async def is_loaded(self, role, expected=True):
        """Wait until a model is loaded, or is not any more."""
        name = self.model(role)
        async with asyncio.timeout(20):
            while any(each.startswith(name) for each in await self.loaded()) != expected:
                await asyncio.sleep(0.01)

    async def entries(self, path):
        found = (await self.http.get("/standin/requests")).json()["requests"]
        return [entry for entry in found if entry["path"] == path]

    async def until(self, path, condition, count=1):
        async with asyncio.timeout(10):
            while len([each for each in await self.entries(path) if condition(each)]) < count:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def starting():
    async with AsyncExitStack() as stack:

        async def starter(**settings):
            quick = {"load_seconds": 0.0, "tokens_per_second": 5000.0, "models": _STANDIN_MODELS}
            made = Settings(port=0, builtin_models=False, **quick | settings)
            port = await stack.enter_async_context(run_server(made, SystemClock()))
            http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)
            names = {role: f"{role}-model" for role in _ROLES}
            return Server(await stack.enter_async_context(http), names)

        yield starter


@pytest.fixture
async def start():
    """Start stand-ins with the given settings."""
    if REAL_URL:
        pytest.skip("needs a server with settings of its own")
    async with starting() as starter:
        yield starter


@pytest.fixture
async def server():
    """The server under contract."""
    if not REAL_URL:
        async with starting() as starter:
            yield await starter()
        return
    names = {role: os.environ.get(f"PANNIER_TEST_OLLAMA_{role.upper()}") for role in _ROLES}
    async with httpx.AsyncClient(base_url=REAL_URL, timeout=120) as http:
        yield Server(http, {role: name for role, name in names.items() if name})
