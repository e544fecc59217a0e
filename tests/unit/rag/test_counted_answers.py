"""Whatever goes wrong in counting an answer, the answer is given, and all that was begun ends."""

import logging
from contextlib import aclosing

import pytest
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from services.common.clock import SystemClock
from services.common.metrics import Metrics
from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.options import Mode, Question
from services.rag.counted_answers import CountedAnswers
from services.rag.metrics import CATALOGUE
from services.rag.recorder import Recorder
from services.rag.statistics import RagStatistics

QUESTION = Question(collection="docs", text="Why?")
ANSWER = Answer(text="Because.", origin=AnswerOrigin.GENERATED, mode=Mode.RAG)


class OpenSpans(SpanProcessor):
    """Counts the spans that have begun and not ended."""

    def __init__(self):
        self.count = self.begun_count = 0

    def on_start(self, span, parent_context=None):
        self.count += 1
        self.begun_count += 1

    def on_end(self, span):
        self.count -= 1


class Answers:
    async def answer(self, tenant_id, question, recorder, *, partial_answers):
        yield ANSWER.text
        yield ANSWER


class Broken:
    """Books that cannot take down what has ended, or statistics that cannot count it."""

    cost_nanos = 0

    def __init__(self, question):
        self.question = question

    def open(self, question, recorder, *, call):
        return self

    def warn(self):
        pass

    def close(self, answer, outcome, failure):
        raise ValueError("a fault of the books")


class Counting:
    def __init__(self, *, books):
        self.spans = OpenSpans()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.spans)
        self.recorder = Recorder(clock=SystemClock(), tracer=provider.get_tracer("test"))
        self.metrics = Metrics(CATALOGUE, version="test")
        self.statistics = RagStatistics(self.metrics, start_time_seconds=0)
        self.answers = CountedAnswers(
            Answers(), self.statistics, Broken(QUESTION) if books else None
        )

    @property
    def active_count(self):
        return self.metrics.registry.get_sample_value("rag_active_queries", {"mode": "rag"})

    def ask(self):
        return self.answers.answer("acme", QUESTION, self.recorder, partial_answers=True)

    def check_ended(self):
        assert self.spans.begun_count > 0
        assert self.spans.count == 0
        assert self.active_count == self.statistics.in_flight_count == 0


@pytest.mark.parametrize("fault", ["books", "stages", "quality"])
async def test_an_answer_is_given_although_it_cannot_be_counted(fault, caplog, monkeypatch):
    counting = Counting(books=fault == "books")
    if fault != "books":

        def fail(*_arguments):
            raise ValueError("a fault of the statistics")

        names = {"stages": "add_stages", "quality": "_add_quality"}
        monkeypatch.setattr(counting.statistics, names[fault], fail)
    with caplog.at_level(logging.ERROR):
        events = [event async for event in counting.ask()]
    assert events == [ANSWER.text, ANSWER]
    assert [each.exc_info[0] for each in caplog.records] == [ValueError]
    counting.check_ended()


async def test_who_leaves_leaves_nothing_open_although_that_cannot_be_counted(caplog):
    counting = Counting(books=True)
    async with aclosing(counting.ask()) as events:
        assert await anext(events) == ANSWER.text
    counting.check_ended()


async def test_a_question_of_no_known_kind_leaves_no_query_under_way(monkeypatch):
    def fail(*_arguments, **_options):
        raise RecursionError

    monkeypatch.setattr("services.rag.statistics.query_type", fail)
    counting = Counting(books=False)
    assert [event async for event in counting.ask()] == [ANSWER.text, ANSWER]
    counting.check_ended()
