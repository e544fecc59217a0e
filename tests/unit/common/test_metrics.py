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


def test_no_series_tell_when_they_were_created():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.count("jobs_total", "ok")
    assert "_created" not in page(metrics)
