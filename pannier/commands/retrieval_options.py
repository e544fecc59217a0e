"""How passages are to be found, as the command line says it: shared by what asks a collection."""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from pannier.commands.labels import DATES
from pannier.rag.v1 import filter_pb2, rag_service_pb2

__all__ = [
    "AllTagsOption",
    "Arms",
    "CandidatesOption",
    "DocumentOption",
    "Expansion",
    "Fusion",
    "LanguageOption",
    "MediaTypeOption",
    "MergeOption",
    "RecentOption",
    "Rerank",
    "SinceOption",
    "SourceOption",
    "TagOption",
    "UntilOption",
    "VarietyOption",
    "VectorWeightOption",
    "WhereOption",
    "filter_message",
    "options_message",
]


class Fusion(StrEnum):
    """How rankings merge."""

    CONVEX = "convex"
    RRF = "rrf"


class Arms(StrEnum):
    """How passages are searched for."""

    HYBRID = "hybrid"
    VECTOR = "vector"
    KEYWORD = "keyword"


class Rerank(StrEnum):
    """Whether a cross-encoder orders the best candidates."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class Expansion(StrEnum):
    """Whether other wordings are searched for as well."""

    AUTO = "auto"
    NONE = "none"
    MULTI_QUERY = "multi-query"
    HYDE = "hyde"
    STEP_BACK = "step-back"
    DECOMPOSE = "decompose"


_FILTERS = "Which documents"

CandidatesOption = Annotated[
    int | None, typer.Option(min=1, max=500, help="Candidates of each arm. Default: 100.")
]
VectorWeightOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Weight of meaning against words. Default: 0.5."),
]
VarietyOption = Annotated[
    float | None,
    typer.Option(
        "--relevance-weight",
        min=0,
        max=1,
        help="Have passages differ from each other: weight of relevance against variety.",
    ),
]
MergeOption = Annotated[
    bool, typer.Option("--merge/--no-merge", help="Join passages that follow each other.")
]
RecentOption = Annotated[
    bool, typer.Option("--recent", help="Newer documents first, among equals.")
]
DocumentOption = Annotated[
    list[str] | None,
    typer.Option("--document", help="Only this one.", rich_help_panel=_FILTERS),
]
TagOption = Annotated[
    list[str] | None,
    typer.Option("--tag", help="With this tag, or any of several.", rich_help_panel=_FILTERS),
]
AllTagsOption = Annotated[
    list[str] | None,
    typer.Option("--all-tags", help="With all of these tags.", rich_help_panel=_FILTERS),
]
SourceOption = Annotated[
    str, typer.Option("--source", help="Whose source begins so.", rich_help_panel=_FILTERS)
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="With this fact: key, key=value (several values of one key: any of them), key>=number "
        "or key<=number.",
        rich_help_panel=_FILTERS,
    ),
]
SinceOption = Annotated[
    datetime | None,
    typer.Option(formats=DATES, help="Replaced then or later, UTC.", rich_help_panel=_FILTERS),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option(formats=DATES, help="Replaced before then, UTC.", rich_help_panel=_FILTERS),
]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option("--language", help="In this language.", rich_help_panel=_FILTERS),
]
MediaTypeOption = Annotated[
    list[str] | None,
    typer.Option("--media-type", help="Of this media type.", rich_help_panel=_FILTERS),
]

_CONDITION = re.compile(r"(?P<key>[^=<>]+)(?:(?P<operator>>=|<=|=)(?P<value>.*))?", re.DOTALL)


def options_message(
    *,
    count: int,
    candidates: int | None,
    fusion: Fusion,
    vector_weight: float | None,
    arms: Arms,
    rerank: Rerank,
    expansion: Expansion,
    relevance_weight: float | None,
    merge: bool,
    recent: bool,
) -> rag_service_pb2.RetrievalOptions:
    """Writes how passages are to be found; arguments are the options, None leaves the default."""
    pb = rag_service_pb2
    return pb.RetrievalOptions(
        passage_count=count,
        candidate_count=candidates,
        fusion=pb.FusionMethod.Value(f"FUSION_METHOD_{fusion.name}"),
        vector_weight_ratio=vector_weight,
        arms=pb.SearchArms.Value(f"SEARCH_ARMS_{arms.name}"),
        rerank=pb.RerankPolicy.Value(f"RERANK_POLICY_{rerank.name}"),
        expansion=pb.ExpansionPolicy.Value(f"EXPANSION_POLICY_{expansion.name}"),
        relevance_weight_ratio=relevance_weight,
        merge_neighbors=merge,
        prefer_recent=recent,
    )


def filter_message(
    *,
    documents: Sequence[str] | None,
    tags: Sequence[str] | None,
    all_tags: Sequence[str] | None,
    source: str,
    where: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    languages: Sequence[str] | None,
    media_types: Sequence[str] | None,
) -> filter_pb2.DocumentFilter:
    """Writes which documents count; arguments are the options.

    Raises:
        typer.BadParameter: A condition cannot be read.
    """
    message = filter_pb2.DocumentFilter(
        document_ids=documents or (),
        any_tags=tags or (),
        all_tags=all_tags or (),
        source_prefix=source,
        metadata=_conditions(where or ()),
        languages=languages or (),
        media_types=media_types or (),
    )
    if since is not None:
        message.updated_from.FromDatetime(since.replace(tzinfo=UTC))
    if until is not None:
        message.updated_before.FromDatetime(until.replace(tzinfo=UTC))
    return message


def _conditions(where: Sequence[str]) -> list[filter_pb2.MetadataCondition]:
    values: dict[str, list[str]] = defaultdict(list)
    ranges: dict[str, filter_pb2.NumberRange] = defaultdict(filter_pb2.NumberRange)
    present: list[str] = []
    for text in where:
        key, operator, value = _read(text)
        if operator is None:
            present.append(key)
        elif operator == "=":
            values[key].append(value)
        elif operator == ">=":
            ranges[key].minimum = _number(text, value)
        else:
            ranges[key].maximum = _number(text, value)
    condition = filter_pb2.MetadataCondition
    return [
        *(condition(key=key, present=True) for key in present),
        *(
            condition(key=key, one_of=filter_pb2.TextList(values=given))
            for key, given in values.items()
        ),
        *(condition(key=key, range=given) for key, given in ranges.items()),
    ]


def _read(text: str) -> tuple[str, str | None, str]:
    found = _CONDITION.fullmatch(text)
    if found is None or not found["key"].strip():
        raise typer.BadParameter(
            f"{text!r} is no condition; write key, key=value, key>=number or key<=number",
            param_hint="--where",
        )
    return found["key"].strip(), found["operator"], (found["value"] or "").strip()


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} compares with {value!r}, which is no number", param_hint="--where"
        ) from error
