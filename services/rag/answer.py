"""Answers questions: from what was answered before, else from documents by a model.

Each way is tried only when the ones before it have come to nothing: the answer to the same
question, that to one like it, that to the same prompt, a new one. Where a model cannot be asked the
sources answer.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.common.errors import ServiceError, StatusCode
from services.rag.core.answer import Answer, AnswerEvent, AnswerOrigin, PassagesFound
from services.rag.core.draft import Draft, extract_answer
from services.rag.core.model import RankedPassage
from services.rag.core.options import CachePolicy, Mode, Question
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt import direct_messages, fit_passages, messages_for
from services.rag.infer import ModelAnswers
from services.rag.recorder import Recorder
from services.rag.retrieve import Retriever, Search
from services.rag.reuse import AnswerReuse, Reuse
from services.rag.task import AnswerDefaults, AnswerTask

__all__ = ["Answerer"]

_NO_MATCH = "Nothing in the collection matches the question."

# What the caller has to mend; anything else may be answered from the sources instead.
_CALLERS_FAULTS = frozenset(
    {StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND}
)


class Answerer:
    """Answers questions.

    Args:
        retriever: Finds passages.
        reuse: Finds answers given before.
        model_answers: Has prompts answered.
        defaults: What holds where the caller says nothing.
    """

    def __init__(
        self,
        *,
        retriever: Retriever,
        reuse: AnswerReuse,
        model_answers: ModelAnswers,
        defaults: AnswerDefaults,
    ) -> None:
        self._retriever = retriever
        self._reuse = reuse
        self._model_answers = model_answers
        self._defaults = defaults

    async def answer(
        self, tenant_id: str, question: Question, recorder: Recorder, *, partial_answers: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a question as the answer comes.

        Args:
            tenant_id: Owner of the collection.
            question: What is asked.
            recorder: Receives stages, degradations and warnings.
            partial_answers: Whether the caller shows the texts as they come. A generation that
                breaks off then ends in `AnswerInterrupted`, else in an extractive answer.

        Raises:
            CollectionNotFound: The tenant has no such collection.
            ModelNotFound: The fleet does not have the model the caller named.
            AnswerInterrupted: See `partial_answers`.
            StoreUnavailable: Nothing could be searched.
            PeerUnavailable: Mode DIRECT, and the balancer cannot be asked.
            RelayedError: The balancer refused the request, or in mode DIRECT could not answer.
        """
        task = AnswerTask(
            tenant_id=tenant_id,
            question=question,
            sampling=self._defaults.applied_to(question.sampling),
            recorder=recorder,
            partial_answers=partial_answers,
        )
        if question.mode is Mode.DIRECT:
            messages = direct_messages(question.text)
            steps = self._model_answers.answer(task, messages, Draft(()))
        else:
            steps = self._grounded(task)
        async with aclosing(steps):
            async for event in steps:
                if isinstance(event, str):
                    recorder.mark_first_text()
                yield event

    async def _grounded(self, task: AnswerTask) -> AsyncGenerator[AnswerEvent, None]:
        question = task.question
        search = await self._retriever.open(
            task.tenant_id, question.collection, question.text, question.retrieval, task.recorder
        )
        search.bypass_cache = question.cache_policy is CachePolicy.BYPASS
        reuse = self._reuse.begin(task, search)
        answer = await self._find_earlier(task, search, reuse) if reuse is not None else None
        retrieved: tuple[RankedPassage, ...] = ()
        if answer is None:
            search.cache_is_away |= task.cache_is_away
            retrieved = await self._retriever.find(search)
            task.cache_is_away |= search.cache_is_away
            if reuse is not None:
                answer = await reuse.confirm(retrieved)
        steps = _given(answer) if answer is not None else self._answer_from(task, retrieved)
        async with aclosing(steps):
            async for event in steps:
                if isinstance(event, Answer) and reuse is not None and answer is None:
                    await reuse.keep(event, search.vector)
                yield event

    async def _find_earlier(self, task: AnswerTask, search: Search, reuse: Reuse) -> Answer | None:
        """Looks for the question's answer among those that were given before."""
        answer = await reuse.find_same()
        if answer is not None or reuse.is_over:
            return answer
        await self._retriever.embed(search)
        task.cache_is_away |= search.cache_is_away
        if search.vector is None or task.cache_is_away:
            return None
        return await reuse.find_similar(search.vector)

    async def _answer_from(
        self, task: AnswerTask, retrieved: tuple[RankedPassage, ...]
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers from passages: by a model, or where none can by what they say themselves."""
        question, recorder = task.question, task.recorder
        passages = fit_passages(
            question.text,
            retrieved,
            context_token_count=task.sampling.context_token_count or 0,
            answer_token_count=task.sampling.max_output_token_count or 0,
        )
        if len(passages) < len(retrieved):
            recorder.warnings.append(
                f"{len(retrieved) - len(passages)} of {len(retrieved)} passages do not fit the "
                "context beside the answer; ask for fewer tokens or a larger context."
            )
        yield PassagesFound(passages)
        if not passages:
            yield _NO_MATCH
            yield Answer(text=_NO_MATCH, origin=AnswerOrigin.NO_MATCH, mode=question.mode)
            return
        draft = Draft(passages)
        steps = self._model_answers.answer(task, messages_for(question.text, passages), draft)
        try:
            async with aclosing(steps):
                async for event in steps:
                    yield event
        except ServiceError as error:
            if _must_be_told(task, error, draft):
                raise
            recorder.degrade(
                DegradationReason.GENERATION_INTERRUPTED
                if draft.text
                else DegradationReason.MODEL_UNAVAILABLE,
                "generate",
                error.message,
            )
            for event in await asyncio.to_thread(_extracted, task, passages):
                yield event


def _must_be_told(task: AnswerTask, error: ServiceError, draft: Draft) -> bool:
    """Says whether an error must reach the caller although the sources could answer."""
    if draft.text and task.partial_answers:
        return True
    if error.status_code is StatusCode.INVALID_ARGUMENT:
        return True
    return bool(task.question.model) and error.status_code in _CALLERS_FAULTS


async def _given(answer: Answer) -> AsyncGenerator[AnswerEvent, None]:
    """Gives an answer that is complete."""
    yield PassagesFound(answer.passages)
    yield answer.text
    for citation in answer.citations:
        yield citation
    yield answer


def _extracted(task: AnswerTask, passages: tuple[RankedPassage, ...]) -> list[AnswerEvent]:
    with task.recorder.stage("extract"):
        text, citations = extract_answer(task.question.text, passages)
    answer = Answer(
        text=text,
        citations=citations,
        passages=passages,
        origin=AnswerOrigin.EXTRACTIVE,
        mode=task.question.mode,
    )
    return [text, *citations, answer]
