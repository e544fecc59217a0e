import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import get_current_span

from services.common.errors import PeerUnavailable
from services.rag.recorder import CANCELLED, Progress, ProgressState, Recorder
from services.rag.stage_spans import within


class Clock:
    def __init__(self):
        self.time = 500.0

    def monotonic(self):
        return self.time

    def now(self):
        return 1_700_000_000.0 + self.time


class Recording:
    def __init__(self):
        self.clock = Clock()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.recorder = Recorder(clock=self.clock, tracer=self.tracer)
        self.told = []
        self.recorder.listen(self.told.append)

    def stage(self, name):
        return self.recorder.stage(name)

    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def stages(self):
        return {each.name: each for each in self.recorder.stages}


@pytest.fixture
def recording():
    return Recording()


def test_a_stage_and_its_span_have_the_same_times(recording):
    recording.clock.time += 1.5
    with recording.stage("fuse"):
        recording.clock.time += 0.25
    stage, span = recording.stages()["fuse"], recording.spans()["fuse"]
    assert (stage.start_seconds, stage.duration_seconds) == (1.5, 0.25)
    assert span.end_time - span.start_time == 250_000_000
    assert span.start_time == 1_700_000_501_500_000_000


def test_what_happens_inside_a_stage_is_a_part_of_it_in_profile_and_trace(recording):
    with recording.stage("outer"), recording.stage("inner"):
        pass
    outer, inner = recording.stages()["outer"], recording.stages()["inner"]
    assert (outer.parent, inner.parent) == (None, outer.number)
    spans = recording.spans()
    assert spans["inner"].parent.span_id == spans["outer"].context.span_id


async def test_tasks_begun_inside_a_stage_are_parts_of_it(recording):
    async def work(name):
        with recording.stage(name):
            await asyncio.sleep(0)

    with recording.stage("outer"):
        async with asyncio.TaskGroup() as group:
            group.create_task(work("a"))
            group.create_task(work("b"))
    with recording.stage("after"):
        pass
    stages = recording.stages()
    assert stages["a"].parent == stages["b"].parent == stages["outer"].number
    assert stages["after"].parent is None


def test_a_stage_of_another_call_is_no_part_of_it(recording):
    other = Recorder(clock=recording.clock, tracer=recording.tracer)
    with recording.stage("outer"), other.stage("inner"):
        pass
    assert other.stages[0].parent is None


def test_an_open_stage_does_not_hold_what_comes_beside_it(recording):
    stage = recording.recorder.begin("generate")
    with recording.stage("beside"):
        recording.clock.time += 1
    recording.recorder.end(stage)
    assert recording.stages()["beside"].parent is None
    assert recording.stages()["generate"].duration_seconds == 1


def test_listeners_are_told_of_begin_and_end(recording):
    with recording.stage("vector_search") as stage:
        recording.clock.time += 2
        stage.item_count, stage.cache_outcome = 7, "miss"
    assert recording.told == [
        Progress("vector_search", ProgressState.STARTED, 0.0),
        Progress("vector_search", ProgressState.FINISHED, 2.0, 7, "miss"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PeerUnavailable("cache", "gone"), "PEER_UNAVAILABLE"),
        (ZeroDivisionError(), "INTERNAL"),
        (TimeoutError(), "DEADLINE_EXCEEDED"),
    ],
)
def test_a_stage_that_an_error_leaves_has_failed_everywhere(recording, error, reason):
    with pytest.raises(type(error)), recording.stage("rerank"):
        raise error
    stage, span = recording.stages()["rerank"], recording.spans()["execute_tool rerank"]
    assert (stage.failed, stage.error_reason) == (True, reason)
    assert (span.status.is_ok, span.attributes["error.type"]) == (False, reason)
    assert recording.told[-1].state is ProgressState.FAILED


def test_a_stage_that_is_told_to_stop_has_failed_for_listeners_and_not_in_the_trace(recording):
    with pytest.raises(asyncio.CancelledError), recording.stage("vector_search"):
        raise asyncio.CancelledError
    stage, span = recording.stages()["vector_search"], recording.spans()["retrieve.vector"]
    assert (stage.failed, stage.error_reason) == (True, CANCELLED)
    assert span.status.is_unset
    assert dict(span.attributes) == {"app.cancelled": True}
    assert recording.told[-1].state is ProgressState.FAILED


@pytest.mark.parametrize("name", ["collection", "query_lookup", "inference_store"])
def test_a_stage_of_one_call_alone_has_no_span_and_hides_none(recording, name):
    with recording.stage("outer"), recording.stage(name) as stage, recording.stage("fuse"):
        stage.cache_outcome, stage.item_count = "miss", 3
    assert recording.stages()[name].cache_outcome == "miss"
    spans = recording.spans()
    assert set(spans) == {"outer", "fuse"}
    assert spans["fuse"].parent.span_id == spans["outer"].context.span_id


@pytest.mark.parametrize(
    ("name", "called", "count"),
    [
        ("keyword_search", "retrieve.bm25", "app.retrieval.returned"),
        ("expand", "execute_tool expand", "app.expand.variants"),
        ("tool_calculator", "execute_tool calculator", "app.retrieval.returned"),
        ("extract", "extract", "app.rag.item_count"),
    ],
)
def test_traces_follow_the_conventions(recording, name, called, count):
    with recording.stage(name) as stage:
        stage.item_count = 4
    span = recording.spans()[called]
    assert span.attributes[count] == 4
    tool = called.removeprefix("execute_tool ") if called.startswith("execute_tool") else None
    assert span.attributes.get("gen_ai.tool.name") == tool


async def test_what_a_generator_does_is_part_of_a_span_and_what_its_reader_does_is_not(recording):
    span = recording.recorder.start_span("work", {})

    async def events():
        with recording.stage("first"):
            pass
        yield get_current_span()
        with recording.stage("second"):
            pass
        yield get_current_span()

    async for inside in within(span, events()):
        with recording.stage("reader"):
            assert inside.get_span_context().is_valid
    recording.recorder.end_span(span)
    spans = recording.spans()
    assert spans["first"].parent.span_id == spans["work"].context.span_id
    assert spans["second"].parent.span_id == spans["work"].context.span_id
    assert spans["reader"].parent is None


async def test_a_generator_that_is_left_ends_although_another_context_ends_it(recording):
    ended = asyncio.Event()

    async def events():
        try:
            yield 1
        finally:
            ended.set()

    reading = within(recording.recorder.start_span("work", {}), events())
    assert await asyncio.create_task(anext(reading)) == 1
    await asyncio.create_task(reading.aclose())
    assert ended.is_set()
    assert not get_current_span().get_span_context().is_valid


def test_what_a_stage_cost_stands_on_its_span(recording):
    with recording.stage("generate") as stage:
        stage.model, stage.backend_id = "talker:latest", "fake:1"
        stage.prompt_token_count, stage.completion_token_count = 100, 12
    assert dict(recording.spans()["generate"].attributes) == {
        "gen_ai.request.model": "talker:latest",
        "app.backend": "fake:1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 12,
    }


def test_the_first_text_counts(recording):
    recording.clock.time += 1
    recording.recorder.mark_first_text()
    recording.clock.time += 1
    recording.recorder.mark_first_text()
    assert recording.recorder.profile().first_text_seconds == 1
