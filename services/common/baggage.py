"""What travels with a question through the suite, so that every service can tell it apart.

The rag service says once which mode a question is answered in and which id it has; the calls that
it makes on the way carry that as W3C baggage, and the services called put it on their spans, logs
and metrics. The tenant is not among it: it travels as identity, which is checked.

What comes in is not believed: of a baggage header that came from anywhere only the entries named
here are read, and only where they have the expected form. What goes out are these two entries and
nothing else. They are kept apart from OpenTelemetry's own context, so that nothing can send them
but `services.common.channels`: what Ollama or the web is sent has no baggage.
"""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry.trace import get_current_span

from services.common.tracing import QUERY_ID, RAG_MODE

__all__ = ["BAGGAGE_HEADER", "Baggage", "baggage_entries", "carry", "current_baggage"]

BAGGAGE_HEADER = "baggage"

# What the W3C recommends to let pass; a longer header is not looked at.
_MOST_HEADER_CHARACTERS = 8192
_FORMS = {
    "mode": re.compile(r"[a-z][a-z_]{0,15}"),
    "query_id": re.compile(r"[A-Za-z0-9_-]{1,64}"),
}


@dataclass(frozen=True, slots=True)
class Baggage:
    """What is known of the question that a call belongs to.

    Attributes:
        mode: How it is answered, for example `deep`; empty where not known.
        query_id: Its id; empty where not known.
    """

    mode: str = ""
    query_id: str = ""

    def attributes(self) -> dict[str, str]:
        """Returns what is known as attributes of a span."""
        known: dict[str, str] = {}
        if self.mode:
            known[RAG_MODE] = self.mode
        if self.query_id:
            known[QUERY_ID] = self.query_id
        return known

    def header(self) -> str:
        """Returns what is known as the value of a `baggage` header; empty where nothing is."""
        # Both have a form that needs no escapes.
        if self.mode and self.query_id:
            return f"mode={self.mode},query_id={self.query_id}"
        if self.mode:
            return f"mode={self.mode}"
        return f"query_id={self.query_id}" if self.query_id else ""


NO_BAGGAGE = Baggage()

current_baggage: ContextVar[Baggage] = ContextVar("current_baggage", default=NO_BAGGAGE)
"""The question that the running task works for."""


def carry(*, mode: str = "", query_id: str = "") -> None:
    """Says which question the running task works for, from now on.

    The current span gets it as attributes, the calls that follow carry it.

    Args:
        mode: How it is answered; kept as it was where empty.
        query_id: Its id; kept as it was where empty.

    Raises:
        ValueError: One of them does not have the form that other services accept.
    """
    for name, value in (("mode", mode), ("query_id", query_id)):
        if value and not _FORMS[name].fullmatch(value):
            raise ValueError(f"{name} cannot be carried: {value!r}")
    before = current_baggage.get()
    now = Baggage(mode or before.mode, query_id or before.query_id)
    current_baggage.set(now)
    get_current_span().set_attributes(now.attributes())


def baggage_entries(headers: Iterable[str]) -> Baggage:
    """Reads the values of `baggage` headers.

    Args:
        headers: As they came in, in their order; of an entry that stands twice the first counts.
    """
    known: dict[str, str] = {}
    for header in headers:
        if len(header) > _MOST_HEADER_CHARACTERS:
            continue
        for entry in header.split(","):
            name, _, value = entry.partition("=")
            name = name.strip()
            if name in _FORMS and name not in known:
                value = value.partition(";")[0].strip()
                if _FORMS[name].fullmatch(value):
                    known[name] = value
    return Baggage(**known) if known else NO_BAGGAGE
