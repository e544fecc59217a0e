"""Reading a stream ends when it was to end, whatever came before."""

import asyncio

from services.cache.adapters.redis_commands import RedisCommands
from tests.kit.virtual_time import run_virtually


class LateRoutes:
    """Needs 0.3 s to find out which server to ask, which is told how long it may wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def node(self, _database: int, _key: bytes) -> "LateRoutes":
        await asyncio.sleep(0.3)
        return self

    async def wait_for(self, make_command, *, ends_at: float) -> None:
        left_seconds = ends_at - asyncio.get_running_loop().time()
        self.waits.append(left_seconds)
        assert make_command(left_seconds)[:1] == ("XREAD",)
        await asyncio.sleep(left_seconds)

    def doubt(self, _node: object) -> None:
        raise AssertionError("nothing has failed")


def test_finding_the_server_is_part_of_the_wait_for_a_stream() -> None:
    routes = LateRoutes()

    async def main() -> float:
        started = asyncio.get_running_loop().time()
        commands = RedisCommands(routes)  # type: ignore[arg-type]  # what is used of them
        assert await commands.read_stream(0, b"s", b"0", wait_seconds=0.5, limit=1) == []
        return asyncio.get_running_loop().time() - started

    took_seconds = run_virtually(main())
    assert round(routes.waits[0], 6) == 0.2
    assert round(took_seconds, 6) == 0.5
