"""What a server has done since it was started or asked to forget."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(slots=True, kw_only=True)
class Totals:
    """Counts and sums over all requests that do work.

    Args:
        requests: Requests.
        loads: Loads begun.
        failed_loads: Loads that failed.
        aborted_loads: Loads that ended with their requester.
        evictions: Models unloaded to make room or for other load options.
        unloads: Models unloaded for any reason.
        prompt_tokens: Tokens of prompts.
        cached_tokens: Those of them that needed not be read.
        output_tokens: Tokens produced.
        tokens_after_disconnect: Those of them that nobody was there for.
        slot_waits: Requests that waited for a slot of a loaded model.
        slot_wait_seconds: How long all of them waited.
        max_slot_wait_seconds: How long the unluckiest one waited.
        refused: Requests refused because the load queue was full.
        max_concurrent_requests: By model, the most requests that were here at once.
    """

    requests: int = 0
    loads: int = 0
    failed_loads: int = 0
    aborted_loads: int = 0
    evictions: int = 0
    unloads: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    tokens_after_disconnect: int = 0
    slot_waits: int = 0
    slot_wait_seconds: float = 0.0
    max_slot_wait_seconds: float = 0.0
    refused: int = 0
    max_concurrent_requests: dict[str, int] = field(default_factory=dict)
    _current: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def request(self, model: str) -> Iterator[None]:
        """Count a request for a model while it is here."""
        self.requests += 1
        self._current[model] += 1
        highest = self.max_concurrent_requests.get(model, 0)
        self.max_concurrent_requests[model] = max(highest, self._current[model])
        try:
            yield
        finally:
            self._current[model] -= 1

    def note_slot_wait(self, seconds: float) -> None:
        """Note that a request has waited for a slot."""
        self.slot_waits += 1
        self.slot_wait_seconds += seconds
        self.max_slot_wait_seconds = max(self.max_slot_wait_seconds, seconds)

    def clear(self) -> None:
        """Forget all but who is here now."""
        fresh = Totals()
        for entry in fields(self):
            if entry.name != "_current":
                setattr(self, entry.name, getattr(fresh, entry.name))

    def dump(self) -> dict[str, Any]:
        """The totals as a JSON object."""
        return {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name != "_current"
        }
