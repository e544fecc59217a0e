"""`pannier usage`: what was used and what it cost."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
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
from pannier.commands.money import format_cost
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import usage_service_pb2 as pb
from pannier.rag.v1 import usage_service_pb2_grpc

__all__ = ["usage"]

_PAGE_SIZE = 1000


class _Dimension(StrEnum):
    """What usage can be told apart by."""

    USER = "user"
    MODE = "mode"
    MODEL = "model"
    KIND = "kind"


class _Bucket(StrEnum):
    """Periods that usage can be summed up over."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"


def usage(
    *,
    days: Annotated[
        float, typer.Option(min=0, max=400, help="How far back, in days.", metavar="DAYS")
    ] = 1.0,
    by: Annotated[
        list[_Dimension] | None,
        typer.Option("--by", help="Tell these apart; may be given several times."),
    ] = None,
    bucket: Annotated[_Bucket, typer.Option(help="Sum up over these periods.")] = _Bucket.TOTAL,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show what was used and what it cost."""
    dimensions = list(dict.fromkeys([_Dimension.MODEL, _Dimension.MODE] if by is None else by))
    now = datetime.now(UTC)
    request = pb.GetUsageRequest(
        bucket=pb.UsageBucket.Value(f"USAGE_BUCKET_{bucket.name}"),
        group_by=[pb.UsageDimension.Value(f"USAGE_DIMENSION_{each.name}") for each in dimensions],
        page_size=_PAGE_SIZE,
    )
    request.start_time.FromDatetime(now - timedelta(days=days))
    request.end_time.FromDatetime(now)

    async def main(output: Output) -> int:
        rows: list[pb.UsageRow] = []
        last = pb.GetUsageResponse()
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            async for page in pages_of(stub.GetUsage, request, timeout):
                rows += page.rows
                last = page
        if as_json:
            plain = to_plain(last)
            plain["rows"] = [to_plain(each) for each in rows]
            output.json(plain)
        else:
            _show(output, rows, last, dimensions, with_time=bucket is not _Bucket.TOTAL)
        return 0

    run(main)


def _show(
    output: Output,
    rows: list[pb.UsageRow],
    last: pb.GetUsageResponse,
    dimensions: list[_Dimension],
    *,
    with_time: bool,
) -> None:
    columns = [
        *(["from"] if with_time else []),
        *(each.value for each in dimensions),
        *(">queries", ">failed", ">cached", ">calls", ">read", ">generated"),
        *(">cost", ">saved tokens", ">saved"),
    ]
    cells = [
        (
            *([row.start_time.ToJsonString()[:16]] if with_time else []),
            *(_name(row, each) for each in dimensions),
            *_amounts(row.amounts, last.currency),
        )
        for row in rows
    ]
    blanks = [""] * (len(dimensions) + with_time)
    if len(rows) != 1:
        blanks = blanks[1:] if blanks else blanks
        label = ["total"] if dimensions or with_time else []
        cells.append((*label, *blanks, *_amounts(last.total, last.currency)))
    output.table(columns, cells)
    ratings = last.feedback
    output.line(
        f"feedback: {ratings.positive_count} good, {ratings.neutral_count} neither, "
        f"{ratings.negative_count} bad"
    )


def _name(row: pb.UsageRow, dimension: _Dimension) -> str:
    names = {
        _Dimension.USER: row.user_id,
        _Dimension.MODE: row.mode,
        _Dimension.MODEL: row.model,
        _Dimension.KIND: row.kind,
    }
    return names[dimension] or "-"


def _amounts(amounts: pb.UsageAmounts, currency: str) -> tuple[str, ...]:
    return (
        str(amounts.query_count),
        str(amounts.failed_query_count),
        str(amounts.cached_query_count),
        str(amounts.call_count),
        str(amounts.prompt_token_count),
        str(amounts.completion_token_count),
        format_cost(amounts.cost_nanos, currency),
        str(amounts.saved_token_count),
        format_cost(amounts.saved_cost_nanos, currency),
    )
