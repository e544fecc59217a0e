from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from services.common.spans import LeanTracerProvider


def make_tracer(**options):
    provider = LeanTracerProvider(resource=Resource({"service.name": "rag"}), **options)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("pannier", "1.2"), exporter.get_finished_spans


def remote(*, sampled):
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    state = TraceState([("vendor", "x")])
    return SpanContext(7, 8, is_remote=True, trace_flags=flags, trace_state=state)


def within(context):
    return set_span_in_context(NonRecordingSpan(context))


def test_a_span_holds_what_it_was_told():
    tracer, finished = make_tracer()
    link = Link(SpanContext(1, 2, is_remote=False))
    span = tracer.start_span(
        "a", kind=SpanKind.SERVER, attributes={"x": 1}, links=[link], start_time=5
    )
    span.set_attribute("y", "z")
    span.set_attributes({"x": 2, "w": True})
    span.add_event("first_token", {"n": 1}, 7)
    span.add_link(SpanContext(3, 4, is_remote=False))
    span.add_link(SpanContext(0, 0, is_remote=False))
    span.update_name("b")
    span.end(9)
    (seen,) = finished()
    assert (seen.name, seen.kind, seen.start_time, seen.end_time) == ("b", SpanKind.SERVER, 5, 9)
    assert seen.attributes == {"x": 2, "y": "z", "w": True}
    assert [each.context.trace_id for each in seen.links] == [1, 3]
    (event,) = seen.events
    assert (event.name, event.timestamp, event.attributes["n"]) == ("first_token", 7, 1)
    assert seen.resource.attributes["service.name"] == "rag"
    assert seen.instrumentation_scope.name == "pannier"
    assert seen.parent is None
    assert not seen.status.status_code.value


def test_what_has_ended_changes_no_more_and_is_reported_once():
    tracer, finished = make_tracer()
    span = tracer.start_span("a")
    assert span.is_recording()
    span.end(9)
    assert not span.is_recording()
    span.set_attribute("x", 1)
    span.set_attributes({"x": 1})
    span.add_event("x")
    span.add_link(SpanContext(1, 2, is_remote=False))
    span.set_status(StatusCode.ERROR)
    span.update_name("x")
    span.end(10)
    (seen,) = finished()
    assert (seen.name, seen.attributes, seen.events, seen.links) == ("a", {}, (), ())
    assert (seen.status.status_code, seen.end_time) == (StatusCode.UNSET, 9)


def test_a_caller_that_changes_its_attributes_later_changes_no_span():
    tracer, finished = make_tracer()
    given = {"x": 1}
    span = tracer.start_span("a", attributes=given)
    span.set_attribute("y", 2)
    assert given == {"x": 1}
    given["x"] = 3
    span.end()
    assert finished()[0].attributes == {"x": 1, "y": 2}


def test_children_belong_to_the_trace_of_their_parent():
    tracer, finished = make_tracer()
    with tracer.start_as_current_span("parent") as parent:
        assert get_current_span() is parent
        tracer.start_span("child").end()
    tracer.start_span("another").end()
    child, outer, another = finished()
    assert child.parent == outer.context
    assert child.context.trace_id == outer.context.trace_id != another.context.trace_id
    assert child.context.span_id != outer.context.span_id
    assert outer.context.trace_flags.sampled


def test_what_an_exception_says_is_left_out():
    tracer, finished = make_tracer()
    try:
        with tracer.start_as_current_span("a"):
            raise ValueError("the question was: who is my doctor")
    except ValueError:
        pass
    (seen,) = finished()
    assert seen.status.status_code is StatusCode.ERROR
    assert seen.status.description is None
    assert seen.attributes == {"error.type": "ValueError"}
    assert not seen.events


def test_a_status_that_is_given_with_a_text_keeps_its_code_only():
    tracer, finished = make_tracer()
    span = tracer.start_span("a")
    span.set_status(Status(StatusCode.ERROR, "secret"))
    span.end()
    assert finished()[0].status.status_code is StatusCode.ERROR
    assert finished()[0].status.description is None


def test_traces_that_begin_elsewhere_are_recorded_where_their_beginners_do():
    for ratio in (0.0, 1.0):
        tracer, finished = make_tracer(sample_ratio=ratio)
        recorded = tracer.start_span("a", within(remote(sampled=True)))
        recorded.end()
        ignored = tracer.start_span("b", within(remote(sampled=False)))
        ignored.end()
        (seen,) = finished()
        assert seen.name == "a"
        assert seen.parent.is_remote
        assert seen.context.trace_state.get("vendor") == "x"
        # What is called further on belongs to the caller's span, as if this one were not there.
        assert ignored.get_span_context() == remote(sampled=False)


def test_a_share_of_the_traces_that_begin_here_is_recorded():
    for ratio in (0.0, 0.25, 1.0):
        tracer, finished = make_tracer(sample_ratio=ratio)
        for _ in range(2000):
            root = tracer.start_span("root")
            tracer.start_span("child", set_span_in_context(root)).end()
            root.end()
            # Logs name the trace all the same.
            assert root.get_span_context().is_valid
        names = [span.name for span in finished()]
        assert names.count("root") == names.count("child")
        assert abs(names.count("root") / 2000 - ratio) <= 0.05


def test_events_and_links_are_bounded():
    tracer, finished = make_tracer()
    span = tracer.start_span("a")
    for number in range(1, 300):
        span.add_event("x")
        span.add_link(SpanContext(number, number, is_remote=False))
    span.end()
    assert (len(finished()[0].events), len(finished()[0].links)) == (128, 128)


def test_links_given_at_the_start_are_bounded_and_kept_as_they_were():
    tracer, finished = make_tracer()
    links = [Link(SpanContext(number, 1, is_remote=False)) for number in range(1, 131)]
    span = tracer.start_span("a", links=links)
    links.clear()
    span.end()
    (seen,) = finished()
    assert [each.context.trace_id for each in seen.links] == list(range(1, 129))
    assert seen.dropped_links == 2


def test_a_span_that_is_ended_while_it_ends_is_reported_once(monkeypatch):
    tracer, finished = make_tracer()
    span = tracer.start_span("a")

    def read_the_clock():
        # Where another thread may come in between.
        monkeypatch.undo()
        span.end()
        return 7

    monkeypatch.setattr("services.common.spans.time.time_ns", read_the_clock)
    span.end()
    (seen,) = finished()
    assert seen.end_time == 7
