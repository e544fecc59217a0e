"""What the alerts about answers, caching and costs fire at, and what they are quiet at.

As in `cases`, which has the others.
"""

from tools.monitoring.rules.promtool import Case, Levels, Quiet

__all__ = ["ANSWERS", "CACHING", "COSTS"]

_HOUR = 240
_DAY_STEPS = 24 * _HOUR


def _requests(*, error: float, success: float, refused: float = 0) -> Levels:
    return {
        'rag_requests_total{job="rag",mode="rag",outcome="error"}': error,
        'rag_requests_total{job="rag",mode="rag",outcome="success"}': success,
        'rag_requests_total{job="rag",mode="direct",outcome="refused"}': refused,
    }


def _durations(edge: str, within: float, beyond_edge: str) -> Levels:
    """Returns a hundred answers: so many within an edge, the others up to the next."""
    name = 'rag_request_duration_seconds_bucket{job="rag",mode="rag",cache="miss"'
    return {
        f'{name},le="{edge}"}}': within,
        f'{name},le="{beyond_edge}"}}': 100,
        f'{name},le="+Inf"}}': 100,
    }


ANSWERS = (
    Case(
        alert="HighErrorRate",
        above=_requests(error=6, success=94, refused=500),
        below=_requests(error=5, success=95),
        quiet={
            "while a tenant's budget is spent": Quiet(_requests(error=1, success=99, refused=500))
        },
        value="6%",
        ends=20,
    ),
    Case(
        alert="HighLatency",
        above=_durations("10.0", 94, "15.0"),
        below=_durations("10.0", 95, "15.0"),
        value="10.83s",
        ends=20,
    ),
    Case(
        alert="VeryHighLatency",
        above=_durations("30.0", 98.5, "45.0"),
        below=_durations("30.0", 99, "45.0"),
        value="35s",
        ends=20,
    ),
    Case(
        alert="LowQualityScore",
        above={
            'rag_quality_score_sum{job="rag",mode="rag"}': 79,
            'rag_quality_score_count{job="rag",mode="rag"}': 100,
        },
        below={
            'rag_quality_score_sum{job="rag",mode="rag"}': 81,
            'rag_quality_score_count{job="rag",mode="rag"}': 100,
        },
        value="0.79",
        ends=40,
    ),
    Case(
        alert="HighDegradationRate",
        above={
            'rag_degraded_responses_total{job="rag",mode="rag"}': 21,
            **_requests(error=0, success=100),
        },
        below={
            'rag_degraded_responses_total{job="rag",mode="rag"}': 20,
            **_requests(error=0, success=100),
        },
        value="21%",
        ends=40,
    ),
    Case(
        alert="ToolFailureRateHigh",
        above={
            'rag_tool_executions_total{tool="calculator",outcome="success"}': 500,
            'rag_tool_executions_total{tool="web_search",outcome="success"}': 89,
            'rag_tool_executions_total{tool="web_search",outcome="failed"}': 6,
            'rag_tool_executions_total{tool="web_search",outcome="timed_out"}': 5,
            'rag_tool_executions_total{tool="web_search",outcome="repeated"}': 0,
        },
        below={
            'rag_tool_executions_total{tool="calculator",outcome="success"}': 500,
            'rag_tool_executions_total{tool="web_search",outcome="success"}': 81,
            'rag_tool_executions_total{tool="web_search",outcome="failed"}': 4,
            'rag_tool_executions_total{tool="web_search",outcome="timed_out"}': 5,
            # The model's fault, not the tool's.
            'rag_tool_executions_total{tool="web_search",outcome="repeated"}': 10,
        },
        labels={"tool": "web_search"},
        value="11%",
        ends=40,
    ),
    Case(
        alert="RAGFailureRateHigh",
        above={
            'rag_retrievals_total{mode="rag",outcome="error"}': 6,
            'rag_retrievals_total{mode="rag",outcome="empty"}': 30,
            'rag_retrievals_total{mode="rag",outcome="success"}': 64,
        },
        below={
            'rag_retrievals_total{mode="rag",outcome="error"}': 4.99,
            'rag_retrievals_total{mode="rag",outcome="empty"}': 31.01,
            'rag_retrievals_total{mode="rag",outcome="success"}': 64,
        },
        value="6%",
        ends=40,
    ),
)


def _lookups(*, hit: float, miss: float, error: float = 0) -> Levels:
    return {
        f'cache_lookups_total{{layer="inference",mode="rag",result="{result}"}}': count
        for result, count in (("hit", hit), ("miss", miss), ("error", error))
    }


def _room(*, size_bytes: float, limit_bytes: float) -> Levels:
    return {
        'cache_memory_bytes{layer="chunk"}': size_bytes,
        'cache_memory_limit_bytes{layer="chunk"}': limit_bytes,
    }


