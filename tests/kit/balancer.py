"""Model servers in memory, and parts of a balancer around them, in virtual time."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
from opentelemetry.trace import NoOpTracer

from pannier.balancer.v1.balancer_service_pb2_grpc import (
    BalancerAdminServiceStub,
    BalancerServiceStub,
)
from services.balancer.adapters.connections import ConnectionPool
from services.balancer.adapters.ollama import OllamaConnection, OllamaServer
from services.balancer.adapters.pauses import Pauses
from services.balancer.app import start
from services.balancer.backend import Backend, ModelState
from services.balancer.core.demand import Demand, Kind, Priority
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import (
    Capability,
    InstalledModel,
    LoadedModel,
    ModelDescription,
    ServerReport,
)
from services.balancer.core.plan import LoadOrder
from services.balancer.core.requests import PullProgress
from services.balancer.core.shares import Reservations, SoleReplica
from services.balancer.core.snapshot import Residency
from services.balancer.core.standing import Signal
from services.balancer.failing import FailureEffects
from services.balancer.fleet import Fleet
from services.balancer.load_models import LoadLimits, ModelLoader
from services.balancer.metrics import CATALOGUE
from services.balancer.settings import BalancerSettings, parse_endpoint
from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.common.pools import PoolGauge
from tests.kit.rpc import channel_to, make_runtime
from tests.kit.virtual_time import LoopClock

__all__ = [
    "FleetUnderTest",
    "MemoryServer",
    "a_chat_demand",
    "a_chat_model",
    "a_connection_pool",
    "an_embedding_model",
    "ask_ollama",
    "opened_admin",
    "opened_server",
    "served_alone",
]

_FOREVER_SECONDS = 290 * 365 * 86400.0


def a_connection_pool(metrics: Metrics | None = None) -> ConnectionPool:
    """The connections to all backends."""
    return ConnectionPool(PoolGauge(metrics or Metrics((), version="test"), "ollama", maximum=0))


@asynccontextmanager
async def opened_server(
    url: str,
    *,
    connect_limit_seconds: float,
    first_token_limit_seconds: float = 5.0,
    stall_limit_seconds: float = 5.0,
) -> AsyncIterator[OllamaServer]:
    """The balancer's client of one Ollama server."""
    connection = OllamaConnection(
        url, connect_limit_seconds=connect_limit_seconds, pool=a_connection_pool()
    )
    with Pauses(SystemClock()) as pauses:
        async with connection as client:
            yield OllamaServer(
                client,
                pauses=pauses,
                first_token_limit_seconds=first_token_limit_seconds,
                stall_limit_seconds=stall_limit_seconds,
            )


def a_chat_model(name: str, **fields: Any) -> InstalledModel:
    """A model that generates, with a context of 32,768 tokens."""
    description = ModelDescription(
        capabilities=frozenset({Capability.COMPLETION}),
        context_token_count=fields.pop("context_token_count", 32_768),
    )
    digest = hashlib.sha256(name.encode()).hexdigest()
    defaults: dict[str, Any] = {"digest": digest, "size_bytes": 1000, "description": description}
    return InstalledModel(name=name, **(defaults | fields))


def an_embedding_model(name: str, **fields: Any) -> InstalledModel:
    """A model that embeds."""
    description = ModelDescription(capabilities=frozenset({Capability.EMBEDDING}))
    defaults: dict[str, Any] = {"digest": "e" * 64, "size_bytes": 100, "description": description}
    return InstalledModel(name=name, **(defaults | fields))


