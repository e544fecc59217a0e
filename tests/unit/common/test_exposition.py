"""The page is compared with the one that the client library writes."""

import math
import threading

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from services.common.exposition import Page


@pytest.fixture
def registry():
    # As the sink does.
    disable_created_metrics()
    registry = CollectorRegistry()
    counter = Counter("jobs_total", 'Jobs "done"\nhere \\ there.', ["b", "a"], registry=registry)
    counter.labels('x"y', "p\\q\nr").inc(3)
    counter.labels("ü", "").inc(1e21)
    gauge = Gauge("depth", "Depth.", ["n"], registry=registry)
    for value in (0, -0.5, 1e-9, 123456789.0, math.inf, -math.inf, math.nan):
        gauge.labels(str(value)).set(value)
    Gauge("plain", "Without labels.", registry=registry).set(1)
    Gauge("empty", "Without series.", ["x"], registry=registry)
    histogram = Histogram("seconds", "Time.", ["k"], registry=registry, buckets=(0.1, 1, 1e6))
    histogram.labels("v").observe(0.5, {"trace_id": "ab", "a_id": 'c"d'})
    histogram.labels("v").observe(7)
    Info("build", "Build.", registry=registry).info({"version": "1"})
    return registry


def without_info(page):
    # Nothing here has metrics of this type; the formats name them differently.
    return [line for line in page.decode().splitlines() if "build" not in line]


def test_both_formats_are_those_of_the_library(registry):
    page = Page(registry)
    for _ in range(2):
        text = page.render(openmetrics=False)
        assert without_info(text) == without_info(generate_latest(registry))
        openmetrics = page.render(openmetrics=True)
        assert without_info(openmetrics) == without_info(generate_openmetrics(registry))


def test_what_comes_and_goes_between_scrapes_is_shown_as_it_is(registry):
    page = Page(registry)
    gauge = Gauge("tenants", "Tenants.", ["tenant"], registry=registry)
    for number in range(5):
        gauge.labels(f"t{number}").set(number)
        assert (
            f'tenants{{tenant="t{number}"}} {float(number)}'
            in page.render(openmetrics=False).decode()
        )
        gauge.remove(f"t{number}")
    assert "tenants{" not in page.render(openmetrics=False).decode()
    # Nor is anything kept of them.
    assert not [key for key in page._beginnings if key[0] == "tenants"]


def test_a_scrape_goes_on_while_series_come_up(registry):
    page = Page(registry)
    gauge = Gauge("busy", "Busy.", ["n"], registry=registry)
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            gauge.labels(str(number % 3000)).inc()
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(20):
            assert page.render(openmetrics=True).endswith(b"# EOF\n")
    finally:
        stop.set()
        worker.join()
