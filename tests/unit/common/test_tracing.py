import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span

from services.common.metrics import Metrics
from services.common.tracing import (
    PROPAGATOR,
    make_tracer_provider,
    remote_parent,
    rpc_attributes,
    traceparent,
)

HEX = "0123456789abcdef"
GOOD = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def by_the_library(header, state=None):
    carrier = {"traceparent": header} | ({"tracestate": state} if state else {})
    context = get_current_span(PROPAGATOR.extract(carrier, Context())).get_span_context()
    return context if context.is_valid else None


def ours(header, state=None):
    span = remote_parent([header], [state] if state else [])
    return None if span is None else span.get_span_context()


def same(ours, theirs):
    if ours is None or theirs is None:
        return ours is theirs
    return (
        (ours.trace_id, ours.span_id, ours.trace_flags, ours.is_remote)
        == (theirs.trace_id, theirs.span_id, theirs.trace_flags, theirs.is_remote)
    ) and dict(ours.trace_state) == dict(theirs.trace_state)


@given(
    st.sampled_from(["00", "01", "fe", "ff", "0", "zz"]),
    st.text(HEX, min_size=31, max_size=33) | st.sampled_from(["0" * 32, "1" * 32, "ab" * 16]),
    st.text(HEX, min_size=16, max_size=16) | st.just("0" * 16),
    st.sampled_from(["00", "01", "03", "ff", "1", "0g"]),
    st.sampled_from(["", "-", "-more", "more"]),
    st.sampled_from([None, "a=b", "a=b,c=d", "=", "a=b,a=c"]),
)  # fmt: skip
def test_the_callers_span_is_read_as_the_library_reads_it(version, trace, span, flags, rest, state):
    header = f"{version}-{trace}-{span}-{flags}{rest}"
    assert same(ours(header, state), by_the_library(header, state))


@given(st.text(max_size=80))
def test_any_text_is_no_parent_or_the_librarys(header):
    assert same(ours(header), by_the_library(header))


def test_two_callers_are_none():
    assert remote_parent([GOOD], []) is not None
    assert remote_parent([GOOD, GOOD], []) is None
    assert remote_parent([], ["a=b"]) is None


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.integers(0, 3))
def test_what_is_written_is_read_back(trace_id, span_id, flags):
    context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(flags))
    read = ours(traceparent(context))
    assert (read.trace_id, read.span_id, read.trace_flags) == (trace_id, span_id, flags)


def test_flags_that_nobody_knows_are_not_passed_on():
    assert traceparent(ours("00-" + "1" * 32 + "-" + "2" * 16 + "-ff")).endswith("-03")


@given(st.lists(st.text(max_size=60), max_size=3), st.lists(st.text(max_size=600), max_size=3))
def test_no_header_raises(parents, states):
    remote_parent([GOOD], states)
    remote_parent(parents, states)


@pytest.mark.parametrize(
    "state",
    ["a" * 100_000, "=" * 10_000, ",".join(f"k{n}=v" for n in range(5000)), "a=" + "b" * 999],
)
def test_a_hostile_state_is_left_out_and_takes_no_time(state):
    started = time.perf_counter()
    assert not ours(GOOD, state).trace_state
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("[::1]:50051", ("::1", 50051)),
        ("cache:9", ("cache", 9)),
        ("dns:///cache:9", ("dns:///cache:9", None)),
        ("unix:/tmp/x", ("unix:/tmp/x", None)),
        ("", (None, None)),
    ],
)
def test_an_address_is_told_as_host_and_port(address, expected):
    attributes = rpc_attributes("a.B/C", address)
    assert (attributes.get("server.address"), attributes.get("server.port")) == expected
    assert attributes["rpc.method"] == "a.B/C"


def test_a_process_says_who_it_is():
    provider = make_tracer_provider(
        "cache", version="1.2", otlp_endpoint="", instance_id="i-1", environment="production"
    )
    known = provider.resource.attributes
    assert known["service.name"] == "cache"
    assert known["service.namespace"] == "pannier"
    assert known["service.version"] == "1.2"
    assert known["service.instance.id"] == "i-1"
    assert known["deployment.environment.name"] == "production"


def test_spans_that_are_sent_must_be_counted():
    with pytest.raises(ValueError, match="counted"):
        make_tracer_provider("cache", version="1", otlp_endpoint="127.0.0.1:1")
    provider = make_tracer_provider(
        "cache", version="1", otlp_endpoint="127.0.0.1:1", metrics=Metrics((), version="1")
    )
    provider.shutdown()
