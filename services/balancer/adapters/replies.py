"""Reading replies over httpx: within limits of time and size, failing only as `AttemptFailed`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import closing, contextmanager, suppress

import httpx

from services.balancer.adapters.pauses import AwakeTimeout, Pauses
from services.balancer.core.failures import AttemptFailed, FailureKind

__all__ = ["ReplyReader", "finish"]

# After its last line a reply is at its end, unless the network cut between the two.
_END_OF_REPLY_SECONDS = 0.25


class ReplyReader:
    """Reads replies.

    Args:
        pauses: When this process stood still, which counts for no limit of time.
    """

    def __init__(self, pauses: Pauses) -> None:
        self._pauses = pauses

    async def read_body(
        self, response: httpx.Response, limit_bytes: int, limit_seconds: float
    ) -> bytes:
        """Reads all of a reply.

        Args:
            response: The reply, of which nothing has been read.
            limit_bytes: Largest size.
            limit_seconds: Longest time it may take.
        """
        body = bytearray()
        with self.failures_as(FailureKind.BROKEN_REPLY, FailureKind.STALLED, limit_seconds):
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > limit_bytes:
                    raise AttemptFailed(
                        FailureKind.BROKEN_REPLY, f"the reply exceeds {limit_bytes} bytes"
                    )
        return bytes(body)

    async def read_pieces(
        self, response: httpx.Response, limit_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        """Reads a reply as it comes.

        Args:
            response: The reply, of which nothing has been read.
            limit_seconds: Longest silence.
        """
        pieces = response.aiter_raw()
        broken, silent = FailureKind.BROKEN_REPLY, FailureKind.STALLED
        with (
            closing(AwakeTimeout(limit_seconds, self._pauses)) as limit,
            _failures_as(broken, silent, limit_seconds),
        ):
            while True:
                # Only while it is read: how long a piece is worked on is no silence.
                with limit:
                    piece = await anext(pieces, b"")
                if not piece:
                    return
                yield piece

    @contextmanager
    def failures_as(
        self, broken: FailureKind, silent: FailureKind, limit_seconds: float
    ) -> Iterator[None]:
        """Limits what is done with httpx, and turns what it raises into `AttemptFailed`.

        Args:
            broken: Kind of failure where the connection does not come about or breaks.
            silent: Kind of failure where nothing comes within the limit.
            limit_seconds: The limit.
        """
        with (
            closing(AwakeTimeout(limit_seconds, self._pauses)) as limit,
            _failures_as(broken, silent, limit_seconds),
            limit,
        ):
            yield


@contextmanager
def _failures_as(broken: FailureKind, silent: FailureKind, limit_seconds: float) -> Iterator[None]:
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise AttemptFailed(FailureKind.CONNECTION, "timed out while connecting") from error
    except TimeoutError as error:
        raise AttemptFailed(silent, f"silent for {limit_seconds:g} s") from error
    except httpx.TransportError as error:
        # What makes no sense to the parser is shown by its message.
        garbled = isinstance(error, httpx.RemoteProtocolError)
        raise AttemptFailed(broken, str(error), quotes=garbled) from error


async def finish(pieces: AsyncIterator[bytes]) -> None:
    """Reads up to the end, so that the connection can serve again; gives up soon."""
    with suppress(AttemptFailed, TimeoutError):
        async with asyncio.timeout(_END_OF_REPLY_SECONDS):
            async for _ in pieces:
                pass
