"""`pannier experiment`: how the variants of an experiment compare."""

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
from pannier.commands.fields import show_duration
from pannier.commands.formatting import format_ratio
from pannier.commands.money import format_cost
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import usage_service_pb2 as pb
from pannier.rag.v1 import usage_service_pb2_grpc

__all__ = ["experiment"]


def experiment(
    name: Annotated[str, typer.Argument(help="Name of the experiment.")],
    *,
    days: Annotated[
        float | None,
        typer.Option(min=0, max=3650, metavar="DAYS", help="How far back; all where not given."),
    ] = None,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Compare the variants of an experiment; the first is what the others are compared with."""
    request = pb.GetExperimentReportRequest(name=name)
    if days is not None:
        request.since.FromDatetime(datetime.now(UTC) - timedelta(days=days))

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            report = await stub.GetExperimentReport(request, timeout=timeout)
        if as_json:
            output.json(to_plain(report))
        else:
            output.table(
                (
                    *("variant", ">share", ">queries", ">failed", ">degraded", ">cached"),
                    *(">quality", ">against the first", ">p50", ">p95", ">good", ">cost"),
                ),
                [_row(each, report.currency) for each in report.variants],
            )
        return 0

    run(main)


def _row(each: pb.ExperimentVariantReport, currency: str) -> tuple[str, ...]:
    return (
        each.variant,
        format_ratio(each.share_ratio),
        str(each.query_count),
        str(each.failed_query_count),
        str(each.degraded_query_count),
        str(each.cached_query_count),
        f"{each.mean_quality:.3f}" if each.HasField("mean_quality") else "-",
        _difference(each),
        show_duration(each, "duration_p50"),
        show_duration(each, "duration_p95"),
        _ratings(each),
        format_cost(each.cost_nanos, currency),
    )


def _difference(each: pb.ExperimentVariantReport) -> str:
    if not each.HasField("quality_difference"):
        return "-"
    found = each.quality_difference
    mark = " *" if found.significant else ""
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]{mark}"


def _ratings(each: pb.ExperimentVariantReport) -> str:
    if not each.HasField("positive_ratio"):
        return "-"
    decided = each.feedback.positive_count + each.feedback.negative_count
    return f"{format_ratio(each.positive_ratio)} of {decided}"
