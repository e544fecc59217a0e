"""How far a share that was counted may be from the true one."""

from math import sqrt

__all__ = ["wilson"]


def wilson(wrong: int, verified: int, z: float = 1.96) -> tuple[float, float]:
    """Returns the bounds of a true share, Wilson's score interval.

    Unlike the textbook interval it stays within [0, 1] and says something at 0 wrong too: from
    381 verified on, none of them wrong, the upper bound is below 1 %.

    Args:
        wrong: How many of them were, from 0 to `verified`.
        verified: How many were looked at; the bounds are 0 and 1 where it is 0.
        z: Quantile of the normal distribution; 1.96 for bounds that hold in 95 % of cases.

    Returns:
        Lower and upper bound.
    """
    if verified == 0:
        return 0.0, 1.0
    share = wrong / verified
    weight = z * z / verified
    centre = (share + weight / 2) / (1 + weight)
    reach = z * sqrt(share * (1 - share) / verified + weight / (4 * verified)) / (1 + weight)
    # Exact where the formula is, but for rounding.
    return (centre - reach if wrong else 0.0, centre + reach if wrong < verified else 1.0)
