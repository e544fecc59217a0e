"""What the last requests were and what became of them, for tests of clients."""

import itertools
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from aiohttp import web

_KEPT_ENTRIES = 2000


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request.

    Args:
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
    faults: list[str] = field(default_factory=list)


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
        return [asdict(entry) for entry in self._entries]
