"""The spans of a trace, read from OTLP in JSON as trace stores serve it.

Stores differ in details that are all accepted: ids in base64 (protobuf's JSON) or hexadecimal
(OTLP's), enums by name or number, batches under `batches`, `resourceSpans` or within `trace`.
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Span", "find_gaps", "parse_trace"]

_HEX_SPAN_ID_LENGTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One operation of one process.

    Attributes:
        span_id: 16 hexadecimal digits.
        parent_id: Span it is part of; empty for a root.
        service: Process it ran in, by `service.name`.
        name: What was done.
        kind: `internal`, `server`, `client`, `producer`, `consumer` or empty.
        start_nanoseconds: Since the Unix epoch.
        end_nanoseconds: Since the Unix epoch.
        failed: Whether its status is an error.
        attributes: Facts about it.
    """

    span_id: str
    parent_id: str
    service: str
    name: str
    kind: str = ""
    start_nanoseconds: int
    end_nanoseconds: int
    failed: bool = False
    attributes: Mapping[str, Any]


_KINDS = ("", "internal", "server", "client", "producer", "consumer")


def parse_trace(document: Mapping[str, Any]) -> tuple[Span, ...]:
    """Reads the spans of a trace, by start.

    Args:
        document: OTLP in JSON.

    Raises:
        ValueError: The document is no trace.
    """
    try:
        spans = {span.span_id: span for span in _spans(document)}
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this is no trace: {error!r}") from error
    return tuple(sorted(spans.values(), key=lambda each: (each.start_nanoseconds, each.span_id)))


def _spans(document: Mapping[str, Any]) -> Iterator[Span]:
    inner = document.get("trace", document)
    for batch in inner.get("batches") or inner.get("resourceSpans") or ():
        resource = _attributes(batch.get("resource", {}))
        service = str(resource.get("service.name", "unknown"))
        for scope in batch.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield _span(span, service)


def _span(document: Mapping[str, Any], service: str) -> Span:
    kind = document.get("kind", 0)
    return Span(
        span_id=_identifier(document["spanId"], _HEX_SPAN_ID_LENGTH),
        parent_id=_identifier(document.get("parentSpanId", ""), _HEX_SPAN_ID_LENGTH),
        service=service,
        name=str(document.get("name", "")),
        kind=_KINDS[kind]
        if isinstance(kind, int)
        else str(kind).removeprefix("SPAN_KIND_").lower().replace("unspecified", ""),
        start_nanoseconds=int(document["startTimeUnixNano"]),
        end_nanoseconds=int(document["endTimeUnixNano"]),
        failed=document.get("status", {}).get("code") in (2, "STATUS_CODE_ERROR"),
        attributes=_attributes(document),
    )


def _identifier(text: str, hexadecimal_length: int) -> str:
    if len(text) in (0, hexadecimal_length):
        return text.lower()
    return base64.b64decode(text, validate=True).hex()


def _attributes(document: Mapping[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each.get("value", {})) for each in document.get("attributes", ())}


def _value(document: Mapping[str, Any]) -> Any:
    for kind, value in document.items():
        if kind == "intValue":
            return int(value)
        if kind == "arrayValue":
            return [_value(each) for each in value.get("values", ())]
        return value
    return None


def find_gaps(spans: tuple[Span, ...], *, caller_id: str) -> list[str]:
    """Says what a trace still lacks: spans arrive from each process in their own time.

    Args:
        spans: What has arrived.
        caller_id: Span id that the caller itself has used; nobody reports it.

    Returns:
        One sentence per gap; none where the trace hangs together.
    """
    known = {each.span_id for each in spans}
    parents = {each.parent_id for each in spans}
    gaps = [
        f"the parent of {each.service}: {each.name} is missing"
        for each in spans
        if each.parent_id not in known and each.parent_id not in ("", caller_id)
    ]
    if caller_id not in parents and "" not in parents:
        gaps.append("the call itself is missing")
    gaps += [
        f"what {each.name.partition('/')[0]} did is missing"
        for each in spans
        if _answered_by_a_service(each) and each.span_id not in parents
    ]
    return gaps


def _answered_by_a_service(span: Span) -> bool:
    """Whether a call must have left a span on the other side; one that failed need not."""
    return (
        span.kind == "client"
        and span.attributes.get("rpc.system.name") == "grpc"
        and not span.failed
    )
