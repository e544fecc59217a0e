"""Decides what the stack consists of, from the user's environment and what is there already.

Whatever the user has set wins: a PostgreSQL, a Redis, a fleet, an address of their own is used as
it is, and settings of the services that are not mentioned here are handed on to them.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.checks import check_grpc, check_http, ollama_version
from deploy.local.component import Component
from deploy.local.ports import LOOPBACK, Ports
from deploy.local.postgres import postgres_component
from deploy.local.redis import redis_component
from deploy.local.state import Addresses
from deploy.local.trace_store import DEFAULT_HTTP_PORT, DEFAULT_OTLP_PORT

__all__ = ["Plan", "plan_stack"]

OLLAMA_URL = "http://localhost:11434"
STANDIN_COUNT = 8
STANDIN_NOTE = (
    "No Ollama was found, so no language model is running: eight stand-ins speak its protocol, and "
    "answers are sentences cut from the sources. Embeddings are real (all-MiniLM-L6-v2)."
)

_FIRST_STANDIN_PORT = 11501
_GRPC_PORTS = {"rag": 50051, "cache": 50052, "balancer": 50053}
_HTTP_PORTS = {"rag": 9461, "cache": 9462, "balancer": 9463}
_STORE_VARIABLES = frozenset({"PATH", "TMPDIR", "TZ"})
_SOURCE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to run.

    Attributes:
        components: The processes.
        addresses: Where its parts will be reached.
        notes: What the user should know.
    """

    components: tuple[Component, ...]
    addresses: Addresses
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    home: Path
    given: Mapping[str, str]
    ports: Ports = field(default_factory=Ports)
    components: list[Component] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def address(self, variable: str, owner: str, default_port: int) -> str:
        """Returns where something is to listen: as the user says, else a free port."""
        if variable in self.given:
            return self.given[variable]
        return f"{LOOPBACK}:{self.port(owner, default_port)}"

    def port(self, owner: str, default: int) -> int:
        """Returns the default port, or says that it is taken and returns another."""
        port = self.ports.take(default)
        if port != default:
            self.notes.append(f"Port {default} is taken by something else; {owner} uses {port}.")
        return port

    def python(self, **variables: str) -> dict[str, str]:
        """Returns the environment of a Python process: the user's, and ours below it."""
        # Made absolute: the processes run in another folder.
        paths = self.given.get("PYTHONPATH", "").split(":")
        own = [str(Path(each).absolute()) for each in paths if each]
        ours = {"PYTHONPATH": ":".join([str(_SOURCE_ROOT), *own]), "PYTHONUNBUFFERED": "1"}
        return {**variables, **self.given, **ours}

    def store(self) -> dict[str, str]:
        """Returns the environment of a store, which has no business with the user's secrets."""
        return {name: each for name, each in self.given.items() if name in _STORE_VARIABLES}


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    # -P: the current folder must not hide modules.
    return (sys.executable, "-P", "-m", name, *arguments)


async def plan_stack(home: Path, environment: Mapping[str, str]) -> Plan:
    """Decides what is to run.

    Args:
        home: The state folder.
        environment: The user's variables.

    Raises:
        OSError: A part has no program, or its folder cannot be made.
    """
    draft = _Draft(home, environment)
    database_url = await asyncio.to_thread(_plan_database, draft)
    redis_url = _plan_redis(draft)
    otlp_endpoint, trace_url = _plan_traces(draft)
    backends = await _plan_backends(draft)
    cache = _plan_service(
        draft, "cache", otlp_endpoint, needs=("redis",), PANNIER_CACHE_REDIS_URL=redis_url
    )
    standins = tuple(each.name for each in draft.components if each.name.startswith("standin-"))
    balancer = _plan_service(
        draft, "balancer", otlp_endpoint, needs=standins, PANNIER_BALANCER_BACKENDS=backends
    )
    rag = _plan_service(
        draft,
        "rag",
        otlp_endpoint,
        needs=("postgres", "cache", "balancer"),
        PANNIER_RAG_DATABASE_URL=database_url,
        PANNIER_RAG_CACHE_ADDRESS=cache,
        PANNIER_RAG_BALANCER_ADDRESS=balancer,
    )
    return Plan(
        tuple(draft.components),
        Addresses(rag=rag, cache=cache, balancer=balancer, trace_url=trace_url),
        tuple(draft.notes),
    )


