"""`pannier stats`: what a service has counted since it was started."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from pannier.balancer.v1 import balancer_service_pb2, balancer_service_pb2_grpc
from pannier.cache.v1 import cache_service_pb2, cache_service_pb2_grpc
from pannier.commands.balancer_stats import show_balancer_stats
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.durations import seconds_within
from pannier.commands.fields import show_duration, show_enum
from pannier.commands.formatting import format_bytes, format_ratio
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.watch import watch_balancer
from pannier.rag.v1 import rag_service_pb2, rag_service_pb2_grpc

__all__ = ["get_stats", "show_stats", "stats"]

_INTERVAL_SECONDS = 1.0


def stats(
    service: Annotated[str, typer.Argument(help="balancer, cache or rag")],
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C; balancer only.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            parser=seconds_within(0.1, 60),
            metavar="DURATION",
            help="Time between two reports with --watch; 1s where not given.",
        ),
    ] = None,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show what a service has counted since it was started."""
    if service not in _SERVICES:
        raise typer.BadParameter(f"must be one of {', '.join(_SERVICES)}", param_hint="SERVICE")
    if watch and service != "balancer":
        raise typer.BadParameter("only the balancer can be watched", param_hint="--watch")
    if interval is not None and not watch:
        raise typer.BadParameter("needs --watch", param_hint="--interval")

    async def main(output: Output) -> int:
        if watch:
            return await watch_balancer(
                output,
                tenant=tenant,
                address=address,
                interval_seconds=_INTERVAL_SECONDS if interval is None else interval,
                patience_seconds=timeout,
                as_json=as_json,
            )
        response = await get_stats(service, tenant=tenant, address=address, timeout_seconds=timeout)
        if as_json:
            output.json(to_plain(response))
        else:
            show_stats(output, service, response)
        return 0

    run(main)


async def get_stats(service: str, *, tenant: str, address: str, timeout_seconds: float) -> Any:
    """Asks a service for its statistics.

    Args:
        service: `balancer`, `cache` or `rag`.
        tenant: Who asks.
        address: Where it is; empty to find it.
        timeout_seconds: How long the call may take.

    Raises:
        RemoteError: The call failed.
        Unreachable: The service did not answer.
    """
    make_stub, request, _ = _SERVICES[service]
    async with connect(service, address=address, tenant=tenant) as connection:
        return await make_stub(connection.channel).GetStats(request, timeout=timeout_seconds)


def show_stats(output: Output, service: str, response: Any) -> None:
    """Shows statistics as tables."""
    _SERVICES[service][2](output, response)


def _show_cache(output: Output, response: cache_service_pb2.GetStatsResponse) -> None:
    output.table(
        (
            *("layer", ">lookups", ">hits", ">ratio", ">local", ">shared", ">misses", ">stored"),
            *(">entries", ">size", ">p50", ">p99", ">kept"),
        ),
        [
            (
                show_enum(cache_service_pb2.Layer, each.layer),
                str(each.lookup_count),
                str(each.local_hit_count + each.shared_hit_count),
                format_ratio(each.hit_ratio),
                str(each.local_hit_count),
                str(each.shared_hit_count),
                str(each.miss_count),
                str(each.stored_count),
                str(each.local_entry_count),
                format_bytes(each.local_size_bytes),
                show_duration(each, "lookup_time_p50"),
                show_duration(each, "lookup_time_p99"),
                f"{each.ttl.ToSeconds() / 86400:g} d",
            )
            for each in response.layers
        ],
    )
    saved = [each for each in response.layers if each.saved_usage.completion_token_count]
    for each in saved:
        output.line(
            f"saved by {show_enum(cache_service_pb2.Layer, each.layer)} hits: "
            f"{each.saved_usage.prompt_token_count} + {each.saved_usage.completion_token_count} "
            f"tokens, {show_duration(each, 'saved_time')}"
        )
    state = show_enum(cache_service_pb2.StoreState, response.store.state)
    output.line(
        f"shared store: {state}, {response.store.failure_count} failures, "
        f"{response.store.outage_count} outages"
    )
    if response.degraded:
        output.notice(f"The shared store is away: {response.store.last_failure}")


def _show_rag(output: Output, response: rag_service_pb2.GetStatsResponse) -> None:
    output.table(
        (
            *("mode", ">answers", ">failed", ">degraded", ">cached", ">tokens"),
            *(">p50", ">p95", ">p99"),
        ),
        [
            (
                show_enum(rag_service_pb2.QueryMode, each.mode),
                str(each.query_count),
                str(each.failure_count),
                str(each.degraded_count),
                str(each.cached_count),
                f"{each.usage.prompt_token_count} + {each.usage.completion_token_count}",
                show_duration(each, "answer_time_p50"),
                show_duration(each, "answer_time_p95"),
                show_duration(each, "answer_time_p99"),
            )
            for each in response.modes
        ],
    )
    output.line()
    output.table(
        ("stage", ">runs", ">failed", ">p50", ">p99"),
        [
            (
                each.name,
                str(each.run_count),
                str(each.failure_count),
                show_duration(each, "duration_p50"),
                show_duration(each, "duration_p99"),
            )
            for each in response.stages
        ],
    )
    done = response.ingest
    output.line(
        f"documents: {done.created_count} created, {done.updated_count} updated, "
        f"{done.unchanged_count} unchanged, {done.failed_count} failed; {done.chunk_count} chunks; "
        f"{response.in_flight_count} answers under way"
    )


_SERVICES: dict[str, tuple[Callable[[Any], Any], Any, Callable[[Output, Any], None]]] = {
    "balancer": (
        balancer_service_pb2_grpc.BalancerServiceStub,
        balancer_service_pb2.GetStatsRequest(),
        show_balancer_stats,
    ),
    "cache": (
        cache_service_pb2_grpc.CacheServiceStub,
        cache_service_pb2.GetStatsRequest(),
        _show_cache,
    ),
    "rag": (
        rag_service_pb2_grpc.RagServiceStub,
        rag_service_pb2.GetStatsRequest(),
        _show_rag,
    ),
}