class MemoryServer:
    """An Ollama server without a network; loads, unloads and lists as the real one does.

    Args:
        models: What is on its disk.

    Attributes:
        loads: Name, keep-alive and context window of every load asked for.
        unloads: Names of the models told to go.
        disturb: Awaited at the beginning and at the end of each call with the call's name; may
            wait, and may raise `AttemptFailed`.
        load_seconds: What a load takes.
        automatic_context: Context window where none is asked for.
        busy_names: Models that do not go when told to.
    """

    def __init__(self, *models: InstalledModel) -> None:
        self.clock = LoopClock()
        self.installed = {each.name: each for each in models}
        self.memory: dict[str, LoadedModel] = {}
        self.loads: list[tuple[str, str | int | None, int | None]] = []
        self.unloads: list[str] = []
        self.disturb: Callable[[str], Any] = _do_nothing
        self.load_seconds = 5.0
        self.automatic_context = 2048
        self.busy_names: set[str] = set()
        self.loading_count = 0

    def hold(self, name: str, *, context: int = 4096, expires_in: float = 300.0) -> None:
        """Has a model in memory that somebody else has loaded."""
        model = self.installed[name]
        self.memory[name] = LoadedModel(
            name=name,
            digest=model.digest,
            size_bytes=model.size_bytes,
            context_token_count=context,
            expires_at=self.clock.now() + expires_in,
        )

    async def check(self, limit_seconds: float) -> ServerReport:
        await self.disturb("check")
        return ServerReport(
            version="0.33.0",
            installed=tuple(self.installed.values()),
            loaded=tuple(self.memory.values()),
        )

    async def loaded(self, limit_seconds: float) -> tuple[LoadedModel, ...]:
        await self.disturb("loaded")
        listed = tuple(self.memory.values())
        await self.disturb("loaded")
        return listed

    async def load(
        self,
        model_name: str,
        *,
        embedding: bool,
        keep_alive: str | int | None,
        context_token_count: int | None,
        limit_seconds: float,
    ) -> float:
        self.loads.append((model_name, keep_alive, context_token_count))
        await self.disturb("load")
        if model_name not in self.installed:
            raise AttemptFailed(FailureKind.MODEL_ABSENT, "model not found", status_code=404)
        assert self.loading_count == 0, "two loads at once"
        wanted = context_token_count or self.automatic_context
        wanted = min(wanted, self.installed[model_name].description.context_token_count or wanted)
        held = self.memory.get(model_name)
        if held is None or held.context_token_count != wanted:
            self.memory.pop(model_name, None)
            self.loading_count += 1
            try:
                await self.clock.sleep(self.load_seconds)
            finally:
                self.loading_count -= 1
            await self.disturb("load")
        seconds = float(str(keep_alive).removesuffix("s"))
        self.hold(
            model_name, context=wanted, expires_in=_FOREVER_SECONDS if seconds < 0 else seconds
        )
        return self.load_seconds

    async def unload(self, model_name: str, *, limit_seconds: float = 10.0) -> None:
        self.unloads.append(model_name)
        await self.disturb("unload")
        if model_name not in self.busy_names:
            self.memory.pop(model_name, None)
        await self.disturb("unload")

    async def probe(self, *_: Any, **__: Any) -> None:
        await self.disturb("probe")

    async def describe(self, model_name: str) -> ModelDescription:
        return self.installed[model_name].description

    async def pull(self, model_name: str) -> AsyncGenerator[PullProgress, None]:
        await self.disturb("pull")
        yield PullProgress(status="success", digest="", completed_bytes=0, total_bytes=0)

    def generate(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def embed(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class FleetUnderTest:
    """A fleet of such servers with a loader; must be made within a virtual loop.

    Args:
        servers: The servers; the first is `h0:11434`, and so on.
        reservations: What other replicas hold.
        query: Follows each endpoint, for example `?models=2`.
    """

    def __init__(
        self,
        *servers: MemoryServer,
        reservations: Reservations | None = None,
        query: str = "",
        limits: LoadLimits | None = None,
    ) -> None:
        self.clock = LoopClock()
        self.reservations = reservations or SoleReplica()
        self.fleet = Fleet(clock=self.clock, reservations=self.reservations)
        self.servers: dict[str, MemoryServer] = {}
        for index, server in enumerate(servers):
            backend = self.fleet.add(parse_endpoint(f"http://h{index}:11434{query}"))
            self.servers[backend.id] = server
        self.effects = FailureEffects(self.fleet)
        self.metrics = Metrics(CATALOGUE, version="test")
        self.loader = ModelLoader(
            self.fleet,
            self.servers,
            self.reservations,
            self.effects,
            clock=self.clock,
            metrics=self.metrics,
            tracer=NoOpTracer(),
            limits=limits or LoadLimits(),
            keep_alive="1800s",
        )

    async def check(self) -> None:
        """Has every backend report."""
        for backend_id, server in self.servers.items():
            backend = self.fleet.backends[backend_id]
            self.fleet.note_report(backend, await server.check(2.0))
            self.fleet.signal(backend, Signal.CHECK_SUCCEEDED)

    async def list(self) -> None:
        """Has every backend list what it has in memory."""
        for backend_id, server in self.servers.items():
            asked_at = self.clock.monotonic()
            listed = await server.loaded(2.0)
            self.fleet.note_loaded(self.fleet.backends[backend_id], listed, asked_at)

    def backend(self, index: int = 0) -> Backend:
        return self.fleet.backends[f"h{index}:11434"]

    def state(self, key: str, index: int = 0) -> ModelState:
        return (self.backend(index).models or {})[key]

    def residency(self, key: str, index: int = 0) -> Residency:
        return self.state(key, index).residency

    def order(
        self, key: str, index: int = 0, *, evicted: tuple[str, ...] = (), context: int = 4096
    ) -> LoadOrder:
        return LoadOrder(
            backend_id=f"h{index}:11434",
            model_key=key,
            evicted_keys=evicted,
            context_token_count=context,
            predicted_seconds=5.0,
        )

    async def load(self, key: str, index: int = 0, **fields: Any) -> Any:
        """Loads a model and returns what came of it."""
        assert self.loader.begin(self.order(key, index, **fields))
        return await self.loader.wait(f"h{index}:11434")

    def occupy(self, key: str, index: int = 0) -> Any:
        """Has a request hold a slot; `fleet.vacate` must follow."""
        demand = a_chat_demand(key, self.clock.monotonic())
        return self.fleet.occupy(self.backend(index), self.state(key, index), demand, None)

    async def replace(self, name: str, **fields: Any) -> None:
        """Has a model of the first server replaced by another version."""
        server = self.servers["h0:11434"]
        server.installed[name] = replace(server.installed[name], **fields)
        await self.check()


def a_chat_demand(key: str, now: float) -> Demand:
    """A request for a chat."""
    return Demand(
        id=0,
        model_key=key,
        kind=Kind.CHAT,
        tenant="default",
        priority=Priority.INTERACTIVE,
        arrived_at=now,
        prompt_token_count=100,
        output_token_count=100.0,
    )


@asynccontextmanager
async def opened_admin(grpc_port: int) -> AsyncIterator[BalancerAdminServiceStub]:
    """Opens a client of an operator."""
    async with channel_to(grpc_port) as channel:
        yield BalancerAdminServiceStub(channel)


async def ask_ollama(url: str, path: str, **body: Any) -> Any:
    """Asks a server past the balancer, as another client would; returns the last line."""
    async with (
        aiohttp.ClientSession() as session,
        session.request("POST" if body else "GET", url + path, json=body or None) as reply,
    ):
        text = await reply.text()
        assert reply.status == 200, text
        return json.loads(text.splitlines()[-1])


async def _do_nothing(_: str) -> None:
    await asyncio.sleep(0)


@asynccontextmanager
async def served_alone(*urls: str, **fields: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Runs a balancer that ends before the test does; yields stubs of a caller and an operator."""
    runtime, _ = make_runtime("balancer", CATALOGUE)
    settings = BalancerSettings(
        backends=tuple(parse_endpoint(url) for url in urls), drain_delay_seconds=0.0, **fields
    )
    async with AsyncExitStack() as clients, start(settings, runtime) as running:
        channel = await clients.enter_async_context(channel_to(running.grpc_port))
        yield BalancerServiceStub(channel), BalancerAdminServiceStub(channel)
