"""Has a model say something short that an answer is prepared with."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass

from services.common.errors import PeerUnavailable
from services.rag.cache_port import CachedInference, CachePort, InferenceKey
from services.rag.core.conversation import (
    ChatCompleted,
    ChatMessage,
    ChatStarted,
    Sampling,
    TokenUsage,
)
from services.rag.core.options import OutputFormat
from services.rag.core.prompt_size import PromptSizes
from services.rag.generation import known_failure
from services.rag.models import ModelCatalogue
from services.rag.ports import ModelFacts, ModelsPort
from services.rag.recorder import OpenStage

__all__ = ["BriefAnswers"]

# What is prepared must not take the time from what it prepares.
_DEADLINE_SHARE_RATIO = 0.25
# The cache counts what it is asked by the mode of the question.
_CACHE_MODE = "rag"


@dataclass(frozen=True, slots=True)
class _Made:
    inference: CachedInference
    model_digest: str


class BriefAnswers:
    """Asks a model for short texts, always with the same outcome for the same prompt.

    Args:
        cache: Asked first for what may be kept.
        models: Asked second.
        catalogue: Models of the fleet.
        model: Model that is asked; empty for the one that answers the question.
        context_token_count: Context window that answers are asked with; another one could make a
            backend load the model anew.
        sizes: Knows how many tokens prompts have.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
        note_cached: Told of texts that the cache had, with their model and what they cost.
    """

    def __init__(
        self,
        *,
        cache: CachePort,
        models: ModelsPort,
        catalogue: ModelCatalogue,
        model: str,
        context_token_count: int,
        sizes: PromptSizes,
        remaining_seconds: Callable[[], float | None],
        note_cached: Callable[[str, TokenUsage], None] = lambda _model, _usage: None,
    ) -> None:
        self._cache = cache
        self._note_cached = note_cached
        self._models = models
        self._catalogue = catalogue
        self._model = model
        self._context_token_count = context_token_count
        self._sizes = sizes
        self._remaining_seconds = remaining_seconds

    async def ask(
        self,
        messages: tuple[ChatMessage, ...],
        output_format: OutputFormat | None,
        stage: OpenStage,
        *,
        model: str = "",
        output_token_count: int,
        time_limit_seconds: float,
        keep: bool,
        urgent: bool = True,
    ) -> str:
        """Returns what the model says.

        Args:
            messages: The prompt.
            output_format: Form of the output; None for text.
            stage: Receives what the cache said.
            model: Model that answers the question; empty for the default.
            output_token_count: Longest output.
            time_limit_seconds: Longest wait; never more than a quarter of what is left of the
                deadline.
            keep: Whether the output may come from the cache and be kept there.
            urgent: Whether a person waits for it.

        Raises:
            PeerUnavailable: The balancer cannot be asked, or took too long, or the backend has cut
                the prompt, so that what the model says is of no use.
            ModelNotFound: The fleet does not have the model.
            RelayedError: The balancer could not answer.
        """
        limit = self._limit_seconds(time_limit_seconds)
        sampling = Sampling(
            temperature=0,
            max_output_token_count=output_token_count,
            context_token_count=self._context_token_count,
        )
        try:
            async with asyncio.timeout(limit):
                facts = await self._catalogue.chat_model(self._model or model)
                key = InferenceKey(
                    model_digest=facts.digest,
                    messages=messages,
                    sampling=sampling,
                    output_format=output_format,
                )
                if keep:
                    return await self._kept(facts, key, stage, limit)
                stage.cache_outcome = "bypassed"
                made = await self._generate(facts, key, stage, limit, urgent=urgent)
                return made.inference.text
        except TimeoutError as error:
            raise PeerUnavailable("balancer", f"no answer within {limit:.1f} s") from error

    async def _kept(
        self, model: ModelFacts, key: InferenceKey, stage: OpenStage, limit_seconds: float
    ) -> str:
        """Takes what the cache has, else has it made and kept."""
        stage.cache_outcome = "unavailable"
        try:
            lookup = await self._cache.lookup_inference(
                key, mode=_CACHE_MODE, wait_seconds=limit_seconds
            )
        except PeerUnavailable:
            return (await self._generate(model, key, stage, limit_seconds)).inference.text
        stage.cache_outcome = lookup.outcome
        if lookup.failure is not None:
            raise known_failure(lookup.failure, model.name)
        fill = (
            self._cache.fill_inference(key, lookup.lease, None, basis_time_ns=lookup.read_time_ns)
            if lookup.lease
            else None
        )
        try:
            if lookup.is_hit and lookup.inference is not None:
                self._note_cached(model.name, lookup.inference.usage)
                return lookup.inference.text
            made = await self._generate(model, key, stage, limit_seconds)
            if fill is not None and made.model_digest == model.digest:
                fill.send(made.inference.text)
                if made.inference.finish_reason == "stop":
                    with suppress(PeerUnavailable):
                        await fill.commit(made.inference)
                else:
                    fill.hand_over(made.inference)
            return made.inference.text
        finally:
            if fill is not None:
                fill.discard()

    async def _generate(
        self,
        model: ModelFacts,
        key: InferenceKey,
        stage: OpenStage,
        limit_seconds: float,
        *,
        urgent: bool = True,
    ) -> _Made:
        texts: list[str] = []
        started: ChatStarted | None = None
        completed: ChatCompleted | None = None
        chat = self._models.chat(
            model.name,
            key.messages,
            key.sampling,
            output_format=key.output_format,
            time_limit_seconds=limit_seconds,
            urgent=urgent,
        )
        async with aclosing(chat):
            async for event in chat:
                if isinstance(event, str):
                    texts.append(event)
                elif isinstance(event, ChatStarted):
                    started = event
                else:
                    completed = event
        text = "".join(texts)
        stage.model = model.name
        if started is None or completed is None or not text.strip():
            raise PeerUnavailable(model.name, "its answer is empty or not complete")
        stage.backend_id = started.backend_id
        stage.prompt_token_count = completed.usage.prompt_token_count
        stage.completion_token_count = completed.usage.completion_token_count
        prompt = "\n".join(each.content for each in key.messages)
        if self._sizes.is_cut(model.digest, prompt, completed.usage.prompt_token_count):
            raise PeerUnavailable(model.name, "it has read a part of the prompt only")
        return _Made(
            CachedInference(
                text=text,
                finish_reason=completed.finish_reason,
                usage=completed.usage,
                generation_seconds=completed.generation_seconds,
            ),
            started.model_digest,
        )

    def _limit_seconds(self, wanted_seconds: float) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return wanted_seconds
        return max(0.0, min(wanted_seconds, remaining * _DEADLINE_SHARE_RATIO))
