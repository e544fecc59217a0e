"""What each alert fires at, and what it is quiet at: the source of deploy/prometheus/tests.

The figures are those of the alerts' definition, written out once more: they do not follow
`thresholds`, so that a limit that is changed by mistake does not take its test with it. All are
within a quarter of the limit. Growths are for a step of 15 seconds.
"""

from collections.abc import Mapping

from tools.monitoring.rules.answer_cases import ANSWERS, CACHING, COSTS
from tools.monitoring.rules.promtool import Case, Levels, Quiet

__all__ = ["GROUP_CASES"]

_HOUR = 240
_DAY_STEPS = 24 * _HOUR


_HEALTHY = 'balancer_backend_healthy{job="balancer",instance="balancer:9463",backend="ollama-%d"}'
_CHECKED = (
    'balancer_backend_last_check_timestamp_seconds{job="balancer",instance="balancer:9463",'
    'backend="ollama-1"}'
)
_BALANCER_UP = 'up{job="balancer",instance="balancer:9463"}'


def _backends(*healthy: float, up: float = 1) -> Levels:
    backends: Levels = {_HEALTHY % number: value for number, value in enumerate(healthy, 1)}
    return {_BALANCER_UP: up, **backends}


_FLEET = (
    Case(
        alert="NoHealthyBackend",
        above=_backends(0, 0),
        below=_backends(0, 1),
        quiet={"while the balancer itself is down": Quiet({_BALANCER_UP: 0})},
        labels={"job": "balancer", "instance": "balancer:9463"},
        begins=0,
    ),
    Case(
        alert="NoHealthyBackend",
        above={_BALANCER_UP: 1, _HEALTHY % 1: None},
        below=_backends(1),
        labels={"job": "balancer", "instance": "balancer:9463"},
        begins=0,
    ),
    Case(
        alert="BackendDown",
        above=_backends(1, 0),
        below=_backends(1, 1),
        labels={"backend": "ollama-2"},
        begins=0,
    ),
    Case(
        alert="HealthCheckStale",
        above={_CHECKED: 91},
        below={_CHECKED: 90},
        labels={"backend": "ollama-1"},
        value="1m 31s",
        begins=0,
    ),
    Case(
        alert="BackendStalled",
        above={'balancer_stalls_total{job="balancer",outcome="hung"}': 1},
        below={'balancer_stalls_total{job="balancer",outcome="hung"}': 0},
        labels={"job": "balancer"},
        ends=60,
    ),
)

_TARGET = {"job": "rag", "instance": "rag:9461"}
_LAG = 'service_event_loop_lag_seconds_bucket{job="rag",instance="rag:9461"'
_DROPPED = 'telemetry_spans_dropped_total{job="rag",instance="rag:9461"}'


def _lag(within: float) -> Levels:
    return {f'{_LAG},le="0.1"}}': within, f'{_LAG},le="0.25"}}': 100, f'{_LAG},le="+Inf"}}': 100}


def _absence(job: str, metric: str) -> Case:
    series = f'{metric}{{job="{job}",instance="one"}}'
    return Case(
        alert=f"{job.capitalize()}MetricsAbsent",
        above={series: None},
        below={series: 0},
        labels={"job": job},
        begins=0,
    )


_WATCHING = (
    Case(
        alert="TargetDown",
        above={'up{job="rag",instance="rag:9461"}': 0, 'up{job="prometheus",instance="x"}': 0},
        below={'up{job="rag",instance="rag:9461"}': 1, 'up{job="prometheus",instance="x"}': 0},
        labels=_TARGET,
        begins=0,
    ),
    _absence("rag", "rag_requests_total"),
    _absence("cache", "cache_lookups_total"),
    _absence("balancer", "balancer_outcomes_total"),
    Case(
        alert="EventLoopLag",
        above=_lag(98.9),
        below=_lag(99),
        labels=_TARGET,
        value="113.6ms",
        ends=20,
    ),
    Case(
        alert="SpansDropped",
        above={_DROPPED: 1},
        below={_DROPPED: 0},
        labels=_TARGET,
        value="3",
        ends=40,
    ),
    Case(alert="Watchdog", above={'up{job="rag"}': 1}, below={}, begins=0),
)


def _burn(metric: str, long: str, short: str, *, share: float, short_share: float) -> Levels:
    # Other ranges stay without samples: only the pair in question can make the alert fire.
    return {
        f'job:{metric}:ratio_rate{long}{{job="rag"}}': share,
        f'job:{metric}:ratio_rate{short}{{job="rag"}}': short_share,
    }


def _burns(alert: str, metric: str, long: str, short: str, limit: float) -> Case:
    above, value = 1.1 * limit, f"{110 * limit:.4g}%"
    return Case(
        alert=alert,
        above=_burn(metric, long, short, share=above, short_share=above),
        below=_burn(metric, long, short, share=limit, short_share=limit),
        quiet={
            "when it was bad and is over": Quiet(
                _burn(metric, long, short, share=above, short_share=limit)
            ),
            "when it is bad and has just begun": Quiet(
                _burn(metric, long, short, share=limit, short_share=above)
            ),
        },
        labels={"job": "rag"},
        value=value,
        begins=0,
    )


_BUDGETS = (
    _burns("ErrorBudgetBurnFast", "rag_errors", "1h", "5m", 0.144),
    _burns("ErrorBudgetBurnFast", "rag_errors", "6h", "30m", 0.06),
    _burns("ErrorBudgetBurnSlow", "rag_errors", "1d", "2h", 0.03),
    _burns("ErrorBudgetBurnSlow", "rag_errors", "3d", "6h", 0.01),
    _burns("LatencyBudgetBurnFast", "rag_slow", "1h", "5m", 0.72),
    _burns("LatencyBudgetBurnFast", "rag_slow", "6h", "30m", 0.3),
    _burns("LatencyBudgetBurnSlow", "rag_slow", "1d", "2h", 0.15),
    _burns("LatencyBudgetBurnSlow", "rag_slow", "3d", "6h", 0.05),
)

GROUP_CASES: Mapping[str, tuple[Case, ...]] = {
    "answers": ANSWERS,
    "caching": CACHING,
    "costs": COSTS,
    "fleet": _FLEET,
    "watching": _WATCHING,
    "budgets": _BUDGETS,
}
"""Cases by the group of their alerts."""
