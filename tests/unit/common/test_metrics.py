import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from services.common.metrics import Metric, MetricKind, Metrics, one_of, up_to

CATALOGUE = (
    Metric("jobs_total", MetricKind.COUNTER, "Jobs.", {"outcome": one_of("ok", "failed")}),
    Metric("queue_depth", MetricKind.GAUGE, "Waiting jobs.", {}),
    Metric("job_seconds", MetricKind.HISTOGRAM, "Time of a job.", {}, buckets=(0.1, 1.0)),
    Metric(
        "calls_total",
        MetricKind.COUNTER,
        "Calls.",
        {"host": up_to(2, "hosts"), "outcome": one_of("ok", "failed")},
    ),
    Metric("call_seconds", MetricKind.HISTOGRAM, "Time.", {"host": up_to(2, "hosts")}),
    Metric(
        "models_total",
        MetricKind.COUNTER,
        "Models.",
        {"host": up_to(2, "hosts"), "model": up_to(9, "models")},
    ),
)
SLOW = Metric("slow_seconds", MetricKind.HISTOGRAM, "Time.", {}, buckets=(1.0,), has_exemplars=True)


def page(metrics):
    return generate_latest(metrics.registry).decode()


def test_a_counter_cannot_fall():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.count("jobs_total", "ok", amount=2)
    with pytest.raises(ValueError, match="jobs_total"):
        metrics.count("jobs_total", "ok", amount=-1)
    assert 'jobs_total{outcome="ok"} 2.0' in page(metrics)


def test_what_is_declared_can_be_measured():
    metrics = Metrics(CATALOGUE, version="1.2", revision="abc")
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
    assert 'revision="abc",version="1.2"' in shown


def test_what_is_not_declared_cannot_be_measured():
    with pytest.raises(KeyError):
        Metrics((), version="1").count("jobs_total", "ok")


def test_series_whose_labels_are_known_exist_from_the_start():
    shown = page(Metrics(CATALOGUE, version="1"))
    assert 'jobs_total{outcome="ok"} 0.0' in shown
    assert 'jobs_total{outcome="failed"} 0.0' in shown
    assert "job_seconds_count 0.0" in shown
    assert 'telemetry_label_overflow_total{label="host"} 0.0' in shown
    assert "calls_total{" not in shown


def test_series_of_what_has_come_up_can_be_created_at_zero():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.create_series("host", "a")
    shown = page(metrics)
    assert 'calls_total{host="a",outcome="ok"} 0.0' in shown
    assert 'calls_total{host="a",outcome="failed"} 0.0' in shown
    assert 'call_seconds_count{host="a"} 0.0' in shown
    assert "models_total{" not in shown


def test_what_exists_no_more_is_shown_no_more():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.set_gauge("queue_depth", 5)
    for host in ("ok", "b"):
        metrics.count("calls_total", host, "ok")
        metrics.observe("call_seconds", 1.0, host)
    metrics.count("jobs_total", "ok")
    metrics.remove_series("host", "ok")
    shown = page(metrics)
    assert 'host="ok"' not in shown
    # Neither other values nor other labels with that value.
    assert 'calls_total{host="b",outcome="ok"} 1.0' in shown
    assert 'call_seconds_count{host="b"} 1.0' in shown
    assert 'jobs_total{outcome="ok"} 1.0' in shown
    assert "queue_depth 5.0" in shown
    metrics.count("calls_total", "ok", "ok", amount=2)
    assert 'calls_total{host="ok",outcome="ok"} 2.0' in page(metrics)
    metrics.remove_series("host", "never seen")


def test_what_is_gone_makes_room():
    metrics = Metrics(CATALOGUE, version="1")
    for host in ("a", "b"):
        metrics.observe("call_seconds", 1.0, host)
    metrics.remove_series("host", "a")
    metrics.observe("call_seconds", 1.0, "c")
    assert 'call_seconds_count{host="c"} 1.0' in page(metrics)


def test_values_beyond_the_limit_are_folded_and_counted():
    metrics = Metrics(CATALOGUE, version="1")
    for host in ("a", "b", "c", "d", "a", "c"):
        metrics.count("calls_total", host, "ok")
    shown = page(metrics)
    assert 'calls_total{host="a",outcome="ok"} 2.0' in shown
    assert 'calls_total{host="_other",outcome="ok"} 3.0' in shown
    assert 'telemetry_label_overflow_total{label="host"} 3.0' in shown
    assert 'host="c"' not in shown


def test_a_value_that_was_not_declared_is_folded_and_counted():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.count("jobs_total", "lost")
    shown = page(metrics)
    assert 'jobs_total{outcome="_other"} 1.0' in shown
    assert 'telemetry_label_overflow_total{label="outcome"} 1.0' in shown


@given(st.lists(st.tuples(st.text(), st.text()), max_size=60))
def test_no_caller_can_make_more_series_than_declared(calls):
    metrics = Metrics(CATALOGUE, version="1")
    for host, outcome in calls:
        metrics.count("calls_total", host, outcome)
    [family] = [
        each for each in text_string_to_metric_families(page(metrics)) if each.name == "calls"
    ]
    assert len(family.samples) <= 3 * 3
    assert sum(sample.value for sample in family.samples) == len(calls)


