"""Has prompts answered: by the cache, by another call that is just at it, else by a model.

Of all calls with the same prompt at a time one asks the model, and hands the answer to the cache as
it comes; the others are given what the cache has so far, and then the rest as it comes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from services.common.errors import PeerUnavailable, ServiceError
from services.rag.background import BackgroundWork
from services.rag.cache_port import (
    CachedInference,
    CachePort,
    Fill,
    InferenceKey,
)
from services.rag.core.answer import AnswerEvent, AnswerOrigin
from services.rag.core.conversation import ChatMessage, ChatStarted
from services.rag.core.draft import Draft
from services.rag.core.errors import AnswerInterrupted
from services.rag.core.profile import DegradationReason
from services.rag.core.prompt_size import PromptSizes
from services.rag.core.replay import Replay
from services.rag.drafting import answer_of, finished, is_complete, may_end_here, taken
from services.rag.generation import Generation
from services.rag.inference import Inference, dependencies_of, limit_seconds
from services.rag.look_up_answers import CachedAnswers
from services.rag.models import ModelCatalogue
from services.rag.ports import ModelsPort
from services.rag.stage_spans import within
from services.rag.task import AnswerTask
from services.rag.worth import Worth

__all__ = ["ModelAnswers"]

_REFRESH_SECONDS = 120.0


class ModelAnswers:
    """Answers prompts.

    Args:
        cache: Asked first.
        models: Asked second.
        catalogue: Models of the fleet.
        background: Takes what nobody waits for.
        sizes: Learns how many tokens prompts have.
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
        sizes: PromptSizes,
        wait_limit_seconds: float,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._cache = cache
        self._cached = CachedAnswers(
            cache, wait_limit_seconds=wait_limit_seconds, remaining_seconds=remaining_seconds
        )
        self._models = models
        self._catalogue = catalogue
        self._background = background
        self._sizes = sizes
        self._remaining_seconds = remaining_seconds

    async def answer(
        self, task: AnswerTask, messages: tuple[ChatMessage, ...], draft: Draft, worth: Worth
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answers a prompt as the answer comes.

        Whoever is given the answer, which comes last, is to check it, to note with `worth` what
        came of that, and to go on to the end: only then is it kept for others, or not.

        Args:
            task: The question.
            messages: The prompt.
            draft: Empty; holds the answer so far, also where it breaks off.
            worth: Is asked whether the answer is kept.

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
            key=InferenceKey(
                model_digest=model.digest,
                messages=messages,
                sampling=task.sampling,
                output_format=task.question.output_format,
                namespace=task.namespace,
            ),
            draft=draft,
            dependencies=dependencies_of(task, draft),
            worth=worth,
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
        try:
            async with aclosing(self._cached.texts(inference)) as texts:
                async for text in texts:
                    for event in await taken(inference.draft, text):
                        yield event
        except PeerUnavailable:
            inference.task.lose_cache("inference_lookup")
        found = inference.found
        if found is None:
            return
        inference.note_kept()
        self._start_refresh(inference)
        for event in await finished(inference.draft):
            yield event
        yield answer_of(inference, found, AnswerOrigin.CACHED, model=inference.model.name)

    async def _generate(self, inference: Inference) -> AsyncGenerator[AnswerEvent, None]:
        """Has a model answer, for the caller and for all others who ask the same."""
        inference.task.is_coalesced = False
        await self._ask_time(inference)
        run = Generation(
            self._begin_fill(inference, inference.take_lease()), Replay(inference.draft.raw)
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
        async with aclosing(self._spoken(inference, run)) as events:
            async for event in events:
                yield event
        for event in await finished(inference.draft):
            yield event
        made = run.inference(inference.draft.raw) if run.is_complete else None
        is_cut = made is not None and self._is_prompt_cut(inference, made)
        yield answer_of(
            inference,
            made,
            AnswerOrigin.GENERATED,
            model=run.started.model,
            backend_id=run.started.backend_id,
        )
        # By now it was checked.
        if made is not None and not is_cut:
            await self._keep(inference, run, made)

    async def _spoken(
        self, inference: Inference, run: Generation
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Has the model speak; where the deadline comes first, what it has said stands."""
        task, draft = inference.task, inference.draft
        stage = task.recorder.begin("generate")
        stage.model = inference.model.name
        try:
            if draft.raw and not task.is_repeatable:
                raise run.cannot_go_on()  # noqa: TRY301 - handled as what the model fails with
            texts = self._run(inference, run, limit_seconds(self._remaining_seconds()))
            async with aclosing(within(stage.span, texts)) as steps:
                async for text in steps:
                    for event in await taken(draft, text):
                        yield event
            if draft.passages and not draft.raw.strip():
                empty = PeerUnavailable(inference.model.name, "its answer is empty")
                raise empty  # noqa: TRY301 - handled as what the model fails with
        except ServiceError as error:
            stage.note_failure(error)
            run.fail(error)
            if run.served is not None and may_end_here(error, task, draft):
                run.completed = None
                task.recorder.degrade(
                    DegradationReason.DEADLINE_TRUNCATED, "generate", "the time was up"
                )
                return
            if draft.text and task.partial_answers:
                raise AnswerInterrupted(
                    emitted_character_count=len(draft.text), cause=error
                ) from error
            raise
        except BaseException as error:
            stage.note_failure(error)
            raise
        finally:
            run.describe(stage)
            task.recorder.end(stage)

    def _is_prompt_cut(self, inference: Inference, made: CachedInference) -> bool:
        """Learns how long the prompt was, and says whether the backend has cut it."""
        is_cut = self._report_size(inference, made)
        if is_cut:
            inference.task.recorder.degrade(
                DegradationReason.CONTEXT_TRUNCATED,
                "generate",
                f"the model has read {made.usage.prompt_token_count} tokens of the prompt",
            )
        return is_cut

    def _report_size(self, inference: Inference, made: CachedInference) -> bool:
        prompt = "\n".join(each.content for each in inference.key.messages)
        return self._sizes.report(inference.model.digest, prompt, made.usage.prompt_token_count)

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
            output_format=inference.key.output_format,
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
            is_cut = self._report_size(inference, made)
            if (
                run.fill is not None
                and not is_cut
                and await asyncio.to_thread(inference.worth.is_sound, made)
            ):
                await run.fill.commit(made)
        finally:
            run.give_up()

    async def _ask_time(self, inference: Inference) -> None:
        """Learns from when on changes count, where nothing was looked up.

        Of what was said before the question nobody has asked yet whether it must be answered anew.
        """
        task = inference.task
        is_known = task.basis_time_ns is not None and not task.question.history
        if is_known or task.may_look_up:
            return
        if not task.may_keep or not inference.may_be_kept:
            return
        try:
            lookup = await self._cache.bypass_inference(
                inference.key, mode=task.question.mode.value, questions=task.questions
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
        """Keeps an answer, if it is one that others may be given.

        One that is not worth it is for those who wait for it now, who have seen it come.
        """
        task = inference.task
        if not task.may_keep or not inference.may_be_kept or not is_complete(made):
            return
        if not inference.worth.is_kept:
            run.hand_over(made)
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
            else:
                inference.note_kept()
