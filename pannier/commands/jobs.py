"""`pannier jobs`: documents that are taken in in the background."""

from typing import Annotated

import typer

from pannier.commands.call_status import events_of
from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    run,
)
from pannier.commands.corpus_connection import open_corpus, pages_of
from pannier.commands.fields import show_enum
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.progress import count_bars
from pannier.rag.v1 import corpus_service_pb2 as pb

__all__ = ["application", "watch_job"]

_PAGE_SIZE = 500

JobArgument = Annotated[str, typer.Argument(help="Id of the job.")]

application = typer.Typer(
    cls=ListingGroup, help="List, show, follow and cancel jobs that take documents in."
)


@application.command(LISTING_COMMAND)
def list_jobs(
    *,
    active: Annotated[bool, typer.Option("--active", help="Only those that go on.")] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, newest first. So does no command at all."""
    request = pb.ListIngestJobsRequest(page_size=_PAGE_SIZE, active_only=active)

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            pages = pages_of(corpus.ListIngestJobs, request, timeout)
            found = [each async for page in pages for each in page.jobs]
        if as_json:
            output.json([to_plain(each) for each in found])
        else:
            output.table(
                ("job", "collection", "state", ">done", ">documents", ">failed", "begun"),
                [_row(each) for each in found],
            )
        return 0

    run(main)


@application.command("show")
def show(
    job_id: JobArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show a job and what became of its documents so far."""
    request = pb.GetIngestJobRequest(job_id=job_id, page_size=_PAGE_SIZE)

    async def main(output: Output) -> int:
        results: list[pb.DocumentResult] = []
        async with open_corpus(address, tenant) as corpus:
            async for page in pages_of(corpus.GetIngestJob, request, timeout):
                job = page.job
                results += page.results
        if as_json:
            plain = to_plain(job)
            plain["results"] = [to_plain(each) for each in results]
            output.json(plain)
            return 0
        for each in results:
            _show_result(output, each)
        _show_end(output, job)
        return 0

    run(main)


@application.command("watch")
def watch(
    job_id: JobArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 3600.0,
    as_json: JsonOption = False,
) -> None:
    """Follow a job to its end. Exits with 1 where a document could not be stored."""

    async def main(output: Output) -> int:
        return await watch_job(
            output,
            job_id,
            tenant=tenant,
            address=address,
            timeout_seconds=timeout,
            as_json=as_json,
        )

    run(main)


@application.command("cancel")
def cancel(
    job_id: JobArgument,
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """End a job; what it has stored stays."""

    async def main(output: Output) -> int:
        async with open_corpus(address, tenant) as corpus:
            response = await corpus.CancelIngestJob(
                pb.CancelIngestJobRequest(job_id=job_id), timeout=timeout
            )
        if as_json:
            output.json(to_plain(response.job))
        else:
            _show_end(output, response.job)
        return 0

    run(main)


async def watch_job(
    output: Output, job_id: str, *, tenant: str, address: str, timeout_seconds: float, as_json: bool
) -> int:
    """Follows a job to its end, and returns the exit status."""
    job = pb.IngestJob()
    bars = count_bars(output)
    async with open_corpus(address, tenant) as corpus:
        call = corpus.WatchIngestJob(
            pb.WatchIngestJobRequest(job_id=job_id), timeout=timeout_seconds
        )
        with bars:
            bar = bars.add_task("documents", total=None)
            async for event in events_of(call):
                if as_json:
                    output.json_line(to_plain(event))
                elif event.HasField("result") and event.result.HasField("failure"):
                    _show_result(output, event.result)
                if event.HasField("job"):
                    job = event.job
                    bars.update(bar, completed=_done_count(job), total=job.document_count)
    if not as_json:
        _show_end(output, job)
    succeeded = job.state == pb.INGEST_JOB_STATE_COMPLETED and not job.totals.failed_count
    return 0 if succeeded else EXIT_FAILED


def _done_count(job: pb.IngestJob) -> int:
    totals = job.totals
    return (
        totals.created_count + totals.updated_count + totals.unchanged_count + totals.failed_count
    )


def _row(job: pb.IngestJob) -> tuple[str, ...]:
    return (
        job.job_id,
        job.collection,
        show_enum(pb.IngestJobState, job.state),
        str(_done_count(job)),
        str(job.document_count),
        str(job.totals.failed_count),
        job.create_time.ToJsonString()[:19],
    )


def _show_result(output: Output, result: pb.DocumentResult) -> None:
    if result.HasField("failure"):
        output.problem(f"{result.document_id}: {result.failure.reason}: {result.failure.message}")
    else:
        outcome = show_enum(pb.IngestOutcome, result.outcome)
        output.line(f"{result.document_id}: {outcome}, {result.chunk_count} chunks")


def _show_end(output: Output, job: pb.IngestJob) -> None:
    totals = job.totals
    output.line(
        f"Job {job.job_id} is {show_enum(pb.IngestJobState, job.state)}: "
        f"{totals.created_count} created, {totals.updated_count} updated, "
        f"{totals.unchanged_count} unchanged, {totals.failed_count} failed "
        f"of {job.document_count}; {totals.chunk_count} chunks"
    )
