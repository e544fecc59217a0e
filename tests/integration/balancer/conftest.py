"""A running balancer, and backends that answer as a test tells them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
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
from tests.kit.rpc import Spans, make_runtime


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

    def value(self, name: str, **labels: str) -> float | None:
        return self.runtime.metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def running_balancer(*urls: str, **fields) -> AsyncIterator[Balancer]:
    runtime, spans = make_runtime("balancer", CATALOGUE)
    settings = BalancerSettings(
        backends=tuple(parse_endpoint(url) for url in urls), drain_delay_seconds=0.0, **fields
    )
    async with (
        start(settings, runtime) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel,
    ):
        stub = pb_grpc.BalancerServiceStub(channel)
        yield Balancer(stub, runtime, spans, running.grpc_port, running.http_port)


@pytest.fixture
async def run_balancer():
    """Starts balancers that live as long as the test."""
    async with AsyncExitStack() as stack:

        async def run(*urls: str, **fields) -> Balancer:
            return await stack.enter_async_context(running_balancer(*urls, **fields))

        yield run


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

    def has(self, name: str, digest: str = "1" * 64, capabilities=("completion", "embedding")):
        """Lets the server have one model."""
        model = {"name": name, "digest": digest, "size": 7, "details": {"family": "test"}}
        if capabilities is not None:
            model["capabilities"] = list(capabilities)
        self.replies["/api/tags"] = lambda request: web.json_response({"models": [model]})

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
