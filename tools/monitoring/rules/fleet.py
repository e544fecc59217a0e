"""Alerts about the balancer and the Ollama servers behind it."""

from tools.monitoring import thresholds
from tools.monitoring.rules.model import Alert, Channel, Group, Panel, Severity

__all__ = ["GROUP"]

GROUP = Group(
    "fleet",
    (
        Alert(
            name="NoHealthyBackend",
            # A balancer that has no backends at all shows none that could be unhealthy.
            expr="("
            "\n  sum by (job, instance) (balancer_backend_healthy)"
            '\n  or 0 * sum by (job, instance) (up{job="balancer"} == 1)'
            "\n) == 0",
            limit="no backend takes requests",
            minutes=1,
            severity=Severity.CRITICAL,
            channels=(Channel.SLACK, Channel.PAGERDUTY),
            service="balancer",
            summary="No backend takes requests",
            description="{{ $labels.instance }} has no backend that it could send a request to.",
            panel=Panel("fleet-health", 1),
        ),
        Alert(
            name="BackendDown",
            expr="min by (backend) (balancer_backend_healthy) == 0",
            limit="a backend takes no requests",
            minutes=2,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="balancer",
            summary="A backend takes no requests",
            description="{{ $labels.backend }} takes no requests, or not those of every balancer.",
            panel=Panel("fleet-health", 2),
        ),
        Alert(
            name="HealthCheckStale",
            expr="time() - min by (backend) (balancer_backend_last_check_timestamp_seconds)"
            f" > {thresholds.HEALTH_CHECK_STALE_SECONDS:g}",
            limit=f"a backend was not checked for {thresholds.HEALTH_CHECK_STALE_SECONDS:g} s",
            minutes=1,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="balancer",
            summary="The health of a backend is not looked at",
            description="{{ $labels.backend }} was last checked "
            "{{ $value | humanizeDuration }} ago.",
            panel=Panel("fleet-health", 2),
        ),
        Alert(
            name="BackendStalled",
            expr='sum by (job) (increase(balancer_stalls_total{outcome="hung"}[15m])) > 0',
            limit="a model answers nobody although it was loaded anew",
            minutes=0,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="balancer",
            summary="A backend needs a restart",
            description="A loaded model has stopped to answer, and loading it anew did not help.",
            panel=Panel("fleet-health", 13),
        ),
    ),
)
