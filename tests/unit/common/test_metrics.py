import pytest
from prometheus_client import generate_latest

from services.common.metrics import Metric, MetricKind, Metrics

CATALOGUE = (
    Metric("jobs_total", MetricKind.COUNTER, "Jobs.", {"outcome": "ok, failed"}),
    Metric("queue_depth", MetricKind.GAUGE, "Waiting jobs.", {}),
    Metric("job_seconds", MetricKind.HISTOGRAM, "Time of a job.", {}, buckets=(0.1, 1.0)),
)


def page(metrics):
    return generate_latest(metrics.registry).decode()


def test_what_is_declared_can_be_measured():
    metrics = Metrics(CATALOGUE, version="1.2")
    metrics.count("jobs_total", "ok")
    metrics.count("jobs_total", "ok", amount=2)
    metrics.set_gauge("queue_depth", 5)
    metrics.add_gauge("queue_depth", -1)
    metrics.observe("job_seconds", 0.5)
    shown = page(metrics)
    assert 'jobs_total{outcome="ok"} 3.0' in shown
    assert "queue_depth 4.0" in shown
    assert 'job_seconds_bucket{le="0.1"} 0.0' in shown
    assert 'job_seconds_bucket{le="1.0"} 1.0' in shown
    assert 'service_build_info{version="1.2"} 1.0' in shown


def test_what_is_not_declared_cannot_be_measured():
    with pytest.raises(KeyError):
        Metrics((), version="1").count("jobs_total", "ok")


def test_what_exists_no_more_is_shown_no_more():
    catalogue = (
        *CATALOGUE,
        Metric("calls_total", MetricKind.COUNTER, "Calls.", {"host": "hosts", "outcome": "all"}),
        Metric("call_seconds", MetricKind.HISTOGRAM, "Time.", {"host": "hosts"}),
    )
    metrics = Metrics(catalogue, version="1")
    metrics.set_gauge("queue_depth", 5)
    metrics.count("jobs_total", "a")
    for host in ("a", "b"):
        metrics.count("calls_total", host, "ok")
        metrics.count("calls_total", host, "a")
        metrics.observe("call_seconds", 1.0, host)
    metrics.remove_series("host", "a")
    shown = page(metrics)
    assert 'host="a"' not in shown
    # Neither other values nor other labels with that value.
    assert 'calls_total{host="b",outcome="a"} 1.0' in shown
    assert 'call_seconds_count{host="b"} 1.0' in shown
    assert 'jobs_total{outcome="a"} 1.0' in shown
    assert "queue_depth 5.0" in shown
    metrics.count("calls_total", "a", "ok", amount=2)
    assert 'calls_total{host="a",outcome="ok"} 2.0' in page(metrics)
    metrics.remove_series("host", "never seen")


def test_no_series_tell_when_they_were_created():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.count("jobs_total", "ok")
    assert "_created" not in page(metrics)
