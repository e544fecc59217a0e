"""What a service said when it ended a call that was still being sent to.

A message that is under way when the service ends the call makes grpcio replace the service's status
by `INTERNAL: Internal error from Core`, before or after it has arrived (grpc/grpc#36066). So every
status is noted at the moment it is set, and the service's own is raised.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

__all__ = ["events_of"]

_REPLACED = "Internal error from Core"
# The service's status arrives with the end of the call, if it was not there already.
_WAIT_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Status:
    code: grpc.StatusCode
    details: str
    trailing_metadata: Any


async def events_of(call: Any) -> AsyncIterator[Any]:
    """Yields the responses of a call that is sent to at the same time.

    Args:
        call: A call with a stream in both directions, with nothing sent yet.

    Raises:
        grpc.aio.AioRpcError: The call failed; with the status the service gave, if it gave one.
    """
    given: asyncio.Future[_Status] = asyncio.get_running_loop().create_future()

    def note(ended: Any) -> None:
        details = _at_once(ended.details())
        if details != _REPLACED and not given.done():
            code = _at_once(ended.code())
            given.set_result(_Status(code, details, _at_once(ended.trailing_metadata())))

    call.add_done_callback(note)
    try:
        async for event in call:
            yield event
    except grpc.aio.AioRpcError as error:
        if error.details() != _REPLACED:
            raise
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                status = await given
        except TimeoutError:
            raise error from None
        raise grpc.aio.AioRpcError(
            status.code, error.initial_metadata(), status.trailing_metadata, status.details
        ) from error


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Returns the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as result:
        value: T = result.value
        return value
    coroutine.close()
    raise RuntimeError("the call has no status although it has ended")
