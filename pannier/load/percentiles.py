"""Distributions of durations in bounded memory, right to within one per cent.

Values are counted in buckets whose edges are powers of one base (the idea of DDSketch: Masson, Rim
and Lee, VLDB 2019), so that two distributions can be added up.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Distribution"]

_RELATIVE_ERROR = 0.01
_BASE = (1 + _RELATIVE_ERROR) / (1 - _RELATIVE_ERROR)
_PER_LOG = 1 / math.log(_BASE)
# Shorter and longer ones are counted at the edge: at most some 1,150 buckets.
_SHORTEST_SECONDS = 1e-5
_LONGEST_SECONDS = 1e5


@dataclass(slots=True)
class Distribution:
    """Durations that were seen.

    Attributes:
        count: How many.
        total_seconds: Their sum.
        minimum_seconds: The shortest; infinite before the first.
        maximum_seconds: The longest; 0 before the first.
    """

    count: int = 0
    total_seconds: float = 0.0
    minimum_seconds: float = math.inf
    maximum_seconds: float = 0.0
    _counts: dict[int, int] = field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Takes in a duration; negative ones count as 0."""
        seconds = max(0.0, seconds)
        clamped = min(max(seconds, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        bucket = math.ceil(math.log(clamped) * _PER_LOG)
        self._counts[bucket] = self._counts.get(bucket, 0) + 1
        self.count += 1
        self.total_seconds += seconds
        self.minimum_seconds = min(self.minimum_seconds, seconds)
        self.maximum_seconds = max(self.maximum_seconds, seconds)

    def merge(self, other: "Distribution") -> None:
        """Takes in all that another one has seen."""
        for bucket, count in other._counts.items():
            self._counts[bucket] = self._counts.get(bucket, 0) + count
        self.count += other.count
        self.total_seconds += other.total_seconds
        self.minimum_seconds = min(self.minimum_seconds, other.minimum_seconds)
        self.maximum_seconds = max(self.maximum_seconds, other.maximum_seconds)

    @property
    def mean_seconds(self) -> float | None:
        """The mean; None before the first."""
        return self.total_seconds / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Returns the duration that this share of all does not exceed; None before the first.

        Args:
            share: In [0, 1]; the rank is the nearest one at or above `share * count`.
        """
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        if rank == self.count:
            return self.maximum_seconds
        reached = 0
        for bucket in sorted(self._counts):
            reached += self._counts[bucket]
            if reached >= rank:
                middle = 2 * _BASE**bucket / (1 + _BASE)
                return min(max(middle, self.minimum_seconds), self.maximum_seconds)
        raise AssertionError("counts and buckets disagree")

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Yields the buckets that are not empty: upper edge in seconds, and count."""
        for bucket in sorted(self._counts):
            yield _BASE**bucket, self._counts[bucket]
