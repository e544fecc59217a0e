"""`pannier ask`: an answer as it comes, with citations."""

import os
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from pannier.commands.answer_events import Answer, read_answer
from pannier.commands.connection import (
    EXIT_FAILED,
    AddressOption,
    CollectionOption,
    JsonOption,
    TenantOption,
    TimeoutOption,
    connect,
    find_trace_url,
    run,
)
from pannier.commands.formatting import format_seconds, shorten
from pannier.commands.output import Output
from pannier.commands.plain import to_plain
from pannier.commands.retrieval_options import (
    AllTagsOption,
    DocumentOption,
    LanguageOption,
    MediaTypeOption,
    SinceOption,
    SourceOption,
    TagOption,
    UntilOption,
    WhereOption,
    filter_message,
)
from pannier.commands.retrieve import describe_degradation
from pannier.commands.support_view import describe_quality, show_support
from pannier.commands.traces import FetchedTrace, TraceUnavailable, fetch_trace
from pannier.commands.waterfall_view import show_waterfall
from pannier.rag.v1 import rag_service_pb2, rag_service_pb2_grpc, tool_pb2

__all__ = ["Answer", "ask", "ask_question", "describe_origin", "show_answer"]

_QUOTE_CHARACTERS = 80
_ORIGINS = {
    rag_service_pb2.ANSWER_ORIGIN_GENERATED: "generated",
    rag_service_pb2.ANSWER_ORIGIN_CACHED: "cached",
    rag_service_pb2.ANSWER_ORIGIN_CACHED_SIMILAR: "cached, from a similar question",
    rag_service_pb2.ANSWER_ORIGIN_EXTRACTIVE: "extractive (no model answered)",
    rag_service_pb2.ANSWER_ORIGIN_NO_MATCH: "nothing in the collection matches",
    rag_service_pb2.ANSWER_ORIGIN_REFUSED: "refused (the documents do not hold the answer)",
}


class AskMode(Enum):
    """How a question is answered."""

    RAG = "rag"
    DEEP = "deep"
    AGENT = "agent"
    DIRECT = "direct"


class Policy(Enum):
    """What an answer may stand on."""

    GROUNDED = "grounded"
    KNOWLEDGE = "knowledge"
    EXTRACTIVE = "extractive"


class Web(Enum):
    """Whether the web is searched."""

    AUTO = "auto"
    NEVER = "never"
    ALWAYS = "always"


_POLICIES = {
    Policy.GROUNDED: rag_service_pb2.ANSWER_POLICY_UNSPECIFIED,
    Policy.KNOWLEDGE: rag_service_pb2.ANSWER_POLICY_ALLOW_MODEL_KNOWLEDGE,
    Policy.EXTRACTIVE: rag_service_pb2.ANSWER_POLICY_EXTRACTIVE,
}
_WEB_POLICIES = {
    Web.AUTO: rag_service_pb2.WEB_POLICY_UNSPECIFIED,
    Web.NEVER: rag_service_pb2.WEB_POLICY_NEVER,
    Web.ALWAYS: rag_service_pb2.WEB_POLICY_ALWAYS,
}


