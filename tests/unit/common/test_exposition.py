"""The page is compared with the one that the client library writes."""

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Info, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from services.common.clock import SystemClock
from services.common.exposition import Page
from services.common.families import Family
from services.common.metric import Metric, MetricKind, up_to

ANY = up_to(100, "anything")


def metric(name, kind, text="Text.", labels=(), buckets=(0.1, 1, 1e6)):
    return Metric(name, kind, text, dict.fromkeys(labels, ANY), buckets)


def family_of(*declared, **how):
    return Family(metric(*declared, **how), SystemClock())


class Shown:
    """Families, and the page that shows them; what the client library writes of the same."""

    def __init__(self, *families):
        process = CollectorRegistry()
        Gauge("memory_bytes", "Memory.", registry=process).set(1e9)
        self.page = Page(process, families)
        self._registry = CollectorRegistry()
        self._registry.register(process)
        for family in families:
            self._registry.register(family)

    def check(self):
        for _ in range(2):
            assert self.page.render(openmetrics=False) == generate_latest(self._registry)
            assert self.page.render(openmetrics=True) == generate_openmetrics(self._registry)


@pytest.fixture
def families():
    jobs = family_of("jobs_total", MetricKind.COUNTER, 'Jobs "done"\nhere \\ there.', ["b", "a"])
    jobs.series('x"y', "p\\q\nr").add(3)
    jobs.series("ü", "").add(1e21)
    depth = family_of("depth", MetricKind.GAUGE, labels=["n"])
    for value in (0, -0.5, 1e-9, 123456789.0, math.inf, -math.inf, math.nan):
        depth.series(str(value)).set(value)
    plain = family_of("plain", MetricKind.GAUGE)
    empty = family_of("empty", MetricKind.GAUGE, labels=["x"])
    seconds = family_of("seconds", MetricKind.HISTOGRAM, labels=["k"])
    seconds.series("v").observe(0.5, {"trace_id": "ab", "a_id": 'c"d'})
    seconds.series("v").observe(7)
    return jobs, depth, plain, empty, seconds


def test_both_formats_are_those_of_the_library(families):
    Shown(*families).check()


NAMES = st.from_regex(r"[a-z][a-z_]{0,8}_x", fullmatch=True)
LABEL_VALUES = st.text(max_size=20)
NUMBERS = st.one_of(st.floats(), st.integers(-(10**30), 10**30), st.sampled_from([0, 0.1, 1e16]))
TRACES = st.sampled_from([None, {"trace_id": "ü"}, {"trace_id": "ab", "b": 'c"\\\n'}])


@st.composite
def some_families(draw):
    found = []
    for name in draw(st.lists(NAMES, unique=True, max_size=4)):
        labels = draw(st.lists(st.sampled_from(["a", "b_c", "z"]), unique=True, max_size=3))
        kind = draw(st.sampled_from(list(MetricKind)))
        full_name = f"{name}_total" if kind is MetricKind.COUNTER else name
        family = family_of(full_name, kind, draw(st.text(max_size=20)), labels)
        for _ in range(draw(st.integers(0, 3))):
            series = family.series(*draw(st.tuples(*[LABEL_VALUES] * len(labels))))
            number = draw(NUMBERS)
            if kind is MetricKind.HISTOGRAM:
                series.observe(number, draw(TRACES))
            else:
                series.add(number)
        found.append(family)
    return found


@given(some_families())
def test_any_families_are_shown_as_by_the_library(found):
    Shown(*found).check()


@pytest.mark.parametrize("count", [999_999, 1_000_000, 12_345_678])
def test_many_observations_are_written_as_by_the_library(count):
    family = family_of("seconds", MetricKind.HISTOGRAM)
    family.series()._counts[1] = count
    Shown(family).check()


def test_an_observation_counts_up_to_its_edge_and_none_that_is_no_number():
    family = family_of("seconds", MetricKind.HISTOGRAM)
    for value in (0.1, 0.100001, 1, 2e6, math.inf, math.nan):
        family.series().observe(value)
    lines = Page(CollectorRegistry(), [family]).render(openmetrics=False).decode().splitlines()
    assert lines[2:] == [
        'seconds_bucket{le="0.1"} 1.0',
        'seconds_bucket{le="1.0"} 3.0',
        'seconds_bucket{le="1e+06"} 3.0',
        'seconds_bucket{le="+Inf"} 5.0',
        "seconds_count 5.0",
        "seconds_sum +Inf",
    ]


def test_what_the_library_knows_of_the_process_comes_first(families):
    process = CollectorRegistry()
    Info("build", "Build.", registry=process).info({"version": "1"})
    page = Page(process, families)
    assert page.render(openmetrics=False).startswith(b"# HELP build_info Build.\n")
    text = page.render(openmetrics=True)
    assert text.count(b"# EOF\n") == 1
    assert text.endswith(b"# EOF\n")


def test_half_a_character_does_not_hide_all_metrics():
    family = family_of("model", MetricKind.GAUGE, labels=["name"])
    family.series("a\ud800").set(1)
    page = Page(CollectorRegistry(), [family])
    for openmetrics in (False, True):
        assert b'model{name="a?"} 1.0\n' in page.render(openmetrics=openmetrics)


def test_what_comes_and_goes_between_scrapes_is_shown_as_it_is():
    family = family_of("tenants", MetricKind.GAUGE, labels=["tenant"])
    page = Page(CollectorRegistry(), [family])
    for number in range(5):
        family.series(f"t{number}").set(number)
        line = f'tenants{{tenant="t{number}"}} {float(number)}\n'
        assert line in page.render(openmetrics=False).decode()
        family.remove(f"t{number}")
    assert "tenants{" not in page.render(openmetrics=False).decode()


def test_a_scrape_goes_on_while_series_come_up_and_go():
    family = family_of("busy", MetricKind.GAUGE, labels=["n"])
    page = Page(CollectorRegistry(), [family])
    stop = threading.Event()

    def work():
        number = 0
        while not stop.is_set():
            family.series(str(number)).add(1)
            if number >= 1000:
                family.remove(str(number - 1000))
            number += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(20):
            assert page.render(openmetrics=True).endswith(b"# EOF\n")
    finally:
        stop.set()
        worker.join()


def test_no_count_is_lost_between_threads():
    family = family_of("seconds", MetricKind.HISTOGRAM)
    number = family_of("jobs_total", MetricKind.COUNTER)

    def work():
        for _ in range(5000):
            family.series().observe(1)
            number.series().add(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    page = Page(CollectorRegistry(), [family, number]).render(openmetrics=False)
    assert b"seconds_count 20000.0\nseconds_sum 20000.0\n" in page
    assert b"jobs_total 20000.0\n" in page
