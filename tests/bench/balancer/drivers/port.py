"""What the load generator asks of a client."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from tests.bench.balancer.traces import Request

__all__ = ["ClientSession", "Failed", "Progress"]


class Failed(Exception):
    """A request failed; the text is the kind of failure, a word without figures in it."""


@dataclass(slots=True)
class Progress:
    """What a request has seen so far; instants are those of `time.perf_counter`.

    The clock of uvloop's event loop counts whole milliseconds only.

    Attributes:
        first_at: When the first text that is not empty came, or the vectors.
        last_at: When the last one came.
        longest_gap: Longest time between two of them, wall seconds.
        token_count: Tokens of the answer that came, or of the texts.
        message_count: Pieces that they came in.
    """

    first_at: float | None = field(default=None)
    last_at: float = 0.0
    longest_gap: float = 0.0
    token_count: int = 0
    message_count: int = 0

    def note(self) -> None:
        """Notes that text, or vectors, came."""
        now = time.perf_counter()
        if self.first_at is None:
            self.first_at = now
        else:
            self.longest_gap = max(self.longest_gap, now - self.last_at)
        self.last_at = now
        self.message_count += 1


class ClientSession(Protocol):
    """A client with its connections; used as an asynchronous context manager."""

    async def __aenter__(self) -> "ClientSession":
        """Opens it."""
        ...

    async def __aexit__(self, *details: object) -> None:
        """Closes its connections."""
        ...

    async def chat(self, request: Request, system: str, user: str, progress: Progress) -> None:
        """Has a conversation answered.

        Args:
            request: The request.
            system: System message; empty for none.
            user: Message of the user.
            progress: Told of each text that comes.

        Raises:
            Failed: The answer is missing or incomplete.
        """
        ...

    async def embed(self, request: Request, texts: list[str], progress: Progress) -> None:
        """Has texts turned into vectors.

        Raises:
            Failed: Not every text got its vector.
        """
        ...
