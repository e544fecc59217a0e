"""Which server to ask for a key."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.cache.adapters.redis_node import ConnectionOptions, Node
from services.cache.adapters.redis_tasks import all_of
from services.cache.core.store_address import Endpoint
from services.cache.ports import StoreFailure

__all__ = ["PROBE_KEY", "Probe", "Routes", "SingleRoutes", "Unsharded", "close_all"]

PROBE_KEY = b"pannier:2:probe"
"""Read to find out whether values can be read."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How to find out whether a server can be read.

    Attributes:
        node: The server.
        key: Any key that it is responsible for.
    """

    node: Node
    key: bytes


class Routes(Protocol):
    """The servers of a store, and who of them keeps what.

    Attributes:
        sharded: Whether keys live on several servers, each command on one of them.
    """

    sharded: bool

    async def node(self, database: int, key: bytes) -> Node:
        """Returns the server that keeps a key.

        Raises:
            Exception: No server can be asked; see `failure_of`.
        """
        ...

    async def listening_place(self) -> Node:
        """Returns a server that passes on what is published anywhere in the store."""
        ...

    async def probes(self) -> Sequence[Probe]:
        """Looks at the topology anew, and returns how to probe all of it."""
        ...

    def moved(self, key: bytes, endpoint: Endpoint, *, for_good: bool) -> Node:
        """Notes that a key is kept elsewhere.

        Args:
            key: The key.
            endpoint: Who keeps it.
            for_good: Whether to ask there from now on, and not just once.
        """
        ...

    def doubt(self, node: Node) -> None:
        """Notes that a server failed, so that the topology may have changed."""
        ...

    async def close(self) -> None:
        """Ends all connections."""
        ...


class Unsharded:
    """Servers that keep everything, whichever of them is asked."""

    sharded = False

    def moved(self, *_: object, **__: object) -> Node:
        """Such a server sends nobody elsewhere.

        Raises:
            StoreFailure: This one did, so that it is none.
        """
        raise StoreFailure("server is part of a cluster")


class SingleRoutes(Unsharded):
    """One server.

    Args:
        place: Host and port, or the path of a socket.
        databases: Numbers of the databases that will be used.
        options: How connections are made.
    """

    def __init__(
        self, place: Endpoint | str, *, databases: Iterable[int], options: ConnectionOptions
    ) -> None:
        self._nodes: Mapping[int, Node] = {
            database: Node(place, database=database, options=options) for database in databases
        }

    async def node(self, database: int, key: bytes) -> Node:
        """Returns the server."""
        del key
        return self._nodes[database]

    async def listening_place(self) -> Node:
        """Returns the server."""
        return next(iter(self._nodes.values()))

    async def probes(self) -> Sequence[Probe]:
        """Returns how to probe all databases."""
        return [Probe(node, PROBE_KEY) for node in self._nodes.values()]

    def doubt(self, node: Node) -> None:
        """There is no other server."""

    async def close(self) -> None:
        """Ends all connections."""
        await close_all(self._nodes.values())


async def close_all(nodes: Iterable[Node]) -> None:
    """Ends all connections of some servers, also where one of them makes trouble."""
    await all_of([node.close() for node in nodes])
