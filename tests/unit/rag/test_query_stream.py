"""Streams of events, in virtual time."""

import asyncio
import itertools
from contextlib import aclosing

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from services.common.errors import InvalidRequest, PeerUnavailable, ServiceError
from services.common.metrics import Metrics
from services.rag.core.answer import Answer, AnswerOrigin, PassagesFound
from services.rag.core.options import Mode, Question
from services.rag.core.stream_errors import (
    AnswerOutOfTime,
    QueryEventsLost,
    QueryNotFound,
    QueryReaderReplaced,
)
from services.rag.counted_answers import CountedAnswers
from services.rag.metrics import CATALOGUE
from services.rag.query_stream import QueryStreams, StreamLimits
from services.rag.recorder import Recorder
from services.rag.statistics import RagStatistics
from tests.kit.virtual_time import LoopClock, run_virtually

QUESTION = Question(collection="docs", text="Why?")
PAUSE = object()
ACME = {"tenant": "acme", "user": "ann"}
LIMITS = {
    "heartbeat_seconds": 10.0,
    "grace_seconds": 30.0,
    "retention_seconds": 60.0,
    "kept_count": 3,
    "kept_bytes": 1_000_000,
}


def done(text="Because."):
    return Answer(text=text, origin=AnswerOrigin.GENERATED, mode=Mode.RAG)


class Script:
    """An answerer that yields texts, waits for seconds, runs stages and raises as it was told."""

    def __init__(self, *steps):
        self.steps = steps
        self.cleanup_seconds = 0.0
        self.ended = 0

    async def answer(self, tenant_id, question, recorder, *, partial_answers):
        try:
            for step in self.steps:
                if isinstance(step, float):
                    with recorder.stage("wait"):
                        await asyncio.sleep(step)
                elif isinstance(step, BaseException):
                    raise step
                elif step is PAUSE:
                    await asyncio.sleep(0)
                else:
                    yield step
        finally:
            await asyncio.sleep(self.cleanup_seconds)
            self.ended += 1


class OpenSpans(SpanProcessor):
    """Counts the spans that have begun and not ended."""

    def __init__(self):
        self.count = 0
        self.begun_count = 0

    def on_start(self, span, parent_context=None):
        self.count += 1
        self.begun_count += 1

    def on_end(self, span):
        self.count -= 1


class Running:
    def __init__(self, *steps, remaining_seconds=lambda: None, **limits):
        self.spans = OpenSpans()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.spans)
        tracer = provider.get_tracer("test")
        self.script = Script(*steps)
        self.metrics = Metrics(CATALOGUE, version="test")
        self.statistics = RagStatistics(self.metrics, start_time_seconds=0)
        numbers = itertools.count(1)
        self.streams = QueryStreams(
            answers=CountedAnswers(self.script, self.statistics),
            make_recorder=lambda: Recorder(
                clock=LoopClock(), tracer=tracer, query_id=f"q{next(numbers)}"
            ),
            metrics=self.metrics,
            limits=StreamLimits(**(LIMITS | limits)),
            remaining_seconds=remaining_seconds,
        )

    def open(self, *, resumable=False, **owner):
        return self.streams.open(QUESTION, **(ACME | owner), resumable=resumable)

    def resume(self, query_id="q1", after=0, **owner):
        return self.streams.resume(query_id, after_sequence=after, **(ACME | owner))

    def value(self, name, *labels):
        return sum(
            sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and tuple(sample.labels.values()) == labels
        )


def kinds(events):
    return [event.WhichOneof("event") for event in events]


async def read(events):
    """Reads to the end; returns the events and what they ended in."""
    seen = []
    try:
        async for event in events:
            seen.append(event)
    except (ServiceError, RuntimeError, ZeroDivisionError) as error:
        return seen, error
    return seen, None


async def leave_after(events, kind):
    """Reads up to the first event of a kind, then goes away."""
    seen = []
    async with aclosing(events):
        async for event in events:
            seen.append(event)
            if event.WhichOneof("event") == kind:
                return seen
    raise AssertionError(f"there was no {kind}")


