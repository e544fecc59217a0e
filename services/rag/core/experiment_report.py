"""Whether the variants of an experiment differ by more than chance.

Means are compared by Welch's method, which takes neither equal variances nor equal sizes for
granted; shares by Wilson's interval, which holds for few ratings too.
"""

from dataclasses import dataclass
from math import exp, inf, lgamma, log, pi, sqrt
from statistics import NormalDist

__all__ = [
    "FeedbackCounts",
    "MeanDifference",
    "Sample",
    "VariantFigures",
    "share_interval",
    "welch_difference",
]

_TAIL = 0.975
_LEAST_COUNT = 2


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """How many ratings of each kind there are."""

    positive: int = 0
    neutral: int = 0
    negative: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What is known of figures: how many, their mean and the variance of the sample."""

    count: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class MeanDifference:
    """A difference of means with the interval that holds the true one at 95 %."""

    difference: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFigures:
    """What the log knows of a variant.

    Attributes:
        variant: Its name.
        query_count: Queries it had.
        failed_count: Of these, those that failed or were cancelled.
        degraded_count: Of these, those with a degradation.
        cached_count: Of these, those whose answers came from the cache.
        quality: Quality of the answers that have one; None without any.
        duration_p50_seconds: Median duration of those that succeeded; None without any.
        duration_p95_seconds: Their 95th percentile.
        feedback: Ratings.
        cost_nanos: What its queries cost.
    """

    variant: str
    query_count: int = 0
    failed_count: int = 0
    degraded_count: int = 0
    cached_count: int = 0
    quality: Sample | None = None
    duration_p50_seconds: float | None = None
    duration_p95_seconds: float | None = None
    feedback: FeedbackCounts = FeedbackCounts()
    cost_nanos: int = 0


def welch_difference(base: Sample | None, other: Sample | None) -> MeanDifference | None:
    """Returns how much greater the second mean is; None where either has less than two figures."""
    if base is None or other is None or min(base.count, other.count) < _LEAST_COUNT:
        return None
    parts = [each.variance / each.count for each in (base, other)]
    error = sqrt(sum(parts))
    difference = other.mean - base.mean
    if error == 0:
        return MeanDifference(difference, difference, difference)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (each.count - 1) for part, each in zip(parts, (base, other), strict=True)
    )
    reach = _student_quantile(freedom) * error
    return MeanDifference(difference, difference - reach, difference + reach)


def share_interval(positive: int, total: int) -> tuple[float, float] | None:
    """Returns the shares that so many out of a total are compatible with, at 95 %; None of none."""
    if not total:
        return None
    z = NormalDist().inv_cdf(_TAIL)
    share = positive / total
    center = share + z * z / (2 * total)
    reach = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (center - reach) / scale), min(1.0, (center + reach) / scale)


def _student_quantile(freedom: float) -> float:
    """Returns the 97.5th percentile of Student's t, by bisection of its distribution.

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    if freedom == inf:
        return NormalDist().inv_cdf(_TAIL)
    low, high = 1.9, 13.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if _student_distribution(middle, freedom) < _TAIL:
            low = middle
        else:
            high = middle
    return low


def _student_distribution(value: float, freedom: float) -> float:
    """Integrates the density of Student's t up to a positive value, by Simpson's rule."""
    logarithm = lgamma((freedom + 1) / 2) - lgamma(freedom / 2) - log(freedom * pi) / 2

    def density(at: float) -> float:
        return exp(logarithm - (freedom + 1) / 2 * log(1 + at * at / freedom))

    steps = 200
    width = value / steps
    total = density(0) + density(value)
    total += sum((4 if step % 2 else 2) * density(step * width) for step in range(1, steps))
    return 0.5 + total * width / 3
