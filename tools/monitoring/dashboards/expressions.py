"""Queries that many panels ask in the same form.

A ratio of no traffic has no value: its denominator must be above 0, or there is no series. The
panel then says so in words, where NaN would look like a fault.
"""

__all__ = ["PICKED", "RECENT", "increase", "mean", "quantile", "rate", "ratio", "total"]

RECENT = "$__rate_interval"
"""What a rate looks back over: four scrapes at least, more where a picture's steps are wider."""

PICKED = "$__range"
"""The whole range that is shown."""


def rate(selector: str, by: str = "", *, window: str = RECENT) -> str:
    """Events a second, summed.

    Args:
        selector: Counter, with conditions.
        by: Labels to keep, separated by commas.
        window: What to look back over.
    """
    return f"{_sum(by)}(rate({selector}[{window}]))"


def increase(selector: str, by: str = "", *, window: str = PICKED) -> str:
    """Events within a window, summed.

    Args:
        selector: Counter, with conditions.
        by: Labels to keep, separated by commas.
        window: What to look back over.
    """
    return f"{_sum(by)}(increase({selector}[{window}]))"


def total(selector: str, by: str = "") -> str:
    """Values of a gauge, summed.

    Args:
        selector: Gauge, with conditions.
        by: Labels to keep, separated by commas.
    """
    return f"{_sum(by)}({selector})"


def ratio(part: str, whole: str) -> str:
    """One expression in relation to another; nothing where the other is 0."""
    return f"{part} / ({whole} > 0)"


def mean(histogram: str, by: str = "", *, window: str = RECENT) -> str:
    """Mean of what a histogram observed.

    Args:
        histogram: Its name, without `_sum`.
        by: Labels to keep, separated by commas.
        window: What to look back over.
    """
    return ratio(
        rate(f"{histogram}_sum", by, window=window), rate(f"{histogram}_count", by, window=window)
    )


def quantile(q: float, histogram: str, by: str = "", *, window: str = RECENT) -> str:
    """A quantile of what a histogram observed; nothing where it observed nothing.

    Args:
        q: From 0 to 1.
        histogram: Its name, without `_bucket`; conditions may follow in braces.
        by: Labels to keep, separated by commas.
        window: What to look back over.
    """
    name, brace, conditions = histogram.partition("{")
    labels = f"le, {by}" if by else "le"
    buckets = rate(f"{name}_bucket{brace}{conditions}", labels, window=window)
    # NaN, the quantile of nothing, is not 0 or more.
    return f"histogram_quantile({q:.2f}, {buckets}) >= 0"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
