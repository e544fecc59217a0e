"""Whether a value is to be computed anew before it expires.

The rule is XFetch (A. Vattani, F. Chierichetti, K. Lowenstein, Optimal Probabilistic Cache Stampede
Prevention, VLDB 2015): a reader computes anew when -beta * delta * ln(u) reaches what is left. By
itself it thins a stampede out and does not prevent it; so whoever is drawn must get a lease, too.
"""

import math

__all__ = ["refresh_is_due"]

_BETA = 1.0
_WINDOW_RATIO = 0.1


def refresh_is_due(
    *, left_seconds: float, ttl_seconds: float, delta_seconds: float, draw: float
) -> bool:
    """Decides for one reader.

    Args:
        left_seconds: How long the value is still valid.
        ttl_seconds: How long it is valid in all.
        delta_seconds: How long its computation took; 0 where not known, then never.
        draw: A uniform random number in [0, 1).
    """
    if left_seconds > _WINDOW_RATIO * ttl_seconds:
        return False
    return -_BETA * delta_seconds * math.log(1.0 - draw) >= max(left_seconds, 1e-9)
