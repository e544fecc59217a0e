"""What the balancer measures."""

from services.balancer.core.demand import Priority
from services.balancer.core.failures import FailureKind
from services.balancer.core.outcomes import (
    AttemptOutcome,
    HedgeOutcome,
    LoadCause,
    RequestOutcome,
    TrialOutcome,
)
from services.balancer.core.plan import Reason
from services.balancer.core.requests import Operation
from services.balancer.core.stalls import CureStep
from services.common.metrics import Metric, MetricKind, Metrics, one_of, up_to

__all__ = ["CATALOGUE", "create_series"]

_BACKEND = up_to(64, "configured backends by host and port")
_MODEL = up_to(20, "models in memory")
_OPERATION = one_of(*(each.value for each in Operation))
_PRIORITY = one_of(*(each.label for each in Priority))
_TRIAL = one_of(*(each.value for each in TrialOutcome))

# With 64 backends each edge costs 64 lines of `/metrics`: they hold what tells backends apart. What
# callers see is measured more finely where they are (rag).
_DURATION_BUCKETS_SECONDS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip
_FIRST_TOKEN_BUCKETS_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# From small models on good cards to large ones on processors.
_TOKEN_BUCKETS_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# Up to the longest time that a load is given by default.
_LOAD_BUCKETS_SECONDS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 330.0,
)  # fmt: skip
_QUEUE_BUCKETS_SECONDS = (
    0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
)  # fmt: skip
# A call costs about a millisecond; more than ten are a fault of ours.
_OVERHEAD_BUCKETS_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
_PREDICTION_BUCKETS_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_ARRIVAL_PREDICTION_BUCKETS_SECONDS = (0.05, 0.2, 1.0, 3.0, 10.0, 30.0, 120.0)

