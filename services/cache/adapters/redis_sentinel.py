"""The master that Sentinels know, found again after each fail-over.

All Sentinels are asked at once and the first answer is acted on, so that one that is away costs no
time; answers that come later still count. One that was cut off from the others may know an older
master: the epoch of its configuration tells.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.cache.adapters.redis_node import ConnectionOptions, Node, Reply
from services.cache.adapters.redis_pools import PoolBook
from services.cache.adapters.redis_routes import PROBE_KEY, Probe, Unsharded, close_all
from services.cache.adapters.redis_tasks import OwnTasks, first_of
from services.cache.core.store_address import Endpoint
from services.cache.ports import StoreFailure

__all__ = ["SentinelRoutes"]


@dataclass(frozen=True, slots=True)
class _Master:
    endpoint: Endpoint
    epoch: int
    nodes: dict[int, Node]


class SentinelRoutes(Unsharded):
    """The current master of a service.

    Args:
        sentinels: Where some of the Sentinels are.
        service: What they call the service.
        databases: Numbers of the databases that will be used.
        options: How connections to the master are made.
        sentinel_password: Password of the Sentinels; empty where they want none.
    """

    def __init__(
        self,
        sentinels: Sequence[Endpoint],
        service: str,
        *,
        databases: Iterable[int],
        options: ConnectionOptions,
        sentinel_password: str,
    ) -> None:
        self._service = service
        self._databases = tuple(databases)
        self._options = options
        sentinel_options = replace(
            options,
            username=None,
            password=sentinel_password or None,
            # They keep no values.
            command_pools=PoolBook(),
            stream_pools=PoolBook(),
        )
        self._sentinels = [
            Node(sentinel, database=0, options=sentinel_options) for sentinel in sentinels
        ]
        self._master: _Master | None = None
        self._doubted = False
        self._search: asyncio.Task[None] | None = None
        self._tasks = OwnTasks()

    async def node(self, database: int, key: bytes) -> Node:
        """Returns the master; asks the Sentinels only where none is known."""
        del key
        return (await self._known_master()).nodes[database]

    async def listening_place(self) -> Node:
        """Returns the master."""
        return next(iter((await self._known_master()).nodes.values()))

    async def probes(self) -> Sequence[Probe]:
        """Asks the Sentinels, and returns how to probe all databases of the master."""
        try:
            await self._find_master()
        except Exception:
            # Sentinels are needed to find a master, not to use it.
            if self._master is None:
                raise
        master = await self._known_master()
        return [Probe(node, PROBE_KEY) for node in master.nodes.values()]

    def doubt(self, node: Node) -> None:
        """Asks the Sentinels, in the background, whether there is another master."""
        if self._master is None or node not in self._master.nodes.values():
            return
        self._doubted = True
        if self._search is None or self._search.done():
            self._search = self._tasks.start(self._find_master())

    async def close(self) -> None:
        """Ends all connections."""
        await self._tasks.finish()
        masters = [] if self._master is None else self._master.nodes.values()
        await close_all([*masters, *self._sentinels])

    async def _known_master(self) -> _Master:
        if self._master is None:
            await self._find_master()
        if self._master is None:
            raise StoreFailure("master is not known")
        return self._master

    async def _find_master(self) -> None:
        """Returns as soon as one Sentinel has answered."""
        await first_of([self._tasks.start(self._ask(sentinel)) for sentinel in self._sentinels])

    async def _ask(self, sentinel: Node) -> None:
        # The first knows of a fail-over earlier than the second, which alone tells the epoch.
        address, details = await sentinel.exchange(
            [
                ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
                ("SENTINEL", "MASTER", self._service),
            ]
        )
        if not isinstance(address, list) or not isinstance(details, list):
            raise StoreFailure("sentinel does not know the service")
        host, port = address
        self._learn((host.decode(), int(port)), _epoch(details))

    def _learn(self, endpoint: Endpoint, epoch: int) -> None:
        known = self._master
        if known is not None:
            if known.endpoint == endpoint:
                return
            if epoch < known.epoch and not self._doubted:
                return
            self._tasks.start_aside(close_all(known.nodes.values()))
        self._doubted = False
        self._master = _Master(
            endpoint,
            epoch,
            {
                database: Node(endpoint, database=database, options=self._options)
                for database in self._databases
            },
        )


def _epoch(details: list[Reply]) -> int:
    """Reads the epoch of the configuration from names and values in turn."""
    fields = dict(zip(details[::2], details[1::2], strict=False))
    return int(fields.get(b"config-epoch", 0))
