"""Rules and the runbook name only metrics and labels that the services declare."""

import re

import pytest

from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS, RPC_CLIENT_METRICS, MetricKind
from services.rag.metrics import CATALOGUE as RAG
from tests.kit.prometheus import ROOT
from tools.monitoring.dashboards.queries import used_metrics
from tools.monitoring.rules import GROUPS
from tools.monitoring.rules.cases import GROUP_CASES

# Prometheus adds these to everything that it reads.
_OF_THE_SCRAPE = {"job", "instance"}
_EVERYWHERE: dict[str, set[str]] = {
    "up": set(),
    "ALERTS": {"alertname", "alertstate"},
    "process_start_time_seconds": set(),
    "process_cpu_seconds_total": set(),
}


def _declared() -> dict[str, set[str]]:
    names = dict(_EVERYWHERE)
    for metric in (*COMMON_METRICS, *RPC_CLIENT_METRICS, *RAG, *CACHE, *BALANCER):
        labels = set(metric.labels)
        if metric.kind is MetricKind.HISTOGRAM:
            names[f"{metric.name}_bucket"] = labels | {"le"}
            names[f"{metric.name}_sum"] = names[f"{metric.name}_count"] = labels
        else:
            names[metric.name] = labels
    for group in GROUPS:
        names |= {rule.name: set() for rule in group.rules if ":" in rule.name}
    return names


DECLARED = _declared()
KNOWN_VALUES = {
    (metric.name, name): label.values
    for metric in (*COMMON_METRICS, *RAG, *CACHE, *BALANCER)
    for name, label in metric.labels.items()
}
_RULES = [(rule.name, rule.expr) for group in GROUPS for rule in group.rules]
_RUNBOOK = re.findall(
    r"^```promql\n(.*?)\n```$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize(("name", "query"), [*_RULES, *(("runbook", each) for each in _RUNBOOK)])
def test_queries_name_what_the_services_declare(name, query):
    for metric, labels in used_metrics(query).items():
        assert metric in DECLARED, metric
        assert labels <= DECLARED[metric] | _OF_THE_SCRAPE, metric


def test_cases_feed_alerts_with_series_that_services_show():
    """A test on a series that nobody shows would pass, and its alert never fire."""
    for cases in GROUP_CASES.values():
        for case in cases:
            for series in case.above:
                metric = series.partition("{")[0]
                labels = dict(re.findall(r'[{,](\w+)="([^"]*)"', series))
                assert metric in DECLARED, series
                assert set(labels) <= DECLARED[metric] | _OF_THE_SCRAPE, series
                for label, value in labels.items():
                    known = KNOWN_VALUES.get((metric, label))
                    assert not known or value in known, series


def test_limits_of_latency_are_edges_of_their_histograms():
    """Between two edges a percentile is a guess, and beyond the last it never grows."""
    edges = {metric.name: metric.buckets for metric in (*COMMON_METRICS, *RAG)}

    assert {5, 10, 30} <= set(edges["rag_request_duration_seconds"])
    assert 0.1 in edges["service_event_loop_lag_seconds"]
