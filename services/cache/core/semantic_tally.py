"""What the semantic layer knows of itself."""

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["SemanticTally"]


@dataclass(slots=True)
class SemanticTally:
    """Counts of the semantic layer that no other layer has.

    Attributes:
        rejections: Similar questions that were refused, by guard.
        verified_count: Answers given to similar questions that were verified.
        wrong_count: Those of them that were wrong.
        entry_count: Questions in memory.
        partition_count: Partitions in memory.
        size_bytes: Bytes of the questions in memory.
        feed_lag_seconds: How long after another replica's change this one has learned of it, the
            last time; None before the first.
    """

    rejections: Counter[str] = field(default_factory=Counter)
    verified_count: int = 0
    wrong_count: int = 0
    entry_count: int = 0
    partition_count: int = 0
    size_bytes: int = 0
    feed_lag_seconds: float | None = None
