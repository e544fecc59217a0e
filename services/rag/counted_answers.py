"""Counts a question around its answer, whoever asks it: at once, as a stream, in a conversation."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager

from opentelemetry.trace import Span, get_current_span, use_span
from opentelemetry.util.types import AttributeValue

from services.common.afterwards import after_answer
from services.common.baggage import carry
from services.common.deadline import remaining_seconds
from services.common.errors import ServiceError
from services.common.tracing import mark_failed
from services.rag.answer import Answerer
from services.rag.bookkeeping import REFUSED, Account, Bookkeeping
from services.rag.core.answer import Answer, AnswerEvent
from services.rag.core.bookkeeping_errors import BudgetExceeded
from services.rag.core.options import Question
from services.rag.core.stream_errors import AnswerOutOfTime
from services.rag.recorder import Recorder
from services.rag.stage_spans import GEN_AI_OPERATION, within
from services.rag.statistics import RagStatistics, cache_label

__all__ = ["CountedAnswers"]

_logger = logging.getLogger(__name__)

_NANOS = 1e9
# Whoever leaves in the last moment does so since the time is up: the end of a call may be seen a
# little before its deadline.
_DEADLINE_TOLERANCE_SECONDS = 0.05
_WORKFLOW = "rag"


class CountedAnswers:
    """Answers questions and counts them.

    Args:
        answerer: Answers.
        statistics: Counts.
        bookkeeping: Keeps the books; None where there are none.
    """

    def __init__(
        self,
        answerer: Answerer,
        statistics: RagStatistics,
        bookkeeping: Bookkeeping | None = None,
    ) -> None:
        self._answerer = answerer
        self._statistics = statistics
        self._bookkeeping = bookkeeping

    async def answer(
        self, tenant_id: str, question: Question, recorder: Recorder, *, partial_answers: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a question; arguments and errors are those of `Answerer.answer`."""
        account: Account | None = None
        if self._bookkeeping is not None:
            call = "stream" if partial_answers else "query"
            account = self._bookkeeping.open(question, recorder, call=call)
            question = account.question
        carry(mode=question.mode.value, query_id=recorder.query_id)
        spans = _Spans(question, recorder, partial_answers=partial_answers)
        with _harmless():
            self._statistics.begin(question)
        answer: Answer | None = None
        outcome = "error"
        failure: BaseException | None = None
        try:
            events = self._answerer.answer(
                tenant_id, question, recorder, partial_answers=partial_answers
            )
            async with aclosing(within(spans.workflow, events)) as steps:
                async for event in steps:
                    if isinstance(event, Answer):
                        answer = event
                        if account is not None:
                            account.warn()
                    elif isinstance(event, str):
                        spans.note_text()
                    yield event
            outcome = "success"
        except (asyncio.CancelledError, GeneratorExit):
            if answer is not None:
                outcome = "success"
            elif _is_out_of_time(recorder):
                failure = AnswerOutOfTime()
            else:
                outcome = "cancelled"
            raise
        except Exception as error:
            if isinstance(error, BudgetExceeded):
                outcome = REFUSED
            failure = error
            raise
        finally:
            cost_nanos = account.cost_nanos if account is not None else 0
            spans.end(answer, outcome, failure, cost_nanos=cost_nanos)

            def count() -> None:
                # Whatever span is the current one where a generator is ended, this one is meant.
                with (
                    _harmless(),
                    use_span(spans.workflow, record_exception=False, set_status_on_exception=False),
                ):
                    self._statistics.end(question.mode, recorder, answer, outcome)
                if account is not None:
                    with _harmless():
                        account.close(answer, outcome, failure)

            after_answer(count)


class _Spans:
    """The span of a call, and within it that of the work on its answer.

    The first ends where the caller leaves, although the answer may be gone on with.
    """

    def __init__(self, question: Question, recorder: Recorder, *, partial_answers: bool) -> None:
        self._recorder = recorder
        self._call = get_current_span()
        self._has_text = False
        self._call.set_attributes(
            {
                "app.rag.stream": partial_answers,
                "app.rag.query_chars": len(question.text),
            }
        )
        self.workflow: Span = recorder.start_span(
            f"invoke_workflow {_WORKFLOW}",
            {GEN_AI_OPERATION: "invoke_workflow", "gen_ai.workflow.name": _WORKFLOW},
        )

    def note_text(self) -> None:
        """Notes that there is text of the answer."""
        if not self._has_text:
            self._has_text = True
            self._call.add_event("first_token")

    def end(
        self,
        answer: Answer | None,
        outcome: str,
        failure: BaseException | None,
        *,
        cost_nanos: int,
    ) -> None:
        """Notes what became of the question, and ends the work.

        Args:
            answer: Its answer; None without one.
            outcome: `success`, `error`, `refused` or `cancelled`.
            failure: What it failed with; None where it did not.
            cost_nanos: What it has cost, in billionths of the currency.
        """
        recorder = self._recorder
        known: dict[str, AttributeValue] = {
            "app.rag.outcome": outcome,
            "app.rag.degraded": bool(recorder.degradations),
            "app.rag.cost": cost_nanos / _NANOS,
        }
        if recorder.degradations:
            reasons = dict.fromkeys(each.reason.value for each in recorder.degradations)
            known["app.rag.degradations"] = tuple(reasons)
        if answer is not None:
            known["app.rag.cache"] = cache_label(answer.origin, recorder.stages)
            known["app.rag.origin"] = answer.origin.value
            known["app.rag.citations"] = len(answer.citations)
            if answer.quality is not None:
                known["app.rag.quality"] = answer.quality.score
            if answer.confidence is not None:
                known["app.rag.confidence"] = answer.confidence.score
        told = self._call if self._call.is_recording() else self.workflow
        told.set_attributes(known)
        if recorder.told_bottleneck:
            self.workflow.set_attribute("app.rag.profile_bottleneck", recorder.told_bottleneck)
        if failure is not None and outcome != REFUSED:
            name = failure.error_reason if isinstance(failure, ServiceError) else failure
            mark_failed(self.workflow, name)
        recorder.end_span(self.workflow)


@contextmanager
def _harmless() -> Iterator[None]:
    """Keeps faults of what only counts answers from those who are answered."""
    try:
        yield
    except Exception:
        _logger.exception("an answer was not counted")


def _is_out_of_time(recorder: Recorder) -> bool:
    remaining = remaining_seconds()
    return recorder.is_out_of_time() or (
        remaining is not None and remaining <= _DEADLINE_TOLERANCE_SECONDS
    )