def _plan_database(draft: _Draft) -> str:
    given = draft.given.get("PANNIER_RAG_DATABASE_URL")
    if given:
        draft.notes.append("PostgreSQL: the one PANNIER_RAG_DATABASE_URL names.")
        return given
    component = postgres_component(draft.home, draft.store())
    draft.components.append(component)
    return component.address


def _plan_redis(draft: _Draft) -> str:
    given = draft.given.get("PANNIER_CACHE_REDIS_URL")
    if given:
        draft.notes.append("Redis: the one PANNIER_CACHE_REDIS_URL names.")
        return given
    component = redis_component(draft.home, draft.store(), port=draft.ports.take())
    draft.components.append(component)
    return component.address


def _plan_traces(draft: _Draft) -> tuple[str, str]:
    given = draft.given.get("PANNIER_TRACE_URL")
    if given:
        draft.notes.append(
            "Traces are read from PANNIER_TRACE_URL; PANNIER_<SERVICE>_OTLP_ENDPOINT says where "
            "each service sends its spans."
        )
        return "", given
    otlp = draft.port("the trace store (OTLP)", DEFAULT_OTLP_PORT)
    http = draft.port("the trace store (HTTP)", DEFAULT_HTTP_PORT)
    url = f"http://{LOOPBACK}:{http}"

    async def check() -> None:
        await check_http(f"{url}/ready")

    draft.components.append(
        Component(
            name="traces",
            command=_module(
                "deploy.local.trace_store", "--otlp-port", str(otlp), "--http-port", str(http)
            ),
            environment=draft.python(),
            address=url,
            check=check,
            stop_limit_seconds=10.0,
        )
    )
    return f"{LOOPBACK}:{otlp}", url


async def _plan_backends(draft: _Draft) -> str:
    given = draft.given.get("PANNIER_BALANCER_BACKENDS")
    if given:
        draft.notes.append(f"Ollama: {given}.")
        return given
    version = await ollama_version(OLLAMA_URL)
    if version is not None:
        draft.notes.append(f"Ollama {version} was found at {OLLAMA_URL}.")
        return OLLAMA_URL
    draft.notes.append(STANDIN_NOTE)
    return ",".join(_plan_standin(draft, number) for number in range(1, STANDIN_COUNT + 1))


def _plan_standin(draft: _Draft, number: int) -> str:
    name = f"standin-{number}"
    port = draft.ports.take(_FIRST_STANDIN_PORT + number - 1)
    url = f"http://{LOOPBACK}:{port}"

    async def check() -> None:
        await check_http(f"{url}/api/version")

    draft.components.append(
        Component(
            name=name,
            command=_module(
                "services.standin", "--host", "127.0.0.1", "--port", str(port), "--name", name
            ),
            environment=draft.python(),
            address=url,
            check=check,
            stop_limit_seconds=10.0,
        )
    )
    return url


def _plan_service(
    draft: _Draft, name: str, otlp_endpoint: str, *, needs: tuple[str, ...], **settings: str
) -> str:
    prefix = f"PANNIER_{name.upper()}_"
    address = draft.address(f"{prefix}GRPC_ADDRESS", name, _GRPC_PORTS[name])
    http = draft.address(f"{prefix}HTTP_ADDRESS", f"{name}'s /metrics", _HTTP_PORTS[name])

    async def check() -> None:
        await check_grpc(address)

    settings |= {
        f"{prefix}GRPC_ADDRESS": address,
        f"{prefix}HTTP_ADDRESS": http,
        f"{prefix}OTLP_ENDPOINT": otlp_endpoint,
    }
    draft.components.append(
        Component(
            name=name,
            command=_module(f"services.{name}"),
            environment=draft.python(**settings),
            address=address,
            grpc_address=address,
            check=check,
            # Spans of the last calls are sent while a service stops.
            needs=(*needs, "traces"),
        )
    )
    return address
