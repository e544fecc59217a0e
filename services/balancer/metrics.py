"""What the balancer measures."""

from collections.abc import Iterable

from services.balancer.core.demand import Priority
from services.balancer.core.failures import FailureKind
from services.balancer.core.plan import Reason
from services.balancer.core.requests import Operation
from services.common.metrics import (
    LATENCY_BUCKETS_SECONDS,
    Metric,
    MetricKind,
    Metrics,
    one_of,
    up_to,
)

__all__ = [
    "ATTEMPT_OUTCOMES",
    "CATALOGUE",
    "CHECK_OUTCOMES",
    "create_backend_series",
    "create_series",
]

ATTEMPT_OUTCOMES = ("success", "error", "timeout", "cancelled", "rejected")
CHECK_OUTCOMES = ("success", "error", "timeout")

REQUEST_OUTCOMES = ("success", "error", "cancelled", "deadline", "refused")
LOAD_CAUSES = ("demand", "pin", "operator", "cure")
HEDGE_OUTCOMES = ("won", "lost", "unspent")
STALL_OUTCOMES = ("cleared", "cured", "hung")

_BACKEND = up_to(64, "configured backends by host and port")
_OPERATION = one_of(*(each.value for each in Operation))
# From small models on good cards to large ones on processors.
_TOKEN_BUCKETS_SECONDS = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.35, 0.5, 1.0, 2.0,
)  # fmt: skip
_LOAD_BUCKETS_SECONDS = (
    0.1, 0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0,
)  # fmt: skip

CATALOGUE = (
    Metric(
        "balancer_requests_total",
        MetricKind.COUNTER,
        "Attempts at backends that have ended; a retried request has several.",
        {
            "backend": _BACKEND,
            "operation": _OPERATION,
            "outcome": one_of(
                "success",
                "error",
                "timeout",
                "cancelled",
                "rejected",
                rejected="the request was at fault",
            ),
        },
    ),
    Metric(
        "balancer_request_duration_seconds",
        MetricKind.HISTOGRAM,
        "What successful attempts took, from request to last byte.",
        {"backend": _BACKEND, "operation": _OPERATION},
        LATENCY_BUCKETS_SECONDS,
    ),
    Metric(
        "balancer_time_to_first_token_seconds",
        MetricKind.HISTOGRAM,
        "Time from an attempt's request to its first token.",
        {"backend": _BACKEND},
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
        "What loading a model took, for requests that had to wait for it.",
        {"backend": _BACKEND},
        _LOAD_BUCKETS_SECONDS,
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
        "balancer_health_checks_total",
        MetricKind.COUNTER,
        "Health checks.",
        {"backend": _BACKEND, "outcome": one_of("success", "error", "timeout")},
    ),
    Metric(
        "balancer_routing_decisions_total",
        MetricKind.COUNTER,
        "Choices of a backend by their reason.",
        {
            "policy": one_of(
                "lowest_cost",
                "longest_prefix",
                "least_busy",
                "only_candidate",
                "round_robin_fallback",
            )
        },
    ),
    Metric(
        "balancer_outcomes_total",
        MetricKind.COUNTER,
        "Requests by their one outcome.",
        {"outcome": one_of("success", "error", "cancelled", "deadline", "refused")},
    ),
    Metric(
        "balancer_queue_wait_seconds",
        MetricKind.HISTOGRAM,
        "Time a request waited for its slot, per attempt.",
        {"priority": one_of("system", "interactive", "batch")},
    ),
    Metric(
        "balancer_queue_waiting",
        MetricKind.GAUGE,
        "Requests that wait for a slot.",
        {"priority": one_of("system", "interactive", "batch")},
    ),
    Metric(
        "balancer_first_token_prediction_error_seconds",
        MetricKind.HISTOGRAM,
        "How far the planner's prediction of the time from slot to first token was off.",
        {},
    ),
    Metric(
        "balancer_model_loads_total",
        MetricKind.COUNTER,
        "Loads of models that the balancer has ordered.",
        {
            "cause": one_of(
                "demand", "pin", "operator", "cure", pin="kept in memory", cure="of a lost slot"
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
                "cleared",
                "cured",
                "hung",
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
        {"backend": _BACKEND, "outcome": one_of("success", "error", "timeout")},
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
                "won",
                "lost",
                "unspent",
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
        {
            "reason": one_of(
                "connection",
                "timeout",
                "stalled",
                "busy",
                "server_error",
                "broken_reply",
                "model_absent",
            ),
        },
    ),
)
"""Every metric of the balancer; a test holds it against what a running one shows."""


def create_series(metrics: Metrics) -> None:
    """Creates the series whose labels are known, so that a rate exists before the first event.

    Args:
        metrics: The sink.
    """
    for reason in Reason:
        metrics.count("balancer_routing_decisions_total", reason.value, amount=0)
    for kind in FailureKind:
        if kind.retryable:
            metrics.count("balancer_retries_total", kind.value, amount=0)
    for outcome in REQUEST_OUTCOMES:
        metrics.count("balancer_outcomes_total", outcome, amount=0)
    for priority in Priority:
        metrics.set_gauge("balancer_queue_waiting", 0, priority.label)
    for cause in LOAD_CAUSES:
        metrics.count("balancer_model_loads_total", cause, amount=0)
    for outcome in HEDGE_OUTCOMES:
        metrics.count("balancer_hedges_total", outcome, amount=0)
    for outcome in STALL_OUTCOMES:
        metrics.count("balancer_stalls_total", outcome, amount=0)
    metrics.set_gauge("balancer_retry_budget_ratio", 1)


def create_backend_series(metrics: Metrics, backend_ids: Iterable[str]) -> None:
    """Creates the series of backends.

    Args:
        metrics: The sink.
        backend_ids: The backends.
    """
    for backend_id in backend_ids:
        for operation in Operation:
            for outcome in ATTEMPT_OUTCOMES:
                metrics.count(
                    "balancer_requests_total", backend_id, operation.value, outcome, amount=0
                )
        for outcome in CHECK_OUTCOMES:
            metrics.count("balancer_health_checks_total", backend_id, outcome, amount=0)
            metrics.count("balancer_canaries_total", backend_id, outcome, amount=0)
        for direction in ("input", "output"):
            metrics.count("balancer_tokens_total", backend_id, direction, amount=0)
        metrics.set_gauge("balancer_backend_inflight", 0, backend_id)
        metrics.set_gauge("balancer_backend_healthy", 0, backend_id)
