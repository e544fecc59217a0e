"""Arithmetic on outcomes: percentiles, goodput, and intervals over seeds."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

__all__ = [
    "Estimate",
    "Outcome",
    "Summary",
    "estimate",
    "paired_ratio",
    "percentile",
    "summarise",
    "wait_for_next",
]

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; 1.96 beyond.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
_NORMAL = 1.96

# What a user puts up with: first text within, and no silence longer than.
_SLO_FIRST_SECONDS = 5.0
_SLO_STALL_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a request; times are counted from when it was to be sent.

    Attributes:
        index: Its place in the trace.
        target: Which target it was sent to; 0 where there is one.
        kind: `chat` or `embed`.
        tenant: Whose request it was.
        at_seconds: When it was to be sent, from the trace's start.
        lag_seconds: How much later it was sent, which is the harness's own delay.
        first_seconds: Time to the first text that is not empty, or to the vectors; None where
            neither came.
        total_seconds: Time to the end, good or bad.
        stall_seconds: Longest silence after the first text.
        token_count: Tokens of the answer that came, or of the texts.
        message_count: Pieces that they came in.
        failure: What went wrong; empty where nothing did.
    """

    index: int
    target: int = 0
    kind: str
    tenant: str = "default"
    at_seconds: float
    lag_seconds: float
    first_seconds: float | None
    total_seconds: float
    stall_seconds: float
    token_count: int
    message_count: int
    failure: str = ""

    @property
    def first_or_never(self) -> float:
        """Time to the first result; infinite for a failed request, which never had its answer."""
        if self.failure or self.first_seconds is None:
            return math.inf
        return self.first_seconds

    @property
    def total_or_never(self) -> float:
        """Time to the end; infinite for a failed request."""
        return math.inf if self.failure else self.total_seconds

    @property
    def good(self) -> bool:
        """Whether a user would have been content."""
        return (
            self.first_or_never <= _SLO_FIRST_SECONDS and self.stall_seconds <= _SLO_STALL_SECONDS
        )


def percentile(values: Sequence[float], ratio: float) -> float:
    """Returns the smallest value that so many values do not exceed (nearest rank).

    Args:
        values: In any order, infinite ones allowed.
        ratio: Share of values, (0, 1].

    Returns:
        The percentile; NaN where there are no values.
    """
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(ratio * len(values) - 1e-9) - 1)]


def wait_for_next(times: Iterable[float], ratio: float) -> float:
    """Returns how long one waits at most, from so many of all moments, for the next event.

    Args:
        times: When events happen, seconds, in any order.
        ratio: Share of the moments from the first event to the last, (0, 1].

    Returns:
        Seconds; NaN where there are fewer than two events at different times.
    """
    gaps = [after - before for before, after in pairwise(sorted(times)) if after > before]
    if not gaps:
        return math.nan
    # In a gap g, the moments from which one waits longer than w are the first g - w of it.
    beyond_seconds = (1.0 - ratio) * sum(gaps)
    count, total = 0, 0.0
    for gap, shorter in pairwise([*sorted(gaps, reverse=True), 0.0]):
        count, total = count + 1, total + gap
        wait = (total - beyond_seconds) / count
        if wait >= shorter:
            return wait
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a contender did with a trace; failed requests count as infinitely late.

    Attributes:
        request_count: Requests sent in the measured part of the trace.
        failed_ratio: Share that failed.
        good_ratio: Share that met the service level: first result within 5 s, no silence over 2 s.
        first_p50: Median time to the first text of chats.
        first_p95: 95th percentile of it.
        first_p99: 99th percentile of it.
        any_p99: 99th percentile of the time to the first result, chats and embeddings.
        embed_p99: 99th percentile of the time to the vectors.
        total_p95: 95th percentile of the time to the end of chats.
        total_p99: 99th percentile of it.
        token_count: Tokens generated.
        failures: Number of failures by kind.
    """

    request_count: int
    failed_ratio: float
    good_ratio: float
    first_p50: float
    first_p95: float
    first_p99: float
    any_p99: float
    embed_p99: float
    total_p95: float
    total_p99: float
    token_count: int
    failures: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Returns the summary as a JSON object."""
        return asdict(self)


def summarise(outcomes: Iterable[Outcome]) -> Summary:
    """Sums up outcomes."""
    kept = list(outcomes)
    chats = [each for each in kept if each.kind == "chat"]
    first = [each.first_or_never for each in chats]
    total = [each.total_or_never for each in chats]
    embeds = [each.first_or_never for each in kept if each.kind == "embed"]
    failures = Counter(each.failure for each in kept if each.failure)
    count = max(1, len(kept))
    return Summary(
        request_count=len(kept),
        failed_ratio=failures.total() / count,
        good_ratio=sum(each.good for each in kept) / count,
        first_p50=percentile(first, 0.5),
        first_p95=percentile(first, 0.95),
        first_p99=percentile(first, 0.99),
        any_p99=percentile([*first, *embeds], 0.99),
        embed_p99=percentile(embeds, 0.99),
        total_p95=percentile(total, 0.95),
        total_p99=percentile(total, 0.99),
        token_count=sum(each.token_count for each in chats),
        failures=dict(failures.most_common()),
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: The mean.
        half_width: Half the 95 % interval; NaN where there is one seed only.
    """

    mean: float
    half_width: float

    def __str__(self) -> str:
        """Writes the mean, with the half-width where there is one."""
        if not math.isfinite(self.mean):
            return "never" if self.mean > 0 else "-"
        shown = f"{self.mean:.3g}" if abs(self.mean) < 1000 else f"{self.mean:.0f}"
        return shown if math.isnan(self.half_width) else f"{shown} +-{self.half_width:.2g}"


def estimate(values: Sequence[float]) -> Estimate:
    """Estimates a mean with its 95 % interval by Student's t."""
    if not values:
        return Estimate(math.nan, math.nan)
    mean = fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return Estimate(mean, math.nan)
    freedom = len(values) - 1
    quantile = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL
    return Estimate(mean, quantile * stdev(values) / math.sqrt(len(values)))


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Estimates a ratio from pairs that share a seed.

    Returns:
        Mean of the ratios; 0 for a pair whose denominator alone is infinite, infinite for one whose
        numerator is.
    """
    return estimate(
        [
            math.inf if math.isinf(top) else top / bottom if bottom else math.nan
            for top, bottom in zip(numerators, denominators, strict=True)
        ]
    )
