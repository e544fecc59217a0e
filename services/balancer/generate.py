"""Generating text: a stream that is retried before its first token and honest after it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from services.balancer.attempts import Attempt
from services.balancer.core.requests import (
    Completed,
    Completion,
    GenerationRequest,
    Started,
    TextDelta,
)
from services.balancer.dispatch import Dispatcher, wanted_generation

__all__ = ["Event", "generate"]

Event = Started | TextDelta | Completed


async def generate(
    dispatcher: Dispatcher, request: GenerationRequest
) -> AsyncGenerator[Event, None]:
    """Generates text.

    Yields exactly one `Started` with the first token, then deltas that are not empty, then exactly
    one `Completed`; a generation that does not come to its end raises instead.

    Args:
        dispatcher: Gives requests to backends.
        request: What to generate.

    Raises:
        ServiceError: One of `core.errors`.
    """
    arrived_at = dispatcher.clock.monotonic()
    with dispatcher.account():
        attempts = dispatcher.attempts(
            request.operation, request.model, wanted_generation(request.model)
        )
        while True:
            with attempts.next() as attempt:
                async with aclosing(_stream(attempt, request)) as items:
                    async for item in items:
                        if not attempt.started:
                            attempt.note_first_token()
                            first_token_at = dispatcher.clock.monotonic()
                            yield _started(attempt)
                        if isinstance(item, Completion):
                            attempt.succeed_with_text(item)
                            completion = item
                        elif item.text:
                            yield item
                            attempt.emitted_character_count += len(item.text)
                break
        # Sent when the backend is free again, however slowly the caller takes it.
        yield Completed(
            completion=completion,
            total_seconds=dispatcher.clock.monotonic() - arrived_at,
            first_token_seconds=first_token_at - arrived_at,
        )


def _stream(
    attempt: Attempt, request: GenerationRequest
) -> AsyncGenerator[TextDelta | Completion, None]:
    return attempt.server.generate(request, model_name=attempt.model_name, headers=attempt.headers)


def _started(attempt: Attempt) -> Started:
    return Started(
        model=attempt.model_name,
        model_digest=attempt.model_digest,
        backend_id=attempt.backend.id,
        attempt_count=attempt.number,
        reason=attempt.reason,
    )
