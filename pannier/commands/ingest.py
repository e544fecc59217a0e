"""`pannier ingest`: files into a collection."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.ingestion import Tally, ingest_files
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.sources import SameIdTwice, find_files

__all__ = ["ingest", "show_outcome", "show_progress"]


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders with all below them.")],
    *,
    collection: CollectionOption = "default",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Take documents into a collection. Exits with 1 where one could not be stored."""

    async def main(output: Output) -> int:
        try:
            files = await asyncio.to_thread(find_files, paths)
            if not files:
                raise FileNotFoundError("there are no documents in what was named")
            tally = Tally(len(files))
            with show_progress(output, tally) as progressed:
                await ingest_files(
                    files,
                    tally,
                    collection=collection,
                    tenant=tenant,
                    address=address,
                    timeout_seconds=timeout,
                    progressed=progressed,
                )
        except (OSError, SameIdTwice) as error:
            output.problem(str(error))
            return EXIT_FAILED
        if as_json:
            output.json(_document(tally))
        else:
            show_outcome(output, tally)
        return EXIT_FAILED if tally.failures or tally.completed is None else 0

    run(main)


@contextmanager
def show_progress(output: Output, tally: Tally) -> Iterator[Callable[[], None]]:
    """Shows bars of documents and of chunks while the context is open, on a terminal.

    Yields:
        To be called when the tally has changed.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.errors,
        disable=not output.errors.is_terminal,
    )
    with bars:
        documents = bars.add_task("documents", total=tally.document_count)
        chunks = bars.add_task("chunks embedded", total=None)

        def progressed() -> None:
            bars.update(documents, completed=len(tally.results))
            bars.update(chunks, completed=tally.embedded_count, total=tally.chunk_count or None)

        yield progressed


def show_outcome(output: Output, tally: Tally) -> None:
    """Shows what became of the documents."""
    for each in tally.failures:
        failure = each.failure
        retry = " (may succeed later)" if failure.retryable else ""
        output.problem(f"{each.document_id}: {failure.reason}: {failure.message}{retry}")
    done = tally.completed
    if done is None:
        output.problem("The ingestion ended before it was complete.")
        return
    computed = sum(each.computed_embedding_count for each in tally.results)
    output.line(
        f"{done.created_count} created, {done.updated_count} updated, "
        f"{done.unchanged_count} unchanged, {len(tally.failures)} failed; "
        f"{done.chunk_count} chunks, {computed} vectors computed"
    )


def _document(tally: Tally) -> dict[str, Any]:
    document = to_plain(tally.completed) if tally.completed is not None else {}
    # Files that could not be opened never reached the service.
    document["failed_count"] = len(tally.failures)
    document["computed_embedding_count"] = sum(
        each.computed_embedding_count for each in tally.results
    )
    document["failures"] = [
        {"document_id": each.document_id, **to_plain(each.failure)} for each in tally.failures
    ]
    return document
