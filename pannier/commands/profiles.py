"""`pannier profiles`: what became of questions, and where their time went."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from pannier.commands.connection import (
    AddressOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.corpus_connection import pages_of
from pannier.commands.durations import duration, seconds_within
from pannier.commands.fields import show_duration, show_enum
from pannier.commands.formatting import shorten
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.money import format_cost
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import rag_service_pb2, usage_service_pb2_grpc
from pannier.rag.v1 import usage_service_pb2 as pb

__all__ = ["application"]

_PAGE_SIZE = 1000
_REASON_CHARACTERS = 48

application = typer.Typer(cls=ListingGroup, help="Show what became of questions.")


@application.command(LISTING_COMMAND)
def list_profiles(
    *,
    slower_than: Annotated[
        float | None,
        typer.Option(
            parser=seconds_within(0, 86_400),
            help="Only those that took longer, for example 500ms.",
            metavar="DURATION",
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    degraded: Annotated[bool, typer.Option("--degraded", help="Only lesser answers.")] = False,
    mode: Annotated[str, typer.Option(help="Only those of a mode, for example rag.")] = "",
    days: Annotated[
        float, typer.Option(min=0, max=3650, help="How far back, in days.", metavar="DAYS")
    ] = 1.0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most to show.")] = 20,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List questions, the latest first. So does no command at all."""
    request = pb.ListProfilesRequest(
        degraded_only=degraded,
        failed_only=failed,
        mode=mode,
        page_size=min(limit, _PAGE_SIZE),
    )
    if slower_than is not None:
        request.slower_than.CopyFrom(duration(slower_than))
    request.since.FromDatetime(datetime.now(UTC) - timedelta(days=days))

    async def main(output: Output) -> int:
        records: list[pb.QueryRecord] = []
        currency, partial = "", False
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            async for page in pages_of(stub.ListProfiles, request, timeout):
                records += page.records
                currency, partial = page.currency, partial or page.partial
                if len(records) >= limit:
                    break
        shown = records[:limit]
        if as_json:
            output.json([to_plain(each) for each in shown])
        else:
            output.table(
                (
                    *("query", "at", "mode", "came from", ">took", ">first text", ">quality"),
                    *(">cost", "longest stage", "what was wrong"),
                ),
                [_row(each, currency) for each in shown],
            )
        if partial:
            output.notice("the store is away: only what this replica has in memory")
        return 0

    run(main)


@application.command("show")
def show(
    query_id: Annotated[str, typer.Argument(help="Name of the query, as answers give it.")],
    *,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show what became of one question, stage by stage."""

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            request = pb.GetProfileRequest(query_id=query_id)
            response = await stub.GetProfile(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
        else:
            _show(output, response)
        return 0

    run(main)


def _row(record: pb.QueryRecord, currency: str) -> tuple[str, ...]:
    return (
        record.query_id,
        record.start_time.ToJsonString()[:19].replace("T", " "),
        record.mode,
        _origin(record),
        show_duration(record, "duration"),
        show_duration(record, "first_text"),
        f"{record.quality:.2f}" if record.HasField("quality") else "-",
        format_cost(record.usage.cost_nanos, currency),
        record.bottleneck or "-",
        shorten(_trouble(record), _REASON_CHARACTERS),
    )


def _origin(record: pb.QueryRecord) -> str:
    return show_enum(rag_service_pb2.AnswerOrigin, record.origin) if record.origin else "-"


def _trouble(record: pb.QueryRecord) -> str:
    if record.outcome != "success":
        return record.error_reason or record.outcome
    reasons = [show_enum(rag_service_pb2.DegradationReason, each) for each in record.degradations]
    return ", ".join(reasons) or "-"


def _show(output: Output, response: pb.GetProfileResponse) -> None:
    record, profile = response.record, response.profile
    columns = ("query", "at", "mode", "came from", ">took", ">first text", ">quality", ">cost")
    output.table(columns, [_row(record, response.currency)[: len(columns)]])
    output.line(f"trace {record.trace_id}; {_trouble(record)}")
    depths = _depths(profile)
    output.table(
        ("stage", ">from", ">took", ">by itself", "critical", "cache", "answered by", "failed"),
        [
            (
                "  " * depth + stage.name,
                show_duration(stage, "start"),
                show_duration(stage, "duration"),
                show_duration(stage, "self_duration"),
                "yes" if stage.on_critical_path else "",
                stage.cache_outcome,
                stage.backend_id,
                stage.error_reason if stage.failed else "",
            )
            for stage, depth in zip(profile.stages, depths, strict=True)
        ],
        title="stages",
    )
    output.line(
        f"critical path {show_duration(profile, 'critical_path')} of "
        f"{show_duration(profile, 'total')}; one after the other it would have taken "
        f"{show_duration(profile, 'parallel_saving')} longer"
    )
    for advice in profile.advice:
        output.line(f"- {advice}")


def _depths(profile: rag_service_pb2.Profile) -> list[int]:
    """How far each stage is below the call; a part stands after what it is part of."""
    depths: list[int] = []
    for stage in profile.stages:
        depths.append(depths[stage.parent_index] + 1 if stage.HasField("parent_index") else 0)
    return depths
