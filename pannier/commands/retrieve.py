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
from pannier.commands.retrieval_options import (
    AllTagsOption,
    Arms,
    CandidatesOption,
    DocumentOption,
    Expansion,
    Fusion,
    LanguageOption,
    MediaTypeOption,
    MergeOption,
    RecentOption,
    Rerank,
    SinceOption,
    SourceOption,
    TagOption,
    UntilOption,
    VarietyOption,
    VectorWeightOption,
    WhereOption,
    filter_message,
    options_message,
)
from pannier.rag.v1 import quality_pb2, rag_service_pb2, rag_service_pb2_grpc

__all__ = ["describe_confidence", "describe_degradation", "retrieve"]

_EXCERPT_CHARACTERS = 80
_BANDS = {
    quality_pb2.CONFIDENCE_BAND_HIGH: "high",
    quality_pb2.CONFIDENCE_BAND_MEDIUM: "medium",
    quality_pb2.CONFIDENCE_BAND_LOW: "low",
}
_SHARES = {
    "coverage_ratio": "of the question's words are in the best",
    "vector_percentile": "of chance pairs are less alike",
    "agreement_ratio": "of the first are the same by meaning and by words",
    "rerank_ratio": "sure says the judge",
}


def retrieve(
    question: str,
    *,
    collection: CollectionOption = "default",
    count: Annotated[int, typer.Option("-k", min=1, max=50, help="Passages to show.")] = 8,
    candidates: CandidatesOption = None,
    arms: Annotated[Arms, typer.Option(help="How to search.")] = Arms.HYBRID,
    fusion: Annotated[Fusion, typer.Option(help="How rankings merge.")] = Fusion.CONVEX,
    vector_weight: VectorWeightOption = None,
    rerank: Annotated[
        Rerank, typer.Option(help="Have a cross-encoder order the best.")
    ] = Rerank.AUTO,
    expansion: Annotated[
        Expansion, typer.Option(help="Search for other wordings as well.")
    ] = Expansion.AUTO,
    relevance_weight: VarietyOption = None,
    merge: MergeOption = True,
    recent: RecentOption = False,
    document: DocumentOption = None,
    tag: TagOption = None,
    all_tags: AllTagsOption = None,
    source: SourceOption = "",
    where: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    language: LanguageOption = None,
    media_type: MediaTypeOption = None,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Show the passages that match a question."""
    options = options_message(
        count=count,
        candidates=candidates,
        fusion=fusion,
        vector_weight=vector_weight,
        arms=arms,
        rerank=rerank,
        expansion=expansion,
        relevance_weight=relevance_weight,
        merge=merge,
        recent=recent,
    )
    options.filter.CopyFrom(
        filter_message(
            documents=document,
            tags=tag,
            all_tags=all_tags,
            source=source,
            where=where,
            since=since,
            until=until,
            languages=language,
            media_types=media_type,
        )
    )
    request = rag_service_pb2.RetrieveRequest(
        collection=collection, query=question, options=options
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
    judged = any(each.score.HasField("rerank_score") for each in response.passages)
    output.table(
        (
            *(">#", ">score", *((">judge",) if judged else ())),
            *(">meaning", ">words", "document", ">characters", "text"),
        ),
        [
            (
                str(each.marker),
                f"{each.score.fused_score:.3f}",
                *((_rerank_score(each.score),) if judged else ()),
                _meaning(each.score),
                _words(each.score),
                shorten(each.document_id, 40),
                f"{each.char_start}-{each.char_end}",
                shorten(each.text, _EXCERPT_CHARACTERS),
            )
            for each in response.passages
        ],
    )
    if not response.passages:
        output.line("Nothing in the collection matches.")
    for wording in response.expansions:
        output.line(f"also searched for: {wording}", style="dim")
    for degradation in response.degradations:
        output.notice(describe_degradation(degradation))
    total = response.profile.total.ToNanoseconds() / 1e9
    output.line(
        " · ".join(
            (
                f"{len(response.passages)} passages in {format_seconds(total)}",
                *describe_confidence(response.confidence),
            )
        )
    )


def describe_confidence(confidence: quality_pb2.RetrievalConfidence) -> list[str]:
    """Says how far the passages can be relied on and what that rests on, in a few words each."""
    if confidence.band not in _BANDS:
        return []
    shares = {field.name: value for field, value in confidence.ListFields()}
    parts = [f"confidence {_BANDS[confidence.band]} ({confidence.score:.2f})"]
    parts += [f"{shares[name]:.0%} {words}" for name, words in _SHARES.items() if name in shares]
    return parts


def _meaning(score: rag_service_pb2.PassageScore) -> str:
    """Writes rank and similarity; an arm that did not find the passage has none."""
    if not score.HasField("vector_rank"):
        return "-"
    return f"{score.vector_rank} ({score.vector_similarity:.2f})"


def _words(score: rag_service_pb2.PassageScore) -> str:
    if not score.HasField("keyword_rank"):
        return "-"
    return f"{score.keyword_rank} ({score.keyword_score:.1f})"


def _rerank_score(score: rag_service_pb2.PassageScore) -> str:
    return f"{score.rerank_score:.3f}" if score.HasField("rerank_score") else "-"


def describe_degradation(degradation: rag_service_pb2.Degradation) -> str:
    """Says what could not be done as it should have been."""
    known = rag_service_pb2.DegradationReason.DESCRIPTOR.values_by_number.get(degradation.reason)
    name = f"reason {degradation.reason}" if known is None else known.name
    words = name.removeprefix("DEGRADATION_REASON_").lower().replace("_", " ")
    return ": ".join(filter(None, [f"degraded: {words}", degradation.stage, degradation.detail]))
