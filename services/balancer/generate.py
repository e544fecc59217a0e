"""Generating text: a stream that is retried before its first token and honest after it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from services.balancer.attempt import Attempt
from services.balancer.call import Call
from services.balancer.core.errors import StreamInterrupted
from services.balancer.core.requests import (
    Completed,
    Completion,
    Delta,
    GenerationRequest,
    Resumed,
    Started,
    TextDelta,
    ThinkingDelta,
    can_resume,
)
from services.balancer.demands import Prepared, generation_demand
from services.balancer.dispatch import Dispatcher
from services.balancer.event_buffer import Event, EventBuffer

__all__ = ["Event", "generate"]


async def generate(
    dispatcher: Dispatcher, request: GenerationRequest, call: Call
) -> AsyncGenerator[Event, None]:
    """Generates text.

    Yields exactly one `Started` with the first token, then deltas that are not empty, then exactly
    one `Completed`; a generation that does not come to its end raises instead. Where the request
    allows it, a `Resumed` marks the place at which another backend has gone on.

    Args:
        dispatcher: Gives requests to backends.
        request: What to generate.
        call: Who asks for it.

    Raises:
        ServiceError: One of `core.errors`.
    """
    buffer = EventBuffer()
    producer = asyncio.create_task(_Generation(dispatcher, request, call, buffer).run())
    # Also when it is cancelled before it has begun.
    producer.add_done_callback(lambda _: buffer.end())
    try:
        async for event in buffer:
            yield event
        await producer
    finally:
        if not producer.done():
            producer.cancel()
            await asyncio.wait([producer])
        # What it raised has been raised here, or nobody is left to hear it.
        if not producer.cancelled():
            producer.exception()


@dataclass(slots=True)
class _Passed:
    """What has been passed on to the caller."""

    started: bool = False
    resumed: bool = False
    texts: list[str] = field(default_factory=list)
    character_count: int = 0
    delta_count: int = 0


class _Generation:
    """One generation, from the queue to its last byte."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        request: GenerationRequest,
        call: Call,
        buffer: EventBuffer,
    ) -> None:
        self._dispatcher = dispatcher
        self._call = call
        self._clock = dispatcher.clock
        self._request = request
        self._buffer = buffer
        self._arrived_at = self._clock.monotonic()
        self._first_token_at = 0.0
        self._may_resume = can_resume(request)
        self._passed = _Passed()

    async def run(self) -> None:
        """Puts all events into the buffer, or raises."""
        its = self._dispatcher
        with self._call as call:
            prepared = generation_demand(
                its.fleet, its.clock, self._request, its.scheduler.new_id()
            )
            request = self._request
            attempts = its.attempts(request.operation, request.model, prepared.demand, [call])
            while True:
                with await attempts.next() as attempt:
                    last = await self._attempt(attempt, prepared)
                    break
        completion = last
        if attempts.load_seconds:
            load_seconds = last.load_seconds + attempts.load_seconds
            completion = replace(last, load_seconds=load_seconds)
        # Said when the backend is free again.
        await self._buffer.put(
            Completed(
                completion=completion,
                total_seconds=self._clock.monotonic() - self._arrived_at,
                first_token_seconds=self._first_token_at - self._arrived_at,
                queue_seconds=attempts.queue_seconds,
            )
        )

    async def _attempt(self, attempt: Attempt, prepared: Prepared) -> Completion:
        attempt.resumable = self._may_resume
        attempt.emitted_character_count = self._passed.character_count
        stream = attempt.generate(self._rest(prepared), continuation="".join(self._passed.texts))
        async with aclosing(stream) as items:
            while True:
                with self._call.waits:
                    item = await anext(items)
                if not attempt.started:
                    attempt.note_first_token(prepared.prefix)
                    await self._start(attempt)
                if isinstance(item, Completion):
                    return self._complete(attempt, item, prepared)
                await self._pass_on(attempt, item)

    def _rest(self, prepared: Prepared) -> GenerationRequest:
        """Returns the request, or what is left of it where another backend has begun."""
        request, count = self._request, self._passed_token_count(prepared)
        limit = request.sampling.max_output_token_count
        if not count or limit is None:
            return request
        rest = max(1, limit - count)
        return replace(request, sampling=replace(request.sampling, max_output_token_count=rest))

    def _complete(self, attempt: Attempt, last: Completion, prepared: Prepared) -> Completion:
        """Notes the end, and adds up what the backends have done that took part."""
        passed, characters = self._passed, prepared.character_count
        if not passed.resumed:
            attempt.succeed_with_text(last, characters)
            return last
        length = sum(map(len, passed.texts))
        attempt.succeed_with_text(last, characters + length if characters else 0)
        # Whoever went on has read, as part of the prompt, what the other had generated.
        count = self._passed_token_count(prepared)
        return replace(
            last,
            prompt_token_count=max(0, last.prompt_token_count - count),
            output_token_count=last.output_token_count + count,
        )

    def _passed_token_count(self, prepared: Prepared) -> int:
        """Estimates the tokens of an answer that broke off, which nobody has counted."""
        passed, characters = self._passed, prepared.character_count
        # As many as deltas, or more where several came together. A prompt's tokens are rounded up.
        prompt_count = prepared.demand.prompt_token_count - 1
        per_character = prompt_count / characters if characters else 0.0
        return max(passed.delta_count, int(per_character * sum(map(len, passed.texts))))

    async def _start(self, attempt: Attempt) -> None:
        passed = self._passed
        if passed.started:
            passed.resumed = True
            await self._buffer.put(
                Resumed(
                    backend_id=attempt.backend.id,
                    emitted_character_count=passed.character_count,
                    cause=attempt.failure_before,
                )
            )
            self._may_resume = False
            attempt.resumable = False
            return
        passed.started = True
        self._first_token_at = self._clock.monotonic()
        await self._buffer.put(
            Started(
                model=attempt.model_name,
                model_digest=attempt.model_digest,
                backend_id=attempt.backend.id,
                attempt_count=attempt.number,
                reason=attempt.reason,
                decision_id=attempt.decision_id,
                queue_seconds=attempt.queue_seconds,
                predicted_first_token_seconds=attempt.predicted_first_token_seconds,
                context_token_count=attempt.model.context_token_count,
            )
        )

    async def _pass_on(self, attempt: Attempt, item: Delta) -> None:
        passed = self._passed
        if isinstance(item, TextDelta):
            if not item.text:
                return
            passed.character_count += len(item.text)
            attempt.emitted_character_count = passed.character_count
        elif isinstance(item, ThinkingDelta):
            # It may think anew, and what it thought before is lost.
            self._may_resume = attempt.resumable = False
        if self._may_resume and isinstance(item, TextDelta):
            passed.delta_count += 1
            passed.texts.append(item.text)
        attempt.note_progress()
        if self._buffer.has_room:
            # Nearly always, and a microsecond less for each token.
            await self._buffer.put(item)
            return
        try:
            with self._call.waits:
                await self._buffer.put(item)
        except TimeoutError:
            # The slot is wanted by others.
            raise StreamInterrupted(
                attempt.backend.id, passed.character_count, "the caller does not read"
            ) from None
