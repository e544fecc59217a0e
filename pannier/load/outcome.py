"""What became of a question."""

from dataclasses import dataclass

__all__ = ["CANCELLED", "Outcome"]

CANCELLED = "CANCELLED_BY_US"
"""Error of a question that was broken off because the run ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a question.

    Attributes:
        error: Why it was not answered; empty where it was.
        cached: Whether the answer came from the cache.
        degraded: Whether something could not be done as it should have been.
        first_text_after: When its first text came, monotonic seconds; None where none came.
    """

    error: str = ""
    cached: bool = False
    degraded: bool = False
    first_text_after: float | None = None
