"""Performance overview: are questions answered, fast enough and well enough?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import (
    RECENT,
    increase,
    mean,
    quantile,
    rate,
    ratio,
    total,
)
from tools.monitoring.dashboards.kinds import gauge, heatmap, lines, pie, stat
from tools.monitoring.dashboards.panels import Limits, Query, Why, above, below
from tools.monitoring.dashboards.tables import Column, table

__all__ = ["PERFORMANCE_OVERVIEW"]

_QUESTIONS = "rag_requests_total"
_LATENCY = "rag_request_duration_seconds"
# Services write an edge of 5 as 5.0; what passes on their samples may write 5.
_IN_TIME = f'{_LATENCY}_bucket{{le=~"{limits.SLOW_SECONDS:g}([.]0)?"}}'
_TOP_TENANTS = f"topk(10, {increase('rag_tenant_requests_total', 'tenant')})"
_FAILED = f'{_QUESTIONS}{{outcome="error"}}'
_ENDED = '{outcome=~"success|error"}'


def _failed_share(window: str) -> str:
    # Who leaves, or has spent its budget, is neither served well nor badly.
    return ratio(rate(_FAILED, window=window), rate(f"{_QUESTIONS}{_ENDED}", window=window))


def _slow_share(window: str = RECENT) -> str:
    in_time = ratio(rate(_IN_TIME, window=window), rate(f"{_LATENCY}_count", window=window))
    return f"1 - {in_time}"


_BURN_WINDOWS = (
    ("1h", "last hour"),
    ("6h", "last six hours"),
    ("1d", "last day"),
    ("3d", "last three days"),
)
_ALERTED = "An alert fires above {} within {}.".format(
    ", ".join(f"{each.factor:g}" for each in limits.PAGE_BURN_RATES + limits.TICKET_BURN_RATES),
    "an hour, six, a day, or three days",
)

_TRAFFIC = Section(
    "Questions",
    (
        lines(
            1,
            "Overall request rate",
            Why(
                "Questions that ended each second, in all modes.",
                "Every ratio on this page is a share of this; without traffic they say nothing.",
                "A sudden drop while clients still ask: look at Service up on Fleet health. A "
                "sudden rise: look at the queue there.",
            ),
            Query(rate(_QUESTIONS), "questions"),
            unit="reqps",
        ),
        lines(
            2,
            "Average response time",
            Why(
                "Mean time from a question's arrival until its whole answer; what failed has none.",
                "It moves with the mix of modes and cache hits, sooner than the percentiles do.",
                "If it rises while the rate stays, compare Stage latency on Fleet performance "
                "to see which stage takes longer.",
            ),
            Query(mean(_LATENCY), "mean"),
            unit="s",
        ),
        lines(
            5,
            "Error rate",
            Why(
                "Failed questions among all but those that the budgets of their tenants forbade; "
                "those that their callers gave up count as asked, not as failed.",
                "Each one is somebody without an answer.",
                "Open Error types on System health for the reasons, then a failed trace. "
                "Look first at Healthy instances on Fleet health.",
            ),
            Query(ratio(rate(_FAILED), rate(f'{_QUESTIONS}{{outcome!="refused"}}')), "failed"),
            unit="percentunit",
            small=2 * limits.ERROR_RATIO,
            limits=above(limits.ERROR_RATIO, limits.GOOD_ERROR_RATIO),
            alerts=("HighErrorRate",),
        ),
        gauge(
            11,
            "Success rate",
            Why(
                "Answered questions among those that were neither cancelled nor forbidden by a "
                "budget, now.",
                "It is the service level objective seen from the user's side.",
                "Below the objective: follow Error rate beside it.",
            ),
            Query(
                ratio(rate(f'{_QUESTIONS}{{outcome="success"}}'), rate(f"{_QUESTIONS}{_ENDED}")),
                "answered",
            ),
            unit="percentunit",
            most=1,
            limits=below(1 - limits.ERROR_RATIO, limits.OBJECTIVE_RATIO),
            alerts=("HighErrorRate",),
        ),
        gauge(
            6,
            "Cache hit rate",
            Why(
                "Hits among hits and misses of all layers of the cache, now. Who waits for an "
                "answer that another caller has computed, has missed.",
                "Every hit spares the fleet work and the user time.",
                "Below its limit: Cache hit rate over time on Cache performance shows which layer "
                "it is, Phase of the breaker there whether the shared store is away.",
            ),
            Query(
                ratio(
                    rate('cache_lookups_total{result="hit"}'),
                    rate('cache_lookups_total{result=~"hit|miss"}'),
                ),
                "hits",
            ),
            unit="percentunit",
            most=1,
            limits=below(limits.LOW_CACHE_HIT_RATIO, limits.GOOD_CACHE_HIT_RATIO),
            alerts=("LowCacheHitRate",),
        ),
        pie(
            7,
            "Requests by mode",
            Why(
                "Questions within the chosen range by mode.",
                "Deep and agent questions ask models several times; their share drives load and "
                "cost.",
                "If a costly mode grows, compare Queries per tenant on Business metrics.",
            ),
            Query(increase(_QUESTIONS, "mode"), "{{mode}}"),
            width=7,
            height=7,
        ),
        stat(
            10,
            "Active workflows",
            Why(
                "Questions being answered at this moment.",
                "It is how many users are waiting; it grows when answers get slow, too.",
                "If it only grows, answers are stuck: look at stalls and the queue on Fleet "
                "health.",
            ),
            Query(total("rag_active_queries"), "under way"),
            unit="short",
            width=5,
            height=7,
        ),
    ),
)

_TIMES = Section(
    "Response times",
    (
        lines(
            3,
            "P95 latency",
            Why(
                "The time within which 95 of 100 answers are whole: all of them, and by mode. "
                "What failed, if only for want of time, is not among them.",
                "It is what an unlucky but not rare user sees.",
                "Above its limit: click an exemplar's diamond to open the trace of a slow "
                "question. A single slow mode points at its stages, all of them at the fleet.",
            ),
            Query(quantile(0.95, _LATENCY), "all"),
            Query(quantile(0.95, _LATENCY, "mode"), "{{mode}}"),
            unit="s",
            width=12,
            limits=above(limits.HIGH_LATENCY_SECONDS, limits.GOOD_LATENCY_SECONDS),
            alerts=("HighLatency",),
        ),
        lines(
            4,
            "P99 latency",
            Why(
                "The time within which 99 of 100 answers are whole: all of them, and by how the "
                "cache took part. Up to 120 s can be told; 120 s stands for more.",
                "The last hundredth is where queues, cold models and retries show first.",
                "Above its limit somebody is called: look at the queue and at cold model loads, "
                "then at an exemplar's trace.",
            ),
            Query(quantile(0.99, _LATENCY), "all"),
            Query(quantile(0.99, _LATENCY, "cache"), "cache {{cache}}"),
            unit="s",
            width=12,
            limits=above(limits.VERY_HIGH_LATENCY_SECONDS, limits.HIGH_LATENCY_SECONDS),
            alerts=("VeryHighLatency",),
        ),
        heatmap(
            15,
            "Distribution of response times",
            Why(
                "Answers each second by how long they took, over time.",
                "Percentiles hide that there are two crowds, hits and misses; here they are two "
                "bands.",
                "If the upper band moves up, models got slower; if the lower one fades, the "
                "cache hits less.",
            ),
            Query(rate(f"{_LATENCY}_bucket", "le"), "{{le}}"),
            unit="s",
        ),
        lines(
            16,
            "Share of slow answers",
            Why(
                f"Answers that took longer than {limits.SLOW_SECONDS:g} s, among all answers; what "
                "failed counts for the other objective.",
                "That share is what the objective for latency counts.",
                "If it stays above the budget's line, the objective will be missed: see the "
                "burn rates below.",
            ),
            Query(_slow_share(), "slow"),
            unit="percentunit",
            width=12,
            small=2 * limits.LATENCY_BUDGET_RATIO,
            limits=above(limits.LATENCY_BUDGET_RATIO),
        ),
    ),
)

_QUALITY = Section(
    "Quality of answers",
    (
        heatmap(
            8,
            "Quality score",
            Why(
                "Answers each second by their quality, from 0 to 1, over time; those given again "
                "count each time. Those in mode direct have none.",
                "A mean may look well while a band of poor answers grows below it.",
                "A growing band below the limit: look at Retrieval confidence on Deep dive, and "
                "at what was ingested lately.",
            ),
            Query(rate("rag_quality_score_bucket", "le"), "{{le}}"),
            unit="percentunit",
            limits=below(limits.LOW_QUALITY_SCORE),
            alerts=("LowQualityScore",),
        ),
        lines(
            9,
            "Degraded responses",
            Why(
                "Answers with at least one degradation, as a share of all questions and of those "
                "in each mode.",
                "A degraded answer is a lesser one: without reranking, without web, or shortened.",
                "Above its limit: Degradations by reason on Deep dive names what is missing.",
            ),
            Query(ratio(rate("rag_degraded_responses_total"), rate(_QUESTIONS)), "all"),
            Query(
                ratio(rate("rag_degraded_responses_total", "mode"), rate(_QUESTIONS, "mode")),
                "{{mode}}",
            ),
            unit="percentunit",
            width=12,
            small=2 * limits.DEGRADED_RATIO,
            limits=above(limits.DEGRADED_RATIO),
            alerts=("HighDegradationRate",),
        ),
    ),
)

_OBJECTIVE = Section(
    "Service level objective",
    (
        lines(
            13,
            "Burn rate of the error budget",
            Why(
                f"How many times as fast as allowed questions fail; the objective is that "
                f"{limits.OBJECTIVE_RATIO:.0%} are answered.",
                f"At 1 the budget lasts exactly thirty days. {_ALERTED}",
                "Above the red line: treat it as an outage and start with Error rate. The longer "
                "ranges alone: look for what recurs.",
            ),
            *(
                Query(f"{_failed_share(window)} / {limits.ERROR_BUDGET_RATIO}", name)
                for window, name in _BURN_WINDOWS
            ),
            unit="short",
            limits=above(limits.PAGE_BURN_RATES[0].factor, limits.TICKET_BURN_RATES[0].factor),
            alerts=("ErrorBudgetBurnFast", "ErrorBudgetBurnSlow"),
        ),
        lines(
            14,
            "Burn rate of the latency budget",
            Why(
                f"How many times as fast as allowed answers take longer than "
                f"{limits.SLOW_SECONDS:g} s.",
                f"{limits.LATENCY_BUDGET_RATIO:.0%} of answers may be slow within thirty days. "
                f"{_ALERTED}",
                "Above the red line: start with P95 latency and the queue on Fleet health.",
            ),
            *(
                Query(f"({_slow_share(window)}) / {limits.LATENCY_BUDGET_RATIO}", name)
                for window, name in _BURN_WINDOWS
            ),
            unit="short",
            limits=above(limits.PAGE_BURN_RATES[0].factor, limits.TICKET_BURN_RATES[0].factor),
            alerts=("LatencyBudgetBurnFast", "LatencyBudgetBurnSlow"),
        ),
        table(
            12,
            "Top tenants",
            Why(
                "The ten tenants with the most questions within the chosen range, with how many "
                "of them failed; what a budget forbade did not.",
                "Load and errors are seldom spread evenly; one client's loop can be all of it.",
                "If one tenant stands out, talk to its owner or give it a budget.",
            ),
            Query(_TOP_TENANTS),
            Query(
                ratio(
                    increase('rag_tenant_requests_total{outcome="error"}', "tenant"),
                    increase("rag_tenant_requests_total", "tenant"),
                )
                + f" and on (tenant) {_TOP_TENANTS}"
            ),
            labels={"tenant": "Tenant"},
            columns=(
                Column("Questions", decimals=0),
                Column(
                    "Failed",
                    "percentunit",
                    Limits((("green", None), ("red", limits.ERROR_RATIO))),
                    decimals=1,
                ),
            ),
            width=8,
            sort_by="Questions",
        ),
    ),
)

PERFORMANCE_OVERVIEW = Dashboard(
    uid="performance-overview",
    title="Performance overview",
    question="Are questions answered, fast enough and well enough?",
    group="performance",
    refresh="30s",
    span="1h",
    sections=(_TRAFFIC, _TIMES, _QUALITY, _OBJECTIVE),
)
