"""`pannier models`: the models of the fleet, on disk and in memory."""

import asyncio
from collections.abc import Iterable

import typer

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.fields import shorten_digest, show_enum
from pannier.commands.fleet import (
    BackendOption,
    ModelArgument,
    open_balancer,
    open_balancer_admin,
)
from pannier.commands.formatting import format_bytes, format_seconds
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.pull_model import pull

__all__ = ["application"]

_PAGE_SIZE = 500

application = typer.Typer(
    cls=ListingGroup, help="List the models of the fleet; load, unload and download them."
)


@application.command(LISTING_COMMAND)
def list_models(
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """List the models and where they are. So does no command at all."""

    async def main(output: Output) -> int:
        found: list[pb.Model] = []
        drifted: list[pb.BackendHealth] = []
        request = pb.ListModelsRequest(page_size=_PAGE_SIZE)
        async with open_balancer(address, tenant) as balancer:
            while True:
                page = await balancer.ListModels(request, timeout=timeout)
                found += page.models
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            if any(each.drifted for each in found) and not as_json:
                health = await balancer.GetHealth(pb.GetHealthRequest(), timeout=timeout)
                drifted = [each for each in health.backends if each.drifted_models]
        if as_json:
            output.json([to_plain(each) for each in found])
        else:
            _show_models(output, found)
            output.line(f"{len(found)} models")
            _show_drift(output, drifted)
        return 0

    run(main)


@application.command()
def show(
    model: ModelArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show one model: what it is, and how each backend has it."""

    async def main(output: Output) -> int:
        async with open_balancer(address, tenant) as balancer:
            shown = await balancer.ShowModel(pb.ShowModelRequest(model=model), timeout=timeout)
        if as_json:
            output.json(to_plain(shown))
        else:
            _show_models(output, [shown.model])
            _show_backends(output, shown.backends)
        return 0

    run(main)


@application.command()
def load(
    model: ModelArgument,
    *,
    backend: BackendOption = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 900.0,
    as_json: JsonOption = False,
) -> None:
    """Load a model into the memory of a backend, or of that where it costs least."""
    request = pb.PreloadModelRequest(model=model, backend_id=backend)

    async def main(output: Output) -> int:
        async with open_balancer_admin(address, tenant) as admin:
            try:
                with output.waiting(f"loading {model}"):
                    response = await admin.PreloadModel(request, timeout=timeout)
            except asyncio.CancelledError:
                output.notice("A load that has begun goes on.")
                raise
        if as_json:
            output.json(to_plain(response))
            return 0
        seconds = response.load.ToNanoseconds() / 1e9
        how = f"loaded in {format_seconds(seconds)}" if seconds else "there already"
        output.line(f"{model} is in the memory of {response.backend_id}: {how}.")
        return 0

    run(main)


@application.command()
def unload(
    model: ModelArgument,
    *,
    backend: BackendOption = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Unload a model from the memory of a backend, or of all."""
    request = pb.UnloadModelRequest(model=model, backend_id=backend)

    async def main(output: Output) -> int:
        async with open_balancer_admin(address, tenant) as admin:
            response = await admin.UnloadModel(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
            return 0
        if response.backend_ids:
            output.line(f"Unloaded {model} from {', '.join(response.backend_ids)}.")
        if response.busy_backend_ids:
            busy = ", ".join(response.busy_backend_ids)
            output.line(f"Busy with {model}, which they unload when idle: {busy}.")
        if not response.backend_ids and not response.busy_backend_ids:
            output.line(f"{model} was not in memory.")
        return 0

    run(main)


application.command()(pull)


def _show_models(output: Output, models: list[pb.Model]) -> None:
    output.table(
        ("model", "digest", ">size", "can", "on", "in memory of"),
        [
            (
                each.name,
                shorten_digest(each.digest) + (", drifted" if each.drifted else ""),
                format_bytes(each.size_bytes),
                ", ".join(show_enum(pb.ModelCapability, can) for can in each.capabilities) or "-",
                ", ".join(each.backend_ids),
                ", ".join(each.loaded_backend_ids) or "-",
            )
            for each in models
        ],
    )


def _show_backends(output: Output, backends: Iterable[pb.ModelOnBackend]) -> None:
    output.table(
        ("backend", "state", ">busy", ">window", ">reads/s", ">writes/s", ">load"),
        [
            (
                each.backend_id if each.healthy else f"{each.backend_id}, out",
                show_enum(pb.ModelResidency, each.stats.residency),
                f"{each.stats.in_flight_count}/{each.stats.slot_count}",
                str(each.stats.context_token_count or "-"),
                _rate(each.stats.prefill_tokens_per_second),
                _rate(each.stats.decode_tokens_per_second),
                format_seconds(each.stats.predicted_load.ToNanoseconds() / 1e9),
            )
            for each in backends
        ],
    )


def _rate(tokens_per_second: float) -> str:
    return f"{tokens_per_second:.0f}" if tokens_per_second else "-"


def _show_drift(output: Output, drifted: list[pb.BackendHealth]) -> None:
    for backend in drifted:
        for model in backend.drifted_models:
            pull_again = f"pannier models pull {model} --backend {backend.backend_id}"
            output.notice(
                f"{backend.backend_id} has another digest of {model} than most backends, or than "
                f"it has in memory; `{pull_again}` replaces it by the registry's"
            )