def test_events_come_in_their_order_and_are_numbered():
    async def main():
        running = Running(0.5, PassagesFound(()), "Be", "cause.", done())
        events, error = await read(running.open())
        assert error is None
        assert kinds(events) == [
            *("started", "progress", "progress", "retrieved"),
            *("text_delta", "text_delta", "completed"),
        ]
        assert [each.sequence for each in events] == list(range(1, 8))
        assert events[0].started.query_id == events[-1].completed.query_id == "q1"
        assert running.script.ended == 1
        assert running.streams.under_way_count == 0

    run_virtually(main())


def test_a_stage_is_told_of_while_it_is_under_way():
    async def main():
        running = Running(100.0, done())
        start = asyncio.get_running_loop().time()
        (_, begun) = await leave_after(running.open(), "progress")
        assert begun.progress.stage == "wait"
        assert asyncio.get_running_loop().time() == start

    run_virtually(main())


def test_a_failure_is_told_of_with_the_partial_text_before_it_ends_the_stream():
    async def main():
        running = Running("Be", "cau", PeerUnavailable("balancer", "it broke off"))
        events, error = await read(running.open())
        failed = events[-1].failed
        assert isinstance(error, PeerUnavailable)
        assert (failed.reason, failed.partial_answer) == ("PEER_UNAVAILABLE", "Becau")
        assert failed.retryable
        assert failed.message == error.message
        assert kinds(events).count("failed") == 1
        assert "completed" not in kinds(events)

    run_virtually(main())


def test_a_fault_of_the_service_is_told_of_without_its_text():
    async def main():
        running = Running("Be", ZeroDivisionError("secret"))
        events, error = await read(running.open())
        failed = events[-1].failed
        assert isinstance(error, ZeroDivisionError)
        assert (failed.reason, failed.retryable) == ("INTERNAL", False)
        assert "secret" not in failed.message

    run_virtually(main())


def test_an_answer_that_just_ends_has_failed():
    async def main():
        events, error = await read(Running("Be").open())
        assert kinds(events)[-1] == "failed"
        assert isinstance(error, RuntimeError)

    run_virtually(main())


def test_after_the_whole_answer_nothing_fails_any_more():
    async def main():
        events, error = await read(Running(done(), 1.0, PeerUnavailable("cache", "gone")).open())
        assert kinds(events)[-1] == "completed"
        assert error is None

    run_virtually(main())


def test_an_answer_ends_in_time_to_tell_that_it_is_late():
    async def main():
        running = Running("Be", 100.0, done(), remaining_seconds=lambda: 20.0)
        start = asyncio.get_running_loop().time()
        events, error = await read(running.open())
        assert isinstance(error, AnswerOutOfTime)
        assert events[-1].failed.partial_answer == "Be"
        assert asyncio.get_running_loop().time() - start == pytest.approx(19.9)

    run_virtually(main())


def test_silence_is_broken_by_heartbeats():
    async def main():
        running = Running(25.0, "Be", 12.0, done())
        events, _ = await read(running.open())
        beats = [each.heartbeat.elapsed.seconds for each in events if each.HasField("heartbeat")]
        assert beats == [10, 20, 35]
        assert [each.sequence for each in events] == list(range(1, len(events) + 1))

    run_virtually(main())


def test_who_leaves_ends_the_work_before_the_call_ends():
    async def main():
        running = Running("Be", 1000.0, done())
        await leave_after(running.open(), "text_delta")
        assert running.script.ended == 1
        assert running.streams.under_way_count == 0
        assert running.statistics.in_flight_count == 0
        assert running.value("rag_requests_total", "rag", "cancelled") == 1
        assert (await read(running.resume()))[1].error_reason == "QUERY_NOT_FOUND"

    run_virtually(main())


def test_a_task_that_is_cancelled_ends_the_work_as_well():
    async def main():
        running = Running("Be", 1000.0, done())
        call = asyncio.ensure_future(read(running.open()))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert running.script.ended == 1

    run_virtually(main())


