"""Handing an answer to the cache while it is generated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc

from pannier.cache.v1 import cache_service_pb2 as pb
from services.common.errors import PeerUnavailable
from services.common.status import error_from_call
from services.rag.adapters.cache_calls import unavailable
from services.rag.adapters.protocol import FINISH_REASONS, to_usage
from services.rag.cache_port import CachedInference, Failure, FailureKind

if TYPE_CHECKING:
    from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub

__all__ = ["FAILURE_KINDS", "GrpcFill", "to_inference"]

FAILURE_KINDS = {
    FailureKind.TRANSIENT: pb.FAILURE_KIND_TRANSIENT,
    FailureKind.MODEL_NOT_FOUND: pb.FAILURE_KIND_MODEL_NOT_FOUND,
    FailureKind.REJECTED: pb.FAILURE_KIND_REJECTED,
}

_LONGEST_MESSAGE = 500
# A fill that belongs to no call of a caller's ends with the lease that is no longer extended.
_LONGEST_SECONDS = 600.0


class GrpcFill:
    """One fill. What is handed over waits in memory, so that a slow cache slows nobody down.

    Args:
        stub: The cache.
        opening: What is filled, and the right to.
        time_limit_seconds: Longest wait for the cache at the end.
    """

    def __init__(
        self, stub: "CacheServiceAsyncStub", opening: pb.FillOpening, *, time_limit_seconds: float
    ) -> None:
        self._limit = time_limit_seconds
        self._waiting: asyncio.Queue[pb.FillInferenceRequest | None] = asyncio.Queue()
        self._waiting.put_nowait(pb.FillInferenceRequest(open=opening))
        self._ended = False
        call = stub.FillInference(self._requests(), timeout=_LONGEST_SECONDS)
        self._answer = asyncio.create_task(_answer_of(call))
        # A call that ends early leaves its reader of requests waiting for ever.
        self._answer.add_done_callback(lambda _: self._waiting.put_nowait(None))

    def send(self, text: str) -> None:
        """Hands over text to append to what came before."""
        if text and not self._answer.done():
            self._waiting.put_nowait(pb.FillInferenceRequest(text_delta=text))

    async def commit(self, inference: CachedInference) -> bool:
        """Says that the answer is complete.

        Returns:
            Whether it counts; not where the lease was lost meanwhile.

        Raises:
            PeerUnavailable: The cache has not taken it, or not in time.
        """
        self._end(pb.FillInferenceRequest(commit=to_inference(inference, with_text=False)))
        try:
            async with asyncio.timeout(self._limit):
                # Cancelled with the wait, and then the call is, too.
                return await self._answer
        except TimeoutError as error:
            raise PeerUnavailable("cache", "it did not take the answer in time") from error
        except grpc.aio.AioRpcError as error:
            raise unavailable(error) from error

    def hand_over(self, inference: CachedInference) -> None:
        """Says that the answer is complete, for those who wait for it, and not worth keeping."""
        self._end(pb.FillInferenceRequest(hand_over=to_inference(inference, with_text=False)))
        self._let_go()

    def abort(self, failure: Failure) -> None:
        """Says that there is no answer, for others to know."""
        self._end(
            pb.FillInferenceRequest(
                abort=pb.Failure(
                    kind=FAILURE_KINDS[failure.kind], message=failure.message[:_LONGEST_MESSAGE]
                )
            )
        )
        self._let_go()

    def discard(self) -> None:
        """Gives the lease back; does nothing after an end."""
        if not self._ended:
            # A stream that ends like this gives it back at once; one that is merely cut may do so
            # before its first message has left.
            self._end()
            self._let_go()

    def _end(self, *last: pb.FillInferenceRequest) -> None:
        self._ended = True
        for message in (*last, None):
            self._waiting.put_nowait(message)

    def _let_go(self) -> None:
        """Lets the call end by itself, and ends it where that takes too long."""
        task = self._answer
        timer = asyncio.get_running_loop().call_later(self._limit, task.cancel)
        task.add_done_callback(lambda _: timer.cancel())
        _leaving.add(task)
        task.add_done_callback(_forget)

    async def _requests(self) -> AsyncIterator[pb.FillInferenceRequest]:
        while (message := await self._waiting.get()) is not None:
            yield message


async def _answer_of(
    call: "grpc.aio.StreamUnaryCall[pb.FillInferenceRequest, pb.FillInferenceResponse]",
) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error_from_call(error).error_reason == "LEASE_LOST":
            return False
        raise
    finally:
        call.cancel()
    return True


_leaving: set["asyncio.Task[bool]"] = set()


def _forget(task: "asyncio.Task[bool]") -> None:
    _leaving.discard(task)
    if not task.cancelled():
        with suppress(grpc.aio.AioRpcError):
            task.result()


def to_inference(inference: CachedInference, *, with_text: bool = True) -> pb.Inference:
    """Writes an answer, at the end of a fill without the text that was streamed."""
    message = pb.Inference(
        text=inference.text if with_text else "",
        finish_reason=FINISH_REASONS[inference.finish_reason],
        usage=to_usage(inference.usage),
    )
    message.generation_time.FromNanoseconds(int(inference.generation_seconds * 1e9))
    return message
