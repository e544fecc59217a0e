"""Answers questions: retrieve, ask the cache, ask a model; do with less where something fails."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.common.errors import PeerUnavailable, ServiceError, StatusCode
from services.rag.core.answer import Answer, AnswerEvent, AnswerOrigin, PassagesFound
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
)
from services.rag.core.draft import Draft, extract_answer
from services.rag.core.errors import AnswerInterrupted
from services.rag.core.model import RankedPassage
from services.rag.core.options import CachePolicy, Mode, Question
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt import direct_messages, fit_passages, messages_for
from services.rag.models import ModelCatalogue
from services.rag.ports import (
    CachedInference,
    CachePort,
    InferenceKey,
    InferenceLookup,
    ModelsPort,
)
from services.rag.recorder import OpenStage, Recorder
from services.rag.retrieve import Retriever

__all__ = ["AnswerDefaults", "Answerer"]

_RESERVE_SECONDS = 0.5
_RESERVE_RATIO = 0.25

_NO_MATCH = "Nothing in the collection matches the question."

# What the caller has to mend; anything else may be answered from the sources instead.
_CALLERS_FAULTS = frozenset(
    {StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDefaults:
    """What holds where the caller says nothing.

    Attributes:
        temperature: Randomness, 0 to 2.
        answer_token_count: Longest answer.
        context_token_count: Context window asked of the model.
    """

    temperature: float
    answer_token_count: int
    context_token_count: int

    def applied_to(self, sampling: Sampling) -> Sampling:
        """Fills in what is missing."""
        return replace(
            sampling,
            temperature=(
                self.temperature if sampling.temperature is None else sampling.temperature
            ),
            max_output_token_count=sampling.max_output_token_count or self.answer_token_count,
            context_token_count=sampling.context_token_count or self.context_token_count,
        )


@dataclass(slots=True, kw_only=True)
class _Task:
    """One question on its way to an answer.

    Attributes:
        question: What is asked.
        sampling: How tokens are chosen, defaults filled in.
        recorder: Receives stages, degradations and warnings.
        partial_answers: Whether texts are shown as they come.
        cache_is_away: Whether the cache did not answer; it is then not waited for again.
    """

    question: Question
    sampling: Sampling
    recorder: Recorder
    partial_answers: bool
    cache_is_away: bool = False

    @property
    def cacheable(self) -> bool:
        """Whether one answer may stand for others: a chance answer only if it has sources."""
        repeatable = self.sampling.temperature == 0 or self.sampling.seed is not None
        return repeatable or self.question.mode is Mode.RAG


class Answerer:
    """Answers questions.

    Args:
        retriever: Finds passages.
        cache: Asked first.
        models: Asked second.
        catalogue: Models of the fleet.
        defaults: What holds where the caller says nothing.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        retriever: Retriever,
        cache: CachePort,
        models: ModelsPort,
        catalogue: ModelCatalogue,
        defaults: AnswerDefaults,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._retriever = retriever
        self._cache = cache
        self._models = models
        self._catalogue = catalogue
        self._defaults = defaults
        self._remaining_seconds = remaining_seconds

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
        task = _Task(
            question=question,
            sampling=self._defaults.applied_to(question.sampling),
            recorder=recorder,
            partial_answers=partial_answers,
        )
        if question.mode is Mode.DIRECT:
            steps = self._model_answer(task, direct_messages(question.text), Draft(()))
        else:
            steps = self._grounded(tenant_id, task)
        async with aclosing(steps):
            async for event in steps:
                if isinstance(event, str):
                    recorder.mark_first_text()
                yield event

    async def _grounded(self, tenant_id: str, task: _Task) -> AsyncGenerator[AnswerEvent, None]:
        question, recorder = task.question, task.recorder
        retrieved = await self._retriever.retrieve(
            tenant_id,
            question.collection,
            question.text,
            question.retrieval,
            recorder,
            bypass_cache=question.cache_policy is CachePolicy.BYPASS,
        )
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
        steps = self._model_answer(task, messages_for(question.text, passages), draft)
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

    async def _model_answer(
        self, task: _Task, messages: tuple[ChatMessage, ...], draft: Draft
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers from the cache, else by the model; the model's answer is then kept."""
        with task.recorder.stage("model"):
            model = await self._catalogue.chat_model(task.question.model)
        key = InferenceKey(model_digest=model.digest, messages=messages, sampling=task.sampling)
        inference = await self._look_up(task, key)
        if inference is not None:
            yield inference.text
            for citation in (*draft.append(inference.text), *draft.finish()):
                yield citation
            yield _answer(task, draft, inference, AnswerOrigin.CACHED, model=model.name)
            return
        start = task.recorder.elapsed_seconds()
        stage = OpenStage(failed=True)
        started: ChatStarted | None = None
        completed: ChatCompleted | None = None
        chat = self._models.chat(
            model.name,
            messages,
            task.sampling,
            time_limit_seconds=self._generation_limit_seconds(draft),
        )
        try:
            async with aclosing(chat):
                async for event in chat:
                    if isinstance(event, str):
                        yield event
                        for citation in draft.append(event):
                            yield citation
                    elif isinstance(event, ChatStarted):
                        started = event
                    else:
                        completed = event
            if started is None or completed is None:
                raise PeerUnavailable("balancer", "the answer ended without being complete")
            if draft.passages and not draft.text.strip():
                raise PeerUnavailable(model.name, "its answer is empty")
            stage.failed = False
        except ServiceError as error:
            if draft.text and task.partial_answers:
                raise AnswerInterrupted(
                    emitted_character_count=len(draft.text), cause=error
                ) from error
            raise
        finally:
            task.recorder.add_stage("generate", start, stage)
        for citation in draft.finish():
            yield citation
        inference = CachedInference(
            text=draft.text,
            finish_reason=completed.finish_reason,
            usage=completed.usage,
            generation_seconds=completed.generation_seconds,
        )
        await self._keep(task, replace(key, model_digest=started.model_digest), inference)
        yield _answer(
            task,
            draft,
            inference,
            AnswerOrigin.GENERATED,
            model=started.model,
            backend_id=started.backend_id,
        )

    def _generation_limit_seconds(self, draft: Draft) -> float | None:
        """Leaves time before the caller's deadline for an answer from the sources."""
        remaining = self._remaining_seconds()
        if remaining is None or not draft.passages:
            return None
        return remaining - min(_RESERVE_SECONDS, remaining * _RESERVE_RATIO)

    async def _look_up(self, task: _Task, key: InferenceKey) -> CachedInference | None:
        if task.question.cache_policy is not CachePolicy.USE or not task.cacheable:
            return None
        lookup = InferenceLookup(outcome="unavailable", inference=None, degraded=True)
        with task.recorder.stage("inference_lookup") as stage:
            try:
                lookup = await self._cache.lookup_inference(key, mode=task.question.mode.value)
            except PeerUnavailable:
                stage.failed = True
                task.cache_is_away = True
            stage.cache_outcome = lookup.outcome
        if lookup.degraded:
            _degrade_cache(task, "inference_lookup")
        return lookup.inference

    async def _keep(self, task: _Task, key: InferenceKey, inference: CachedInference) -> None:
        unwanted = task.question.cache_policy is CachePolicy.BYPASS or not task.cacheable
        incomplete = not inference.text or inference.finish_reason not in ("stop", "length")
        if unwanted or incomplete or task.cache_is_away:
            return
        with task.recorder.stage("inference_store") as stage:
            try:
                await self._cache.store_inference(key, inference)
            except PeerUnavailable:
                stage.failed = True
                _degrade_cache(task, "inference_store")


def _must_be_told(task: _Task, error: ServiceError, draft: Draft) -> bool:
    """Says whether an error must reach the caller although the sources could answer."""
    if draft.text and task.partial_answers:
        return True
    if error.status_code is StatusCode.INVALID_ARGUMENT:
        return True
    return bool(task.question.model) and error.status_code in _CALLERS_FAULTS


def _degrade_cache(task: _Task, stage: str) -> None:
    task.recorder.degrade(
        DegradationReason.CACHE_UNAVAILABLE, stage, "the cache or its store did not answer"
    )


def _answer(
    task: _Task,
    draft: Draft,
    inference: CachedInference,
    origin: AnswerOrigin,
    *,
    model: str,
    backend_id: str = "",
) -> Answer:
    if draft.unknown_marker_count:
        task.recorder.warnings.append(
            f"{draft.unknown_marker_count} markers of the answer name no passage."
        )
    if not draft.text.strip():
        task.recorder.warnings.append("The model's answer is empty.")
    if inference.finish_reason == "length":
        task.recorder.warnings.append("The answer was cut at the token limit.")
    return Answer(
        text=draft.text,
        citations=tuple(draft.citations),
        passages=draft.passages,
        origin=origin,
        mode=task.question.mode,
        model=model,
        backend_id=backend_id,
        finish_reason=inference.finish_reason,
        usage=inference.usage,
    )


def _extracted(task: _Task, passages: tuple[RankedPassage, ...]) -> list[AnswerEvent]:
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
