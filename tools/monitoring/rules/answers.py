"""Alerts about what users get: errors, latency, quality, tools and retrieval."""

from tools.monitoring import thresholds
from tools.monitoring.rules.model import Alert, Channel, Group, Panel, Severity

__all__ = ["GROUP"]


def _latency(quantile: str) -> str:
    return (
        f"histogram_quantile({quantile}, sum by (le) "
        "(rate(rag_request_duration_seconds_bucket[5m])))"
    )


GROUP = Group(
    "answers",
    (
        Alert(
            name="HighErrorRate",
            # What a budget forbids is quickly asked again: it would hide the failures of others.
            expr='sum(rate(rag_requests_total{outcome="error"}[5m]))'
            '\n  / sum(rate(rag_requests_total{outcome!="refused"}[5m]))'
            f" > {thresholds.ERROR_RATIO:g}",
            limit=f"more than {thresholds.ERROR_RATIO:.0%} of questions fail",
            minutes=5,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK, Channel.PAGERDUTY),
            service="rag",
            summary="Many questions fail",
            description="{{ $value | humanizePercentage }} of questions of the last 5 minutes "
            "failed.",
            panel=Panel("performance-overview", 5),
        ),
        Alert(
            name="HighLatency",
            expr=f"{_latency('0.95')} > {thresholds.HIGH_LATENCY_SECONDS:g}",
            limit=f"95th percentile of answers above {thresholds.HIGH_LATENCY_SECONDS:g} s",
            minutes=5,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="rag",
            summary="Answers are slow",
            description="One answer in twenty takes longer than {{ $value | humanizeDuration }}.",
            panel=Panel("performance-overview", 3),
        ),
        Alert(
            name="VeryHighLatency",
            expr=f"{_latency('0.99')} > {thresholds.VERY_HIGH_LATENCY_SECONDS:g}",
            limit=f"99th percentile of answers above {thresholds.VERY_HIGH_LATENCY_SECONDS:g} s",
            minutes=5,
            kept_minutes=5,
            severity=Severity.CRITICAL,
            channels=(Channel.PAGERDUTY,),
            service="rag",
            summary="Answers are very slow",
            description="One answer in a hundred takes longer than "
            "{{ $value | humanizeDuration }}.",
            panel=Panel("performance-overview", 4),
        ),
        Alert(
            name="LowQualityScore",
            expr="sum(rate(rag_quality_score_sum[10m]))"
            "\n  / sum(rate(rag_quality_score_count[10m]))"
            f" < {thresholds.LOW_QUALITY_SCORE:g}",
            limit=f"mean quality of answers below {thresholds.LOW_QUALITY_SCORE:g}",
            minutes=10,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="rag",
            summary="Answers are poor",
            description="The mean quality of answers of the last 10 minutes is "
            '{{ $value | printf "%.2f" }}.',
            panel=Panel("system-health", 5),
        ),
        Alert(
            name="HighDegradationRate",
            expr="sum(rate(rag_degraded_responses_total[10m]))"
            f"\n  / sum(rate(rag_requests_total[10m])) > {thresholds.DEGRADED_RATIO:g}",
            limit=f"more than {thresholds.DEGRADED_RATIO:.0%} of questions get a lesser answer",
            minutes=10,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="rag",
            summary="Many answers are degraded",
            description="{{ $value | humanizePercentage }} of questions of the last 10 minutes "
            "were answered without something that was missing.",
            panel=Panel("performance-overview", 9),
        ),
        Alert(
            name="ToolFailureRateHigh",
            expr='sum by (tool) (rate(rag_tool_executions_total{outcome=~"failed|timed_out"}[10m]))'
            "\n  / sum by (tool) (rate(rag_tool_executions_total[10m]))"
            f" > {thresholds.TOOL_FAILURE_RATIO:g}",
            limit=f"more than {thresholds.TOOL_FAILURE_RATIO:.0%} of a tool's calls fail or take "
            "too long",
            minutes=10,
            kept_minutes=5,
            severity=Severity.WARNING,
            channels=(Channel.SLACK,),
            service="rag",
            summary="A tool of the agent fails",
            description="{{ $value | humanizePercentage }} of the calls of {{ $labels.tool }} in "
            "the last 10 minutes failed or took too long.",
            panel=Panel("system-health", 7),
        ),
        Alert(
            name="RAGFailureRateHigh",
            expr='sum(rate(rag_retrievals_total{outcome="error"}[10m]))'
            f"\n  / sum(rate(rag_retrievals_total[10m])) > {thresholds.RETRIEVAL_FAILURE_RATIO:g}",
            limit=f"more than {thresholds.RETRIEVAL_FAILURE_RATIO:.0%} of retrievals fail",
            minutes=10,
            kept_minutes=5,
            severity=Severity.CRITICAL,
            channels=(Channel.PAGERDUTY,),
            service="rag",
            summary="Documents cannot be searched",
            description="{{ $value | humanizePercentage }} of the retrievals of the last 10 "
            "minutes failed.",
            panel=Panel("system-health", 8),
        ),
    ),
)
