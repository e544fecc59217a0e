"""Has prompts answered: by the cache, by another call that is just at it, else by a model.

Of all calls with the same prompt at a time one asks the model, and hands the answer to the cache as
it comes; the others are given what the cache has so far, and then the rest as it comes.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from services.common.errors import PeerUnavailable, ServiceError
from services.rag.background import BackgroundWork
from services.rag.cache_port import (
    CachedInference,
    CachePort,
    Fill,
    FillInterrupted,
    InferenceKey,
    InferenceLookup,
)
from services.rag.core.answer import Answer, AnswerEvent, AnswerOrigin
from services.rag.core.conversation import ChatMessage, ChatStarted
from services.rag.core.draft import Draft
from services.rag.core.errors import AnswerInterrupted
from services.rag.core.replay import Replay
from services.rag.generation import Generation
from services.rag.inference import Inference, dependencies_of
from services.rag.models import ModelCatalogue
from services.rag.ports import ModelsPort
from services.rag.recorder import OpenStage
from services.rag.task import AnswerTask

__all__ = ["ModelAnswers"]

_RESERVE_SECONDS = 0.5
_RESERVE_RATIO = 0.25
# Of the time left, what waiting for another call's answer may take: it may have to be computed yet.
_WAITING_SHARE_RATIO = 0.5
_REFRESH_SECONDS = 120.0
# How often a text is gone on with that another call is computing, before it is computed here.
_MOST_LEADERS = 8


class ModelAnswers:
    """Answers prompts.

    Args:
        cache: Asked first.
        models: Asked second.
        catalogue: Models of the fleet.
        background: Takes what nobody waits for.
        wait_limit_seconds: Longest wait for an answer that another call computes.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        *,
        cache: CachePort,
        models: ModelsPort,
        catalogue: ModelCatalogue,
        background: BackgroundWork,
        wait_limit_seconds: float,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._cache = cache
        self._models = models
        self._catalogue = catalogue
        self._background = background
        self._wait_limit_seconds = wait_limit_seconds
        self._remaining_seconds = remaining_seconds

    async def answer(
        self, task: AnswerTask, messages: tuple[ChatMessage, ...], draft: Draft
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a prompt as the answer comes.

        Args:
            task: The question.
            messages: The prompt.
            draft: Empty; holds the answer so far, also where it breaks off.

        Raises:
            ModelNotFound: The fleet does not have the model.
            AnswerInterrupted: The answer broke off, and its beginning was shown.
            PeerUnavailable: The balancer cannot be asked.
            RelayedError: The balancer could not answer.
        """
        with task.recorder.stage("model"):
            model = await self._catalogue.chat_model(task.question.model)
        inference = Inference(
            task=task,
            model=model,
            key=InferenceKey(model_digest=model.digest, messages=messages, sampling=task.sampling),
            draft=draft,
            dependencies=dependencies_of(task, draft),
        )
        may_look_up = task.may_look_up and inference.may_be_kept
        steps = (self._take, self._generate) if may_look_up else (self._generate,)
        try:
            for step in steps:
                async with aclosing(step(inference)) as events:
                    async for event in events:
                        yield event
                if inference.found is not None:
                    return
        finally:
            self._give_back(inference, inference.take_lease())

    async def _take(self, inference: Inference) -> AsyncGenerator[AnswerEvent, None]:
        """Passes on the answer that the cache has or gets, if it does."""
        texts = (
            self._streamed(inference) if inference.task.partial_answers else self._whole(inference)
        )
        try:
            async with aclosing(texts):
                async for text in texts:
                    yield text
                    for citation in inference.draft.append(text):
                        yield citation
        except PeerUnavailable:
            inference.task.lose_cache("inference_lookup")
        found = inference.found
        if found is None:
            return
        self._start_refresh(inference)
        for citation in inference.draft.finish():
            yield citation
        yield _answer(inference, found, AnswerOrigin.CACHED, model=inference.model.name)

    async def _whole(self, inference: Inference) -> AsyncGenerator[str, None]:
        with inference.task.recorder.stage("inference_lookup") as stage:
            stage.cache_outcome = "unavailable"
            lookup = await self._cache.lookup_inference(
                inference.key,
                mode=inference.task.question.mode.value,
                wait_seconds=self._wait_seconds(),
            )
            stage.cache_outcome = lookup.outcome
        inference.note(lookup)
        if lookup.is_hit and lookup.inference is not None:
            inference.found = lookup.inference
            yield lookup.inference.text

    async def _streamed(self, inference: Inference) -> AsyncGenerator[str, None]:
        for _ in range(_MOST_LEADERS):
            async with aclosing(self._followed(inference)) as texts:
                async for text in texts:
                    yield text
            if inference.lease or not inference.is_interrupted:
                return

    async def _followed(self, inference: Inference) -> AsyncGenerator[str, None]:
        """Passes on what is new to the caller, and notes how it ended."""
        inference.is_interrupted = False
        replay = Replay(inference.draft.text)
        events = self._cache.stream_inference(
            inference.key,
            mode=inference.task.question.mode.value,
            wait_seconds=self._wait_seconds(),
            time_limit_seconds=self._limit_seconds(inference.draft),
        )
        async with aclosing(events):
            with inference.task.recorder.stage("inference_lookup") as stage:
                stage.cache_outcome = "unavailable"
                lookup = await anext(events, None)
                if not isinstance(lookup, InferenceLookup):
                    raise PeerUnavailable("cache", "it has not said what it found")
                stage.cache_outcome = lookup.outcome
            inference.note(lookup)
            async for event in events:
                if isinstance(event, str):
                    text = replay.feed(event)
                    if replay.deviates:
                        raise AnswerInterrupted(
                            emitted_character_count=len(inference.draft.text),
                            cause=PeerUnavailable("cache", "another answer has been made"),
                        )
                    if text:
                        yield text
                elif isinstance(event, FillInterrupted):
                    inference.lease, inference.is_interrupted = event.lease, True
                    return
                elif isinstance(event, CachedInference) and event.text == inference.draft.text:
                    inference.found = event
            if lookup.is_hit and inference.found is None:
                raise PeerUnavailable("cache", "its answer ended without being complete")

    async def _generate(self, inference: Inference) -> AsyncGenerator[AnswerEvent, None]:
        """Has a model answer, for the caller and for all others who ask the same."""
        inference.task.is_coalesced = False
        await self._ask_time(inference)
        run = Generation(
            self._begin_fill(inference, inference.take_lease()), Replay(inference.draft.text)
        )
        try:
            async with aclosing(self._generated(inference, run)) as events:
                async for event in events:
                    yield event
        finally:
            # Whoever else waits for the answer must not wait for a caller that has left.
            run.give_up()

    async def _generated(
        self, inference: Inference, run: Generation
    ) -> AsyncGenerator[AnswerEvent, None]:
        task, draft = inference.task, inference.draft
        start = task.recorder.elapsed_seconds()
        stage = OpenStage(failed=True)
        try:
            if draft.text and not task.is_repeatable:
                raise run.cannot_go_on()
            limit = self._limit_seconds(draft)
            async with aclosing(self._run(inference, run, limit)) as texts:
                async for text in texts:
                    yield text
                    for citation in draft.append(text):
                        yield citation
            if draft.passages and not draft.text.strip():
                raise PeerUnavailable(inference.model.name, "its answer is empty")
            stage.failed = False
        except ServiceError as error:
            run.fail(error)
            if draft.text and task.partial_answers:
                raise AnswerInterrupted(
                    emitted_character_count=len(draft.text), cause=error
                ) from error
            raise
        finally:
            task.recorder.add_stage("generate", start, stage)
        for citation in draft.finish():
            yield citation
        made = run.inference(draft.text)
        await self._keep(inference, run, made)
        yield _answer(
            inference,
            made,
            AnswerOrigin.GENERATED,
            model=run.started.model,
            backend_id=run.started.backend_id,
        )

    async def _run(
        self,
        inference: Inference,
        run: Generation,
        time_limit_seconds: float | None,
        *,
        urgent: bool = True,
    ) -> AsyncGenerator[str, None]:
        """Asks the model, fills the cache, and yields what is new to the caller."""
        chat = self._models.chat(
            inference.model.name,
            inference.key.messages,
            inference.key.sampling,
            time_limit_seconds=time_limit_seconds,
            urgent=urgent,
        )
        async with aclosing(chat):
            async for event in chat:
                if isinstance(event, str):
                    if run.fill is not None:
                        run.fill.send(event)
                    text = run.replay.feed(event)
                    if run.replay.deviates:
                        break
                    if text:
                        yield text
                elif isinstance(event, ChatStarted):
                    run.begin(event, listed_digest=inference.model.digest)
                else:
                    run.completed = event
        if run.replay.deviates or (run.completed is not None and run.replay.is_behind):
            raise run.cannot_go_on()
        if not run.is_complete:
            raise PeerUnavailable("balancer", "the answer ended without being complete")

    def _start_refresh(self, inference: Inference) -> None:
        """Has an answer computed anew, if that is wanted and there is room for it."""
        lease = inference.take_lease()
        if lease and (
            inference.task.cache_is_away
            or not self._background.start("refresh", lambda: self._refresh(inference, lease))
        ):
            self._give_back(inference, lease)

    async def _refresh(self, inference: Inference, lease: str) -> None:
        """Computes an answer anew that will expire soon."""
        run = Generation(self._begin_fill(inference, lease), Replay(""))
        parts: list[str] = []
        try:
            limit = _REFRESH_SECONDS
            async with aclosing(self._run(inference, run, limit, urgent=False)) as texts:
                parts = [text async for text in texts]
            made = run.inference("".join(parts))
            if run.fill is not None and _is_complete(made):
                await run.fill.commit(made)
        finally:
            run.give_up()

    async def _ask_time(self, inference: Inference) -> None:
        """Learns from when on changes count, where nothing was looked up."""
        task = inference.task
        if task.basis_time_ns is not None or task.may_look_up:
            return
        if not task.may_keep or not inference.may_be_kept:
            return
        try:
            lookup = await self._cache.bypass_inference(
                inference.key, mode=task.question.mode.value
            )
        except PeerUnavailable:
            task.lose_cache("inference_lookup")
        else:
            inference.note(lookup)

    def _begin_fill(self, inference: Inference, lease: str) -> Fill | None:
        if inference.task.cache_is_away:
            self._give_back(inference, lease)
            return None
        return self._open_fill(inference, lease) if lease else None

    def _give_back(self, inference: Inference, lease: str) -> None:
        """Lets others compute the answer at once that this call does not."""
        if lease:
            self._open_fill(inference, lease).discard()

    def _open_fill(self, inference: Inference, lease: str) -> Fill:
        return self._cache.fill_inference(
            inference.key,
            lease,
            inference.dependencies,
            basis_time_ns=inference.task.basis_time_ns,
        )

    async def _keep(self, inference: Inference, run: Generation, made: CachedInference) -> None:
        """Keeps an answer, if it is one that others may be given."""
        task = inference.task
        if not task.may_keep or not inference.may_be_kept or not _is_complete(made):
            return
        key = replace(inference.key, model_digest=run.started.model_digest)
        with task.recorder.stage("inference_store") as stage:
            try:
                if run.fill is not None:
                    await run.fill.commit(made)
                else:
                    await self._cache.store_inference(
                        key, made, inference.dependencies, basis_time_ns=task.basis_time_ns
                    )
            except PeerUnavailable:
                stage.failed = True
                task.lose_cache("inference_store")

    def _wait_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return self._wait_limit_seconds
        return max(0.0, min(self._wait_limit_seconds, remaining * _WAITING_SHARE_RATIO))

    def _limit_seconds(self, draft: Draft) -> float | None:
        """Leaves time before the caller's deadline for an answer from the sources."""
        remaining = self._remaining_seconds()
        if remaining is None or not draft.passages:
            return None
        return remaining - min(_RESERVE_SECONDS, remaining * _RESERVE_RATIO)


def _is_complete(made: CachedInference) -> bool:
    return bool(made.text) and made.finish_reason in ("stop", "length")


def _answer(
    inference: Inference,
    made: CachedInference,
    origin: AnswerOrigin,
    *,
    model: str,
    backend_id: str = "",
) -> Answer:
    task, draft = inference.task, inference.draft
    if draft.unknown_marker_count:
        task.recorder.warnings.append(
            f"{draft.unknown_marker_count} markers of the answer name no passage."
        )
    if not draft.text.strip():
        task.recorder.warnings.append("The model's answer is empty.")
    if made.finish_reason == "length":
        task.recorder.warnings.append("The answer was cut at the token limit.")
    return Answer(
        text=draft.text,
        citations=tuple(draft.citations),
        passages=draft.passages,
        origin=origin,
        mode=task.question.mode,
        model=model,
        backend_id=backend_id,
        finish_reason=made.finish_reason,
        usage=made.usage,
        generation_seconds=made.generation_seconds,
    )
