"""When questions arrive: a rate over time, and instants drawn from it."""

import math
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count

__all__ = ["Stage", "Timetable", "arrival_times"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of time over which the rate changes evenly.

    Attributes:
        seconds: Its length, above 0.
        start_rate: Arrivals per second when it begins, not negative.
        end_rate: Arrivals per second when it ends; the same for a steady rate.
    """

    seconds: float
    start_rate: float
    end_rate: float

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: A length or a rate is out of range.
        """
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError("a stage must last longer than 0 seconds")
        if not all(math.isfinite(each) and each >= 0 for each in (self.start_rate, self.end_rate)):
            raise ValueError("a rate must not be negative")

    @property
    def expected_count(self) -> float:
        """Arrivals to expect in it."""
        return self.seconds * (self.start_rate + self.end_rate) / 2

    def scaled(self, ratio: float) -> "Stage":
        """Returns the stage with its length multiplied and its rates kept."""
        return replace(self, seconds=self.seconds * ratio)

    def seconds_until(self, expected: float) -> float:
        """Returns after how long so many arrivals are to be expected.

        Solves `start * t + slope * t^2 / 2 = expected`, in the form that loses no digits.
        """
        if expected <= 0:
            return 0.0
        slope = (self.end_rate - self.start_rate) / self.seconds
        # Rounding may put the root of a falling rate that ends at 0 a hair below 0.
        root = math.sqrt(max(0.0, self.start_rate**2 + 2 * slope * expected))
        total = self.start_rate + root
        # A rate so small that its square is nothing.
        return min(self.seconds, 2 * expected / total) if total else self.seconds


class Timetable:
    """The rate over a whole run.

    Args:
        stages: One after the other.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        self._ends = list(accumulate((each.seconds for each in self.stages), initial=0.0))
        self._counts = list(accumulate((each.expected_count for each in stages), initial=0.0))

    @property
    def seconds(self) -> float:
        """How long the run is."""
        return self._ends[-1]

    @property
    def expected_count(self) -> float:
        """Arrivals to expect in the whole run."""
        return self._counts[-1]

    def rate_at(self, seconds: float) -> float:
        """Returns the rate at a time since the beginning; 0 outside of the run."""
        if not 0 <= seconds < self.seconds:
            return 0.0
        index = bisect_right(self._ends, seconds) - 1
        stage = self.stages[index]
        share = (seconds - self._ends[index]) / stage.seconds
        return stage.start_rate + share * (stage.end_rate - stage.start_rate)

    def time_of(self, expected: float) -> float:
        """Returns when so many arrivals are to be expected, at most the whole run's count."""
        index = min(bisect_right(self._counts, expected), len(self.stages)) - 1
        stage = self.stages[index]
        return self._ends[index] + stage.seconds_until(expected - self._counts[index])


def arrival_times(timetable: Timetable, *, rng: random.Random | None) -> Iterator[float]:
    """Yields when questions arrive, in seconds since the beginning, in order.

    Args:
        timetable: The rate.
        rng: Draws the gaps of a Poisson process, whose rate may change (the gaps are exponential in
            expected arrivals, and the timetable says when these are reached); None for arrivals as
            even as the rate allows.
    """
    if rng is None:
        for number in count():
            if number >= timetable.expected_count:
                return
            yield timetable.time_of(number)
    reached = 0.0
    while rng is not None:
        reached += rng.expovariate(1.0)
        if reached >= timetable.expected_count:
            return
        yield timetable.time_of(reached)
