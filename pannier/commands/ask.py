"""`pannier ask`: an answer as it comes, with citations."""

import os
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from pannier.client import TraceContext
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
from pannier.commands.retrieve import describe_degradation
from pannier.commands.traces import FetchedTrace, TraceUnavailable, fetch_trace
from pannier.commands.waterfall_view import show_waterfall
from pannier.rag.v1 import rag_service_pb2, rag_service_pb2_grpc

__all__ = ["Answer", "ask", "ask_question", "describe_origin", "show_answer"]

_QUOTE_CHARACTERS = 80
_ORIGINS = {
    rag_service_pb2.ANSWER_ORIGIN_GENERATED: "generated",
    rag_service_pb2.ANSWER_ORIGIN_CACHED: "cached",
    rag_service_pb2.ANSWER_ORIGIN_CACHED_SIMILAR: "cached, from a similar question",
    rag_service_pb2.ANSWER_ORIGIN_EXTRACTIVE: "extractive (no model answered)",
    rag_service_pb2.ANSWER_ORIGIN_NO_MATCH: "nothing in the collection matches",
}


@dataclass(slots=True)
class Answer:
    """An answer as its stream brings it.

    Attributes:
        trace: Trace of the call.
        first_text_seconds: From the call until the first text; None before.
        total_seconds: From the call until the end; None before.
        text: What has come so far.
        completed: The whole answer; None until the stream has ended well.
    """

    trace: TraceContext
    first_text_seconds: float | None = None
    total_seconds: float | None = None
    text: str = ""
    completed: rag_service_pb2.QueryResponse | None = None


def ask(
    question: str,
    *,
    collection: CollectionOption = "default",
    model: Annotated[str, typer.Option(help="Model that answers. Default: the service's.")] = "",
    mode: Annotated[str, typer.Option(help="rag, or direct for the model alone.")] = "rag",
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
    if mode not in ("rag", "direct"):
        raise typer.BadParameter("must be rag or direct", param_hint="--mode")
    policy = "CACHE_POLICY_BYPASS" if no_cache else "CACHE_POLICY_USE"
    request = rag_service_pb2.QueryRequest(
        collection=collection if mode == "rag" else "",
        query=question,
        model=model,
        mode=rag_service_pb2.QueryMode.Value(f"QUERY_MODE_{mode.upper()}"),
        cache_policy=rag_service_pb2.CachePolicy.Value(policy),
    )

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
                show_waterfall(output, fetched)
        incomplete = answer.completed is None or (trace and fetched is None)
        return EXIT_FAILED if incomplete else 0

    run(main)


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
        try:
            async for event in call:
                kind = event.WhichOneof("event")
                if kind == "text_delta":
                    if answer.first_text_seconds is None:
                        answer.first_text_seconds = time.monotonic() - started
                    answer.text += event.text_delta
                    if output is not None:
                        output.piece(event.text_delta)
                elif kind == "completed":
                    answer.completed = event.completed
        finally:
            if output is not None and answer.text:
                output.line()
    answer.total_seconds = time.monotonic() - started
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
    for degradation in response.degradations:
        output.notice(describe_degradation(degradation))
    for warning in response.warnings:
        output.notice(f"warning: {warning}")
    output.line(_footer(answer, response), style="dim")


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
