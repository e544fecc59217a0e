"""What lookups and stores are told, and what they come to."""

from dataclasses import dataclass
from enum import Enum

from services.cache.core.keys import EntryKey

__all__ = [
    "Control",
    "Hit",
    "Keeping",
    "Kept",
    "Level",
    "Lookup",
    "NewValue",
    "Result",
    "Scope",
    "WriteOutcome",
]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a value belongs to; invalidating any of it makes the value unreadable.

    Attributes:
        tenant_id: Owner.
        namespace: Compartment of the tenant; empty where none is named.
        model_digest: Model whose output the value is, in lower case; empty where there is none.
    """

    tenant_id: str
    namespace: str = ""
    model_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Which values a caller accepts.

    Attributes:
        bypass: Look nowhere.
        max_age_seconds: Oldest value to accept; None for any age.
        min_created_ms: Accept only values created after this, milliseconds since the Unix epoch;
            None for all.
    """

    bypass: bool = False
    max_age_seconds: float | None = None
    min_created_ms: int | None = None

    def accepts(self, created_ms: int, now_ms: int) -> bool:
        """Returns whether a value will do.

        Args:
            created_ms: When it was created.
            now_ms: The time, milliseconds since the Unix epoch.
        """
        if self.min_created_ms is not None and created_ms <= self.min_created_ms:
            return False
        if self.max_age_seconds is None:
            return True
        return now_ms - created_ms <= self.max_age_seconds * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How values are to be kept.

    Attributes:
        ttl_seconds: How long; None for as long as the layer does by default.
        tags: What they depend on, at most 16.
        basis_ms: When the lookup was made that missed, by the store's clock, milliseconds since
            the Unix epoch; None where that is not known.
    """

    ttl_seconds: float | None = None
    tags: tuple[str, ...] = ()
    basis_ms: int | None = None


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
        NOT_REUSABLE: An answer that was cut short, or that was only for those who waited for it;
            kept nowhere.
        INVALIDATED: Rests on what has been invalidated since; kept nowhere.
    """

    STORED = "stored"
    DROPPED = "dropped"
    REFUSED = "refused"
    TOO_LARGE = "too_large"
    NOT_REUSABLE = "not_reusable"
    INVALIDATED = "invalidated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A value found.

    Attributes:
        payload: The value's own encoding.
        level: Where it was found.
        created_ms: When its computation began, by the store's clock, milliseconds since the Unix
            epoch.
        age_seconds: Time since then, 0 or more.
        remaining_seconds: How long it will still be kept, above 0.
        delta_seconds: How long its computation took; 0 where that is not known.
        handed_over_ms: When it was handed over to those who waited for it, by the store's clock,
            milliseconds since the Unix epoch; nobody else may have it. None where it is kept.
    """

    payload: bytes
    level: Level
    created_ms: int
    age_seconds: float
    remaining_seconds: float
    delta_seconds: float = 0.0
    handed_over_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What was found for a batch of keys.

    Attributes:
        hits: One per key asked for, in order; None for a miss.
        degraded: Whether the shared store could not be asked.
        rejected_count: Values found that failed their check.
        invalidated_count: Values found that had been invalidated.
        bypassed: Whether nothing was looked for, as the caller wished.
        read_ms: When it was read, by the store's clock at the earliest, milliseconds since the Unix
            epoch; what is computed for want of a hit rests on nothing older.
    """

    hits: tuple[Hit | None, ...]
    degraded: bool
    rejected_count: int = 0
    invalidated_count: int = 0
    bypassed: bool = False
    read_ms: int = 0

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
        key: Its key.
        payload: Its own encoding.
    """

    key: EntryKey
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
