"""`pannier stats`: what a service has counted since it was started."""

from typing import Annotated, Any

import typer

from pannier.commands.balancer_stats import BALANCER_VIEW
from pannier.commands.cache_stats import CACHE_VIEW
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.durations import seconds_within
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.rag_stats import RAG_VIEW
from pannier.commands.watch import watch_stats

__all__ = ["get_stats", "show_stats", "stats"]

_INTERVAL_SECONDS = 1.0
_VIEWS = {view.service: view for view in (BALANCER_VIEW, CACHE_VIEW, RAG_VIEW)}


def stats(
    service: Annotated[str, typer.Argument(help="balancer, cache or rag")],
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C; not rag.")
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
    view = _VIEWS.get(service)
    if view is None:
        raise typer.BadParameter(f"must be one of {', '.join(_VIEWS)}", param_hint="SERVICE")
    if watch and view.make_watch_request is None:
        raise typer.BadParameter(f"{service} cannot be watched", param_hint="--watch")
    if interval is not None and not watch:
        raise typer.BadParameter("needs --watch", param_hint="--interval")

    async def main(output: Output) -> int:
        if watch:
            return await watch_stats(
                output,
                view,
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
    view = _VIEWS[service]
    async with connect(service, address=address, tenant=tenant) as connection:
        stub = view.make_stub(connection.channel)
        return await stub.GetStats(view.request, timeout=timeout_seconds)


def show_stats(output: Output, service: str, response: Any) -> None:
    """Shows statistics as tables."""
    _VIEWS[service].show(output, response)
