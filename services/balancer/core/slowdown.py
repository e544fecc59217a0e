"""How much requests that run at the same time on a backend slow each answer down."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Slowdown"]

# The rate of one answer among k: rate(1) / k**0.6, until a backend has shown otherwise.
_PRIOR_EXPONENT = 0.6
_LEVEL_COUNT = 4
_GAIN = 0.1
_MAXIMUM_WEIGHT = 20.0
_PRIOR_WEIGHT = 4.0
# One stall is hardly a matter of concurrency.
_WIDEST_STEP = math.log(2.0)

_Key = tuple[str, str]


@dataclass(slots=True)
class _Level:
    """What was seen among so many requests beside what the prior says of them.

    Attributes:
        excess: Mean excess of the logarithm of the time per token.
        weight: Samples that it is worth, [0, 20].
    """

    excess: float = 0.0
    weight: float = 0.0

    def add(self, sample: float, weight: float) -> None:
        self.weight = min(_MAXIMUM_WEIGHT, self.weight + weight)
        gain = min(1.0, max(_GAIN * weight, weight / self.weight))
        self.excess += gain * max(-_WIDEST_STEP, min(_WIDEST_STEP, sample - self.excess))


class Slowdown:
    """Learns, for 1, 2, 3 and from 4 on requests, what each answer takes longer than alone."""

    def __init__(self) -> None:
        self._levels: dict[_Key, tuple[_Level, ...]] = {}
        self._expected: dict[_Key, tuple[float, ...]] = {}
        self._prior = tuple(self.prior(level + 1) for level in range(_LEVEL_COUNT))

    @staticmethod
    def prior(concurrency: int) -> float:
        """Returns the logarithm of the slowdown to expect where nothing is known."""
        return _PRIOR_EXPONENT * math.log(concurrency)

    def note(self, key: _Key, concurrency: int, slowdown: float, weight: float) -> None:
        """Learns from an answer.

        Args:
            key: Backend and model.
            concurrency: Requests active on the backend, at least 1.
            slowdown: Logarithm of the time per token, less that of an answer alone.
            weight: What the sample is worth beside others, (0, 1].
        """
        levels = self._levels.get(key)
        if levels is None:
            levels = self._levels[key] = tuple(_Level() for _ in range(_LEVEL_COUNT))
        excess = slowdown - self.prior(concurrency)
        levels[min(concurrency, _LEVEL_COUNT) - 1].add(excess, weight)
        self._expected[key] = self._compute(levels)

    def expected(self, key: _Key, concurrency: int) -> float:
        """Returns the logarithm of the slowdown; it never falls as concurrency rises.

        Args:
            key: Backend and model.
            concurrency: Requests active on the backend; less than 1 counts as 1.
        """
        expected = self._expected.get(key, self._prior)
        if concurrency <= _LEVEL_COUNT:
            return expected[max(concurrency, 1) - 1]
        return expected[-1] + self.prior(concurrency) - self._prior[-1]

    def forget(self, backend_id: str) -> None:
        """Forgets a backend."""
        for key in [key for key in self._levels if key[0] == backend_id]:
            del self._levels[key], self._expected[key]

    def _compute(self, levels: tuple[_Level, ...]) -> tuple[float, ...]:
        if sum(level.weight > 0 for level in levels) == 1:
            # Nothing to compare it with.
            return self._prior
        # What all levels have in common is the backend's speed, and none of this.
        weight = sum(level.weight for level in levels)
        common = sum(level.weight * level.excess for level in levels) / weight
        trusts = [level.weight / (level.weight + _PRIOR_WEIGHT) for level in levels]
        excesses = [level.excess - common for level in levels]
        shrunk = {
            index: trust * excess
            for index, (trust, excess) in enumerate(zip(trusts, excesses, strict=True))
            if trust
        }
        slowdown, slowdowns = -math.inf, []
        for index, (trust, excess) in enumerate(zip(trusts, excesses, strict=True)):
            between = _between(shrunk, index)
            own = self._prior[index] + between + trust * (excess - between)
            slowdown = max(slowdown, own)
            slowdowns.append(slowdown)
        return tuple(slowdowns)


def _between(shrunk: Mapping[int, float], index: int) -> float:
    """Returns what the nearest levels seen below and above let expect of one, logarithmically."""
    below = max((each for each in shrunk if each < index), default=None)
    above = min((each for each in shrunk if each > index), default=None)
    if below is None or above is None:
        nearest = above if below is None else below
        return 0.0 if nearest is None else shrunk[nearest]
    span = math.log((above + 1) / (below + 1))
    part = math.log((index + 1) / (below + 1)) / span
    return (1.0 - part) * shrunk[below] + part * shrunk[above]