def test_an_observation_points_at_its_trace():
    metrics = Metrics((SLOW,), version="1")
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("call") as span:
        metrics.observe("slow_seconds", 2.0)
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert f'trace_id="{trace_id}"' in openmetrics(metrics.registry).decode()


@pytest.mark.parametrize(
    ("value", "provider"),
    [(0.5, TracerProvider()), (2.0, TracerProvider(sampler=ALWAYS_OFF))],
    ids=["too short", "not sampled"],
)
def test_no_observation_points_at_a_trace_that_is_not_kept(value, provider):
    metrics = Metrics((SLOW,), version="1", exemplar_minimum_seconds=1.0)
    with provider.get_tracer("test").start_as_current_span("call"):
        metrics.observe("slow_seconds", value)
    shown = openmetrics(metrics.registry).decode()
    assert "trace_id" not in shown
    assert "slow_seconds_count 1.0" in shown


def test_no_series_tell_when_they_were_created():
    metrics = Metrics(CATALOGUE, version="1")
    metrics.count("jobs_total", "ok")
    assert "_created" not in page(metrics)


def test_labels_say_what_their_values_are():
    assert one_of("ok", "late", late="after its time").describe() == "ok, late (after its time)"
    assert up_to(64, "backends").describe() == "backends; at most 64"
    assert up_to(1, "one per process").describe() == "one per process"


@pytest.mark.parametrize("values", [(), ("a", "a")])
def test_labels_are_sets_of_values(values):
    with pytest.raises(ValueError, match="set of values"):
        one_of(*values)


def test_a_note_is_about_a_value():
    with pytest.raises(ValueError, match="set of values"):
        one_of("a", b="not there")


def test_a_label_has_room():
    with pytest.raises(ValueError, match="room"):
        up_to(0, "hosts")


def test_a_gauge_that_is_replaced_shows_what_there_is_and_nothing_else():
    memory = Metric(
        "memory_bytes",
        MetricKind.GAUGE,
        "Memory.",
        {"host": up_to(9, "hosts"), "model": up_to(2, "models")},
    )
    metrics = Metrics((*CATALOGUE, memory), version="1")
    metrics.count("calls_total", "a", "ok")
    metrics.replace_gauge("memory_bytes", {("a", "x"): 1.0, ("a", "y"): 2.0})
    metrics.replace_gauge("memory_bytes", {("a", "x"): 3.0, ("b", "x"): 4.0})
    shown = page(metrics)
    assert 'memory_bytes{host="a",model="x"} 3.0' in shown
    assert 'memory_bytes{host="b",model="x"} 4.0' in shown
    assert 'model="y"' not in shown
    # Who is gone has made room; who finds none is added up with others.
    metrics.replace_gauge("memory_bytes", {("a", name): 1.0 for name in "xzvw"})
    shown = page(metrics)
    assert 'memory_bytes{host="a",model="z"} 1.0' in shown
    assert 'memory_bytes{host="a",model="_other"} 2.0' in shown
    assert 'host="b"' not in shown
    metrics.remove_series("host", "a")
    assert 'host="a"' not in page(metrics)
    metrics.replace_gauge("memory_bytes", {("c", "v"): 1.0, ("c", "w"): 2.0})
    assert 'memory_bytes{host="c",model="w"} 2.0' in page(metrics)


@pytest.mark.parametrize("begin", ["replace_gauge", "remove_series"])
def test_series_may_be_removed_by_two_threads_at_once(begin):
    memory = Metric("memory_bytes", MetricKind.GAUGE, "Memory.", {"host": up_to(9, "hosts")})
    metrics = Metrics((memory,), version="1")
    failures = []

    def run(work):
        try:
            work()
        except Exception as failure:  # noqa: BLE001 - any is one
            failures.append(failure)

    def replace():
        metrics.replace_gauge("memory_bytes", {("c",): 2.0})

    def remove():
        metrics.remove_series("host", "a")

    works = (replace, remove) if begin == "replace_gauge" else (remove, replace)
    other = threading.Thread(target=run, args=(works[1],))
    family = metrics._families["memory_bytes"]
    metrics.replace_gauge("memory_bytes", {("a",): 1.0, ("b",): 1.0})
    remove_one = family.remove

    def let_the_other_in(*labels):
        family.remove = remove_one
        other.start()
        other.join(0.2)
        remove_one(*labels)

    family.remove = let_the_other_in
    run(works[0])
    other.join()
    assert not failures
    assert [line for line in page(metrics).splitlines() if line.startswith("memory_bytes{")] == [
        'memory_bytes{host="c"} 2.0'
    ]


def test_nothing_is_kept_of_values_that_there_is_no_room_for():
    metrics = Metrics(CATALOGUE, version="1")
    for number in range(1000):
        metrics.count("calls_total", f"h{number}", f"o{number}")
        metrics.create_series("host", f"h{number}")
        metrics.remove_series("host", f"h{number}")
    assert len(metrics._seen["host"]) <= 2
    assert len([key for key in metrics._children if key[0] == "calls_total"]) <= 9


def test_a_gauge_that_cannot_be_read_hides_no_other(caplog):
    metrics = Metrics(CATALOGUE, version="1")
    metrics.before_scrape(lambda: 1 // 0)
    metrics.before_scrape(lambda: metrics.set_gauge("queue_depth", 7))
    metrics.refresh()
    assert "queue_depth 7.0" in page(metrics)
    assert "out of date" in caplog.text
