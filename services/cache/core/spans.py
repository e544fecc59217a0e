"""What happened to one layer within a span of time: a vector of counts, and how it is read.

A lookup is one item looked for; what is bypassed is none. It ends as a hit of one of four kinds
(local or shared, exact or similar), as a negative hit, or as a miss. Two kinds of hits come
later, to a lookup that has been counted as a miss: coalesced, where a caller waited for the answer
that another one was computing, and confirmed, where a candidate turned out to be right.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum

from services.cache.core.savings import Savings
from services.cache.core.sketches import Bins, Counts

__all__ = [
    "AGES",
    "AGES_BEGIN",
    "KIND_PLACES",
    "TIMES",
    "TIMES_BEGIN",
    "WIDTH",
    "HitKind",
    "Place",
    "Span",
]

# 1 us to 1000 s, and 1 ms to 32 days, beyond the longest time to live.
TIMES = Bins.spanning(1e-6, 1e3)
AGES = Bins.spanning(1e-3, 32 * 86_400.0)


class HitKind(Enum):
    """How a value was found."""

    LOCAL = "local"
    SHARED = "shared"
    COALESCED = "coalesced"
    NEGATIVE = "negative"
    EXACT = "exact"
    SIMILAR = "similar"
    CONFIRMED = "confirmed"


class Place(IntEnum):
    """Where a count stands in the vector of a layer; times are in microseconds."""

    LOOKUPS = 0
    BYPASSES = 1
    DEGRADED_MISSES = 2
    REJECTED_VALUES = 3
    INVALIDATED_VALUES = 4
    EVICTIONS = 5
    STORED = 6
    NOT_STORED = 7
    LOOKUP_TIME = 8
    SAVED_PROMPT_TOKENS = 9
    SAVED_COMPLETION_TOKENS = 10
    SAVED_TIME = 11
    COALESCED_PROMPT_TOKENS = 12
    COALESCED_COMPLETION_TOKENS = 13
    COALESCED_TIME = 14
    GENERATED_TOKENS = 15
    VERIFIED = 16
    WRONG = 17


KIND_PLACES = {kind: len(Place) + number for number, kind in enumerate(HitKind)}
TIMES_BEGIN = len(Place) + len(HitKind)
AGES_BEGIN = TIMES_BEGIN + TIMES.count
WIDTH = AGES_BEGIN + AGES.count


@dataclass(frozen=True, slots=True)
class Span:
    """What happened to a layer within a span of time.

    Attributes:
        seconds: Length of the span; None for all time since the start.
        counts: The counts, in the order of this module.
    """

    seconds: float | None
    counts: Counts

    def hit_count(self, kind: HitKind) -> int:
        """Returns how many hits of a kind there were."""
        return int(self.counts[KIND_PLACES[kind]])

    @property
    def lookup_count(self) -> int:
        """Items looked for, those bypassed not counted."""
        return self._count(Place.LOOKUPS)

    @property
    def bypass_count(self) -> int:
        """Items not looked for, as their callers wished."""
        return self._count(Place.BYPASSES)

    @property
    def miss_count(self) -> int:
        """Lookups that found nothing; confirmed candidates are not among them any more."""
        found = (HitKind.LOCAL, HitKind.SHARED, HitKind.NEGATIVE, HitKind.EXACT, HitKind.SIMILAR)
        rest = self.lookup_count - sum(map(self.hit_count, (*found, HitKind.CONFIRMED)))
        # A candidate may be confirmed in a later span than it was found in.
        return max(0, rest)

    @property
    def degraded_miss_count(self) -> int:
        """Misses while the shared store was away."""
        return self._count(Place.DEGRADED_MISSES)

    @property
    def rejected_value_count(self) -> int:
        """Values found that failed their check."""
        return self._count(Place.REJECTED_VALUES)

    @property
    def invalidated_value_count(self) -> int:
        """Values found that had been invalidated."""
        return self._count(Place.INVALIDATED_VALUES)

    @property
    def eviction_count(self) -> int:
        """Items pushed out of the local level."""
        return self._count(Place.EVICTIONS)

    @property
    def stored_count(self) -> int:
        """Items that the shared store has taken."""
        return self._count(Place.STORED)

    @property
    def dropped_store_count(self) -> int:
        """Items that the shared store could not take."""
        return self._count(Place.NOT_STORED)

    @property
    def lookup_seconds(self) -> float:
        """Time of all lookup calls."""
        return self._count(Place.LOOKUP_TIME) / 1e6

    @property
    def saved(self) -> Savings:
        """What hits have saved."""
        return self._savings(Place.SAVED_PROMPT_TOKENS)

    @property
    def coalesced(self) -> Savings:
        """What callers have saved who got an answer that another one computed."""
        return self._savings(Place.COALESCED_PROMPT_TOKENS)

    @property
    def hit_ratio(self) -> float:
        """Hits over lookups, [0, 1], neither negative nor coalesced ones counted."""
        return self._over_lookups(
            HitKind.LOCAL, HitKind.SHARED, HitKind.EXACT, HitKind.SIMILAR, HitKind.CONFIRMED
        )

    @property
    def effective_hit_ratio(self) -> float:
        """The same with coalesced ones."""
        return self._over_lookups(*(kind for kind in HitKind if kind is not HitKind.NEGATIVE))

    @property
    def token_hit_ratio(self) -> float:
        """Tokens that hits have saved, over these and the tokens of the values stored, [0, 1]."""
        saved = self.saved.token_count
        generated = self._count(Place.GENERATED_TOKENS)
        return saved / (saved + generated) if saved else 0.0

    @property
    def verified_count(self) -> int:
        """Answers given to similar questions that were verified."""
        return self._count(Place.VERIFIED)

    @property
    def wrong_count(self) -> int:
        """Those of them that were wrong."""
        return self._count(Place.WRONG)

    @property
    def lookup_times(self) -> tuple[float, ...] | None:
        """p50, p90, p95 and p99 of the time of lookup calls in seconds; None without any."""
        return TIMES.quantiles(self.counts[TIMES_BEGIN:AGES_BEGIN])

    @property
    def hit_ages(self) -> tuple[float, ...] | None:
        """The same of the time since the values found were stored."""
        return AGES.quantiles(self.counts[AGES_BEGIN:])

    def _count(self, place: Place) -> int:
        return int(self.counts[place])

    def _savings(self, first: int) -> Savings:
        prompt_tokens, completion_tokens, microseconds = self.counts[first : first + 3].tolist()
        return Savings(prompt_tokens, completion_tokens, microseconds / 1e6)

    def _over_lookups(self, *kinds: HitKind) -> float:
        if self.lookup_count == 0:
            return 0.0
        return min(1.0, sum(map(self.hit_count, kinds)) / self.lookup_count)