def test_a_thousand_who_leave_at_any_moment_leave_nothing_behind():
    async def main():
        running = Running(0.5, "Be", 0.5, "cause.", 0.5, done(), kept_count=100)
        before = asyncio.all_tasks()

        async def come_and_go(number):
            call = asyncio.ensure_future(read(running.open(resumable=number % 3 == 0)))
            await asyncio.sleep(0.0017 * number)
            call.cancel()
            await asyncio.wait([call])

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(come_and_go(number))
        await asyncio.sleep(LIMITS["grace_seconds"] + LIMITS["retention_seconds"] + 2)
        assert asyncio.all_tasks() == before
        assert running.streams.under_way_count == 0
        assert running.streams.resumable_count == 0
        assert running.statistics.in_flight_count == 0
        assert running.value("rag_resumable_bytes") == 0
        assert running.spans.count == 0 < running.spans.begun_count

    run_virtually(main())


def test_a_resumable_answer_goes_on_without_its_caller():
    async def main():
        running = Running("Be", 20.0, "cause.", done())
        seen = await leave_after(running.open(resumable=True), "text_delta")
        assert seen[0].started.resumable
        await asyncio.sleep(40)
        rest, error = await read(running.resume(after=seen[-1].sequence))
        assert error is None
        assert [each.sequence for each in (*seen, *rest)] == list(
            range(1, len(seen) + len(rest) + 1)
        )
        assert kinds(rest)[-1] == "completed"
        assert "".join(each.text_delta for each in (*seen, *rest)) == "Because."

    run_virtually(main())


def test_what_is_resumed_while_it_is_under_way_is_followed_live():
    async def main():
        running = Running("Be", 20.0, "cause.", done())
        await leave_after(running.open(resumable=True), "text_delta")
        await asyncio.sleep(10)
        events, error = await read(running.resume())
        assert error is None
        assert kinds(events)[0] == "started"
        assert kinds(events)[-1] == "completed"
        assert running.value("rag_resumes_total", "under_way") == 1

    run_virtually(main())


def test_an_answer_that_nobody_reads_is_given_up_after_its_grace():
    async def main():
        running = Running("Be", 1000.0, done())
        await leave_after(running.open(resumable=True), "text_delta")
        await asyncio.sleep(29)
        assert running.script.ended == 0
        await leave_after(running.resume(), "text_delta")
        await asyncio.sleep(29)
        assert running.script.ended == 0
        await asyncio.sleep(2)
        assert running.script.ended == 1
        assert isinstance((await read(running.resume()))[1], QueryNotFound)

    run_virtually(main())


def test_an_answer_that_is_just_given_up_is_not_found_any_more():
    async def main():
        running = Running("Be", 1000.0, done())
        running.script.cleanup_seconds = 5.0
        await leave_after(running.open(resumable=True), "text_delta")
        await asyncio.sleep(LIMITS["grace_seconds"] + 1)
        assert running.streams.under_way_count == 1
        assert isinstance((await read(running.resume()))[1], QueryNotFound)
        await asyncio.sleep(5)
        assert running.streams.under_way_count == 0

    run_virtually(main())


def test_who_leaves_at_once_leaves_no_timer_behind():
    async def main():
        running = Running("Be", 1000.0, done())
        await leave_after(running.open(), "started")
        assert running.streams.under_way_count == 0
        timers = asyncio.get_running_loop()._scheduled
        assert [each for each in timers if not each.cancelled()] == []

    run_virtually(main())


def test_an_answer_is_kept_for_a_minute_after_its_end():
    async def main():
        running = Running("Because.", done())
        events, _ = await read(running.open(resumable=True))
        await asyncio.sleep(59)
        assert await read(running.resume()) == (events, None)
        await asyncio.sleep(2)
        assert isinstance((await read(running.resume()))[1], QueryNotFound)
        assert running.value("rag_resumable_bytes") == 0

    run_virtually(main())


def test_a_failure_is_resumed_as_it_was():
    async def main():
        running = Running("Be", PeerUnavailable("balancer", "it broke off"))
        events, error = await read(running.open(resumable=True))
        again, same = await read(running.resume())
        assert again == events
        assert same is error

    run_virtually(main())


@pytest.mark.parametrize("owner", [{"tenant": "other"}, {"user": "bob"}, {"user": ""}])
def test_the_answers_of_others_are_not_found(owner):
    async def main():
        running = Running("Because.", done())
        await read(running.open(resumable=True))
        _, error = await read(running.resume(**owner))
        unknown = (await read(running.resume("q9")))[1]
        assert isinstance(error, QueryNotFound)
        assert error.message == unknown.message.replace("q9", "q1")
        assert "another replica" in error.message

    run_virtually(main())


