"""How calls to the cache are made: whatever it fails with, the work is done without it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pannier.cache.v1 import control_pb2, semantic_pb2
from services.common.errors import PeerUnavailable
from services.rag.cache_port import Dependencies

__all__ = [
    "SignsOfLife",
    "answer_of",
    "must_be_anew",
    "question_tag",
    "to_store_control",
    "to_tags",
    "unavailable",
]

T = TypeVar("T")

_WATCH_SECONDS = 1.0
# Of a question that is too long to be compared, the same words still have the same answer.
_SHARED_SCOPES = (
    semantic_pb2.SEMANTIC_SCOPE_UNSPECIFIED,
    semantic_pb2.SEMANTIC_SCOPE_TOO_LONG,
)


def unavailable(error: grpc.aio.AioRpcError) -> PeerUnavailable:
    """Says what a failed call means: the cache is of no use for now."""
    return PeerUnavailable("cache", error.details() or error.code().name)


async def answer_of(call: Awaitable[T]) -> T:
    """Awaits a call.

    Raises:
        PeerUnavailable: The call has failed, for whatever cause.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise unavailable(error) from error


def must_be_anew(scope: semantic_pb2.SemanticScope.ValueType) -> bool:
    """Says whether the same question has another answer each time; where in doubt, it has."""
    return scope not in _SHARED_SCOPES


def to_tags(dependencies: Dependencies | None) -> list[control_pb2.Tag]:
    """Writes what a value depends on: each document, which brings its collection, and the question.

    Raises:
        ValueError: It depends on more than can be noted, and must not be kept.
    """
    if dependencies is None:
        return []
    if not dependencies.may_be_kept:
        raise ValueError("a value with so many dependencies must not be kept")
    collection = dependencies.collection
    tags = [
        control_pb2.Tag(document=control_pb2.DocumentTag(collection=collection, document_id=each))
        for each in dict.fromkeys(dependencies.document_ids)
    ]
    if collection and not tags:
        tags.append(control_pb2.Tag(collection=collection))
    if dependencies.question_digest:
        tags.append(question_tag(dependencies.question_digest))
    return tags


def question_tag(question_digest: str) -> control_pb2.Tag:
    """Writes what all answers to a question depend on."""
    return control_pb2.Tag(custom=f"question {question_digest}")


def to_store_control(
    dependencies: Dependencies | None, basis_time_ns: int | None
) -> control_pb2.StoreControl:
    """Writes what a value depends on, and which changes it may not know of.

    Args:
        dependencies: What it is made from.
        basis_time_ns: `read_time_ns` of a lookup from before it was made; None where not known.
    """
    control = control_pb2.StoreControl(tags=to_tags(dependencies))
    if basis_time_ns is not None:
        control.basis_time.FromNanoseconds(basis_time_ns)
    return control


class SignsOfLife:
    """Waits for a cache that may have good reason to take long, as long as it shows signs of life.

    An answer that another caller computes takes its time; a process that is frozen takes for ever.
    The two look alike but for the health service, which answers at once.

    Args:
        channel: Channel to the cache.
        time_limit_seconds: Longest time of a sign.
    """

    def __init__(self, channel: grpc.aio.Channel, *, time_limit_seconds: float) -> None:
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._limit = time_limit_seconds

    async def watch(self, waiting: Awaitable[T], *, time_limit_seconds: float | None = None) -> T:
        """Awaits something of the cache.

        Args:
            waiting: What is awaited.
            time_limit_seconds: Longest wait; None for as long as there are signs of life.

        Raises:
            PeerUnavailable: It gives no sign of life, takes too long, or the call has failed.
        """
        try:
            async with asyncio.timeout(time_limit_seconds):
                return await self._watched(waiting)
        except TimeoutError as error:
            raise PeerUnavailable("cache", "it did not answer in time") from error

    async def _watched(self, waiting: Awaitable[T]) -> T:
        task = asyncio.create_task(answer_of(waiting))
        try:
            while True:
                done, _ = await asyncio.wait([task], timeout=_WATCH_SECONDS)
                if done:
                    return task.result()
                request = health_pb2.HealthCheckRequest()
                await answer_of(self._health.Check(request, timeout=self._limit))
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            elif not task.cancelled():
                # Whoever is told to stop in that moment has no use for it: it must not be reported.
                task.exception()
