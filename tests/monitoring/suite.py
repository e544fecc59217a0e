"""The suite as real processes, with everything switched on that shows in a metric."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.local.stack import start_stack, stop_stack
from deploy.local.state import Addresses
from services.standin.core.profile import ModelSpec
from tests.kit.ports import free_port
from tests.kit.standin import Standin, StandinProcess, running_standins
from tests.kit.web import FakeWeb, serving_web

__all__ = ["TOOL_MODEL", "WatchedSuite", "running_suite"]

TOOL_MODEL = "toolsmith"
"""Calls the tools that its prompt names; `<<tool=calculator {"expression": "6 * 7"}>>`."""

_TOOL_MODELS = (ModelSpec(name=TOOL_MODEL, capabilities=("tools",)),)
_STANDIN_COUNT = 3
_SERVICES = ("rag", "cache", "balancer")


@dataclass(frozen=True, slots=True)
class WatchedSuite:
    """A running suite.

    Attributes:
        home: Its state folder.
        addresses: Where its services take calls.
        metrics: `host:port` of each service's metrics.
        standins: Its fleet; they can be stopped and given faults.
        toolsmith: A backend that has not joined the fleet, with `TOOL_MODEL`.
        web: What its web search finds.
    """

    home: Path
    addresses: Addresses
    metrics: dict[str, str]
    standins: list[StandinProcess]
    toolsmith: Standin
    web: FakeWeb


@asynccontextmanager
async def running_suite(
    home: Path, environment: dict[str, str], *, otlp_endpoint: str = ""
) -> AsyncIterator[WatchedSuite]:
    """Runs PostgreSQL, Redis, a small fleet and the three services while the context is open.

    Args:
        home: An empty folder.
        environment: Variables that the processes need to run at all, and settings that differ.
        otlp_endpoint: Receiver of traces; empty for the stack's own.
    """
    ports = [free_port() for _ in range(_STANDIN_COUNT + len(_SERVICES))]
    metrics = {
        name: f"127.0.0.1:{port}"
        for name, port in zip(_SERVICES, ports[_STANDIN_COUNT:], strict=True)
    }
    standins = [StandinProcess(port, "--load-seconds=0.1") for port in ports[:_STANDIN_COUNT]]
    async with (
        serving_web() as web,
        running_standins(1, models=_TOOL_MODELS) as (toolsmith,),
    ):
        try:
            for standin in standins:
                await standin.start()
            settings = _settings(standins, web, metrics)
            if otlp_endpoint:
                settings |= {
                    f"PANNIER_{each.upper()}_OTLP_ENDPOINT": otlp_endpoint for each in _SERVICES
                }
                settings["PANNIER_TRACE_URL"] = "http://127.0.0.1:1"
            supervisor = await start_stack(home, {**settings, **environment}, _silent)
            try:
                yield WatchedSuite(
                    home, supervisor.state.addresses, metrics, standins, toolsmith, web
                )
            finally:
                await stop_stack(home, _silent)
        finally:
            for standin in standins:
                await standin.stop()


def _settings(
    standins: list[StandinProcess], web: FakeWeb, metrics: dict[str, str]
) -> dict[str, str]:
    return {
        **{f"PANNIER_{name.upper()}_HTTP_ADDRESS": each for name, each in metrics.items()},
        **{f"PANNIER_{name.upper()}_GRPC_ADDRESS": f"127.0.0.1:{free_port()}" for name in metrics},
        "PANNIER_BALANCER_BACKENDS": ",".join(each.url for each in standins),
        "PANNIER_BALANCER_HEALTH_INTERVAL_SECONDS": "1s",
        "PANNIER_RAG_PRICES": "*=0.5/1.5, tool:web_search=0.005, tool:calculator=0.001",
        "PANNIER_RAG_CURRENCY": "EUR",
        "PANNIER_RAG_WEB_SEARXNG_URL": web.url,
        "PANNIER_RAG_WEB_PRIVATE_HOSTS": f"127.0.0.1:{web.port}",
        "PANNIER_RAG_WEB_PORTS": str(web.port),
        # A model that hangs is noticed soon.
        "PANNIER_BALANCER_FIRST_TOKEN_FLOOR_SECONDS": "2s",
        # So little that something has to leave.
        "PANNIER_CACHE_LOCAL_EMBEDDING_LIMIT_BYTES": "32KiB",
        "PANNIER_CACHE_PRICE_PER_MILLION_PROMPT_TOKENS": "0.5",
        "PANNIER_CACHE_PRICE_PER_MILLION_COMPLETION_TOKENS": "1.5",
    }


def _silent(*_: object, **__: object) -> None:
    """Steps of a start are of no interest here."""
