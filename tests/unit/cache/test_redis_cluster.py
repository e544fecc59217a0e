"""The topology of a cluster is asked for once for all who need it at the same time."""

import asyncio

import pytest

from services.cache.adapters.redis_cluster import ClusterRoutes
from services.cache.adapters.redis_node import ConnectionOptions
from services.cache.ports import StoreFailure

SEEDS = [("h0", 1), ("h1", 2), ("h2", 3)]


class AskedRoutes(ClusterRoutes):
    """Asks nobody; the first server keeps all slots."""

    def __init__(self) -> None:
        options = ConnectionOptions(
            timeout_seconds=1.0,
            connect_timeout_seconds=1.0,
            connection_limit=1,
            stream_connection_limit=1,
        )
        super().__init__(SEEDS, options=options)
        self.asked: list[tuple[str, int]] = []
        self.fails = False

    async def _ask(self, endpoint):
        self.asked.append(endpoint)
        await asyncio.sleep(0)
        if self.fails:
            raise StoreFailure("connection lost")
        return [SEEDS[0]] * 16_384


async def test_who_comes_first_together_asks_once() -> None:
    routes = AskedRoutes()
    nodes = await asyncio.gather(*(routes.node(0, b"%d" % number) for number in range(20)))
    assert {node.place for node in nodes} == {SEEDS[0]}
    assert sorted(routes.asked) == SEEDS
    await routes.close()


async def test_who_leaves_takes_the_answer_from_nobody() -> None:
    routes = AskedRoutes()
    first, second = (asyncio.create_task(routes.node(0, b"key")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).place == SEEDS[0]
    assert sorted(routes.asked) == SEEDS
    await routes.close()


async def test_after_a_failure_it_is_asked_for_anew() -> None:
    routes = AskedRoutes()
    routes.fails = True
    with pytest.raises(StoreFailure):
        await routes.node(0, b"key")
    routes.fails = False
    assert (await routes.node(0, b"key")).place == SEEDS[0]
    await routes.close()
