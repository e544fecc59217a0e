"""The size of `/metrics`, and what it shows from the start."""

import pytest

from services.balancer.metrics import CATALOGUE, create_series
from services.common.metrics import Metrics

MODELS_IN_MEMORY = 3


def of_a_fleet(backend_count):
    """The metrics of a balancer all of whose series have come up."""
    metrics = Metrics(CATALOGUE, version="test")
    create_series(metrics)
    backends = [f"10.0.0.{number}:11434" for number in range(backend_count)]
    for backend in backends:
        metrics.create_series("backend", backend)
        for gauge in CATALOGUE:
            if list(gauge.labels) == ["backend"] and gauge.kind.value == "gauge":
                metrics.set_gauge(gauge.name, 1.5, backend)
    metrics.replace_gauge(
        "balancer_backend_model_vram_bytes",
        {
            (backend, f"model-{(number + each) % 20}:latest"): 5e9
            for number, backend in enumerate(backends)
            for each in range(MODELS_IN_MEMORY)
        },
    )
    return metrics


def series_count(metrics):
    return sum(
        sample.name.startswith("balancer_")
        for family in metrics.registry.collect()
        for sample in family.samples
    )


@pytest.mark.parametrize(("backend_count", "most"), [(1, 300), (8, 700), (48, 3_100), (64, 4_000)])
def test_a_fleet_has_a_bounded_number_of_series(backend_count, most):
    assert series_count(of_a_fleet(backend_count)) <= most


def test_all_that_is_counted_of_a_backend_exists_once_it_has_come():
    metrics = Metrics(CATALOGUE, version="test")
    metrics.create_series("backend", "h:1")
    value = metrics.registry.get_sample_value
    assert value("balancer_requests_total", {"backend": "h:1", "outcome": "timeout"}) == 0
    assert value("balancer_request_duration_seconds_count", {"backend": "h:1"}) == 0
