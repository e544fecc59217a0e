"""How much larger the true ratio of errors may be than the one observed."""

import math
from functools import lru_cache

__all__ = ["error_upper_bound"]

_CONFIDENCE = 0.95
_BISECTIONS = 50
_FRACTION_STEPS = 10_000
_FRACTION_PRECISION = 1e-14
_TINY = 1e-300


@lru_cache(maxsize=4096)
def error_upper_bound(wrong_count: int, verified_count: int) -> float:
    """Returns the ratio of errors that is exceeded with a probability of 5 % at most.

    The one-sided bound of Clopper and Pearson, the 95 % quantile of Beta(wrong + 1, right): with a
    larger ratio so few errors would be seen in less than 5 % of all cases. Without any error, 299
    verdicts are needed for a bound of 1 %.

    Args:
        wrong_count: Errors seen, at most `verified_count`.
        verified_count: Cases looked at.

    Returns:
        A ratio, [0, 1]; 1 where nothing was looked at.
    """
    right_count = verified_count - wrong_count
    if right_count <= 0:
        return 1.0
    low, high = wrong_count / verified_count, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _beta_share_below(middle, wrong_count + 1.0, float(right_count)) < _CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _beta_share_below(x: float, a: float, b: float) -> float:
    """Returns the regularised incomplete beta function I_x(a, b) (DLMF 8.17)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    # The continued fraction converges fast on one side of the mean only.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta_share_below(1.0 - x, b, a)
    logarithm = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    return math.exp(logarithm) * _beta_fraction(x, a, b) / a


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Returns the continued fraction of DLMF 8.17.22 by Lentz's method."""
    value = _TINY
    numerators, denominators = _TINY, 0.0
    coefficient = 1.0
    for step in range(_FRACTION_STEPS):
        denominators = 1.0 / _not_zero(1.0 + coefficient * denominators)
        numerators = _not_zero(1.0 + coefficient / numerators)
        factor = numerators * denominators
        value *= factor
        if step and abs(factor - 1.0) < _FRACTION_PRECISION:
            break
        m, is_odd = divmod(step + 1, 2)
        if is_odd:
            coefficient = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            coefficient = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