def _evictions(*, capacity: float, expired: float) -> Levels:
    return {
        'cache_evictions_total{layer="chunk",reason="capacity"}': capacity,
        'cache_evictions_total{layer="chunk",reason="expired"}': expired,
    }


def _verdicts(*, bound: float, wrong: float, right: float, judge: str = "recomputation") -> Levels:
    return {
        'cache_false_hit_upper_bound{job="cache"}': bound,
        f'cache_verifications_total{{job="cache",verdict="wrong",judge="{judge}"}}': wrong,
        f'cache_verifications_total{{job="cache",verdict="right",judge="{judge}"}}': right,
    }


def _notes(*, pending: float, delivered: float) -> Levels:
    return {
        'rag_invalidations_pending{job="rag",instance="rag:9461"}': pending,
        'rag_invalidations_delivered_total{job="rag",instance="rag:9461"}': delivered,
    }


CACHING = (
    Case(
        alert="LowCacheHitRate",
        above=_lookups(hit=39, miss=61),
        below=_lookups(hit=40, miss=60),
        quiet={
            # The shared store's fault; CacheDegraded tells of that.
            "while half of the lookups fail": Quiet(_lookups(hit=40, miss=60, error=100)),
        },
        value="39%",
        ends=20,
    ),
    Case(
        alert="CacheNearCapacity",
        above=_room(size_bytes=951, limit_bytes=1000),
        below=_room(size_bytes=950, limit_bytes=1000),
        quiet={"in a layer without a limit": Quiet(_room(size_bytes=951, limit_bytes=0))},
        labels={"layer": "chunk"},
        value="95.1%",
        begins=0,
    ),
    Case(
        alert="HighCacheEvictionRate",
        above=_evictions(capacity=165, expired=0),
        below=_evictions(capacity=150, expired=1500),
        value="11.0",
        begins=18,
        ends=20,
    ),
    Case(
        alert="CacheDegraded",
        above={'cache_degraded{job="cache",instance="cache:9462"}': 1},
        below={'cache_degraded{job="cache",instance="cache:9462"}': 0},
        labels={"job": "cache", "instance": "cache:9462"},
        begins=0,
    ),
    Case(
        alert="FalseHitBudget",
        above=_verdicts(bound=0.0125, wrong=0.01, right=1),
        below=_verdicts(bound=0.01, wrong=0.01, right=1),
        quiet={
            "before the first verification": Quiet(_verdicts(bound=1, wrong=0, right=0)),
            "while too few were verified, none of them wrong": Quiet(
                _verdicts(bound=0.05, wrong=0, right=1)
            ),
            "while candidates are ruled out before they are given": Quiet(
                _verdicts(bound=1, wrong=1, right=1, judge="evidence")
            ),
        },
        value="1.25%",
    ),
    Case(
        alert="IndexInvalidationsPending",
        above=_notes(pending=1, delivered=0),
        below=_notes(pending=0, delivered=0),
        quiet={"while the cache is told of others": Quiet(_notes(pending=100, delivered=1))},
        labels={"job": "rag"},
        value="1",
    ),
)


def _costs(*, daily: float) -> Levels:
    """Returns what so much a day is in a step."""
    return {
        'rag_cost_total{currency="EUR",mode="rag",type="llm"}': 0.9 * daily / _DAY_STEPS,
        'rag_cost_total{currency="EUR",mode="agent",type="tool"}': 0.1 * daily / _DAY_STEPS,
    }


COSTS = (
    Case(
        alert="HighDailyCost",
        above=_costs(daily=102),
        below=_costs(daily=98),
        labels={"currency": "EUR"},
        value="102.00",
        begins=236,
        ends=_HOUR,
    ),
    Case(
        alert="SuddenCostSpike",
        before=_costs(daily=20),
        before_steps=2 * _HOUR,
        above=_costs(daily=44),
        below=_costs(daily=38),
        quiet={
            "after a quiet night": Quiet(_costs(daily=44), _costs(daily=0)),
            "where it is cheap all the same": Quiet(_costs(daily=9), _costs(daily=4)),
            "in the second hour of its life": Quiet(_costs(daily=44), at=_HOUR * 5 // 4),
        },
        labels={"currency": "EUR"},
        value="0.00051",
        begins=34,
        ends=30,
    ),
    Case(
        alert="SuddenCostSpike",
        before=_costs(daily=5),
        before_steps=2 * _HOUR,
        above=_costs(daily=11),
        below=_costs(daily=9),
        labels={"currency": "EUR"},
        value="0.00013",
        begins=34,
        ends=30,
    ),
)
