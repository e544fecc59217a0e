"""Queries that many panels ask in the same form.

A ratio of no traffic has no value: its denominator must be above 0, or there is no series. The
panel then says so in words, where NaN would look like a fault.
"""

__all__ = [
    "PICKED",
    "RECENT",
    "increase",
    "mean",
    "occurring",
    "quantile",
    "rate",
    "ratio",
    "short_method",
    "topmost",
    "total",
]

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


def occurring(selector: str, by: str) -> str:
    """Events a second of those kinds that occur in the picture at all.

    Kinds that are known are counted from the start, at 0: a legend of twenty names of which none
    has occurred hides the one that has.

    Args:
        selector: Counter, with conditions.
        by: Labels to keep, separated by commas.
    """
    return f"{rate(selector, by)} and on ({by}) ({_over_the_picture(selector, by)} > 0)"


def topmost(expression: str, selector: str, by: str) -> str:
    """An expression for those ten that have most of something over the whole picture.

    Args:
        expression: What to show of them.
        selector: Counter, with conditions, of what they have most of.
        by: The label that tells them apart.
    """
    return f"{expression} and on ({by}) topk(10, {_over_the_picture(selector, by)})"


def short_method(expression: str) -> str:
    """An expression with the label `method`, which is `rpc_method` without its package."""
    return f'label_replace({expression}, "method", "$1", "rpc_method", "(?:.*[.])?([^.]+)")'


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


def _over_the_picture(selector: str, by: str) -> str:
    # At its end, and not at each of its steps, or others would be chosen at each of them.
    return f"{_sum(by)}(increase({selector}[{PICKED}] @ end()))"


def _sum(by: str) -> str:
    return f"sum by ({by}) " if by else "sum"
