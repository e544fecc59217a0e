"""Embedding texts: large requests are cut into pieces that several backends work on."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from services.balancer.attempts import Attempt
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import (
    EmbeddingReply,
    EmbeddingRequest,
    EmbeddingResult,
    Operation,
)
from services.balancer.core.selection import Decision
from services.balancer.dispatch import Dispatcher, wanted_vectors

__all__ = ["embed"]

# A server embeds the texts of a call one after the other, and another call waits for all of them.
_MAXIMUM_PIECE_TEXTS = 32


@dataclass(frozen=True, slots=True)
class _Piece:
    """Vectors of some of the texts, with who made them."""

    attempt: Attempt
    reply: EmbeddingReply


async def embed(dispatcher: Dispatcher, request: EmbeddingRequest) -> EmbeddingResult:
    """Embeds texts.

    Args:
        dispatcher: Gives requests to backends.
        request: The texts.

    Returns:
        One vector per text, in their order, all of one model digest.

    Raises:
        ServiceError: One of `core.errors`.
    """
    with dispatcher.account():
        pieces = await _embed_pieces(dispatcher, request)
    first = pieces[0].attempt
    return EmbeddingResult(
        vectors=np.concatenate([piece.reply.vectors for piece in pieces]),
        model=first.model_name,
        model_digest=first.model_digest,
        backend_id=first.backend.id,
        attempt_count=max(piece.attempt.number for piece in pieces),
        prompt_token_count=sum(piece.reply.prompt_token_count for piece in pieces),
    )


async def _embed_pieces(dispatcher: Dispatcher, request: EmbeddingRequest) -> list[_Piece]:
    count = len(request.texts)
    piece_count = -(-count // _MAXIMUM_PIECE_TEXTS)
    bounds = [count * index // piece_count for index in range(piece_count + 1)]
    batch = _Batch(dispatcher, request.model)
    if piece_count == 1:
        return [await batch.embed(request.texts)]
    batch.pin_digest(count)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(batch.embed(request.texts[start:end]))
                for start, end in itertools.pairwise(bounds)
            ]
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None
    return [task.result() for task in tasks]


class _Batch:
    """What the pieces of one request have in common: their vectors must be comparable."""

    def __init__(self, dispatcher: Dispatcher, model: str) -> None:
        self._dispatcher = dispatcher
        self._model = model
        self._digest: str | None = None
        self._dimension = 0

    def pin_digest(self, text_count: int) -> None:
        """Chooses one variant of the model where backends have different ones under its name."""
        decision = self._dispatcher.fleet.choose(wanted_vectors(self._model, text_count), set())
        if isinstance(decision, Decision) and decision.model is not None:
            self._digest = decision.model.digest

    async def embed(self, texts: Sequence[str]) -> _Piece:
        """Embeds one piece on one backend."""
        wanted = replace(wanted_vectors(self._model, len(texts)), digest=self._digest)
        attempts = self._dispatcher.attempts(Operation.EMBED, self._model, wanted)
        while True:
            with attempts.next() as attempt:
                reply = await attempt.server.embed(
                    texts, model_name=attempt.model_name, headers=attempt.headers
                )
                self._check_dimension(reply)
                attempt.succeed_with_vectors(reply)
                return _Piece(attempt, reply)

    def _check_dimension(self, reply: EmbeddingReply) -> None:
        dimension = reply.vectors.shape[1]
        if self._dimension not in (0, dimension):
            raise AttemptFailed(
                FailureKind.BROKEN_REPLY,
                f"vectors of dimension {dimension} beside others of {self._dimension}",
                status_code=200,
            )
        self._dimension = dimension
