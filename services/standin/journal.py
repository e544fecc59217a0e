"""What the last requests were and what became of them, for tests of clients."""

import itertools
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

from aiohttp import web

from services.standin.faults import NO_FAULT, Fault

_KEPT_ENTRIES = 10_000


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request.

    Args:
        fault: The fault of a request that only asks.
        number: Counts the requests of this process from 1.
        method: HTTP method.
        path: HTTP path.
        traceparent: The W3C trace context header, or "".
        started_at: When it came, epoch seconds.
        model: The model it names, or "".
        inputs: Number of texts to embed.
        outcome: `active`, `done`, `cancelled` (the client went away) or `dropped` (by a fault).
        status: HTTP status of the reply, 0 before there is one.
        tokens: Tokens produced so far; of an embedding request, tokens read.
        tokens_after_disconnect: Tokens produced after the client had gone.
        prompt_tokens: Tokens of its prompt or its texts.
        cached_tokens: Those of them that needed not be read.
        output_tokens: Tokens of its answer so far.
        load_seconds: From its arrival until it had a loaded model.
        queue_seconds: How long it then waited for a slot.
        had_slot: Whether it has been given one.
        prefill_seconds: How long its prompt, or its texts, took.
        decode_seconds: How long its answer took.
        faults: Faults that were applied to it.
    """

    number: int
    method: str
    path: str
    traceparent: str
    started_at: float
    model: str = ""
    inputs: int = 0
    outcome: str = "active"
    status: int = 0
    tokens: int = 0
    tokens_after_disconnect: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    load_seconds: float = 0.0
    queue_seconds: float = 0.0
    had_slot: bool = False
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    fault: Fault = NO_FAULT

    def dump(self) -> dict[str, Any]:
        """The entry as a JSON object."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "fault"
        }


ENTRY = web.RequestKey("entry", Entry)
"""Where a request carries its entry."""


class Journal:
    """The last requests of one server, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=_KEPT_ENTRIES)
        self._numbers = itertools.count(1)

    def open(self, request: web.Request, started_at: float) -> Entry:
        """Note a request that has just come."""
        entry = Entry(
            number=next(self._numbers),
            method=request.method,
            path=request.path,
            traceparent=request.headers.get("traceparent", ""),
            started_at=started_at,
        )
        self._entries.append(entry)
        return entry

    def clear(self) -> None:
        """Forget all requests."""
        self._entries.clear()

    def dump(self) -> list[dict[str, Any]]:
        """The requests as JSON objects."""
        return [entry.dump() for entry in self._entries]
