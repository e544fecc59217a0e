"""Means that follow their samples and fade with time."""

import math
from dataclasses import dataclass
from typing import Self

__all__ = ["DecayedMean"]

# A new sample counts for at least a twentieth: enough to average out noise, few enough to
# follow a backend that has become slow within twenty requests.
_MAXIMUM_WEIGHT = 20.0
# What a backend did five minutes ago counts for about a third of what it does now.
_FADE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecayedMean:
    """An exponentially weighted mean whose weight fades while no samples come.

    Attributes:
        value: The mean; 0 before the first sample.
        weight: How many samples it is worth, [0, 20], at `updated_at`; 0 before the first sample.
        updated_at: When the last sample came, seconds of a monotonic clock.
    """

    value: float = 0.0
    weight: float = 0.0
    updated_at: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there has been a sample."""
        return self.weight > 0

    def add(self, sample: float, now: float) -> Self:
        """Returns the mean with one more sample.

        Args:
            sample: The value seen.
            now: Seconds of the monotonic clock, not before the last sample.
        """
        weight = min(_MAXIMUM_WEIGHT, self.weight_at(now) + 1.0)
        value = self.value + (sample - self.value) / weight
        return type(self)(value=value, weight=weight, updated_at=now)

    def weight_at(self, now: float) -> float:
        """Returns what it is worth now, in samples.

        Args:
            now: Seconds of the monotonic clock.
        """
        return self.weight * math.exp(-max(0.0, now - self.updated_at) / _FADE_SECONDS)

    def estimate(self, prior: float, now: float, *, prior_weight: float = 1.0) -> float:
        """Returns the value to expect: the mean, drawn to the prior the less it is worth.

        Args:
            prior: What is to be expected without any sample.
            now: Seconds of the monotonic clock.
            prior_weight: How many samples the prior is worth.
        """
        weight = self.weight_at(now)
        return (self.value * weight + prior * prior_weight) / (weight + prior_weight)
