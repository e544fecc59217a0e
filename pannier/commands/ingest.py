"""`pannier ingest`: files into a collection."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.ingestion import Sending, Tally, ingest_files
from pannier.commands.jobs import watch_job
from pannier.commands.labels import DATES, read_facts
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.progress import count_bars
from pannier.commands.sources import SameIdTwice, find_files
from pannier.rag.v1 import corpus_service_pb2

__all__ = ["ingest", "show_outcome", "show_progress"]


class Chunking(StrEnum):
    """Where documents are cut."""

    STRUCTURE = "structure"
    SEMANTIC = "semantic"


_STRATEGIES = {
    Chunking.STRUCTURE: corpus_service_pb2.CHUNKING_STRATEGY_STRUCTURE,
    Chunking.SEMANTIC: corpus_service_pb2.CHUNKING_STRATEGY_SEMANTIC,
}


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, and folders with all below them.")],
    *,
    collection: CollectionOption = "default",
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Tag to give them.")] = None,
    readers: Annotated[
        list[str] | None,
        typer.Option(
            "--reader", help="Who may read them, user:<id> or group:<id>. Default: everyone."
        ),
    ] = None,
    facts: Annotated[
        list[str] | None, typer.Option("--fact", help="Fact to keep with them, key=value.")
    ] = None,
    language: Annotated[
        str, typer.Option(help="Their language, such as en. Default: judged by the text.")
    ] = "",
    expires: Annotated[
        datetime | None,
        typer.Option(formats=DATES, help="When they cease to be found and are deleted, UTC."),
    ] = None,
    chunking: Annotated[
        Chunking, typer.Option(help="Where to cut: along the structure, or where meaning changes.")
    ] = Chunking.STRUCTURE,
    chunk_size: Annotated[
        int, typer.Option(min=0, help="Size of chunks, in tokens; 0 for the service's.")
    ] = 0,
    largest_chunk: Annotated[
        int, typer.Option(min=0, help="Largest chunk, in tokens; 0 for the service's.")
    ] = 0,
    background: Annotated[
        bool, typer.Option("--background", help="Return once the files are sent; see `jobs`.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--watch", help="With --background: follow the job to its end.")
    ] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Take documents into a collection. Exits with 1 where one could not be stored."""
    labels = corpus_service_pb2.DocumentHeader(
        tags=tags, readers=readers, language=language, metadata=read_facts(facts)
    )
    if expires is not None:
        labels.expire_time.FromDatetime(expires)
    sending = Sending(
        background=background,
        chunking=corpus_service_pb2.ChunkingOptions(
            strategy=_STRATEGIES[chunking],
            target_token_count=chunk_size,
            maximum_token_count=largest_chunk,
        ),
        labels=labels,
    )

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
                    sending=sending,
                )
        except (OSError, SameIdTwice) as error:
            output.problem(str(error))
            return EXIT_FAILED
        if tally.accepted is not None:
            return await _end_accepted(output, tally, tally.accepted)
        if as_json:
            output.json(_document(tally))
        else:
            show_outcome(output, tally)
        return EXIT_FAILED if tally.failures or tally.completed is None else 0

    async def _end_accepted(
        output: Output, tally: Tally, accepted: corpus_service_pb2.IngestAccepted
    ) -> int:
        job_id = accepted.job_id
        for each in tally.failures:
            output.problem(f"{each.document_id}: {each.failure.reason}: {each.failure.message}")
        if follow:
            code = await watch_job(
                output,
                job_id,
                tenant=tenant,
                address=address,
                timeout_seconds=timeout,
                as_json=as_json,
            )
            return code or (EXIT_FAILED if tally.failures else 0)
        if as_json:
            output.json(to_plain(accepted))
        else:
            output.line(f"Job {job_id} takes in {accepted.document_count} documents.")
            output.line(f"Follow it with: pannier jobs watch {job_id}")
        return EXIT_FAILED if tally.failures else 0

    run(main)


@contextmanager
def show_progress(output: Output, tally: Tally) -> Iterator[Callable[[], None]]:
    """Shows bars of documents and of chunks while the context is open, on a terminal.

    Yields:
        To be called when the tally has changed.
    """
    bars = count_bars(output)
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
    if tally.pending_count:
        output.notice(
            f"{tally.pending_count} chunks are found by words alone until something embeds again."
        )
    for each in tally.results:
        for warning in each.warnings:
            output.notice(f"{each.document_id}: {warning}")


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
