"""`pannier feedback`: what users think of answers."""

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
from pannier.commands.formatting import shorten
from pannier.commands.listing_group import LISTING_COMMAND, ListingGroup
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import usage_service_pb2 as pb
from pannier.rag.v1 import usage_service_pb2_grpc

__all__ = ["application"]

_PAGE_SIZE = 1000
_COMMENT_CHARACTERS = 60


class _Rating(StrEnum):
    """What one can think of an answer."""

    GOOD = "good"
    NEITHER = "neither"
    BAD = "bad"


_NUMBERS = {_Rating.GOOD: 1, _Rating.NEITHER: 0, _Rating.BAD: -1}
_WORDS = {number: rating.value for rating, number in _NUMBERS.items()}

application = typer.Typer(cls=ListingGroup, help="Say what you think of answers.")


@application.command(LISTING_COMMAND)
def list_feedback(
    *,
    rating: Annotated[_Rating | None, typer.Option(help="Only that of a rating.")] = None,
    days: Annotated[
        float, typer.Option(min=0, max=3650, help="How far back, in days.", metavar="DAYS")
    ] = 30.0,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most to show.")] = 50,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """List what users have said, the latest first. So does no command at all."""
    request = pb.ListFeedbackRequest(page_size=min(limit, _PAGE_SIZE))
    if rating is not None:
        request.rating = _NUMBERS[rating]
    request.since.FromDatetime(datetime.now(UTC) - timedelta(days=days))

    async def main(output: Output) -> int:
        found: list[pb.Feedback] = []
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            async for page in pages_of(stub.ListFeedback, request, timeout):
                found += page.feedback
                if len(found) >= limit:
                    break
        if as_json:
            output.json([to_plain(each) for each in found[:limit]])
            return 0
        output.table(
            ("query", "at", "user", "rating", "reasons", "mode", "model", "comment"),
            [
                (
                    each.query_id,
                    each.update_time.ToJsonString()[:19].replace("T", " "),
                    each.user_id or "-",
                    _WORDS.get(each.rating, str(each.rating)),
                    ", ".join(each.reasons) or "-",
                    each.mode,
                    each.model or "-",
                    shorten(each.comment, _COMMENT_CHARACTERS) or "-",
                )
                for each in found[:limit]
            ],
        )
        return 0

    run(main)


@application.command("give")
def give(
    query_id: Annotated[str, typer.Argument(help="Name of the query, as answers give it.")],
    rating: Annotated[_Rating, typer.Argument(help="What you think of the answer.")],
    *,
    reasons: Annotated[
        list[str] | None,
        typer.Option("--reason", help="Why, a word such as outdated; may be given several times."),
    ] = None,
    comment: Annotated[str, typer.Option(help="In your own words.")] = "",
    corrected: Annotated[
        str, typer.Option("--corrected", help="What the answer should have been.")
    ] = "",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Say what you think of an answer; saying it again replaces what was said."""
    request = pb.SubmitFeedbackRequest(
        query_id=query_id,
        rating=_NUMBERS[rating],
        reasons=reasons or [],
        comment=comment,
        corrected_answer=corrected,
    )

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub = usage_service_pb2_grpc.UsageServiceStub(connection.channel)
            response = await stub.SubmitFeedback(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
        elif response.cache_entry_removed:
            output.line("noted; the answer is no longer given to others who ask alike")
        else:
            output.line("noted")
        return 0

    run(main)
