"""`pannier models pull`: a model onto the disks of backends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.downloads import Download, note_progress
from pannier.commands.fields import shorten_digest
from pannier.commands.fleet import BackendOption, ModelArgument, open_balancer_admin
from pannier.commands.formatting import format_bytes, shorten
from pannier.commands.output import Output

__all__ = ["pull", "show_downloads"]

_STATUS_CHARACTERS = 24


def pull(
    model: ModelArgument,
    *,
    backend: BackendOption = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 86400.0,
    as_json: JsonOption = False,
) -> None:
    """Download a model onto one backend or all. Ctrl-C ends the download."""
    request = pb.PullModelRequest(model=model, backend_id=backend)

    async def main(output: Output) -> int:
        downloads: dict[str, Download] = {}
        try:
            with show_downloads(output) as progressed:
                async with open_balancer_admin(address, tenant) as admin:
                    async for response in admin.PullModel(request, timeout=timeout):
                        download = note_progress(downloads, response)
                        progressed(response.backend_id, download)
        finally:
            # Those that are done stay done when another one fails, or the command is interrupted.
            if not as_json:
                _show_done(output, model, downloads)
        if as_json:
            output.json(
                [
                    {
                        "backend_id": backend_id,
                        "model_digest": each.model_digest,
                        "size_bytes": each.total_bytes,
                    }
                    for backend_id, each in sorted(downloads.items())
                ]
            )
        if downloads and all(each.model_digest is not None for each in downloads.values()):
            return 0
        output.problem("The download ended before it was complete.")
        return EXIT_FAILED

    run(main)


@contextmanager
def show_downloads(output: Output) -> Iterator[Callable[[str, Download], None]]:
    """Shows a bar per backend while the context is open, on a terminal.

    Yields:
        To be called with a backend's id and its download when that has changed.
    """
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[status]}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        console=output.errors,
        disable=not output.errors.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def progressed(backend_id: str, download: Download) -> None:
        if backend_id not in tasks:
            tasks[backend_id] = bars.add_task(shorten(backend_id, 60), total=None, status="")
        bars.update(
            tasks[backend_id],
            completed=download.completed_bytes,
            total=download.total_bytes or None,
            status=shorten(download.status, _STATUS_CHARACTERS),
        )

    with bars:
        yield progressed


def _show_done(output: Output, model: str, downloads: dict[str, Download]) -> None:
    for backend_id, each in sorted(downloads.items()):
        if each.model_digest is not None:
            output.line(
                f"{backend_id} has {model} · digest {shorten_digest(each.model_digest)} · "
                f"{format_bytes(each.total_bytes)}"
            )
