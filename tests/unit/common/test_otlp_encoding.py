"""The encoder is compared with that of the SDK, whose messages are parsed by the same classes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from services.common.otlp_encoding import encode_request, encode_span
from services.common.spans import LeanTracerProvider

KEYS = st.text(min_size=1, max_size=200)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.text(max_size=400),
        st.booleans(),
        st.integers(-(1 << 63), (1 << 63) - 1),
        st.floats(),
        st.binary(max_size=200),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    max_leaves=6,
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=6)
TIMES = st.integers(0, (1 << 64) - 1)


@st.composite
def contexts(draw):
    return SpanContext(
        draw(st.integers(1, (1 << 128) - 1)),
        draw(st.integers(1, (1 << 64) - 1)),
        is_remote=draw(st.booleans()),
        trace_flags=TraceFlags(draw(st.sampled_from([1, 3]))),
        trace_state=TraceState(draw(st.sampled_from([[], [("a", "b"), ("c", "d")]]))),
    )


class Kept:
    def __init__(self):
        self.spans = []

    def on_end(self, span):
        self.spans.append(span)


RECIPES = st.fixed_dictionaries(
    {
        "tracer": st.integers(0, 1),
        "name": KEYS,
        "parent": st.none() | contexts(),
        "kind": st.sampled_from(SpanKind),
        "attributes": ATTRIBUTES,
        "links": st.lists(st.builds(Link, contexts(), ATTRIBUTES), max_size=2),
        "start": TIMES,
        "end": TIMES,
        "events": st.lists(st.tuples(KEYS, ATTRIBUTES, st.integers(1, (1 << 64) - 1)), max_size=2),
        "status": st.sampled_from(StatusCode),
    }
)


CONTEXT = SpanContext(1, 2, is_remote=False, trace_state=TraceState([("a", "b")]))
RECIPE = {
    "tracer": 0,
    "name": "a",
    "parent": None,
    "kind": SpanKind.INTERNAL,
    "attributes": {},
    "links": [],
    "start": 1,
    "end": 2,
    "events": [],
    "status": StatusCode.UNSET,
}


def make(resource, recipes):
    provider = LeanTracerProvider(resource=Resource(resource))
    kept = Kept()
    provider._active_span_processor = kept
    tracers = [
        provider.get_tracer("a"),
        provider.get_tracer("b", "1.2", "https://example.org/1", {"part": 1}),
    ]
    for each in recipes:
        parent = each["parent"]
        span = tracers[each["tracer"]].start_span(
            each["name"],
            set_span_in_context(NonRecordingSpan(parent)) if parent else None,
            each["kind"],
            each["attributes"],
            each["links"],
            each["start"],
        )
        for event in each["events"]:
            span.add_event(*event)
        span.set_status(each["status"])
        span.end(each["end"])
    return kept.spans


def to_request(spans):
    encoded = [(span.instrumentation_scope, encode_span(span)) for span in spans]
    return encode_request(spans[0].resource, encoded)


def spans_of(request):
    return [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


def canonical(request):
    """Leaves aside the order of scopes, and what one of the two does not say."""
    for resource_spans in request.resource_spans:
        resource_spans.scope_spans.sort(key=lambda each: (each.scope.name, each.scope.version))
    for span in spans_of(request):
        if not span.status.code:
            span.ClearField("status")
        for each in (span, *span.links):
            each.flags &= 0x300
        for link in span.links:
            link.ClearField("trace_state")
    # As bytes: what is no number does not equal itself.
    return request.SerializeToString(deterministic=True)


@given(ATTRIBUTES, st.lists(RECIPES, min_size=1, max_size=4))
def test_spans_are_encoded_as_the_sdk_does(resource, recipes):
    spans = make(resource, recipes)
    request = ExportTraceServiceRequest.FromString(to_request(spans))
    flags = {span.span_id: span.flags & 0xFF for span in spans_of(request)}
    assert flags == {
        span.context.span_id.to_bytes(8, "big"): span.context.trace_flags for span in spans
    }
    assert canonical(request) == canonical(encode_spans(spans))


def span_with(value):
    provider = LeanTracerProvider(resource=Resource({}))
    kept = Kept()
    provider._active_span_processor = kept
    provider.get_tracer("a").start_span("a", attributes={"key": value}).end()
    request = ExportTraceServiceRequest.FromString(to_request(kept.spans))
    (attribute,) = request.resource_spans[0].scope_spans[0].spans[0].attributes
    return attribute.value


def test_what_the_protocol_has_no_kind_for_becomes_text():
    assert span_with(StatusCode.OK).string_value == "StatusCode.OK"
    assert span_with({1}).string_value == "{1}"


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 1 << 64, 10**30])
def test_a_number_that_has_no_room_becomes_text_and_no_other_number(number):
    assert span_with(number).string_value == str(number)
    assert span_with([number]).array_value.values[0].string_value == str(number)


def test_half_a_character_does_not_cost_the_span():
    assert span_with("a\ud800b").string_value == "a?b"
    assert span_with("a\ud800" + "b" * 100).string_value == "a?" + "b" * 100


def test_a_name_that_is_a_kind_of_text_is_encoded_as_such():
    class Name(str):
        __slots__ = ()

    assert span_with(Name("x")).string_value == "x"


def test_a_link_keeps_what_its_trace_brings_along():
    (span,) = make({}, [RECIPE | {"links": [Link(CONTEXT)]}])
    (link,) = spans_of(ExportTraceServiceRequest.FromString(to_request([span])))[0].links
    assert link.trace_state == "a=b"


def test_what_had_no_room_is_counted():
    recipe = RECIPE | {"links": [Link(CONTEXT)] * 130, "events": [("x", None, 1)] * 131}
    (span,) = make({}, [recipe])
    (seen,) = spans_of(ExportTraceServiceRequest.FromString(to_request([span])))
    assert (len(seen.links), seen.dropped_links_count) == (128, 2)
    assert (len(seen.events), seen.dropped_events_count) == (128, 3)