def test_nobody_resumes_after_events_that_there_are_not():
    async def main():
        running = Running("Because.", done())
        events, _ = await read(running.open(resumable=True))
        assert await read(running.resume(after=len(events))) == ([], None)
        _, error = await read(running.resume(after=len(events) + 1))
        assert isinstance(error, InvalidRequest)
        assert error.violations[0].field == "after_sequence"

    run_virtually(main())


def test_two_may_read_and_a_third_sends_the_oldest_away():
    async def main():
        running = Running("Be", 5.0, "cause.", done())
        async with asyncio.TaskGroup() as group:
            first = group.create_task(read(running.open(resumable=True)))
            await asyncio.sleep(1)
            others = [group.create_task(read(running.resume()))]
            await asyncio.sleep(1)
            others.append(group.create_task(read(running.resume())))
        assert isinstance(first.result()[1], QueryReaderReplaced)
        assert [kinds(each.result()[0])[-1] for each in others] == ["completed"] * 2

    run_virtually(main())


def test_where_there_is_no_room_an_answer_is_not_resumable_and_says_so():
    async def main():
        running = Running("Be", 5.0, done(), kept_count=1)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(read(running.open(resumable=True)))
            await asyncio.sleep(1)
            second = group.create_task(read(running.open(resumable=True)))
        assert first.result()[0][0].started.resumable
        assert not second.result()[0][0].started.resumable

    run_virtually(main())


def test_what_has_ended_makes_room_first_that_of_the_tenant_with_the_most():
    async def main():
        running = Running("Because.", done())
        for tenant in ("acme", "greedy", "greedy"):
            await read(running.open(resumable=True, tenant=tenant))
        await read(running.open(resumable=True, tenant="new"))
        found = {
            query_id: (await read(running.resume(query_id, tenant=tenant)))[1] is None
            for query_id, tenant in (("q1", "acme"), ("q2", "greedy"), ("q3", "greedy"))
        }
        assert found == {"q1": True, "q2": False, "q3": True}

    run_virtually(main())


def test_the_memory_of_all_answers_is_bounded():
    async def main():
        texts = ["word " * 20, PAUSE] * 50
        running = Running(*texts, 5.0, *texts, done(), kept_count=100, kept_bytes=200_000)
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(read(running.open(resumable=True))) for _ in range(20)]
            await asyncio.sleep(1)
            assert 0 < running.value("rag_resumable_bytes") <= 200_000
        assert 0 < running.value("rag_resumable_bytes") <= 200_000
        assert all(kinds(call.result()[0])[-1] == "completed" for call in calls)

    run_virtually(main())


def test_a_reader_who_is_too_slow_is_sent_away_and_the_answer_goes_on():
    async def main():
        running = Running(*["word "] * 500, done(), kept_bytes=100_000)
        async with aclosing(running.open(resumable=True)) as slow:
            await anext(slow)
            await asyncio.sleep(1)
            assert running.script.ended == 1
            with pytest.raises(QueryEventsLost):
                await anext(slow)

    run_virtually(main())


def test_a_shutdown_ends_what_nobody_reads_at_once_and_the_rest_with_a_word():
    async def main():
        running = Running("Be", 1000.0, done())
        await leave_after(running.open(resumable=True), "text_delta")
        call = asyncio.ensure_future(read(running.open(resumable=True)))
        await asyncio.sleep(1)
        running.streams.drain(8.0)
        await asyncio.sleep(7)
        assert running.script.ended == 1
        assert not call.done()
        await asyncio.sleep(2)
        events, error = call.result()
        assert error.error_reason == events[-1].failed.reason == "SHUTTING_DOWN"
        assert events[-1].failed.partial_answer == "Be"
        assert events[-1].failed.retryable
        await running.streams.close()
        assert running.streams.resumable_count == running.streams.under_way_count == 0

    run_virtually(main())


def test_what_begins_during_a_shutdown_is_not_resumable():
    async def main():
        running = Running("Be", 1.0, done())
        running.streams.drain(8.0)
        events, error = await read(running.open(resumable=True))
        assert error is None
        assert not events[0].started.resumable
        await running.streams.close()

    run_virtually(main())
