"""How long answers are: distributions of their token counts, by model, kind of work and tenant."""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.balancer.core.demand import Kind

__all__ = ["OutputLengths"]

# A third of an octave each, up to 2**18 tokens.
_EDGES = (0, *sorted({round(2 ** (step / 3)) for step in range(55)}))
_BUCKET_COUNT = len(_EDGES) - 1
# No answer is predicted to be longer than it can be seen to be.
_LAST_START = (_EDGES[-1] + _EDGES[-2]) / 2

_RETAINED_SHARE = 0.98
_RESCALE_ABOVE = 1e100
# What the next more general distribution counts for, in answers.
_PRIOR_WEIGHT = 10.0
# A tenant's habits of last week say a third of what they said then.
_FADE_SECONDS = 7 * 86_400.0
_FADE_STEP_SECONDS = 60.0
_MAXIMUM_TENANT_COUNT = 1000
_MAXIMUM_MODEL_COUNT = 1000

_PRIOR_MEDIAN = 130.0
_PRIOR_SIGMA = 1.1


def _prior_shares() -> tuple[float, ...]:
    def beyond(length: int) -> float:
        if length == 0:
            return 1.0
        return math.erfc(math.log(length / _PRIOR_MEDIAN) / (_PRIOR_SIGMA * math.sqrt(2.0))) / 2.0

    shares = [beyond(low) - beyond(high) for low, high in itertools.pairwise(_EDGES)]
    return tuple(share / sum(shares) for share in shares)


class _Distribution:
    """A distribution of lengths, uniform within each bucket.

    Args:
        shares: Probability of each bucket; the last one is not 0.
    """

    __slots__ = ("_areas", "_reached", "_survivals")

    def __init__(self, shares: Sequence[float]) -> None:
        # Summed from the end, where the shares are small.
        survivals = list(itertools.accumulate(reversed(shares), initial=0.0))
        survivals.reverse()
        self._survivals = survivals
        self._reached = [1.0 - each for each in survivals]
        self._areas: Sequence[float] = ()

    def quantile(self, share: float) -> float:
        """Returns the length that a share of the answers, (0, 1), does not exceed."""
        index = min(max(bisect_right(self._reached, share) - 1, 0), _BUCKET_COUNT - 1)
        low, high = self._reached[index], self._reached[index + 1]
        part = min(1.0, (share - low) / (high - low)) if high > low else 1.0
        return _EDGES[index] + part * (_EDGES[index + 1] - _EDGES[index])

    def remaining(self, produced: float, cap: float) -> float:
        """Returns the mean of what is still to come, up to a cap."""
        survival, area = self._beyond(min(produced, _LAST_START))
        _, cut = self._beyond(min(cap, float(_EDGES[-1])))
        return max(0.0, area - cut) / survival

    def _beyond(self, length: float) -> tuple[float, float]:
        """Returns the share of answers longer than this, and the integral of that share."""
        # For requests that run only; most distributions are asked for nothing but a quantile.
        areas = self._areas = self._areas or self._areas_beyond()
        index = min(bisect_right(_EDGES, length) - 1, _BUCKET_COUNT - 1)
        end, next_survival = _EDGES[index + 1], self._survivals[index + 1]
        part = (end - length) / (end - _EDGES[index])
        survival = next_survival + part * (self._survivals[index] - next_survival)
        return survival, areas[index + 1] + (end - length) * (survival + next_survival) / 2.0

    def _areas_beyond(self) -> list[float]:
        """Returns the integral of the share of longer answers from each edge on."""
        slices = [
            (high - low) * (survival + next_survival) / 2.0
            for (low, high), (survival, next_survival) in zip(
                itertools.pairwise(_EDGES), itertools.pairwise(self._survivals), strict=True
            )
        ]
        return list(itertools.accumulate(reversed(slices), initial=0.0))[::-1]


@dataclass(slots=True)
class _View:
    """A distribution and what it was made of."""

    stamp: tuple[int, ...]
    distribution: _Distribution


