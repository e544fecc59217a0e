"""Finds out whether a run can be what it is to be, before it begins."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.local.processes import is_alive
from deploy.local.state import ProcessRecord
from pannier.balancer.v1 import balancer_service_pb2, balancer_service_pb2_grpc
from pannier.cache.v1 import cache_service_pb2_grpc, statistics_pb2
from pannier.client import RemoteError
from pannier.commands.connection import Unreachable, connect
from pannier.commands.fields import show_enum
from pannier.commands.formatting import format_bytes
from pannier.commands.load_faults import NotAStandin, is_stopped, rule_count
from pannier.load.scenario import Scenario
from pannier.rag.v1 import (
    corpus_service_pb2,
    corpus_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)

__all__ = ["Services", "find_backends", "find_problems", "find_standins"]

_CALL_SECONDS = 10.0
_PAGE_SIZE = 1000
_CLEAR = "`pannier load --clear-faults` puts right what an earlier run has left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where the services are; empty to find them.

    Attributes:
        rag: Address of rag.
        cache: Address of the cache.
        balancer: Address of the balancer.
    """

    rag: str = ""
    cache: str = ""
    balancer: str = ""


async def find_backends(services: Services) -> list[str]:
    """Returns host and port of the balancer's backends, by name.

    Raises:
        RemoteError: The call failed.
        Unreachable: The balancer did not answer.
    """
    async with connect("balancer", address=services.balancer, tenant="default") as connection:
        stub: Any = balancer_service_pb2_grpc.BalancerServiceStub(connection.channel)
        request = balancer_service_pb2.GetStatsRequest()
        stats = await stub.GetStats(request, timeout=_CALL_SECONDS)
        return sorted(each.backend_id for each in stats.backends)


