"""Makes new answers: by a model from passages or alone, from the passages word for word, or none.

Whatever is made is checked against its sources before it is given as finished.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from services.common.errors import ServiceError, StatusCode
from services.rag.core.answer import Answer, AnswerEvent, AnswerOrigin, PassagesFound
from services.rag.core.bookkeeping_errors import BudgetExceeded
from services.rag.core.conversation import ChatMessage
from services.rag.core.draft import Draft, extract_answer
from services.rag.core.guard import Guard, links_of
from services.rag.core.json_answers import form_problem
from services.rag.core.options import AnswerPolicy, CachePolicy, Mode
from services.rag.core.passages import PassageOrigin, RankedPassage
from services.rag.core.profile import DegradationReason, WarningKind
from services.rag.core.prompt import direct_messages, fit_passages, messages_for, protected_texts
from services.rag.core.prompt_size import PromptSizes
from services.rag.core.quality import CheckedCitations, quality_of
from services.rag.core.refusal import NO_MATCH, is_hopeless, refusal_text
from services.rag.core.retrieved import Retrieved
from services.rag.core.verification import SentenceSupport, SupportStatus
from services.rag.infer import ModelAnswers
from services.rag.support import MeaningSupport
from services.rag.task import AnswerTask
from services.rag.worth import Worth

__all__ = ["Composer"]

# What the caller has to mend; anything else may be answered from the sources instead.
_CALLERS_FAULTS = frozenset(
    {StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND}
)
# What another backend may do better at once.
_PASSING_FAULTS = frozenset({StatusCode.ABORTED, StatusCode.UNAVAILABLE, StatusCode.INTERNAL})
_CHECKED_BY_MEANING = frozenset({Mode.DEEP, Mode.AGENT})
_MODEL_ALONE = "The documents do not hold an answer; this one is the model's own."


class Composer:
    """Makes new answers.

    Args:
        model_answers: Has prompts answered.
        support: Checks answers by meaning.
        sizes: Knows how many tokens prompts have.
    """

    def __init__(
        self, *, model_answers: ModelAnswers, support: MeaningSupport, sizes: PromptSizes
    ) -> None:
        self._model_answers = model_answers
        self._support = support
        self._sizes = sizes

    async def direct(self, task: AnswerTask) -> AsyncGenerator[AnswerEvent, None]:
        """Has a model alone answer."""
        messages = direct_messages(
            task.question.text,
            history=task.prompt.history,
            output_format=task.question.output_format,
        )
        make_draft = partial(_draft_alone, task, messages)
        draft, worth = make_draft(), Worth(task, make_draft, confidence=None)
        answer: Answer | None = None
        async with aclosing(self._model_answers.answer(task, messages, draft, worth)) as events:
            async for event in events:
                if isinstance(event, Answer):
                    _note_guarded(task, draft)
                    _note_form(task, event.text)
                    answer = event
                    worth.note(answer)
                else:
                    yield event
        if answer is not None:
            yield answer

    async def compose(
        self,
        task: AnswerTask,
        found: Retrieved,
        embedding_model: str | None,
        *,
        chosen: bool = False,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers from what was found, as the policy allows.

        Args:
            task: The question.
            found: The passages, best first, with the confidence in them.
            embedding_model: Identity of the model of the collection's vectors; None without any.
            chosen: Whether a model looked for the passages in its own words, so that how well they
                fit the question says little.
        """
        steps = self._steps(task, found, embedding_model, chosen=chosen)
        async with aclosing(steps):
            async for event in steps:
                if not isinstance(event, Answer):
                    yield event
                    continue
                yield replace(
                    event,
                    confidence=found.confidence,
                    rewritten_query=task.rewritten,
                    expansions=found.expansions,
                )

    def _steps(
        self, task: AnswerTask, found: Retrieved, embedding_model: str | None, *, chosen: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        policy = task.question.answer_policy
        # The confidence is that in the documents' passages alone, for the question as it is asked.
        is_judged = not chosen and all(
            each.passage.origin is PassageOrigin.CORPUS for each in found.passages
        )
        hopeless = is_judged and is_hopeless(found.confidence, task.asked, found.passages)
        if hopeless and policy is AnswerPolicy.ALLOW_MODEL_KNOWLEDGE:
            return self._ungrounded(task)
        if not found.passages:
            return _told(task, found, (), NO_MATCH, AnswerOrigin.NO_MATCH)
        if policy is AnswerPolicy.EXTRACTIVE:
            return self._extractive(task, found, self.fitting(task, found.passages))
        if hopeless:
            text = refusal_text(found.passages)
            return _told(task, found, found.passages, text, AnswerOrigin.REFUSED)
        return self._generated(task, found, embedding_model)

    def fitting(
        self, task: AnswerTask, passages: tuple[RankedPassage, ...]
    ) -> tuple[RankedPassage, ...]:
        """Chooses the passages that fit the prompt, and tells of those that do not."""
        factor = self._sizes.factor(task.model_digest, passages[0].passage.text)
        fitting = fit_passages(
            task.asked,
            passages,
            # Larger tokens leave room for more, which is the same as a larger context.
            context_token_count=int((task.sampling.context_token_count or 0) / factor),
            answer_token_count=int((task.sampling.max_output_token_count or 0) / factor),
            prompt=task.prompt,
        )
        if len(fitting) < len(passages):
            task.recorder.warn(
                WarningKind.CONTEXT,
                f"{len(passages) - len(fitting)} of {len(passages)} passages do not fit the "
                "context beside the answer; ask for fewer tokens or a larger context.",
            )
        return fitting

    async def _generated(
        self, task: AnswerTask, found: Retrieved, embedding_model: str | None
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Has a model answer from passages; where none can, they answer themselves."""
        passages = self.fitting(task, found.passages)
        yield PassagesFound(passages)
        task.recorder.prompt_passage_counts.append(len(passages))
        messages = messages_for(task.asked, passages, task.prompt)
        was_interrupted = False
        attempt, answer = task, None
        make_draft = partial(_draft_from, task, messages, passages)
        worth = Worth(task, make_draft, confidence=found.confidence.score)
        while answer is None:
            draft = make_draft()
            steps = self._model_answers.answer(attempt, messages, draft, worth)
            try:
                async with aclosing(steps):
                    async for event in steps:
                        if not isinstance(event, Answer):
                            yield event
                            continue
                        if task.question.mode in _CHECKED_BY_MEANING:
                            for citation in await self._support.check(task, draft, embedding_model):
                                yield citation
                        answer = _checked(task, draft, event, found.confidence.score)
                        worth.note(answer)
            except ServiceError as error:
                if _must_be_told(task, error, draft):
                    raise
                if draft.raw and not was_interrupted and error.status_code in _PASSING_FAULTS:
                    # Nobody has seen its beginning, so another backend may begin anew.
                    was_interrupted = True
                    attempt = _anew(task)
                    continue
                task.recorder.degrade(
                    _reason_of(error, interrupted=bool(draft.raw) or was_interrupted),
                    "generate",
                    error.message,
                )
                steps = self._extractive(task, found, passages, shown=True)
                async with aclosing(steps):
                    async for event in steps:
                        yield event
                return
        yield answer

    async def _ungrounded(self, task: AnswerTask) -> AsyncGenerator[AnswerEvent, None]:
        """Has the model answer from what it knows."""
        task.recorder.degrade(DegradationReason.UNGROUNDED, "generate", _MODEL_ALONE)
        yield PassagesFound(())
        messages = direct_messages(
            task.asked, history=task.prompt.history, output_format=task.question.output_format
        )
        make_draft = partial(_draft_alone, task, messages)
        draft, worth = make_draft(), Worth(task, make_draft, confidence=0.0)
        async with aclosing(self._model_answers.answer(task, messages, draft, worth)) as events:
            async for event in events:
                # Nothing vouches for such an answer: nobody else is given it.
                yield _checked(task, draft, event, 0.0) if isinstance(event, Answer) else event

    async def _extractive(
        self,
        task: AnswerTask,
        found: Retrieved,
        passages: tuple[RankedPassage, ...],
        *,
        shown: bool = False,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers with sentences of the passages; `shown` where these were told of already."""
        if not shown:
            yield PassagesFound(passages)
        with task.recorder.stage("extract"):
            text, citations = await asyncio.to_thread(extract_answer, task.asked, passages)
        yield text
        for citation in citations:
            yield citation
        sentences = tuple(
            SentenceSupport(
                answer_char_start=each.answer_char_start,
                answer_char_end=each.answer_char_end,
                status=SupportStatus.SUPPORTED,
                support=1.0,
                marker=each.marker,
            )
            for each in citations
        )
        count = len(citations)
        yield Answer(
            text=text,
            citations=citations,
            passages=passages,
            origin=AnswerOrigin.EXTRACTIVE,
            mode=task.question.mode,
            sentences=sentences,
            quality=quality_of(
                confidence=found.confidence.score,
                sentences=sentences,
                citations=CheckedCitations(
                    citation_count=count, supported_count=count, cited_claim_count=count
                ),
                reasons=task.reasons,
            ),
        )


def _reason_of(error: ServiceError, *, interrupted: bool) -> DegradationReason:
    """Says why a model has not answered."""
    if isinstance(error, BudgetExceeded):
        return DegradationReason.BUDGET_EXCEEDED
    if interrupted:
        return DegradationReason.GENERATION_INTERRUPTED
    return DegradationReason.MODEL_UNAVAILABLE


def _draft_alone(task: AnswerTask, messages: tuple[ChatMessage, ...]) -> Draft:
    guard = Guard(protected_texts(messages), None)
    return Draft((), guard=guard, is_json=task.question.output_format is not None)


def _draft_from(
    task: AnswerTask, messages: tuple[ChatMessage, ...], passages: tuple[RankedPassage, ...]
) -> Draft:
    guard = _guard_of(task, messages, passages)
    return Draft(passages, guard=guard, is_json=task.question.output_format is not None)


def _anew(task: AnswerTask) -> AnswerTask:
    """Returns the same task for a second attempt, which asks nobody what became of the first."""
    question = task.question
    if question.cache_policy is CachePolicy.USE:
        question = replace(question, cache_policy=CachePolicy.REFRESH)
    return replace(task, question=question)


def _guard_of(
    task: AnswerTask, messages: tuple[ChatMessage, ...], passages: tuple[RankedPassage, ...]
) -> Guard:
    known = None
    if task.question.answer_policy is not AnswerPolicy.ALLOW_MODEL_KNOWLEDGE:
        known = links_of(
            task.question.text,
            *(
                text
                for each in passages
                for text in (each.passage.source_uri, each.passage.header, each.passage.text)
            ),
        )
    return Guard(protected_texts(messages), known)


def _must_be_told(task: AnswerTask, error: ServiceError, draft: Draft) -> bool:
    """Says whether an error must reach the caller although the sources could answer."""
    if draft.text and task.partial_answers:
        return True
    if error.status_code is StatusCode.INVALID_ARGUMENT or task.question.output_format is not None:
        return True
    return bool(task.question.model) and error.status_code in _CALLERS_FAULTS


def _note_guarded(task: AnswerTask, draft: Draft) -> None:
    guard, recorder = draft.guard, task.recorder
    if guard is not None and guard.removed_link_count:
        recorder.warn(
            WarningKind.LINK,
            f"{guard.removed_link_count} links that no source holds were removed from the answer.",
        )
    if guard is not None and guard.removed_echo_count:
        recorder.warn(WarningKind.ECHO, "The answer repeated the prompt; that was removed.")


def _note_form(task: AnswerTask, text: str) -> bool:
    """Checks an answer that must be JSON, and says whether it is as it must be."""
    form = task.question.output_format
    if form is None:
        return True
    problem, unchecked = form_problem(text, form.json_schema)
    if unchecked:
        task.recorder.warn(
            WarningKind.OUTPUT_FORMAT,
            f"Of the schema these parts were not checked: {', '.join(unchecked)}.",
        )
    if problem is not None:
        task.recorder.warn(
            WarningKind.OUTPUT_FORMAT, f"The answer has not the form asked for: {problem}."
        )
    return problem is None


def _checked(task: AnswerTask, draft: Draft, answer: Answer, confidence: float) -> Answer:
    """Completes an answer with what checking it has found."""
    _note_guarded(task, draft)
    has_form = _note_form(task, answer.text)
    sentences = draft.sentences
    quality = quality_of(
        confidence=confidence,
        sentences=sentences,
        citations=draft.checked_citations(),
        reasons=task.reasons,
    )
    if not has_form:
        quality = replace(quality, score=0.0)
    return replace(answer, citations=tuple(draft.citations), sentences=sentences, quality=quality)


async def _told(
    task: AnswerTask,
    found: Retrieved,
    passages: tuple[RankedPassage, ...],
    text: str,
    origin: AnswerOrigin,
) -> AsyncGenerator[AnswerEvent, None]:
    """Says why there is no answer."""
    yield PassagesFound(passages)
    yield text
    yield Answer(
        text=text,
        passages=passages,
        origin=origin,
        mode=task.question.mode,
        quality=quality_of(
            confidence=found.confidence.score,
            sentences=(),
            citations=CheckedCitations(citation_count=0, supported_count=0, cited_claim_count=0),
            reasons=task.reasons,
        ),
    )
