"""Receives what is published, on a connection of its own."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from redis.exceptions import ResponseError

from services.cache.adapters.redis_errors import failure_of
from services.cache.adapters.redis_node import RawConnection
from services.cache.adapters.redis_routes import Routes
from services.cache.adapters.redis_tasks import heed_cancellation
from services.cache.ports import Notice, StoreTimeout

__all__ = ["listen"]

# A server that froze, or whose network is gone, shows by nothing but silence.
_SILENCE_SECONDS = 2.0
_ANSWER_SECONDS = 1.0


@asynccontextmanager
async def listen(
    routes: Routes, channels: Sequence[bytes], *, timeout_seconds: float
) -> AsyncIterator[AsyncIterator[Notice]]:
    """Subscribes to channels; see `SharedStore.listen`.

    Args:
        routes: Where to connect to.
        channels: What to subscribe to.
        timeout_seconds: Longest time for connecting and subscribing.

    Raises:
        StoreFailure: The server cannot be reached, or while iterating: the connection was lost.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            node = await routes.listening_place()
    except Exception as error:
        raise failure_of(error) from error
    connection = node.make_connection()
    try:
        try:
            async with asyncio.timeout(timeout_seconds):
                await _subscribe(connection, channels)
        except Exception as error:
            routes.doubt(node)
            raise failure_of(error) from error
        async with aclosing(_notices(connection)) as notices:
            yield notices
    finally:
        await connection.disconnect(nowait=True)


async def _subscribe(connection: RawConnection, channels: Sequence[bytes]) -> None:
    await connection.connect()
    await connection.send_packed_command(connection.pack_commands([("SUBSCRIBE", *channels)]))
    heed_cancellation()
    for _ in channels:
        await connection.read_response(timeout=math.inf, disconnect_on_error=False)


async def _notices(connection: RawConnection) -> AsyncGenerator[Notice, None]:
    asked = False
    while True:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS if asked else _SILENCE_SECONDS):
                message = await connection.read_response(
                    timeout=math.inf, disconnect_on_error=False
                )
        except TimeoutError as error:
            if asked:
                raise StoreTimeout("no answer in time") from error
            await _ask_for_a_sign(connection)
            asked = True
            continue
        except Exception as error:
            raise failure_of(error) from error
        asked = False
        if isinstance(message, ResponseError):
            raise failure_of(message)
        if message[0] == b"message":
            yield Notice(channel=message[1], payload=message[2])


async def _ask_for_a_sign(connection: RawConnection) -> None:
    try:
        await connection.send_packed_command(connection.pack_commands([("PING",)]))
        heed_cancellation()
    except Exception as error:
        raise failure_of(error) from error
