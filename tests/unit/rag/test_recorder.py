import asyncio

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.common.errors import PeerUnavailable
from services.rag.recorder import CANCELLED, Progress, ProgressState, Recorder


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
    stage, span = recording.stages()["fuse"], recording.spans()["rag.fuse"]
    assert (stage.start_seconds, stage.duration_seconds) == (1.5, 0.25)
    assert span.end_time - span.start_time == 250_000_000
    assert span.start_time == 1_700_000_501_500_000_000


def test_what_happens_inside_a_stage_is_a_part_of_it_in_profile_and_trace(recording):
    with recording.stage("outer"), recording.stage("inner"):
        pass
    outer, inner = recording.stages()["outer"], recording.stages()["inner"]
    assert (outer.parent, inner.parent) == (None, outer.number)
    spans = recording.spans()
    assert spans["rag.inner"].parent.span_id == spans["rag.outer"].context.span_id


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
        (asyncio.CancelledError(), CANCELLED),
    ],
)
def test_a_stage_that_an_error_leaves_has_failed_everywhere(recording, error, reason):
    with pytest.raises(type(error)), recording.stage("rerank"):
        raise error
    stage, span = recording.stages()["rerank"], recording.spans()["rag.rerank"]
    assert (stage.failed, stage.error_reason) == (True, reason)
    assert (span.status.is_ok, span.attributes["error.type"]) == (False, reason)
    assert recording.told[-1].state is ProgressState.FAILED


def test_what_a_stage_cost_stands_on_its_span(recording):
    with recording.stage("generate") as stage:
        stage.model, stage.backend_id = "talker:latest", "fake:1"
        stage.prompt_token_count, stage.completion_token_count = 100, 12
    assert dict(recording.spans()["rag.generate"].attributes) == {
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
