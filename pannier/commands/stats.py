"""`pannier stats`: what a service has counted since it was started."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from pannier.balancer.v1 import balancer_service_pb2, balancer_service_pb2_grpc
from pannier.cache.v1 import cache_service_pb2, cache_service_pb2_grpc
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.formatting import format_bytes, format_ratio, format_seconds
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import rag_service_pb2, rag_service_pb2_grpc

__all__ = ["get_stats", "show_stats", "stats"]


def stats(
    service: Annotated[str, typer.Argument(help="balancer, cache or rag")],
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show what a service has counted since it was started."""
    if service not in _SERVICES:
        raise typer.BadParameter(f"must be one of {', '.join(_SERVICES)}", param_hint="SERVICE")

    async def main(output: Output) -> int:
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


def _show_balancer(output: Output, response: balancer_service_pb2.GetStatsResponse) -> None:
    fleet = response.fleet
    output.line(
        f"{fleet.healthy_backend_count} of {fleet.backend_count} backends healthy · "
        f"{fleet.request_count} requests, {fleet.failure_count} failed, "
        f"{fleet.retry_count} retried, {fleet.cancelled_count} cancelled, "
        f"{fleet.in_flight_count} under way"
    )
    if fleet.round_robin_fallback:
        output.notice("No backend is healthy: requests go round in turn.")
    output.table(
        (
            *("backend", "healthy", ">requests", ">failed", ">under way", ">average"),
            *(">first token", ">per text", ">load score"),
        ),
        [
            (
                each.backend_id,
                "yes" if each.healthy else "no",
                str(each.request_count),
                str(each.failure_count),
                str(each.in_flight_count),
                _duration(each, "average_response_time"),
                _duration(each, "first_token_time"),
                _duration(each, "embedding_time"),
                f"{each.load_score_seconds:.3f} s",
            )
            for each in response.backends
        ],
    )


def _show_cache(output: Output, response: cache_service_pb2.GetStatsResponse) -> None:
    output.table(
        (
            *("layer", ">lookups", ">hits", ">ratio", ">local", ">shared", ">misses", ">stored"),
            *(">entries", ">size", ">p50", ">p99", ">kept"),
        ),
        [
            (
                _short(cache_service_pb2.Layer, each.layer),
                str(each.lookup_count),
                str(each.local_hit_count + each.shared_hit_count),
                format_ratio(each.hit_ratio),
                str(each.local_hit_count),
                str(each.shared_hit_count),
                str(each.miss_count),
                str(each.stored_count),
                str(each.local_entry_count),
                format_bytes(each.local_size_bytes),
                _duration(each, "lookup_time_p50"),
                _duration(each, "lookup_time_p99"),
                f"{each.ttl.ToSeconds() / 86400:g} d",
            )
            for each in response.layers
        ],
    )
    saved = [each for each in response.layers if each.saved_usage.completion_token_count]
    for each in saved:
        output.line(
            f"saved by {_short(cache_service_pb2.Layer, each.layer)} hits: "
            f"{each.saved_usage.prompt_token_count} + {each.saved_usage.completion_token_count} "
            f"tokens, {_duration(each, 'saved_time')}"
        )
    state = _short(cache_service_pb2.StoreState, response.store.state)
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
                _short(rag_service_pb2.QueryMode, each.mode),
                str(each.query_count),
                str(each.failure_count),
                str(each.degraded_count),
                str(each.cached_count),
                f"{each.usage.prompt_token_count} + {each.usage.completion_token_count}",
                _duration(each, "answer_time_p50"),
                _duration(each, "answer_time_p95"),
                _duration(each, "answer_time_p99"),
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
                _duration(each, "duration_p50"),
                _duration(each, "duration_p99"),
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


def _duration(message: Any, name: str) -> str:
    """Writes a duration; `-` where there is none yet."""
    if not message.HasField(name):
        return "-"
    return format_seconds(getattr(message, name).ToNanoseconds() / 1e9)


def _short(enum: Any, number: int) -> str:
    """Writes an enum's value without its prefix; newer ones by number."""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        return str(number)
    prefix = enum.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name).removeprefix(prefix).lower()


_SERVICES: dict[str, tuple[Callable[[Any], Any], Any, Callable[[Output, Any], None]]] = {
    "balancer": (
        balancer_service_pb2_grpc.BalancerServiceStub,
        balancer_service_pb2.GetStatsRequest(),
        _show_balancer,
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
