"""Spans of requests to the web: whom they go to and what came of them, without what was asked."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, Tracer
from yarl import URL

from services.common.tracing import SERVER_ADDRESS, SERVER_PORT, mark_failed

__all__ = ["Request", "request_span", "shown"]

_LEAST_FAILURE = 400


def shown(url: URL) -> str:
    """Returns an address as it may be kept: without credentials, query and fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


class Request:
    """One request under way.

    Args:
        span: Its span.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self.has_failed = False

    def note_status(self, status: int) -> None:
        """Notes what the server has answered."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= _LEAST_FAILURE:
            self.has_failed = True
            mark_failed(self._span, str(status))


@contextmanager
def request_span(tracer: Tracer, url: URL, told: str) -> Iterator[Request]:
    """Makes the span of one request, for code without a `yield` of an async generator.

    Nothing of the trace is sent along: strangers need not know of it.

    Args:
        tracer: Makes it.
        url: Where the request goes.
        told: What is told of the address.
    """
    attributes: dict[str, str | int] = {
        "http.request.method": "GET",
        "url.full": told,
        SERVER_ADDRESS: url.host or "",
    }
    if url.port is not None:
        attributes[SERVER_PORT] = url.port
    span = tracer.start_span("GET", kind=SpanKind.CLIENT, attributes=attributes)
    request = Request(span)
    try:
        yield request
    except asyncio.CancelledError:
        span.set_attribute("app.cancelled", True)  # noqa: FBT003 - the name says it
        raise
    except Exception as error:
        if not request.has_failed:
            mark_failed(span, error)
        raise
    finally:
        span.end()
