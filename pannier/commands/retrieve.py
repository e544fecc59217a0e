"""`pannier retrieve`: passages that match a question, without a language model."""

from typing import Annotated, Any

import typer

from pannier.commands.connection import (
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    run,
)
from pannier.commands.formatting import format_seconds, shorten
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.rag.v1 import rag_service_pb2, rag_service_pb2_grpc

__all__ = ["describe_degradation", "retrieve"]

_EXCERPT_CHARACTERS = 90


def retrieve(
    question: str,
    *,
    collection: CollectionOption = "default",
    count: Annotated[int, typer.Option("-k", min=1, max=50, help="Passages to show.")] = 8,
    fusion: Annotated[str, typer.Option(help="How rankings merge: convex or rrf.")] = "convex",
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show the passages that match a question."""
    if fusion not in ("convex", "rrf"):
        raise typer.BadParameter("must be convex or rrf", param_hint="--fusion")
    request = rag_service_pb2.RetrieveRequest(
        collection=collection,
        query=question,
        options=rag_service_pb2.RetrievalOptions(
            passage_count=count,
            fusion=rag_service_pb2.FusionMethod.Value(f"FUSION_METHOD_{fusion.upper()}"),
        ),
    )

    async def main(output: Output) -> int:
        async with connect("rag", address=address, tenant=tenant) as connection:
            stub: Any = rag_service_pb2_grpc.RagServiceStub(connection.channel)
            response = await stub.Retrieve(request, timeout=timeout)
        if as_json:
            output.json(to_plain(response))
        else:
            _show(output, response)
        return 0

    run(main)


def _show(output: Output, response: rag_service_pb2.RetrieveResponse) -> None:
    output.table(
        (">#", ">score", ">meaning", ">words", "document", ">characters", "text"),
        [
            (
                str(each.marker),
                f"{each.score.fused_score:.3f}",
                _rank(each.score.vector_rank),
                _rank(each.score.keyword_rank),
                shorten(each.document_id, 40),
                f"{each.char_start}-{each.char_end}",
                shorten(each.text, _EXCERPT_CHARACTERS),
            )
            for each in response.passages
        ],
    )
    if not response.passages:
        output.line("Nothing in the collection matches.")
    for degradation in response.degradations:
        output.notice(describe_degradation(degradation))
    total = response.profile.total.ToNanoseconds() / 1e9
    output.line(f"{len(response.passages)} passages in {format_seconds(total)}")


def _rank(rank: int) -> str:
    """Writes a rank; an arm that did not find the passage has none."""
    return str(rank) if rank else "-"


def describe_degradation(degradation: rag_service_pb2.Degradation) -> str:
    """Says what could not be done as it should have been."""
    known = rag_service_pb2.DegradationReason.DESCRIPTOR.values_by_number.get(degradation.reason)
    name = f"reason {degradation.reason}" if known is None else known.name
    words = name.removeprefix("DEGRADATION_REASON_").lower().replace("_", " ")
    return ": ".join(filter(None, [f"degraded: {words}", degradation.stage, degradation.detail]))
