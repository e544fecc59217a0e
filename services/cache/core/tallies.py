"""Running counts of one layer, per window of time; what GetStats reports."""

from collections.abc import Sequence

import numpy as np

from services.cache.core.model import Level, Lookup, WriteOutcome
from services.cache.core.savings import Savings
from services.cache.core.sketches import Counts
from services.cache.core.spans import (
    AGES,
    AGES_BEGIN,
    KIND_PLACES,
    TIMES,
    TIMES_BEGIN,
    WIDTH,
    HitKind,
    Place,
    Span,
)
from services.cache.core.windows import SPANS_SECONDS, Windows

__all__ = ["LayerTally"]

_LEVEL_PLACES = tuple((level, KIND_PLACES[HitKind(level.value)]) for level in Level)
_NOT_TAKEN = (WriteOutcome.DROPPED, WriteOutcome.REFUSED)


class LayerTally:
    """Running counts of a layer; `now` is always seconds on the monotonic clock.

    Args:
        now: When counting begins.
    """

    def __init__(self, now: float) -> None:
        self._windows = Windows(WIDTH, now)

    def add_lookup(self, lookup: Lookup, duration_seconds: float, now: float) -> None:
        """Counts a lookup call, per item, and its time, per call."""
        counts = self._windows.at(now)
        counts[Place.LOOKUPS] += len(lookup.hits)
        hits = [hit for hit in lookup.hits if hit is not None]
        levels = [hit.level for hit in hits]
        for level, place in _LEVEL_PLACES:
            counts[place] += levels.count(level)
        for hit in hits:
            counts[AGES_BEGIN + AGES.index(hit.age_seconds)] += 1
        if lookup.degraded:
            counts[Place.DEGRADED_MISSES] += len(lookup.hits) - len(hits)
        if lookup.rejected_count:
            counts[Place.REJECTED_VALUES] += lookup.rejected_count
        if lookup.invalidated_count:
            counts[Place.INVALIDATED_VALUES] += lookup.invalidated_count
        _add_time(counts, duration_seconds)

    def add_semantic_lookup(
        self,
        kind: HitKind | None,
        duration_seconds: float,
        now: float,
        *,
        age_seconds: float | None = None,
        degraded: bool = False,
    ) -> None:
        """Counts a lookup of a question; `kind` is None where nothing was found for certain."""
        counts = self._windows.at(now)
        counts[Place.LOOKUPS] += 1
        if kind is not None:
            counts[KIND_PLACES[kind]] += 1
            if age_seconds is not None:
                counts[AGES_BEGIN + AGES.index(age_seconds)] += 1
        elif degraded:
            counts[Place.DEGRADED_MISSES] += 1
        _add_time(counts, duration_seconds)

    def add_rejected(self, count: int, now: float) -> None:
        """Counts values found that failed their check, outside of a lookup of items."""
        self._windows.at(now)[Place.REJECTED_VALUES] += count

    def add_hit(self, kind: HitKind, now: float) -> None:
        """Counts what became of a lookup that has been counted already."""
        self._windows.at(now)[KIND_PLACES[kind]] += 1

    def add_bypasses(self, count: int, now: float) -> None:
        """Counts items not looked for."""
        self._windows.at(now)[Place.BYPASSES] += count

    def add_evictions(self, count: int, now: float) -> None:
        """Counts items pushed out of the local level."""
        self._windows.at(now)[Place.EVICTIONS] += count

    def add_writes(self, outcomes: Sequence[WriteOutcome], now: float) -> None:
        """Counts values handed over."""
        counts = self._windows.at(now)
        counts[Place.STORED] += outcomes.count(WriteOutcome.STORED)
        counts[Place.NOT_STORED] += sum(outcomes.count(each) for each in _NOT_TAKEN)

    def add_savings(self, savings: Savings, now: float, *, coalesced: bool = False) -> None:
        """Counts what a hit has saved, or a caller who waited for another one's answer."""
        first = Place.COALESCED_PROMPT_TOKENS if coalesced else Place.SAVED_PROMPT_TOKENS
        self._windows.at(now)[first : first + 3] += np.array(
            (
                savings.prompt_token_count,
                savings.completion_token_count,
                round(savings.seconds * 1e6),
            ),
            np.int64,
        )

    def add_generated(self, savings: Savings, now: float) -> None:
        """Counts what a value that was stored has cost."""
        self._windows.at(now)[Place.GENERATED_TOKENS] += savings.token_count

    def add_verdict(self, *, was_right: bool, now: float) -> None:
        """Counts that an answer given to a similar question was verified."""
        counts = self._windows.at(now)
        counts[Place.VERIFIED] += 1
        counts[Place.WRONG] += not was_right

    def spans(self, now: float) -> tuple[Span, ...]:
        """Returns the last minute, the last 5 minutes, the last hour and all time, in this order.

        They do not change any more.
        """
        sums = self._windows.sums(now)
        return tuple(map(Span, SPANS_SECONDS, sums))


def _add_time(counts: Counts, seconds: float) -> None:
    counts[Place.LOOKUP_TIME] += round(seconds * 1e6)
    counts[TIMES_BEGIN + TIMES.index(seconds)] += 1
