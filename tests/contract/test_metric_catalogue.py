"""Rules about what services measure."""

import importlib
import math
from pathlib import Path

import pytest

from services.common.metrics import COMMON_METRICS, RPC_CLIENT_METRICS, MetricKind, Metrics

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("balancer", "cache", "rag")
CATALOGUES = {
    service: importlib.import_module(f"services.{service}.metrics").CATALOGUE
    for service in SERVICES
}
EVERY_METRIC = {
    metric.name: metric
    for catalogue in (COMMON_METRICS, *CATALOGUES.values())
    for metric in catalogue
}
# Counts and shares of whatever the name says, without a unit of their own.
UNITLESS = {"rag_llm_calls_per_query", "rag_retrieval_confidence", "rag_retrieved_chunks"}
# Prometheus would rename them: it has such labels itself.
RESERVED_LABELS = {"job", "instance", "le", "quantile"}
MOST_VALUES = 160
MOST_SERIES_AT_START = 3000


@pytest.mark.parametrize("service", SERVICES)
def test_every_metric_of_a_service_has_its_name_and_is_measured(service):
    catalogue = CATALOGUES[service]
    names = [metric.name for metric in (*COMMON_METRICS, *catalogue)]
    assert len(names) == len(set(names))
    sources = "\n".join(
        path.read_text()
        for path in (ROOT / "services" / service).rglob("*.py")
        if path.name != "metrics.py"
    )
    for metric in catalogue:
        if metric in RPC_CLIENT_METRICS:
            continue
        assert metric.name.startswith(f"{service}_")
        assert f'"{metric.name}"' in sources, f"{metric.name} is declared and never measured"


def test_no_two_services_mean_different_things_by_one_name():
    for service, catalogue in CATALOGUES.items():
        for metric in catalogue:
            assert EVERY_METRIC[metric.name] is metric, f"{service}: {metric.name}"


@pytest.mark.parametrize("metric", EVERY_METRIC.values(), ids=EVERY_METRIC)
def test_a_metric_is_named_as_prometheus_wants_it(metric):
    assert metric.help.endswith(".")
    assert (metric.kind is MetricKind.COUNTER) == metric.name.endswith("_total")
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_milliseconds", "_percent"))
    if metric.kind is MetricKind.HISTOGRAM:
        units = ("_seconds", "_bytes", "_ratio", "_score")
        assert metric.name.endswith(units) or metric.name in UNITLESS
    assert not RESERVED_LABELS & set(metric.labels)


@pytest.mark.parametrize("metric", EVERY_METRIC.values(), ids=EVERY_METRIC)
def test_every_label_is_bounded(metric):
    for label in metric.labels.values():
        assert (1 <= len(label.values) <= MOST_VALUES) != (1 <= label.limit <= MOST_VALUES)
        assert label.describe()


@pytest.mark.parametrize("metric", EVERY_METRIC.values(), ids=EVERY_METRIC)
def test_the_edges_of_a_histogram_rise(metric):
    edges = list(metric.buckets)
    assert edges == sorted(set(edges))
    assert all(math.isfinite(edge) for edge in edges)
    if metric.has_exemplars:
        assert metric.kind is MetricKind.HISTOGRAM


@pytest.mark.parametrize(
    "name",
    [
        "balancer_model_load_seconds",
        "balancer_operation_duration_seconds",
        "balancer_request_duration_seconds",
        "rag_request_duration_seconds",
        "rag_time_to_first_token_seconds",
        "rpc_client_call_duration_seconds",
        "rpc_server_call_duration_seconds",
    ],
)
def test_whole_calls_are_measured_with_three_buckets_to_a_decade_at_least(name):
    edges = EVERY_METRIC[name].buckets
    for least in (0.01, 0.1, 1.0, 10.0):
        assert sum(least < edge <= 10 * least for edge in edges) >= 3, f"from {least} s on"
    assert least in edges


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_starts_with_few_series(service):
    metrics = Metrics(CATALOGUES[service], version="1")
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    assert len(samples) < MOST_SERIES_AT_START
