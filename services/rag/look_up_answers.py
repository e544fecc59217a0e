"""Answers that the cache has, or that another call is just computing."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from services.common.errors import PeerUnavailable
from services.rag.cache_port import (
    CachedInference,
    CachePort,
    FillInterrupted,
    InferenceLookup,
)
from services.rag.core.errors import AnswerInterrupted
from services.rag.core.replay import Replay
from services.rag.inference import Inference, limit_seconds

__all__ = ["CachedAnswers"]

# Of the time left, what waiting for another call's answer may take: it may have to be computed yet.
_WAITING_SHARE_RATIO = 0.5
# How often a text is gone on with that another call is computing, before it is computed here.
_MOST_LEADERS = 8


class CachedAnswers:
    """Reads answers from the cache, while they are being computed too.

    Args:
        cache: The cache.
        wait_limit_seconds: Longest wait for an answer that another call computes.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
    """

    def __init__(
        self,
        cache: CachePort,
        *,
        wait_limit_seconds: float,
        remaining_seconds: Callable[[], float | None],
    ) -> None:
        self._cache = cache
        self._wait_limit_seconds = wait_limit_seconds
        self._remaining_seconds = remaining_seconds

    def texts(self, inference: Inference) -> AsyncGenerator[str, None]:
        """Yields what is new to the caller of the answer that the cache has or gets, if it does.

        What was found, or the lease to compute the answer, is noted with the prompt.

        Raises:
            PeerUnavailable: The cache cannot be asked.
            RelayedError: It is known that there will be no answer.
            AnswerInterrupted: Another answer has been made than the caller was shown.
        """
        return (
            self._streamed(inference) if inference.task.partial_answers else self._whole(inference)
        )

    async def _whole(self, inference: Inference) -> AsyncGenerator[str, None]:
        with inference.task.recorder.stage("inference_lookup") as stage:
            stage.cache_outcome = "unavailable"
            lookup = await self._cache.lookup_inference(
                inference.key,
                mode=inference.task.question.mode.value,
                wait_seconds=self._wait_seconds(),
                questions=inference.task.questions,
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
        replay = Replay(inference.draft.raw)
        events = self._cache.stream_inference(
            inference.key,
            mode=inference.task.question.mode.value,
            wait_seconds=self._wait_seconds(),
            time_limit_seconds=limit_seconds(self._remaining_seconds()),
            questions=inference.task.questions,
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
                elif isinstance(event, CachedInference) and event.text == inference.draft.raw:
                    inference.found = event
            if lookup.is_hit and inference.found is None:
                raise PeerUnavailable("cache", "its answer ended without being complete")

    def _wait_seconds(self) -> float:
        remaining = self._remaining_seconds()
        if remaining is None:
            return self._wait_limit_seconds
        return max(0.0, min(self._wait_limit_seconds, remaining * _WAITING_SHARE_RATIO))
