"""Error budgets over 30 days: how fast they are used up, and alerts on that.

Factors and ranges are those of the SRE workbook, chapter 5, https://sre.google/workbook/.
"""

from dataclasses import dataclass

from tools.monitoring import thresholds
from tools.monitoring.rules.model import Alert, Channel, Group, Panel, Recording, Severity
from tools.monitoring.thresholds import BurnRate

__all__ = ["ALERTS", "RECORDINGS"]


def _failed(window: str) -> str:
    # Who leaves, or has spent its budget, is neither served well nor badly.
    return (
        f'sum by (job) (rate(rag_requests_total{{outcome="error"}}[{window}]))'
        f'\n  / sum by (job) (rate(rag_requests_total{{outcome=~"success|error"}}[{window}]))'
    )


def _slow(window: str) -> str:
    # Services write an edge of 5 as 5.0; what passes on their samples may write 5.
    edge = f'le=~"{thresholds.SLOW_SECONDS:g}([.]0)?"'
    return (
        f"1 - sum by (job) (rate(rag_request_duration_seconds_bucket{{{edge}}}[{window}]))"
        f"\n  / sum by (job) (rate(rag_request_duration_seconds_count[{window}]))"
    )


RECORDINGS = Group(
    "objectives",
    (
        *(
            Recording(f"job:rag_errors:ratio_rate{window}", _failed(window))
            for window in thresholds.OBJECTIVE_WINDOWS
        ),
        *(
            Recording(f"job:rag_slow:ratio_rate{window}", _slow(window))
            for window in thresholds.OBJECTIVE_WINDOWS
        ),
    ),
)
"""Shares of questions that failed, and of answers that were slow."""


def _burns(metric: str, budget: float, rates: tuple[BurnRate, ...]) -> str:
    """Returns what is true where a budget is used up too fast in both ranges of one of the rates.

    The short range lets the alert end soon after its cause has.
    """
    return "\nor ".join(
        f"(\n  job:{metric}:ratio_rate{rate.long_window} > {rate.factor * budget:g}"
        f"\n  and job:{metric}:ratio_rate{rate.short_window} > {rate.factor * budget:g}\n)"
        for rate in rates
    )


@dataclass(frozen=True, slots=True)
class _Objective:
    metric: str
    budget: float
    subject: str
    adjective: str
    predicate: str
    panel: Panel


def _alert(name: str, objective: _Objective, *, page: bool) -> Alert:
    rates = thresholds.PAGE_BURN_RATES if page else thresholds.TICKET_BURN_RATES
    budget = objective.budget
    shares = " or ".join(
        f"{rate.factor * budget:.1%} over {rate.long_window} and {rate.short_window}"
        for rate in rates
    )
    return Alert(
        name=name,
        expr=_burns(objective.metric, budget, rates),
        limit=f"more {objective.subject} {objective.predicate} than {shares}",
        minutes=2 if page else 15,
        severity=Severity.CRITICAL if page else Severity.WARNING,
        channels=(Channel.PAGERDUTY,) if page else (Channel.SLACK,),
        service="rag",
        summary=f"The month's budget of {objective.adjective} {objective.subject} runs out "
        + ("soon" if page else "too early"),
        description=f"{{{{ $value | humanizePercentage }}}} of {objective.subject} "
        f"{objective.predicate}; {budget:.0%} may within 30 days.",
        panel=objective.panel,
    )


_ERRORS = _Objective(
    "rag_errors",
    thresholds.ERROR_BUDGET_RATIO,
    "questions",
    "failed",
    "fail",
    Panel("performance-overview", 13),
)
_SLOWNESS = _Objective(
    "rag_slow",
    thresholds.LATENCY_BUDGET_RATIO,
    "answers",
    "slow",
    f"take longer than {thresholds.SLOW_SECONDS:g} s",
    Panel("performance-overview", 14),
)

ALERTS = Group(
    "budgets",
    (
        _alert("ErrorBudgetBurnFast", _ERRORS, page=True),
        _alert("ErrorBudgetBurnSlow", _ERRORS, page=False),
        _alert("LatencyBudgetBurnFast", _SLOWNESS, page=True),
        _alert("LatencyBudgetBurnSlow", _SLOWNESS, page=False),
    ),
)
"""A budget that is used up much too fast calls somebody; one that only will not last, does not."""