CATALOGUE = (
    Metric(
        "balancer_requests_total",
        MetricKind.COUNTER,
        "Attempts at backends that have ended; a retried request has several.",
        {
            "backend": _BACKEND,
            "outcome": one_of(
                *(each.value for each in AttemptOutcome),
                timeout="the backend was silent, or slower than the deadline",
                cancelled="the caller has left, or another backend was quicker",
                rejected="the request was at fault",
            ),
        },
    ),
    Metric(
        "balancer_request_duration_seconds",
        MetricKind.HISTOGRAM,
        "What successful attempts took, from request to last byte.",
        {"backend": _BACKEND},
        _DURATION_BUCKETS_SECONDS,
        has_exemplars=True,
    ),
    Metric(
        "balancer_operation_duration_seconds",
        MetricKind.HISTOGRAM,
        "What successful attempts took at any backend, by what was asked for.",
        {"operation": _OPERATION},
        _DURATION_BUCKETS_SECONDS,
        has_exemplars=True,
    ),
    Metric(
        "balancer_time_to_first_token_seconds",
        MetricKind.HISTOGRAM,
        "Time from an attempt's request to its first token; waiting in the queue comes before.",
        {"backend": _BACKEND},
        _FIRST_TOKEN_BUCKETS_SECONDS,
        has_exemplars=True,
    ),
    Metric(
        "balancer_time_per_output_token_seconds",
        MetricKind.HISTOGRAM,
        "Time per generated token, as the backend reports it.",
        {"backend": _BACKEND},
        _TOKEN_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_tokens_total",
        MetricKind.COUNTER,
        "Tokens read and generated, as the backend reports them.",
        {"backend": _BACKEND, "direction": one_of("input", "output")},
    ),
    Metric(
        "balancer_model_load_seconds",
        MetricKind.HISTOGRAM,
        "What loading a model took, by the balancer's order or within a request.",
        {},
        _LOAD_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_backend_loads_total",
        MetricKind.COUNTER,
        "Models loaded, by the balancer's order or within a request.",
        {"backend": _BACKEND},
    ),
    Metric(
        "balancer_backend_healthy",
        MetricKind.GAUGE,
        "Whether the backend takes requests: 1 or 0.",
        {"backend": _BACKEND},
    ),
    Metric(
        "balancer_backend_load_score",
        MetricKind.GAUGE,
        "Seconds until the backend would be done with one more request; lower is preferred.",
        {"backend": _BACKEND},
    ),
    Metric(
        "balancer_backend_inflight",
        MetricKind.GAUGE,
        "Attempts under way.",
        {"backend": _BACKEND},
    ),
    Metric(
        "balancer_backend_last_check_timestamp_seconds",
        MetricKind.GAUGE,
        "When the backend's health was last checked, seconds since the epoch.",
        {"backend": _BACKEND},
    ),
    Metric(
        "balancer_backend_model_vram_bytes",
        MetricKind.GAUGE,
        "Graphics memory that a model takes on a backend, as the backend lists it.",
        {"backend": _BACKEND, "model": _MODEL},
    ),
    Metric(
        "balancer_health_checks_total",
        MetricKind.COUNTER,
        "Health checks.",
        {"backend": _BACKEND, "outcome": _TRIAL},
    ),
    Metric(
        "balancer_routing_decisions_total",
        MetricKind.COUNTER,
        "Choices of a backend by their reason.",
        {"policy": one_of(*(each.value for each in Reason))},
    ),
    Metric(
        "balancer_outcomes_total",
        MetricKind.COUNTER,
        "Requests by their one outcome.",
        {
            "outcome": one_of(
                *(each.value for each in RequestOutcome),
                deadline="its time was up, or would have been",
                refused="there was no room",
                rejected="the request was at fault",
            )
        },
    ),
    Metric(
        "balancer_overhead_seconds",
        MetricKind.HISTOGRAM,
        "Time of a call, from its arrival to its end, in which it waited neither for a slot nor "
        "for a backend nor for its caller to read.",
        {"operation": _OPERATION},
        _OVERHEAD_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_queue_wait_seconds",
        MetricKind.HISTOGRAM,
        "Time in the queue until a slot, per attempt, without the loading of the model.",
        {"priority": _PRIORITY},
        _QUEUE_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_queue_depth",
        MetricKind.GAUGE,
        "Requests that wait for a slot.",
        {"priority": _PRIORITY},
    ),
    Metric(
        "balancer_first_token_prediction_error_seconds",
        MetricKind.HISTOGRAM,
        "How far the planner's prediction of the time from slot to first token was off.",
        {},
        _PREDICTION_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_arrival_prediction_error_seconds",
        MetricKind.HISTOGRAM,
        "How far the first prediction of the first token, made when the request came, was off.",
        {},
        _ARRIVAL_PREDICTION_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_model_loads_total",
        MetricKind.COUNTER,
        "Loads of models that the balancer has ordered.",
        {
            "cause": one_of(
                *(each.value for each in LoadCause), pin="kept in memory", cure="of a lost slot"
            )
        },
    ),
    Metric(
        "balancer_model_evictions_total",
        MetricKind.COUNTER,
        "Models unloaded to make room for others.",
        {},
    ),
    Metric(
        "balancer_stalls_total",
        MetricKind.COUNTER,
        "Loaded models that did not answer, by what came of it.",
        {
            "outcome": one_of(
                *(each.value for each in CureStep if each.is_outcome),
                cleared="a false alarm",
                cured="loaded anew",
                hung="only a restart helps",
            )
        },
    ),
    Metric(
        "balancer_canaries_total",
        MetricKind.COUNTER,
        "Requests for a single token that show whether a backend can do anything.",
        {"backend": _BACKEND, "outcome": _TRIAL},
    ),
    Metric(
        "balancer_reservations_lost_total",
        MetricKind.COUNTER,
        "Slots that another replica of the balancer had taken first.",
        {},
    ),
    Metric(
        "balancer_hedges_total",
        MetricKind.COUNTER,
        "Calls for vectors that were late, by what came of asking a second backend.",
        {
            "outcome": one_of(
                *(each.value for each in HedgeOutcome),
                won="it answered first",
                unspent="it was not asked for want of a free slot, or of budget",
            ),
        },
    ),
    Metric(
        "balancer_retry_budget_ratio",
        MetricKind.GAUGE,
        "Share of the retry budget that is left.",
        {},
    ),
    Metric(
        "balancer_retries_total",
        MetricKind.COUNTER,
        "Attempts repeated on another backend, by the failure before.",
        {"reason": one_of(*(each.value for each in FailureKind if each.retryable))},
    ),
)
"""Every metric of the balancer; a test holds it against what a running one shows."""


def create_series(metrics: Metrics) -> None:
    """Sets the gauges whose values are known before anything has happened.

    Args:
        metrics: The sink.
    """
    for priority in Priority:
        metrics.set_gauge("balancer_queue_depth", 0, priority.label)
