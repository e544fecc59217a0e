"""Alerts about the watching itself: without these, a service that is gone raises none at all."""

from tools.monitoring import thresholds
from tools.monitoring.rules.model import Alert, Channel, Group, Panel, Severity

__all__ = ["GROUP"]

_JOB = "{{ $labels.job }}"
_SERVICE_PANEL = Panel("fleet-health", 10)


def _absent(job: str, metric: str) -> Alert:
    return Alert(
        name=f"{job.capitalize()}MetricsAbsent",
        expr=f'absent({metric}{{job="{job}"}})',
        limit=f"no metrics of {job}",
        minutes=5,
        severity=Severity.CRITICAL,
        channels=(Channel.SLACK, Channel.PAGERDUTY),
        service=job,
        summary=f"Nothing is known of {job}",
        description=f"Prometheus has no metrics of {job}; alerts about it cannot fire.",
        panel=_SERVICE_PANEL,
    )


GROUP = Group(
    "watching",
    (
        Alert(
            name="TargetDown",
            expr='up{job=~"rag|cache|balancer"} == 0',
            limit="a service does not answer Prometheus",
            minutes=1,
            severity=Severity.CRITICAL,
            channels=(Channel.SLACK, Channel.PAGERDUTY),
            service=_JOB,
            summary="A service does not answer",
            description="{{ $labels.instance }} of {{ $labels.job }} does not show its metrics.",
            panel=_SERVICE_PANEL,
        ),
        _absent("rag", "rag_requests_total"),
        _absent("cache", "cache_lookups_total"),
        _absent("balancer", "balancer_outcomes_total"),
        Alert(
            name="EventLoopLag",
            expr="histogram_quantile(0.99, sum by (le, job, instance)"
            " (rate(service_event_loop_lag_seconds_bucket[5m])))"
            f" > {thresholds.EVENT_LOOP_LAG_SECONDS:g}",
            limit="99th percentile of the event loop's lag above "
            f"{thresholds.EVENT_LOOP_LAG_SECONDS:g} s",
            minutes=10,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service=_JOB,
            summary="A service is held up by its own work",
            description="One timer in a hundred of {{ $labels.instance }} runs more than "
            "{{ $value | humanizeDuration }} late, and calls with it.",
            panel=Panel("system-health", 11),
        ),
        Alert(
            name="SpansDropped",
            expr="sum by (job, instance) (increase(telemetry_spans_dropped_total[10m])) > 0",
            limit="a span was lost",
            minutes=0,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service=_JOB,
            summary="Traces have holes",
            description='{{ $labels.instance }} has lost {{ $value | printf "%.0f" }} spans '
            "within 10 minutes.",
            panel=Panel("deep-dive", 15),
        ),
        Alert(
            name="Watchdog",
            expr="vector(1)",
            limit="always",
            minutes=0,
            severity=Severity.NONE,
            channels=(Channel.WATCHDOG,),
            service="prometheus",
            summary="Alerts arrive",
            description="Always fires. Where it does not arrive, neither does any other alert.",
            panel=_SERVICE_PANEL,
        ),
    ),
)
