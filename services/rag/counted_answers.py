"""Counts a question around its answer, whoever asks it: at once, as a stream, in a conversation."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from opentelemetry.trace import Span, get_current_span

from services.rag.answer import Answerer
from services.rag.bookkeeping import Account, Bookkeeping
from services.rag.core.answer import Answer, AnswerEvent
from services.rag.core.options import Question
from services.rag.recorder import Recorder
from services.rag.statistics import RagStatistics

__all__ = ["CountedAnswers"]


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
        span = get_current_span()
        account: Account | None = None
        if self._bookkeeping is not None:
            call = "stream" if partial_answers else "query"
            account = self._bookkeeping.open(question, recorder, call=call)
            question = account.question
        _set(span, "app.rag.mode", question.mode.value)
        _set(span, "app.rag.stream", partial_answers)
        _set(span, "app.rag.query_chars", len(question.text))
        self._statistics.begin(question.mode)
        answer: Answer | None = None
        outcome, failure = "error", None
        try:
            events = self._answerer.answer(
                tenant_id, question, recorder, partial_answers=partial_answers
            )
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Answer):
                        answer = event
                        if account is not None:
                            account.warn()
                        _describe(span, answer, recorder)
                    yield event
            outcome = "success"
        except (asyncio.CancelledError, GeneratorExit):
            outcome = "success" if answer is not None else "cancelled"
            raise
        except Exception as error:
            failure = error
            raise
        finally:
            self._statistics.end(question.mode, recorder, answer, outcome)
            if account is not None:
                account.close(answer, outcome, failure)


def _describe(span: Span, answer: Answer, recorder: Recorder) -> None:
    _set(span, "app.rag.origin", answer.origin.value)
    _set(span, "app.rag.citations", len(answer.citations))
    _set(span, "app.rag.degraded", bool(recorder.degradations))
    if answer.quality is not None:
        _set(span, "app.rag.quality", answer.quality.score)
    if answer.confidence is not None:
        _set(span, "app.rag.confidence", answer.confidence.score)


def _set(span: Span, key: str, value: str | float) -> None:
    # The call's span has ended where its caller has left and the answer goes on.
    if span.is_recording():
        span.set_attribute(key, value)