async def find_standins(services: Services, given: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Returns the backends that take orders, and why others do not.

    Args:
        services: Where the services are.
        given: Backends named by the user; empty to ask the balancer.

    Raises:
        RemoteError: The call failed.
        Unreachable: The balancer did not answer.
    """
    backends = sorted(given) or await find_backends(services)
    async with asyncio.TaskGroup() as tasks:
        asked = {each: tasks.create_task(asyncio.to_thread(_rules, each)) for each in backends}
    counts = {each: task.result() for each, task in asked.items()}
    problems = [
        f"backend {each} is no stand-in, so it cannot be told to fail"
        for each, count in counts.items()
        if count is None
    ]
    problems += [
        f"backend {each} fails on order already; {_CLEAR}"
        for each, count in counts.items()
        if count
    ]
    if not backends:
        problems.append("the balancer has no backends")
    return [each for each, count in counts.items() if count is not None], problems


def _rules(address: str) -> int | None:
    """Returns how many faults a stand-in has; None for what is no stand-in."""
    try:
        return rule_count(address)
    except NotAStandin:
        return None


async def find_problems(
    scenario: Scenario,
    services: Services,
    *,
    collection: str,
    processes: Mapping[str, ProcessRecord],
) -> list[str]:
    """Returns why a run could not be what it is to be.

    Args:
        scenario: What is to be run.
        services: Where the services are.
        collection: The collection that is asked about.
        processes: Processes of the local stack by name.
    """
    problems = _process_problems(scenario, processes)
    for examine in (
        _collection_problems(scenario, services, collection),
        _price_problems(scenario, services),
        _cache_problems(scenario, services),
        _model_problems(scenario, services),
    ):
        try:
            problems += await examine
        except (RemoteError, Unreachable) as error:
            problems.append(str(error))
    return list(dict.fromkeys(problems))


def _process_problems(scenario: Scenario, processes: Mapping[str, ProcessRecord]) -> list[str]:
    problems = []
    for name in scenario.processes:
        record = processes.get(name)
        if record is None:
            known = ", ".join(processes) or "none"
            problems.append(
                f"{name} is to be stopped, but is no process of the stack in the state folder "
                f"(there: {known}); start one with `pannier up`, or set PANNIER_HOME to its folder"
            )
        elif not is_alive(record.identity):
            problems.append(f"{name} is to be stopped, but has ended; see {record.log}")
        elif is_stopped(record):
            problems.append(f"{name} stands still already; {_CLEAR}")
    return problems


async def _collection_problems(
    scenario: Scenario, services: Services, collection: str
) -> list[str]:
    """Every tenant has collections of its own."""
    tenants = {
        tenant
        for phase in scenario.phases
        if any(weight for mode, weight in phase.mix.modes.items() if mode != "direct")
        for tenant, weight in phase.mix.tenants.items()
        if weight
    }
    problems = []
    # Somebody at least is asked: whether rag is there must be known before.
    for tenant in sorted(tenants) or [next(iter(scenario.phases[0].mix.tenants))]:
        async with connect("rag", address=services.rag, tenant=tenant) as connection:
            stub: Any = corpus_service_pb2_grpc.CorpusServiceStub(connection.channel)
            request = corpus_service_pb2.ListCollectionsRequest(page_size=_PAGE_SIZE)
            response = await stub.ListCollections(request, timeout=_CALL_SECONDS)
        found = any(each.name == collection and each.chunk_count for each in response.collections)
        if tenant in tenants and not found:
            problems.append(
                f"tenant {tenant} has no documents in collection {collection}; "
                f"`pannier ingest FOLDER --collection {collection} --tenant {tenant}` puts some in"
            )
    return problems


async def _price_problems(scenario: Scenario, services: Services) -> list[str]:
    if not scenario.needs.prices:
        return []
    async with connect("rag", address=services.rag, tenant="default") as connection:
        stub: Any = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
        response = await stub.GetUsage(usage_service_pb2.GetUsageRequest(), timeout=_CALL_SECONDS)
    if response.currency:
        return []
    return ["rag has no prices, so that nothing costs anything; it wants" + _wanted(scenario)]


async def _cache_problems(scenario: Scenario, services: Services) -> list[str]:
    limit = scenario.needs.cache_limit_bytes
    if not limit:
        return []
    async with connect("cache", address=services.cache, tenant="default") as connection:
        stub: Any = cache_service_pb2_grpc.CacheServiceStub(connection.channel)
        stats = await stub.GetStats(statistics_pb2.GetStatsRequest(), timeout=_CALL_SECONDS)
    sizes = {each.layer: each.local_limit_bytes for each in stats.layers}
    bounded = (statistics_pb2.LAYER_INFERENCE, statistics_pb2.LAYER_EMBEDDING)
    too_large = [layer for layer in bounded if sizes.get(layer, 0) > limit]
    if not too_large:
        return []
    shown = ", ".join(
        f"{show_enum(statistics_pb2.Layer, layer)} {format_bytes(sizes[layer])}"
        for layer in too_large
    )
    return [
        f"the cache has too much room to be filled ({shown}; at most {format_bytes(limit)}); it "
        "wants" + _wanted(scenario)
    ]


async def _model_problems(scenario: Scenario, services: Services) -> list[str]:
    wanted = sorted({each.model for each in scenario.phases if each.model})
    if not wanted:
        return []
    async with connect("balancer", address=services.balancer, tenant="default") as connection:
        stub: Any = balancer_service_pb2_grpc.BalancerServiceStub(connection.channel)
        request = balancer_service_pb2.ListModelsRequest()
        models = await stub.ListModels(request, timeout=_CALL_SECONDS)
    names = {each.name for each in models.models}
    return [
        f"no backend has the model {each}; see `pannier load --show-scenario {scenario.name}`"
        for each in wanted
        if not names & {each, f"{each}:latest"}
    ]


def _wanted(scenario: Scenario) -> str:
    return "".join(f" {name}={value!r}" for name, value in scenario.settings.items())
