"""Fleet performance: how fast is the suite, and what takes its time?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import mean, quantile, rate, ratio, topmost
from tools.monitoring.dashboards.kinds import gauge, lines
from tools.monitoring.dashboards.panels import Limits, Query, Why, below

__all__ = ["FLEET_PERFORMANCE"]

_LATENCY = "rag_request_duration_seconds"
_HITS = 'cache_lookups_total{result="hit"}'
_ANSWERED = 'cache_lookups_total{result=~"hit|miss"}'


_WITHIN_BUCKETS = "An estimate: the buckets are wide."


def _against(target: float, red: float) -> Limits:
    """Yellow from the target on, red from where nothing like it is left: an edge, too."""
    return Limits((("green", None), ("yellow", target), ("red", red)))


_TARGETS = Section(
    "Against the targets",
    (
        gauge(
            1,
            "P50 latency",
            Why(
                f"The time within which half of the answers are whole, now. The target is "
                f"{limits.CACHED_LATENCY_P50_SECONDS:g} s.",
                "The target holds for traffic that the cache knows; a model alone takes longer.",
                "Far above it with a high hit rate: see Cache lookup on Deep dive.",
            ),
            Query(quantile(0.5, _LATENCY), "P50"),
            unit="s",
            most=2,
            limits=_against(limits.CACHED_LATENCY_P50_SECONDS, 1),
        ),
        gauge(
            2,
            "P95 latency",
            Why(
                f"The time within which 95 of 100 answers are whole, now. The target is "
                f"{limits.CACHED_LATENCY_P95_SECONDS:g} s; the alert is at "
                f"{limits.HIGH_LATENCY_SECONDS:g} s.",
                "Near the median it means that almost everything comes from the cache.",
                "Far above the median: misses; Cache impact on Business metrics shows their time.",
            ),
            Query(quantile(0.95, _LATENCY), "P95"),
            unit="s",
            most=5,
            limits=_against(limits.CACHED_LATENCY_P95_SECONDS, 2),
            alerts=("HighLatency",),
        ),
        gauge(
            3,
            "P99 latency",
            Why(
                f"The time within which 99 of 100 answers are whole, now. The target is "
                f"{limits.CACHED_LATENCY_P99_SECONDS:g} s; the alert is at "
                f"{limits.VERY_HIGH_LATENCY_SECONDS:g} s.",
                "It is where cold models and queues show.",
                "Far above: Time to first token by backend below, then the queue on Fleet health.",
            ),
            Query(quantile(0.99, _LATENCY), "P99"),
            unit="s",
            most=5,
            limits=_against(limits.CACHED_LATENCY_P99_SECONDS, 2),
            alerts=("VeryHighLatency",),
        ),
        gauge(
            5,
            "Overall cache hit rate",
            Why(
                "Hits among hits and misses of all layers, now.",
                "The targets for latency assume a warm cache.",
                "After a start it takes hours of real traffic to get warm; a fall later is a "
                "fault.",
            ),
            Query(ratio(rate(_HITS), rate(_ANSWERED)), "hits"),
            unit="percentunit",
            most=1,
            limits=below(limits.LOW_CACHE_HIT_RATIO, limits.GOOD_CACHE_HIT_RATIO),
            alerts=("LowCacheHitRate",),
        ),
        lines(
            4,
            "Throughput",
            Why(
                "Questions that ended each second, and calls of any kind by service.",
                f"The suite is meant to stand {limits.THROUGHPUT_PER_SECOND:g} questions a "
                "second at least; one question makes several calls to cache and balancer.",
                "If the rate of questions stays flat while the queue on Fleet health grows, the "
                "fleet is at its limit.",
            ),
            Query(rate("rag_requests_total"), "questions"),
            Query(rate("rpc_server_call_duration_seconds_count", "job"), "calls, {{job}}"),
            unit="reqps",
        ),
        lines(
            6,
            "Hit rate by layer",
            Why(
                "Hits among hits and misses, by layer and of all together, which is what the "
                "alert watches.",
                f"With returning questions expect {limits.EMBEDDING_HIT_RATIO:.0%} of "
                f"embeddings, {limits.INFERENCE_HIT_RATIO:.0%} of answers and "
                f"{limits.CHUNK_HIT_RATIO:.0%} of chunks.",
                "A layer that falls alone: its entries were invalidated, or its key changed with "
                "a model.",
            ),
            Query(ratio(rate(_HITS, "layer"), rate(_ANSWERED, "layer")), "{{layer}}"),
            Query(ratio(rate(_HITS), rate(_ANSWERED)), "all"),
            unit="percentunit",
            limits=below(limits.LOW_CACHE_HIT_RATIO, limits.GOOD_CACHE_HIT_RATIO),
            alerts=("LowCacheHitRate",),
        ),
        lines(
            8,
            "Stage latency P95",
            Why(
                "The time within which 95 of 100 runs of a stage of an answer were done: of the "
                "ten stages that took most time in all. Less than 1 ms shows as somewhat below "
                "it.",
                "It names the stage that takes the time; agent, web_search and search_variants "
                "hold others.",
                "generate: the fleet. vector_search or keyword_search: PostgreSQL. rerank: this "
                "process's CPU.",
            ),
            Query(
                topmost(
                    quantile(0.95, "rag_stage_duration_seconds", "stage"),
                    "rag_stage_duration_seconds_sum",
                    "stage",
                ),
                "{{stage}}",
            ),
            unit="s",
        ),
    ),
)

_MODELS = Section(
    "What models take",
    (
        lines(
            7,
            "Time to first token P95 by backend",
            Why(
                "The time within which 95 of 100 attempts had their first token, by backend, from "
                f"its slot on. {_WITHIN_BUCKETS} 30 s stands for more.",
                "With the wait for a slot it is what a reader of a streamed answer waits for.",
                "One backend above the others: a cold model or a busy machine; the planner "
                "avoids it by itself. All of them: prompts got longer.",
            ),
            Query(quantile(0.95, "balancer_time_to_first_token_seconds", "backend"), "{{backend}}"),
            unit="s",
        ),
        lines(
            9,
            "Output tokens per second by backend",
            Why(
                "Tokens each second that each backend generates, as it reports them at the end of "
                "an answer; those of attempts that broke off are missing.",
                "It is the fleet's real work.",
                "Equal machines with unequal work: see Load spread on Fleet health.",
            ),
            Query(rate('balancer_tokens_total{direction="output"}', "backend"), "{{backend}}"),
            unit="short",
        ),
        lines(
            10,
            "Input tokens per second by backend",
            Why(
                "Tokens of prompts and of texts to embed each second, as each backend reports "
                "them. Since Ollama 0.30.1 those that it still had from the prompt before are "
                "among them.",
                "Reading a long prompt delays the first token of everybody behind it.",
                "If it is far above the output, shorten prompts or send fewer passages.",
            ),
            Query(rate('balancer_tokens_total{direction="input"}', "backend"), "{{backend}}"),
            unit="short",
        ),
        lines(
            11,
            "Calls by operation P95",
            Why(
                f"The time within which 95 of 100 successful attempts were done, by operation. "
                f"{_WITHIN_BUCKETS} 120 s stands for more.",
                "Vectors must be there within a fraction of what an answer takes.",
                "embed slow alone: its model was pushed out of memory; pin it.",
            ),
            Query(
                quantile(0.95, "balancer_operation_duration_seconds", "operation"), "{{operation}}"
            ),
            unit="s",
        ),
        lines(
            12,
            "Model loads and evictions",
            Why(
                "Loads of models that the balancer has ordered each second, by cause, and models "
                "that have gone to make room.",
                "Loads take seconds to minutes, and a fleet that keeps swapping does little else.",
                "Both high: too many models for the memory; pin fewer, or use fewer.",
            ),
            Query(rate("balancer_model_loads_total", "cause"), "load, {{cause}}"),
            Query(rate("balancer_model_evictions_total"), "unloaded"),
            unit="ops",
        ),
        lines(
            13,
            "Hedged calls",
            Why(
                "Calls for vectors that were late each second, by what came of asking a second "
                "backend.",
                "Won ones cut the longest waits; lost ones were double work.",
                "Mostly lost: the wait before a hedge is too short. Unspent: no backend was free, "
                "or hedges were as frequent as they may be.",
            ),
            Query(rate("balancer_hedges_total", "outcome"), "{{outcome}}"),
            unit="ops",
        ),
    ),
)

_PLANNER = Section(
    "What the balancer adds",
    (
        lines(
            14,
            "Overhead of the balancer P95",
            Why(
                "Time of a call inside the balancer that is neither waiting for a slot nor for "
                "the backend, by operation; 95 of 100 were shorter. Above 0.25 s an estimate; 1 s "
                "stands for more.",
                "It is the price of asking through the balancer.",
                "More than a few milliseconds: look at its event-loop lag and CPU.",
            ),
            Query(quantile(0.95, "balancer_overhead_seconds", "operation"), "{{operation}}"),
            unit="s",
        ),
        lines(
            15,
            "Error of the prediction",
            Why(
                "How far the predicted time to the first token was off, either way: half of them "
                "less than the P50, 95 of 100 less than the P95. An estimate: the buckets are "
                "wide above 10 s.",
                "The planner chooses by the one from the slot on, and refuses deadlines by the one "
                "from arrival, of which what runs and what waits is part.",
                "If it grows while nothing changed, the machines are used by others, too.",
            ),
            Query(quantile(0.5, "balancer_first_token_prediction_error_seconds"), "P50"),
            Query(quantile(0.95, "balancer_first_token_prediction_error_seconds"), "P95"),
            Query(quantile(0.5, "balancer_arrival_prediction_error_seconds"), "From arrival, P50"),
            Query(quantile(0.95, "balancer_arrival_prediction_error_seconds"), "From arrival, P95"),
            unit="s",
        ),
        lines(
            16,
            "Waiting and working",
            Why(
                "Mean wait for a slot, loading aside, beside the mean time of a successful "
                "attempt.",
                "It tells slow machines from too few of them.",
                "Waiting grows and working does not: add a backend, or move batch work to the "
                "night.",
            ),
            Query(mean("balancer_queue_wait_seconds"), "waiting"),
            Query(mean("balancer_request_duration_seconds"), "working"),
            unit="s",
        ),
    ),
)

FLEET_PERFORMANCE = Dashboard(
    uid="fleet-performance",
    title="Fleet performance",
    question="How fast is the suite against its targets, and what takes its time?",
    group="fleet",
    refresh="30s",
    span="1h",
    sections=(_TARGETS, _MODELS, _PLANNER),
)
