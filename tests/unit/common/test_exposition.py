"""The page is compared with the one that the client library writes."""

import math
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


NAMES = st.from_regex(r"[a-z][a-z_]{0,8}_x", fullmatch=True)
LABEL_VALUES = st.text(max_size=20)
NUMBERS = st.one_of(st.floats(), st.integers(-(10**30), 10**30), st.sampled_from([0, 0.1, 1e16]))


@st.composite
def registries(draw):
    registry = CollectorRegistry()
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        labels = draw(st.lists(st.sampled_from(["a", "b_c", "z"]), unique=True, max_size=3))
        kind = draw(st.sampled_from([Counter, Gauge, Histogram]))
        family = kind(name, draw(st.text(max_size=20)), labels, registry=registry)
        for _ in range(draw(st.integers(0, 3))):
            child = (
                family.labels(*draw(st.tuples(*[LABEL_VALUES] * len(labels)))) if labels else family
            )
            number = draw(NUMBERS)
            if kind is Gauge:
                child.set(number)
            elif kind is Counter:
                exemplar = draw(st.none() | st.just({"trace_id": "ab", "b": 'c"\\\n'}))
                child.inc(abs(number), exemplar)
            else:
                child.observe(number, draw(st.none() | st.just({"trace_id": "ü"})))
    return registry


@given(registries())
@settings(deadline=None)
def test_any_registry_is_shown_as_by_the_library(registry):
    page = Page(registry)
    for _ in range(2):
        assert page.render(openmetrics=False) == generate_latest(registry)
        assert page.render(openmetrics=True) == generate_openmetrics(registry)


def test_half_a_character_does_not_hide_all_metrics(registry):
    Gauge("model", "Models.", ["name"], registry=registry).labels("a\ud800").set(1)
    page = Page(registry)
    for openmetrics in (False, True):
        assert b'model{name="a?"} 1.0\n' in page.render(openmetrics=openmetrics)


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
