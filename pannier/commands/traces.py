"""Reads traces from a trace store over HTTP: Tempo, or the one of the embedded stack."""

import asyncio
import http.client
import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from pannier.client import TraceContext
from pannier.commands.spans import Span, find_gaps, parse_trace

__all__ = ["FetchedTrace", "TraceUnavailable", "fetch_trace"]

_REQUEST_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
# Processes send their spans every half second.
_QUIET_SECONDS = 0.6


class TraceUnavailable(Exception):
    """The trace store cannot be asked, or does not know the trace."""


@dataclass(frozen=True, slots=True)
class FetchedTrace:
    """A trace, as complete as it was in time.

    Attributes:
        spans: Its spans, by start.
        gaps: What it lacks; empty where it hangs together.
    """

    spans: tuple[Span, ...]
    gaps: tuple[str, ...]


async def fetch_trace(
    url: str, context: TraceContext, *, limit_seconds: float = 5.0
) -> FetchedTrace:
    """Waits until a trace is complete and has stopped to grow, and returns it.

    Args:
        url: Base address of the store.
        context: The trace, with the span that the calls were part of.
        limit_seconds: How long to wait; after that, what is there is returned.

    Raises:
        TraceUnavailable: There is nothing to return.
    """
    ends = time.monotonic() + limit_seconds
    spans: tuple[Span, ...] = ()
    grown = time.monotonic()
    problem = "it does not know the trace"
    while True:
        try:
            found = await asyncio.to_thread(_get, url, context.trace_id)
        except (OSError, ValueError, http.client.HTTPException) as error:
            found, problem = (), str(error) or type(error).__name__
        now = time.monotonic()
        if len(found) > len(spans):
            spans, grown = found, now
        gaps = tuple(find_gaps(spans, caller_id=context.span_id))
        if (spans and not gaps and now - grown >= _QUIET_SECONDS) or now >= ends:
            break
        await asyncio.sleep(_PAUSE_SECONDS)
    if not spans:
        raise TraceUnavailable(f"the trace store at {url} has no such trace: {problem}")
    return FetchedTrace(spans, gaps)


def _get(url: str, trace_id: str) -> tuple[Span, ...]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("its address must begin with http:// or https://")
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(parts.hostname, parts.port, timeout=_REQUEST_SECONDS)
    try:
        path = f"{parts.path.rstrip('/')}/api/traces/{trace_id}"
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status == HTTPStatus.NOT_FOUND:
        return ()
    if response.status != HTTPStatus.OK:
        raise ValueError(f"it answered with {response.status}")
    document: Any = json.loads(body)
    return parse_trace(document)
