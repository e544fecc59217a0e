"""A running balancer, and backends that answer as a test tells them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import numpy as np
import orjson
import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from services.balancer.app import start
from services.balancer.metrics import CATALOGUE
from services.balancer.settings import BalancerSettings, parse_endpoint
from services.common.server import Runtime
from tests.kit.rpc import Spans, channel_to, make_runtime
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, Standin, running_standins

_LOADS = {
    CHAT_MODEL: ("/api/generate", {"model": CHAT_MODEL, "keep_alive": -1}),
    EMBEDDING_MODEL: ("/api/embed", {"model": EMBEDDING_MODEL, "input": [], "keep_alive": -1}),
}


@dataclass(frozen=True)
class Balancer:
    """A balancer with a client."""

    stub: pb_grpc.BalancerServiceStub
    runtime: Runtime
    spans: Spans
    grpc_port: int
    http_port: int

    async def stats(self) -> pb.GetStatsResponse:
        return await self.stub.GetStats(pb.GetStatsRequest())

    async def backend(self, backend_id: str) -> pb.BackendStats:
        stats = await self.stats()
        return next(each for each in stats.backends if each.backend_id == backend_id)

    async def health(self, *, check_now: bool = False) -> pb.GetHealthResponse:
        return await self.stub.GetHealth(pb.GetHealthRequest(check_now=check_now))

    async def until(
        self, condition: Callable[[pb.GetStatsResponse], bool], within_seconds: float = 5.0
    ) -> pb.GetStatsResponse:
        """Waits until the stats are so, and returns them."""
        async with asyncio.timeout(within_seconds):
            while not condition(stats := await self.stats()):
                await asyncio.sleep(0.01)
        return stats

    def value(self, name: str, **labels: str) -> float | None:
        return self.runtime.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def running_balancer(*urls: str, **fields) -> AsyncIterator[Balancer]:
    runtime, spans = make_runtime("balancer", CATALOGUE)
    # What is due to a host that nobody knows is a matter of tests of its own.
    fields = {"unproven_first_token_seconds": 0.05} | fields
    settings = BalancerSettings(
        backends=tuple(parse_endpoint(url) for url in urls), drain_delay_seconds=0.0, **fields
    )
    async with (
        start(settings, runtime) as running,
        channel_to(running.grpc_port) as channel,
    ):
        yield Balancer(
            pb_grpc.BalancerServiceStub(channel),
            runtime,
            spans,
            running.grpc_port,
            running.http_port,
        )


@pytest.fixture
async def run_balancer(scripted):
    """Starts balancers that live as long as the test.

    They stop before the scripted servers: one that is stopped while somebody connects to it
    leaves that connection open.
    """
    async with AsyncExitStack() as stack:

        async def run(*urls: str, **fields) -> Balancer:
            return await stack.enter_async_context(running_balancer(*urls, **fields))

        yield run


@asynccontextmanager
async def _warm_standins(
    count: int, *models: str, **settings: object
) -> AsyncIterator[list[Standin]]:
    """Runs quick stand-ins with models in memory, whose records begin after that."""
    async with running_standins(count, **settings) as standins, aiohttp.ClientSession() as session:
        for standin in standins:
            for model in models or _LOADS:
                path, body = _LOADS[model]
                async with session.post(standin.url + path, json=body) as reply:
                    assert reply.status == 200, await reply.text()
            for record in ("requests", "totals"):
                async with session.delete(f"{standin.url}/standin/{record}"):
                    pass
        yield standins


@pytest.fixture
def warm_standins():
    """Runs stand-ins that need not load anything, so that only the choice between them counts."""
    return _warm_standins


class Work:
    """A generation that a test answers bit by bit.

    Attributes:
        path: Where it was asked for.
        body: What was asked for.
        left: Set when the client has gone away.
    """

    def __init__(self, path: str, body: dict) -> None:
        self.path = path
        self.body = body
        self.left = asyncio.Event()
        self._lines: asyncio.Queue[bytes | web.Response | None] = asyncio.Queue()

    def say(self, *texts: str) -> None:
        """Writes each text as a line of its own."""
        for text in texts:
            chat = {"message": {"role": "assistant", "content": text}}
            content = chat if self.path == "/api/chat" else {"response": text}
            self._lines.put_nowait(orjson.dumps(content | {"done": False}) + b"\n")

    def end(self, **fields: object) -> None:
        """Writes the final line, and ends the reply."""
        self._lines.put_nowait(
            orjson.dumps({"response": "", "done": True, "done_reason": "stop"} | fields) + b"\n"
        )
        self.cut()

    def fail(self, status: int, message: str = "it failed") -> None:
        """Replies with an error."""
        self._lines.put_nowait(web.json_response({"error": message}, status=status))

    def cut(self) -> None:
        """Ends the reply where it is."""
        self._lines.put_nowait(None)

    async def reply(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        try:
            while (line := await self._lines.get()) is not None:
                if isinstance(line, web.Response):
                    return line
                if not response.prepared:
                    await response.prepare(request)
                await response.write(line)
            if not response.prepared:
                await response.prepare(request)
            await response.write_eof()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise
        return response


class ScriptedServer:
    """A backend whose every reply a test can replace; by default it has no models."""

    def __init__(self) -> None:
        self.replies = {
            "/api/version": lambda request: web.json_response({"version": "0.33.0"}),
            "/api/tags": lambda request: web.json_response({"models": []}),
            "/api/ps": lambda request: web.json_response({"models": []}),
        }
        self.requests: list[web.Request] = []
        self.bodies: list[dict] = []
        self.url = ""

    @property
    def backend_id(self) -> str:
        return self.url.removeprefix("http://")

    def has(
        self,
        name: str,
        digest: str = "1" * 64,
        capabilities=("completion", "embedding"),
        *,
        loaded: bool = True,
        size_bytes: int = 7,
    ) -> None:
        """Lets the server have one model, by default in its memory."""
        model = {"name": name, "digest": digest, "size": size_bytes, "details": {"family": "test"}}
        if capabilities is not None:
            model["capabilities"] = list(capabilities)
        self.replies["/api/tags"] = lambda request: web.json_response({"models": [model]})
        self.in_memory(*([model] if loaded else []))

    def in_memory(self, *models: dict) -> None:
        """Lets the server list models as loaded."""
        more = {"context_length": 8192, "expires_at": "2319-01-01T00:00:00Z"}
        listed = [model | more for model in models]
        self.replies["/api/ps"] = lambda request: web.json_response({"models": listed})

    def embeds(self, name: str = "m:latest", *, dimension: int = 600, **fields) -> None:
        """Lets the server give `text number i` the i-th unit vector, so that order shows."""
        self.has(name, **fields)

        async def reply(request: web.Request) -> web.Response:
            texts = (await request.json())["input"]
            rows = np.eye(dimension)[[int(text.rsplit(" ", 1)[1]) for text in texts]]
            body = {"embeddings": rows.tolist(), "prompt_eval_count": len(texts)}
            return web.Response(body=orjson.dumps(body))

        self.replies["/api/embed"] = reply

    def stream(self, path: str, *lines: bytes) -> None:
        """Lets the server answer in several parts."""

        async def reply(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)
            for line in lines:
                await response.write(line)
            await response.write_eof()
            return response

        self.replies[path] = reply

    def hold(self) -> asyncio.Queue[Work]:
        """Lets the server leave each generation to the test, and returns where they come in.

        What loads a model or tries whether it answers is answered at once.
        """
        works: asyncio.Queue[Work] = asyncio.Queue()

        async def reply(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            if not body.get("stream", True):
                return web.json_response({"response": "", "done": True, "done_reason": "load"})
            work = Work(request.path, body)
            works.put_nowait(work)
            return await work.reply(request)

        self.replies["/api/generate"] = self.replies["/api/chat"] = reply
        return works

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.can_read_body:
            self.bodies.append(await request.json())
        reply = self.replies.get(request.path)
        if reply is None:
            return web.json_response({"error": "404 page not found"}, status=404)
        result = reply(request)
        return await result if asyncio.iscoroutine(result) else result


@pytest.fixture
async def scripted():
    """Starts scripted servers that live as long as the test."""
    async with AsyncExitStack() as stack:

        async def run() -> ScriptedServer:
            server = ScriptedServer()
            app = web.Application(client_max_size=0)
            app.router.add_route("*", "/{path:.*}", server.handle)
            runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            return server

        yield run