def ask(
    question: str,
    *,
    collection: CollectionOption = "default",
    model: Annotated[str, typer.Option(help="Model that answers. Default: the service's.")] = "",
    mode: Annotated[
        AskMode,
        typer.Option(
            help="deep takes more trouble; agent has the model search and calculate by itself; "
            "direct asks the model alone."
        ),
    ] = AskMode.RAG,
    policy: Annotated[Policy, typer.Option(help="What the answer may stand on.")] = Policy.GROUNDED,
    web: Annotated[Web, typer.Option(help="Whether the web is searched.")] = Web.AUTO,
    json_schema: Annotated[
        str,
        typer.Option(
            "--json-schema",
            help="Answer with JSON that follows this schema: JSON text, or @FILE; {} for any.",
        ),
    ] = "",
    document: DocumentOption = None,
    tag: TagOption = None,
    all_tags: AllTagsOption = None,
    source: SourceOption = "",
    where: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    language: LanguageOption = None,
    media_type: MediaTypeOption = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute everything anew.")] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="Show where the time went, across all services.")
    ] = False,
    tenant: TenantOption = "default",
    address: AddressOption = "",
    timeout: TimeoutOption = 180.0,
    as_json: JsonOption = False,
) -> None:
    """Answer a question from the documents of a collection."""
    cache_policy = "CACHE_POLICY_BYPASS" if no_cache else "CACHE_POLICY_USE"
    request = rag_service_pb2.QueryRequest(
        collection="" if mode is AskMode.DIRECT else collection,
        query=question,
        model=model,
        mode=rag_service_pb2.QueryMode.Value(f"QUERY_MODE_{mode.name}"),
        cache_policy=rag_service_pb2.CachePolicy.Value(cache_policy),
        answer_policy=_POLICIES[policy],
        web=_WEB_POLICIES[web],
    )
    if json_schema:
        request.output_format.json_schema = _schema(json_schema)
    conditions = filter_message(
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
    if conditions.ByteSize():
        request.retrieval.filter.CopyFrom(conditions)

    async def main(output: Output) -> int:
        answer = await ask_question(
            request,
            tenant=tenant,
            address=address,
            timeout_seconds=timeout,
            output=None if as_json else output,
        )
        fetched = await _fetch(answer, output) if trace else None
        if as_json:
            output.json(_document(answer, fetched))
        else:
            show_answer(output, answer)
            if fetched is not None:
                profile = answer.completed.profile if answer.completed is not None else None
                show_waterfall(output, fetched, profile)
        incomplete = answer.completed is None or (trace and fetched is None)
        return EXIT_FAILED if incomplete else 0

    run(main)


def _schema(given: str) -> str:
    """Reads a JSON Schema from the command line, or from the file that it names."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot be read: {error}", param_hint="--json-schema") from error


async def ask_question(
    request: rag_service_pb2.QueryRequest,
    *,
    tenant: str,
    address: str,
    timeout_seconds: float,
    output: Output | None,
) -> Answer:
    """Asks, and shows the text as it comes.

    Args:
        request: The question and how to answer it.
        tenant: Owner of the collection.
        address: Where rag is; empty to find it.
        timeout_seconds: How long the answer may take.
        output: Where the text goes; None to show nothing.

    Raises:
        RemoteError: The call failed.
        Unreachable: rag did not answer.
    """
    async with connect("rag", address=address, tenant=tenant) as connection:
        answer = Answer(connection.trace)
        stub: Any = rag_service_pb2_grpc.RagServiceStub(connection.channel)
        started = time.monotonic()
        call = stub.StreamQuery(
            rag_service_pb2.StreamQueryRequest(query=request), timeout=timeout_seconds
        )
        await read_answer(call, answer, output, started=started)
    return answer


async def _fetch(answer: Answer, output: Output) -> FetchedTrace | None:
    try:
        return await fetch_trace(find_trace_url(os.environ), answer.trace)
    except TraceUnavailable as error:
        output.problem(str(error))
        return None


def show_answer(output: Output, answer: Answer) -> None:
    """Shows what belongs to an answer beside its text."""
    response = answer.completed
    if response is None:
        output.problem("The answer ended before it was complete.")
        return
    if not answer.text and response.answer:
        output.line(response.answer)
    if response.citations:
        output.line()
        output.table(
            (">#", "title", "document", ">characters", "quote"),
            [
                (
                    f"[{each.marker}]",
                    shorten(each.title, 30),
                    shorten(each.document_id, 40),
                    f"{each.char_start}-{each.char_end}",
                    shorten(each.quote, _QUOTE_CHARACTERS),
                )
                for each in response.citations
            ],
        )
    show_support(output, response)
    if response.tool_executions:
        output.line()
        output.table(
            (">step", "tool", "arguments", "outcome", ">time", "result"),
            [
                (
                    str(each.step),
                    shorten(each.name, 20),
                    shorten(each.arguments_json, 60),
                    _outcome_name(each.outcome),
                    format_seconds(each.duration.ToNanoseconds() / 1e9),
                    shorten(each.summary, 60),
                )
                for each in response.tool_executions
            ],
        )
    for degradation in response.degradations:
        output.notice(describe_degradation(degradation))
    for warning in response.warnings:
        output.notice(f"warning: {warning}")
    if response.origin == rag_service_pb2.ANSWER_ORIGIN_REFUSED:
        output.notice("refused: the documents do not hold the answer")
    quality = describe_quality(response)
    if quality:
        output.line(quality, style="dim")
    output.line(_footer(answer, response), style="dim")


def _outcome_name(number: tool_pb2.ToolOutcome.ValueType) -> str:
    known = tool_pb2.ToolOutcome.values()
    name = tool_pb2.ToolOutcome.Name(number) if number in known else f"TOOL_OUTCOME_{number}"
    return name.removeprefix("TOOL_OUTCOME_").lower().replace("_", " ")


def describe_origin(response: rag_service_pb2.QueryResponse) -> str:
    """Says how an answer came about."""
    return _ORIGINS.get(response.origin, f"origin {response.origin}")


def _footer(answer: Answer, response: rag_service_pb2.QueryResponse) -> str:
    parts = [describe_origin(response)]
    if response.model:
        parts.append(response.model)
    if response.backend_id:
        parts.append(f"on {response.backend_id}")
    usage = response.usage
    if usage.prompt_token_count or usage.completion_token_count:
        parts.append(f"{usage.prompt_token_count} + {usage.completion_token_count} tokens")
    if answer.first_text_seconds is not None:
        parts.append(f"first text {format_seconds(answer.first_text_seconds)}")
    if answer.total_seconds is not None:
        parts.append(f"total {format_seconds(answer.total_seconds)}")
    return " · ".join(parts)


def _document(answer: Answer, fetched: FetchedTrace | None) -> dict[str, Any]:
    document = to_plain(answer.completed) if answer.completed is not None else {}
    document["first_text_seconds"] = answer.first_text_seconds
    document["total_seconds"] = answer.total_seconds
    document["trace_id"] = answer.trace.trace_id
    if fetched is not None:
        document["spans"] = [
            {
                "span_id": each.span_id,
                "parent_id": each.parent_id,
                "service": each.service,
                "name": each.name,
                "kind": each.kind,
                "start_nanoseconds": each.start_nanoseconds,
                "duration_seconds": (each.end_nanoseconds - each.start_nanoseconds) / 1e9,
                "failed": each.failed,
                "attributes": dict(each.attributes),
            }
            for each in fetched.spans
        ]
        document["trace_gaps"] = list(fetched.gaps)
    return document
