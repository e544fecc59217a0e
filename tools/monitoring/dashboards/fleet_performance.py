"""Fleet performance: how fast is the suite, and what takes its time?"""

from tools.monitoring import thresholds as limits
from tools.monitoring.dashboards.board import Dashboard, Section
from tools.monitoring.dashboards.expressions import mean, quantile, rate, ratio
from tools.monitoring.dashboards.kinds import gauge, lines, on_the_right
from tools.monitoring.dashboards.panels import Limits, Query, Why, above, below

__all__ = ["FLEET_PERFORMANCE"]

_LATENCY = "rag_request_duration_seconds"
_HITS = 'cache_lookups_total{result="hit"}'
_ANSWERED = 'cache_lookups_total{result=~"hit|miss"}'


def _against(target: float) -> Limits:
    return Limits((("green", None), ("yellow", target), ("red", 10 * target)))


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
            most=20 * limits.CACHED_LATENCY_P50_SECONDS,
            limits=_against(limits.CACHED_LATENCY_P50_SECONDS),
        ),
        gauge(
            2,
            "P95 latency",
            Why(
                f"The time within which 95 of 100 answers are whole, now. The target is "
                f"{limits.CACHED_LATENCY_P95_SECONDS:g} s.",
                "Near the median it means that almost everything comes from the cache.",
                "Far above the median: misses; Cache impact on Business metrics shows their time.",
            ),
            Query(quantile(0.95, _LATENCY), "P95"),
            unit="s",
            most=20 * limits.CACHED_LATENCY_P95_SECONDS,
            limits=_against(limits.CACHED_LATENCY_P95_SECONDS),
            alerts=("HighLatency",),
        ),
        gauge(
            3,
            "P99 latency",
            Why(
                f"The time within which 99 of 100 answers are whole, now. The target is "
                f"{limits.CACHED_LATENCY_P99_SECONDS:g} s.",
                "It is where cold models and queues show.",
                "Far above: Time to first token by backend below, then the queue on Fleet health.",
            ),
            Query(quantile(0.99, _LATENCY), "P99"),
            unit="s",
            most=20 * limits.CACHED_LATENCY_P99_SECONDS,
            limits=_against(limits.CACHED_LATENCY_P99_SECONDS),
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
                "Calls that ended each second, by service.",
                f"The suite is meant to stand {limits.THROUGHPUT_PER_SECOND:g} questions a "
                "second at least; one question makes several calls to cache and balancer.",
                "If rag's rate stays flat while its queue grows, the fleet is at its limit.",
            ),
            Query(rate("rpc_server_call_duration_seconds_count", "job"), "{{job}}"),
            unit="reqps",
        ),
        lines(
            6,
            "Hit rate by layer",
            Why(
                "Hits among hits and misses, by layer.",
                f"With returning questions expect {limits.EMBEDDING_HIT_RATIO:.0%} of "
                f"embeddings, {limits.INFERENCE_HIT_RATIO:.0%} of answers and "
                f"{limits.CHUNK_HIT_RATIO:.0%} of chunks.",
                "A layer that falls alone: its entries were invalidated, or its key changed with "
                "a model.",
            ),
            Query(ratio(rate(_HITS, "layer"), rate(_ANSWERED, "layer")), "{{layer}}"),
            unit="percentunit",
            limits=below(limits.LOW_CACHE_HIT_RATIO, limits.GOOD_CACHE_HIT_RATIO),
            alerts=("LowCacheHitRate",),
        ),
        lines(
            8,
            "Stage latency P95",
            Why(
                "The time within which 95 of 100 runs of each stage of an answer were done.",
                "It names the stage that takes the time.",
                "generate: the fleet. retrieve or vector: PostgreSQL. rerank: this process's CPU.",
            ),
            Query(quantile(0.95, "rag_stage_duration_seconds", "stage"), "{{stage}}"),
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
                "The time within which 95 of 100 attempts had their first token, by backend.",
                "It is what a reader of a streamed answer waits for.",
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
                "Tokens each second that each backend generates, as it reports them.",
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
                "Tokens each second that each backend reads, as it reports them. Tokens that it "
                "still had from the prompt before are not among them.",
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
                "The time within which 95 of 100 successful attempts were done, by operation.",
                "Vectors must be there within a fraction of what an answer takes.",
                "embed slow alone: its model was pushed out of memory; pin it.",
            ),
            Query(
                quantile(0.95, "balancer_request_duration_seconds", "operation"), "{{operation}}"
            ),
            unit="s",
        ),
        lines(
            12,
            "Model loads and evictions",
            Why(
                "Loads of models that the balancer has ordered each second, by cause, and models "
                "unloaded to make room.",
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
                "Mostly lost: the wait before a hedge is too short. Unspent: no backend was free.",
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
                "the backend, by operation; 95 of 100 were shorter.",
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
                "How far the predicted time to the first token was off: half of them less than "
                "the lower line, 95 of 100 less than the upper.",
                "The planner chooses by this prediction.",
                "If it grows while nothing changed, the machines are used by others, too.",
            ),
            Query(quantile(0.5, "balancer_first_token_prediction_error_seconds"), "P50"),
            Query(quantile(0.95, "balancer_first_token_prediction_error_seconds"), "P95"),
            unit="s",
        ),
        lines(
            16,
            "Waiting and working",
            Why(
                "Mean wait of an attempt for its slot, beside the mean time of a successful "
                "attempt; on the right the share that waiting has.",
                "It tells slow machines from too few of them.",
                "A growing share of waiting: add a backend, or move batch work to the night.",
            ),
            Query(mean("balancer_queue_wait_seconds"), "waiting"),
            Query(mean("balancer_request_duration_seconds"), "working"),
            Query(
                ratio(
                    rate("balancer_queue_wait_seconds_sum"),
                    f"({rate('balancer_queue_wait_seconds_sum')} + "
                    f"{rate('balancer_request_duration_seconds_sum')})",
                ),
                "share of waiting",
            ),
            unit="s",
            limits=above(limits.HIGH_LATENCY_SECONDS),
            overrides=(on_the_right("C", "percentunit", most=1),),
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
