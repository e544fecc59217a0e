"""What lookups and stores come to."""

from dataclasses import dataclass
from enum import Enum

__all__ = ["Hit", "Kept", "Level", "Lookup", "NewValue", "Result", "WriteOutcome"]


class Level(Enum):
    """Where a hit was found."""

    LOCAL = "local"
    SHARED = "shared"


class Result(Enum):
    """What a lookup came to; an error is a miss for want of the shared store."""

    HIT = "hit"
    MISS = "miss"
    ERROR = "error"


class WriteOutcome(Enum):
    """What became of a value handed over.

    Attributes:
        STORED: The shared store has taken it.
        DROPPED: The shared store is away; the value is kept locally only and not queued, since a
            late write could bring back what has been replaced meanwhile.
        REFUSED: The shared store would not take it, for want of memory for example.
        TOO_LARGE: Larger than a value may be; kept nowhere.
        NOT_REUSABLE: An answer that was cut short; kept nowhere.
    """

    STORED = "stored"
    DROPPED = "dropped"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    NOT_REUSABLE = "not_reusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A value found.

    Attributes:
        payload: The value's own encoding.
        age_seconds: Time since it was stored, 0 or more.
        level: Where it was found.
    """

    payload: bytes
    age_seconds: float
    level: Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What was found for a batch of keys.

    Attributes:
        hits: One per key asked for, in order; None for a miss.
        degraded: Whether the shared store could not be asked.
        rejected_count: Values found that failed their check.
    """

    hits: tuple[Hit | None, ...]
    degraded: bool
    rejected_count: int = 0

    @property
    def result(self) -> Result:
        """What the batch as a whole came to: a hit only where nothing is missing."""
        if None not in self.hits:
            return Result.HIT
        return Result.ERROR if self.degraded else Result.MISS


@dataclass(frozen=True, slots=True)
class NewValue:
    """A value to keep.

    Attributes:
        key: Its Redis key.
        payload: Its own encoding.
    """

    key: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a batch of values.

    Attributes:
        outcomes: One per value, in order.
        degraded: Whether the shared store could not be asked.
    """

    outcomes: tuple[WriteOutcome, ...]
    degraded: bool

    @property
    def stored_count(self) -> int:
        """Values that the shared store has taken."""
        return self.outcomes.count(WriteOutcome.STORED)
