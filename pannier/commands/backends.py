"""`pannier backends`: the Ollama servers of the fleet, and who belongs to it."""

import asyncio
from typing import Annotated, Any

import typer

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.durations import duration, seconds_within
from pannier.commands.fields import show_duration, show_enum, show_until
from pannier.commands.fleet import open_balancer, open_balancer_admin
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.output import Output
from pannier.commands.plain import to_plain

__all__ = ["application"]

_DEFAULT_GRACE_SECONDS = 60.0

application = typer.Typer(
    cls=ListingGroup, help="List the backends of the fleet; add, remove, drain and resume them."
)

BackendArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Host and port, for example 10.0.0.7:11434.")
]


@application.command(LISTING_COMMAND)
def list_backends(
    *,
    check: Annotated[bool, typer.Option("--check", help="Check every backend now.")] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the backends with their state and load. So does no command at all."""

    async def main(output: Output) -> int:
        async with open_balancer(address, tenant) as balancer:
            health = await balancer.GetHealth(pb.GetHealthRequest(check_now=check), timeout=timeout)
            stats = await balancer.GetStats(pb.GetStatsRequest(), timeout=timeout)
        # A backend may come or go between the two calls.
        in_flight = {each.backend_id: each.in_flight_count for each in stats.backends}
        if as_json:
            output.json(
                [
                    {**to_plain(each), "in_flight_count": in_flight.get(each.backend_id)}
                    for each in health.backends
                ]
            )
        else:
            _show_backends(output, health, in_flight)
        return 0

    run(main)


@application.command()
def add(
    url: Annotated[
        str,
        typer.Argument(
            help="Address, for example http://10.0.0.7:11434; ?slots=N and ?models=N may follow "
            "where it differs from the others."
        ),
    ],
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Take a backend into the fleet. One that is there already is only checked."""
    endpoint = url if "://" in url else f"http://{url}"

    async def main(output: Output) -> int:
        async with open_balancer_admin(address, tenant) as admin:
            response = await admin.AddBackend(
                pb.AddBackendRequest(endpoint=endpoint), timeout=timeout
            )
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(f"{response.backend.backend_id} is in the fleet.")
            _show_backend(output, response.backend)
        return 0

    run(main)


@application.command()
def remove(
    backend_id: BackendArgument,
    *,
    grace: Annotated[
        float | None,
        typer.Option(
            parser=seconds_within(0, 3600),
            metavar="DURATION",
            help="How long to wait for requests under way; 60s where not given.",
        ),
    ] = None,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds the call may take beyond the grace.")
    ] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Drain a backend, wait for its requests, and take it out of the fleet."""
    request = pb.RemoveBackendRequest(backend_id=backend_id)
    if grace is not None:
        request.grace.CopyFrom(duration(grace))
    limit_seconds = timeout + (_DEFAULT_GRACE_SECONDS if grace is None else grace)

    async def main(output: Output) -> int:
        async with open_balancer_admin(address, tenant) as admin:
            try:
                with output.waiting(f"waiting for the requests under way on {backend_id}"):
                    response = await admin.RemoveBackend(request, timeout=limit_seconds)
            except asyncio.CancelledError:
                output.notice(
                    f"{backend_id} may still be in the fleet, and gets no more requests; "
                    f"`pannier backends resume {backend_id}` takes that back."
                )
                raise
        if as_json:
            output.json(to_plain(response))
            return 0
        output.line(f"{backend_id} is out of the fleet.")
        if response.abandoned_count:
            output.notice(
                f"{response.abandoned_count} requests were still under way there; "
                "they go on elsewhere where they can, else they have failed."
            )
        return 0

    run(main)


@application.command()
def drain(
    backend_id: BackendArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Give a backend no more requests; those under way there are finished."""

    async def main(output: Output) -> int:
        async with open_balancer_admin(address, tenant) as admin:
            response = await admin.DrainBackend(
                pb.DrainBackendRequest(backend_id=backend_id), timeout=timeout
            )
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(
                f"{backend_id} gets no more requests; {response.in_flight_count} under way there."
            )
        return 0

    run(main)


@application.command()
def resume(
    backend_id: BackendArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Let a drained backend take requests again."""

    async def main(output: Output) -> int:
        async with open_balancer_admin(address, tenant) as admin:
            response = await admin.ResumeBackend(
                pb.ResumeBackendRequest(backend_id=backend_id), timeout=timeout
            )
        if as_json:
            output.json(to_plain(response))
        else:
            output.line(f"{backend_id} is drained no more.")
            _show_backend(output, response.backend)
        return 0

    run(main)


def _show_backends(output: Output, health: pb.GetHealthResponse, in_flight: dict[str, int]) -> None:
    output.table(
        (
            *("backend", "state", ">load score", ">in flight", ">average"),
            *("models in memory", "version", "tried again"),
        ),
        [
            (
                each.backend_id,
                _state(each),
                f"{each.load_score_seconds:.3f} s",
                str(in_flight.get(each.backend_id, "-")),
                show_duration(each, "average_response_time"),
                ", ".join(each.loaded_models) or "-",
                each.version or "-",
                show_until(each, "retry_time"),
            )
            for each in health.backends
        ],
    )
    output.line(f"{health.healthy_backend_count} of {len(health.backends)} backends take requests")
    for each in health.backends:
        _show_troubles(output, each)


def _show_backend(output: Output, backend: pb.BackendHealth) -> None:
    parts = [_state(backend)]
    if backend.version:
        parts.append(f"Ollama {backend.version}")
    parts.append(f"in memory: {', '.join(backend.loaded_models) or 'nothing'}")
    output.line(" · ".join(parts))
    _show_troubles(output, backend)


def _show_troubles(output: Output, backend: pb.BackendHealth) -> None:
    if backend.last_failure:
        count = backend.consecutive_failure_count
        output.notice(
            f"{backend.backend_id} has failed, {count} in a row; last: {backend.last_failure}"
        )
    if backend.drifted_models:
        output.notice(
            f"{backend.backend_id} has other digests than most backends, or than in memory, of: "
            f"{', '.join(backend.drifted_models)}"
        )


def _state(backend: Any) -> str:
    if backend.state == pb.BACKEND_STATE_UNSPECIFIED:
        return "not known yet"
    return show_enum(pb.BackendState, backend.state)