class _Histogram:
    """Counts of answers by length, of which each new one weighs 2 % in the long run."""

    __slots__ = ("_counts", "_increment", "_total", "_updated_at", "version", "view")

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKET_COUNT
        # Instead of all old counts falling, each new one is greater.
        self._increment = 1.0
        self._total = 0.0
        self._updated_at = -math.inf
        self.version = 0
        self.view: _View | None = None

    def add(self, token_count: int, now: float) -> None:
        """Counts an answer."""
        bucket = bisect_left(_EDGES, min(max(token_count, 1), _EDGES[-1])) - 1
        self._increment /= _RETAINED_SHARE
        self._counts[bucket] += self._increment
        self._total += self._increment
        self._updated_at = max(now, self._updated_at)
        self.version += 1
        if self._increment > _RESCALE_ABOVE:
            self._counts = [count / self._increment for count in self._counts]
            self._total /= self._increment
            self._increment = 1.0

    def mixed_with(self, general: Sequence[float], now: float) -> Sequence[float]:
        """Returns the probability of each bucket, given that of a more general distribution."""
        fade = math.exp(-max(0.0, now - self._updated_at) / _FADE_SECONDS)
        scale = fade / self._increment
        total = self._total * scale + _PRIOR_WEIGHT
        return [
            (count * scale + _PRIOR_WEIGHT * share) / total
            for count, share in zip(self._counts, general, strict=True)
        ]


class OutputLengths:
    """Learns how many tokens answers have, and says what to expect.

    What little is known of a tenant is completed by what is known of the model, then of the kind
    of work, then by a log-normal distribution with a median of 130 tokens. The 1,000 combinations
    of model, kind and tenant used last are remembered.
    """

    def __init__(self) -> None:
        self._kinds = {kind: _Histogram() for kind in Kind}
        self._models: dict[tuple[str, Kind], _Histogram] = {}
        self._tenants: dict[tuple[str, Kind, str], _Histogram] = {}

    def note(self, model: str, kind: Kind, tenant: str, token_count: int, now: float) -> None:
        """Learns from a complete answer.

        Args:
            model: Placement key.
            kind: What was asked for.
            tenant: By whom.
            token_count: Tokens generated.
            now: Monotonic seconds.
        """
        self._kinds[kind].add(token_count, now)
        _entry(self._models, (model, kind), _MAXIMUM_MODEL_COUNT).add(token_count, now)
        _entry(self._tenants, (model, kind, tenant), _MAXIMUM_TENANT_COUNT).add(token_count, now)

    def median(self, model: str, kind: Kind, tenant: str, *, cap: int | None, now: float) -> float:
        """Returns the length that half of the answers do not exceed, at least 1 token.

        Args:
            model: Placement key.
            kind: What is asked for.
            tenant: By whom.
            cap: Most tokens that may be generated, at least 1; None for no limit.
            now: Monotonic seconds.
        """
        length = self._distribution(model, kind, tenant, now).quantile(0.5)
        return max(1.0, length if cap is None else min(length, cap))

    def remaining(
        self, model: str, kind: Kind, tenant: str, *, produced: int, cap: int | None, now: float
    ) -> float:
        """Returns how many tokens are still to come on average, at least 1.

        Args:
            model: Placement key.
            kind: What was asked for.
            tenant: By whom.
            produced: Tokens that have come.
            cap: Most tokens that may be generated, at least 1; None for no limit.
            now: Monotonic seconds.
        """
        limit = math.inf if cap is None else float(cap)
        distribution = self._distribution(model, kind, tenant, now)
        return max(1.0, min(distribution.remaining(max(produced, 0), limit), limit - produced))

    def _distribution(self, model: str, kind: Kind, tenant: str, now: float) -> _Distribution:
        found = (
            self._kinds[kind],
            _touch(self._models, (model, kind)),
            _touch(self._tenants, (model, kind, tenant)),
        )
        histograms = [each for each in found if each is not None]
        stamp = (*(each.version for each in histograms), math.floor(now / _FADE_STEP_SECONDS))
        narrowest = histograms[-1]
        if narrowest.view is None or narrowest.view.stamp != stamp:
            shares: Sequence[float] = _PRIOR_SHARES
            for histogram in histograms:
                shares = histogram.mixed_with(shares, stamp[-1] * _FADE_STEP_SECONDS)
            narrowest.view = _View(stamp, _Distribution(shares))
        return narrowest.view.distribution


def _touch(table: dict[Any, _Histogram], key: tuple[object, ...]) -> _Histogram | None:
    """Returns an entry, which becomes the one used last."""
    histogram = table.pop(key, None)
    if histogram is not None:
        table[key] = histogram
    return histogram


def _entry(table: dict[Any, _Histogram], key: tuple[object, ...], maximum_count: int) -> _Histogram:
    """Returns an entry, made where it is missing in place of the one used least lately."""
    histogram = _touch(table, key)
    if histogram is None:
        if len(table) >= maximum_count:
            del table[next(iter(table))]
        histogram = table[key] = _Histogram()
    return histogram


_PRIOR_SHARES = _prior_shares()
