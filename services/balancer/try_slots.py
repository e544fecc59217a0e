"""Finding out whether a model still answers as many requests at once as it has slots.

A token tells of one slot only, and so do several tokens that are asked for at once: the slot that
is left produces them one after the other. So the answers have to overlap. They are streams, as
only those show when they begin, and are read to their ends, as a stream that is given up may cost
the next slot (ollama #17131).
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from services.balancer.backend import ModelState
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import GenerationRequest, Operation, Sampling
from services.balancer.ports import ModelServer
from services.common.clock import Clock

__all__ = ["answers_at_once"]

# More each time, so that neither a fast model is done with the first answer before the last one
# begins, nor a slow one takes long. Who overlaps once need not try again.
_TOKEN_COUNTS = (8, 32, 128)
# What a model goes on with for long.
_PROMPT = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"
_POLL_SECONDS = 0.05
_SILENT = (FailureKind.TIMEOUT, FailureKind.STALLED)


async def answers_at_once(
    server: ModelServer,
    model: ModelState,
    *,
    free_count: Callable[[], Awaitable[int]],
    limit_seconds: float,
    clock: Clock,
) -> bool:
    """Tells whether answers in all free slots overlap with each other and with what goes on there.

    Nobody may be given a slot of the model meanwhile.

    Args:
        server: Where the model is.
        model: The model.
        free_count: Returns how many slots may be tried, while others go on in the rest.
        limit_seconds: Longest silence.
        clock: Has it wait for requests that have no token yet.

    Raises:
        AttemptFailed: There was an answer, if not the one that was asked for.
    """
    token_counts = list(_TOKEN_COUNTS)
    while token_counts:
        while any(each.first_token_at is None for each in model.occupancies.values()):
            # It may wait for the lost slot, and would have an answer before those that come now.
            await clock.sleep(_POLL_SECONDS)
        trial = _Trial(server, model, token_counts[0], limit_seconds)
        try:
            if await trial.run(await free_count()):
                return True
        except AttemptFailed as failure:
            if failure.kind in _SILENT:
                return False
            raise
        # Where a request has ended meanwhile, its slot may have served one that waited.
        if not trial.disturbed:
            token_counts.pop(0)
    return False


class _Trial:
    """Answers that are asked for at once."""

    def __init__(
        self, server: ModelServer, model: ModelState, token_count: int, limit_seconds: float
    ) -> None:
        self._server = server
        self._model = model
        self._token_count = token_count
        self._limit_seconds = limit_seconds
        self._beside = frozenset(model.occupancies)
        self._begun_count = 0
        self._ended = False

    @property
    def disturbed(self) -> bool:
        """Whether a request that went on there has ended since."""
        return not self._beside <= self._model.occupancies.keys()

    async def run(self, count: int) -> bool:
        """Asks for so many answers, and tells whether there was a moment with all of them."""
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(self._attempt(count)) for _ in range(count)]
        results = [each.result() for each in answers]
        failures = [each for each in results if isinstance(each, AttemptFailed)]
        if failures:
            raise next((each for each in failures if each.kind in _SILENT), failures[0])
        return all(results)

    async def _attempt(self, count: int) -> bool | AttemptFailed:
        try:
            return await self._answer(count)
        except AttemptFailed as failure:
            # Not raised: the others must go on to their ends.
            return failure

    async def _answer(self, count: int) -> bool:
        """Returns False where it is the last to begin and others have ended before."""
        model = self._model
        request = GenerationRequest(
            operation=Operation.GENERATE,
            model=model.installed.name,
            prompt=_PROMPT,
            raw=True,
            sampling=Sampling(max_output_token_count=self._token_count),
        )
        answer = self._server.generate(
            request,
            model_name=model.installed.name,
            headers={},
            context_token_count=model.context_token_count or None,
            first_token_limit_seconds=self._limit_seconds,
        )
        overlaps = True
        async with aclosing(answer):
            await anext(answer)
            self._begun_count += 1
            if self._begun_count == count:
                overlaps = not self._ended and not self.disturbed
            async for _ in answer:
                pass
        self._ended = True
        return overlaps
