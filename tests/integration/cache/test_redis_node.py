"""Nothing of a server that is used no more stays open."""

import asyncio

import pytest

from services.cache.adapters.redis_node import ConnectionOptions, Node
from services.cache.adapters.redis_routes import close_all

OPTIONS = ConnectionOptions(
    timeout_seconds=5.0, connect_timeout_seconds=5.0, connection_limit=2, stream_connection_limit=2
)


def node_of(server) -> Node:
    return Node(("127.0.0.1", server.port), database=1, options=OPTIONS)


def connections_to(server, database: int = 1) -> int:
    clients = server.command("CLIENT", "LIST")
    text = clients.decode() if isinstance(clients, bytes) else str(clients)
    return sum(f" db={database} " in line for line in text.splitlines())


async def until_left(server, count: int) -> None:
    async with asyncio.timeout(20):
        while await asyncio.to_thread(connections_to, server) != count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("purpose", ["commands", "streams"])
async def test_whoever_still_talks_to_a_server_that_was_closed_leaves_no_connection(
    redis_server, purpose
) -> None:
    node = node_of(redis_server)
    await node.close()
    if purpose == "commands":
        assert await node.exchange([("PING",)]) == [b"PONG"]
    else:
        ends_at = asyncio.get_running_loop().time() + 5.0
        assert await node.wait_for(lambda _: ("PING",), ends_at=ends_at) == b"PONG"
    await until_left(redis_server, 0)


async def test_a_connection_in_use_while_a_server_is_closed_is_closed(redis_server) -> None:
    node = node_of(redis_server)
    waiting = asyncio.create_task(
        node.wait_for(
            lambda seconds: ("BLPOP", "nothing", seconds),
            ends_at=asyncio.get_running_loop().time() + 60.0,
        )
    )
    await until_left(redis_server, 1)
    await node.close()
    (failure,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(failure, Exception)
    await until_left(redis_server, 0)


async def test_a_server_that_cannot_be_closed_in_order_keeps_no_other_open(
    redis_server, monkeypatch
) -> None:
    troubled, other = node_of(redis_server), node_of(redis_server)
    await other.exchange([("PING",)])
    monkeypatch.setattr(troubled, "_commands", BrokenConnections())
    with pytest.raises(OSError, match="late"):
        await close_all([troubled, other])
    await until_left(redis_server, 0)


class BrokenConnections:
    """Connections whose end takes too long."""

    async def close(self) -> None:
        raise OSError("late")
