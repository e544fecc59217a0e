"""Keeps what `pannier top` knows up to date; a service that goes away is asked until it is back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from pannier.client import RemoteError
from pannier.commands.balancer_stats import BALANCER_VIEW
from pannier.commands.cache_stats import CACHE_VIEW
from pannier.commands.connection import Unreachable, connect
from pannier.commands.rag_stats import RAG_VIEW
from pannier.commands.top_state import TopState
from pannier.rag.v1 import usage_service_pb2, usage_service_pb2_grpc

__all__ = ["Sources", "ask_once", "watching"]

_VIEWS = {view.service: view for view in (RAG_VIEW, CACHE_VIEW, BALANCER_VIEW)}
_WATCH_SECONDS = 86_400.0
_CALL_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
_USAGE_SECONDS = 10.0


class _Silent(Exception):
    """A service has ended its reports, or sends none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Who is asked.

    Attributes:
        addresses: Of the services by name; empty to find them.
        tenant: Who asks, and whose cost is shown.
        interval_seconds: Time between two reports.
    """

    addresses: dict[str, str]
    tenant: str
    interval_seconds: float


async def ask_once(sources: Sources, state: TopState) -> None:
    """Asks every service once."""
    async with asyncio.TaskGroup() as tasks:
        for service in _VIEWS:
            tasks.create_task(_noting(service, state, _get(sources, service, state)))
        tasks.create_task(_noting("", state, _get_usage(sources, state)))


@asynccontextmanager
async def watching(sources: Sources, state: TopState) -> AsyncIterator[None]:
    """Keeps the state up to date while the context is open."""
    async with asyncio.TaskGroup() as tasks:
        jobs: list[tuple[str, float, Callable[[], Awaitable[None]]]] = [
            ("balancer", _PAUSE_SECONDS, lambda: _watch(sources, "balancer", state)),
            ("cache", _PAUSE_SECONDS, lambda: _watch(sources, "cache", state)),
            ("rag", sources.interval_seconds, lambda: _poll(sources, state)),
            ("", _USAGE_SECONDS, lambda: _get_usage(sources, state)),
        ]
        running = [tasks.create_task(_forever(state, *job)) for job in jobs]
        try:
            yield
        finally:
            for each in running:
                each.cancel()


async def _forever(
    state: TopState, service: str, pause_seconds: float, job: Callable[[], Awaitable[None]]
) -> None:
    while True:
        await _noting(service, state, job())
        await asyncio.sleep(pause_seconds)


async def _noting(service: str, state: TopState, job: Awaitable[None]) -> None:
    """Does something, and notes that a service is away if that fails."""
    try:
        await job
    except Unreachable as error:
        problem = f"not reachable at {error.address}"
    except RemoteError as error:
        problem = error.message
    except _Silent as error:
        problem = str(error)
    else:
        return
    if service:
        state.note_away(service, problem, time.monotonic())
    else:
        # Without figures of usage everything else is still worth showing.
        state.usage = None


async def _get(sources: Sources, service: str, state: TopState) -> None:
    view = _VIEWS[service]
    async with connect(
        service, address=sources.addresses[service], tenant=sources.tenant
    ) as connection:
        stub = view.make_stub(connection.channel)
        stats = await stub.GetStats(view.request, timeout=_CALL_SECONDS)
    state.note_report(service, stats, time.monotonic())


async def _watch(sources: Sources, service: str, state: TopState) -> None:
    """Takes in reports until there are no more."""
    view = _VIEWS[service]
    if view.make_watch_request is None:
        raise ValueError(f"{service} cannot be watched")
    limit_seconds = sources.interval_seconds + _CALL_SECONDS
    async with connect(
        service, address=sources.addresses[service], tenant=sources.tenant
    ) as connection:
        stub = view.make_stub(connection.channel)
        request = view.make_watch_request(sources.interval_seconds)
        reports = stub.WatchStats(request, timeout=_WATCH_SECONDS)
        while True:
            report: Any = None
            try:
                async with asyncio.timeout(limit_seconds):
                    report = await reports.read()
            except TimeoutError:
                raise _Silent(f"no report for {limit_seconds:g} s") from None
            if report is grpc.aio.EOF:
                raise _Silent("it has ended its reports")
            state.note_report(service, report.stats, time.monotonic())


async def _poll(sources: Sources, state: TopState) -> None:
    """Asks rag, which sends no reports by itself, again and again over one connection."""
    async with connect("rag", address=sources.addresses["rag"], tenant=sources.tenant) as found:
        stub = RAG_VIEW.make_stub(found.channel)
        while True:
            stats = await stub.GetStats(RAG_VIEW.request, timeout=_CALL_SECONDS)
            state.note_report("rag", stats, time.monotonic())
            await asyncio.sleep(sources.interval_seconds)


async def _get_usage(sources: Sources, state: TopState) -> None:
    async with connect("rag", address=sources.addresses["rag"], tenant=sources.tenant) as found:
        stub: Any = usage_service_pb2_grpc.UsageServiceStub(found.channel)
        request = usage_service_pb2.GetUsageRequest()
        state.usage = await stub.GetUsage(request, timeout=_CALL_SECONDS)
