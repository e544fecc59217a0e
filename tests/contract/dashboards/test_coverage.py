"""Every metric that the services declare is shown or listed, and none is shown that they lack."""

import json
from pathlib import Path

import pytest

from services.balancer.metrics import CATALOGUE as BALANCER
from services.cache.metrics import CATALOGUE as CACHE
from services.common.metrics import COMMON_METRICS, RPC_CLIENT_METRICS, MetricKind
from services.rag.metrics import CATALOGUE as RAG
from tools.monitoring.dashboards.exceptions import INTERNAL_METRICS
from tools.monitoring.dashboards.queries import panel_queries, used_metrics

ROOT = Path(__file__).resolve().parents[3]
DECLARED = {
    metric.name: metric
    for metric in (*COMMON_METRICS, *RPC_CLIENT_METRICS, *BALANCER, *CACHE, *RAG)
}
# What prometheus_client shows of the process, Prometheus of its targets, Tempo of spans.
FOREIGN = {
    "process_cpu_seconds_total": set(),
    "process_max_fds": set(),
    "process_open_fds": set(),
    "process_resident_memory_bytes": set(),
    "process_start_time_seconds": set(),
    "python_gc_collections_total": {"generation"},
    "up": set(),
    "traces_service_graph_request_client_seconds": {"client", "server", "le"},
    "traces_service_graph_request_failed_total": {"client", "server"},
    "traces_service_graph_request_total": {"client", "server"},
    "traces_spanmetrics_calls_total": {"service", "span_name", "status_code"},
    "traces_spanmetrics_latency": {"service", "span_name", "le"},
}
TARGET_LABELS = {"job", "instance"}


def _used():
    used = {}
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        for query in panel_queries(json.loads(path.read_text())):
            if query.datasource_type == "prometheus":
                for name, labels in used_metrics(query.expr).items():
                    used.setdefault(_family(name), set()).update(labels)
    return used


def _family(name):
    for ending in ("_bucket", "_sum", "_count"):
        stem = name.removesuffix(ending)
        if stem != name and (stem in FOREIGN or _is_histogram(stem)):
            return stem
    return name


def _is_histogram(name):
    return name in DECLARED and DECLARED[name].kind is MetricKind.HISTOGRAM


USED = _used()


def test_every_metric_of_every_service_is_shown_or_listed_as_internal():
    assert set(DECLARED) - set(USED) - set(INTERNAL_METRICS) == set()


def test_nothing_is_listed_as_internal_that_is_shown():
    assert set(INTERNAL_METRICS) & set(USED) == set()


@pytest.mark.parametrize("name", sorted(USED))
def test_a_panel_names_no_metric_or_label_that_nobody_measures(name):
    if name in FOREIGN:
        known = FOREIGN[name]
    else:
        assert name in DECLARED
        known = {*DECLARED[name].labels, *(["le"] if _is_histogram(name) else [])}
    assert USED[name] - known - TARGET_LABELS == set()
