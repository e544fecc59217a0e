"""The limits that alerts fire at and dashboards draw, once for both.

Ratios are shares from 0 to 1. An alert fires above its limit, or below it where the name says
so; at the limit itself it is quiet. Ranges and times are whole seconds.
"""

from typing import Final, NamedTuple


class BurnRate(NamedTuple):
    """One way of using up an error budget too fast.

    Attributes:
        factor: how many times as fast as the budget allows.
        long_window: the range that tells whether it matters, as in PromQL.
        short_window: the range that tells whether it still goes on, as in PromQL.
    """

    factor: float
    long_window: str
    short_window: str


# The twelve alerts -----------------------------------------------------------------------------

ERROR_RATIO: Final = 0.05
"""HighErrorRate: failed questions among all but those that budgets forbade."""

HIGH_LATENCY_SECONDS: Final = 10.0
"""HighLatency: 95th percentile of the time of a whole answer. An edge of the histogram."""

VERY_HIGH_LATENCY_SECONDS: Final = 30.0
"""VeryHighLatency: 99th percentile of the time of a whole answer. An edge of the histogram."""

LOW_CACHE_HIT_RATIO: Final = 0.40
"""LowCacheHitRate: hits among hits and misses; fires below."""

CACHE_FULL_RATIO: Final = 0.95
"""CacheNearCapacity: bytes of a layer to their limit."""

CACHE_EVICTIONS_PER_SECOND: Final = 10.0
"""HighCacheEvictionRate: entries that had to leave before their time to live was over."""

DAILY_COST: Final = 100.0
"""HighDailyCost: cost of a day at the last hour's rate, in the currency of the prices."""

COST_SPIKE_FACTOR: Final = 2.0
"""SuddenCostSpike: the last ten minutes' rate to that of the hour an hour earlier."""

COST_SPIKE_FLOOR_PER_DAY: Final = 10.0
"""SuddenCostSpike: cheaper than this a day is never a spike, in the currency of the prices."""

LOW_QUALITY_SCORE: Final = 0.8
"""LowQualityScore: mean quality of answers from 0 to 1; fires below. An edge of the histogram."""

DEGRADED_RATIO: Final = 0.20
"""HighDegradationRate: degraded answers among all questions."""

TOOL_FAILURE_RATIO: Final = 0.10
"""ToolFailureRateHigh: failed and timed-out calls among all of one tool."""

RETRIEVAL_FAILURE_RATIO: Final = 0.05
"""RAGFailureRateHigh: failed retrievals among all."""

# Service level objectives ----------------------------------------------------------------------

OBJECTIVE_RATIO: Final = 0.99
"""Share of questions that are answered within 30 days; those cancelled, and those that budgets
forbade, count nowhere."""

ERROR_BUDGET_RATIO: Final = 0.01
"""Share of questions that may fail within 30 days: 1 - `OBJECTIVE_RATIO`."""

LATENCY_BUDGET_RATIO: Final = 0.05
"""Share of questions that may be slow within 30 days. With `SLOW_SECONDS` it says the same as
`GOOD_LATENCY_SECONDS`: the 95th percentile is within 5 s."""

SLOW_SECONDS: Final = 5.0
"""A question is slow when its whole answer takes longer. An edge of the histogram."""

OBJECTIVE_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""The ranges that shares of failed and slow questions are recorded over."""

PAGE_BURN_RATES: Final = (BurnRate(14.4, "1h", "5m"), BurnRate(6.0, "6h", "30m"))
"""Somebody is called: 2 % of 30 days' budget within an hour, or 5 % within six."""

TICKET_BURN_RATES: Final = (BurnRate(3.0, "1d", "2h"), BurnRate(1.0, "3d", "6h"))
"""Somebody looks on a working day: 10 % of 30 days' budget within a day, or within three."""

# Further alerts --------------------------------------------------------------------------------

HEALTH_CHECK_STALE_SECONDS: Final = 90.0
"""HealthCheckStale: age of a backend's last health check, three times their usual interval."""

FALSE_HIT_BUDGET_RATIO: Final = 0.01
"""FalseHitBudget: upper bound of the share of wrong answers among those given to similar questions.
Not before one of them was wrong: the bound is above this for want of verdicts alone until
`FALSE_HIT_VERIFICATIONS` were right."""

FALSE_HIT_VERIFICATIONS: Final = 381
"""Verdicts that it takes to show that the share is within the budget, if none of them is wrong."""

EVENT_LOOP_LAG_SECONDS: Final = 0.1
"""EventLoopLag: 99th percentile of how late an event loop runs its timers."""

SCRAPE_INTERVAL_SECONDS: Final = 15
"""How often Prometheus reads each service; ranges of rates hold at least four."""

# Where dashboards turn yellow or green; no alert fires ------------------------------------------

GOOD_ERROR_RATIO: Final = 0.02
"""A good day has fewer failed questions."""

GOOD_LATENCY_SECONDS: Final = 5.0
"""A good day's 95th percentile of the time of a whole answer is shorter."""

GOOD_CACHE_HIT_RATIO: Final = 0.60
"""A good day has more hits among hits and misses."""

CACHED_LATENCY_P50_SECONDS: Final = 0.1
"""What the median is held against on the fleet's dashboard. An edge of the histogram."""

CACHED_LATENCY_P95_SECONDS: Final = 0.13
"""What the 95th percentile is held against there. An edge of the histogram."""

CACHED_LATENCY_P99_SECONDS: Final = 0.2
"""What the 99th percentile is held against there. An edge of the histogram."""

THROUGHPUT_PER_SECOND: Final = 30.0
"""Questions a second that the suite is meant to stand at least."""

EMBEDDING_HIT_RATIO: Final = 0.70
"""Hits to expect of the embedding layer with returning questions; up to 0.8 is usual."""

INFERENCE_HIT_RATIO: Final = 0.40
"""Hits to expect of the inference layer with returning questions; up to 0.5 is usual."""

CHUNK_HIT_RATIO: Final = 0.90
"""Hits to expect of the chunk layer with returning questions."""
