"""What a call over gRPC takes that does nothing: the part of a figure that nobody can save.

Run as `python -m tests.bench.empty_calls PORT REPLY_BYTES`, it answers every call with so many
bytes.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import uvloop

from pannier.client import open_channel
from tests.bench import processes
from tests.bench.tuned import on_own_processors
from tests.kit.ports import free_port

__all__ = ["answering_calls"]

_SERVICE, _METHOD = "pannier.bench.Empty", "Call"
_READY_SECONDS = 30.0
_CALL_SECONDS = 5.0

EmptyCall = Callable[[], Awaitable[object]]


@asynccontextmanager
async def answering_calls(
    folder: Path, *, request_bytes: int, reply_bytes: int
) -> AsyncIterator[EmptyCall]:
    """Runs a server that does nothing, as the services run theirs, and yields a call to it.

    Args:
        folder: For its log.
        request_bytes: Length of a request.
        reply_bytes: Length of a reply.
    """
    port = free_port()
    command = (sys.executable, "-m", "tests.bench.empty_calls", str(port), str(reply_bytes))
    async with (
        processes.running("empty calls", command, log=folder / "empty_calls.log") as started,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        async with asyncio.timeout(_READY_SECONDS):
            await channel.channel_ready()
        call = channel.unary_unary(f"/{_SERVICE}/{_METHOD}")
        request = bytes(request_bytes)
        with on_own_processors(started.pid):
            yield lambda: call(request, timeout=_CALL_SECONDS)


async def _serve(port: int, reply_bytes: int) -> None:
    reply = bytes(reply_bytes)

    async def answer(request: bytes, context: object) -> bytes:
        del request, context
        return reply

    server = grpc.aio.server()
    handlers = {_METHOD: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.empty_calls", description=__doc__)
    parser.add_argument("port", type=int, help="where it listens, on loopback")
    parser.add_argument("reply_bytes", type=int, help="length of each reply")
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.reply_bytes))


if __name__ == "__main__":
    main()
