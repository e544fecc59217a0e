"""The masters of a cluster, and which of them keeps which slot.

The client library's own cluster client is not used: it fails calls at once when its connections are
taken, drops all idle connections of a server at every failure, waits a quarter of a second when the
cluster is down, asks for the topology one server after the other, frozen ones included, and may
send ASKING on another connection than what is asked (release 8.1).
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from itertools import count

from redis.crc import key_slot
from redis.exceptions import ResponseError

from services.cache.adapters.redis_node import ConnectionOptions, Node, Reply
from services.cache.adapters.redis_routes import PROBE_KEY, Probe, close_all
from services.cache.adapters.redis_tasks import OwnTasks, first_of
from services.cache.core.store_address import Endpoint
from services.cache.ports import StoreFailure

__all__ = ["ClusterRoutes"]

_SLOT_COUNT = 16_384
# How many servers are asked at once for the topology.
_ASKED_COUNT = 3
# So long a server that failed is asked neither for the topology nor for notices, and the topology
# is looked at before every probe; longer than the longest pause between probes.
_DOUBT_SECONDS = 10.0
# Planned changes show by servers sending us elsewhere; this is for the rest.
_REFRESH_SECONDS = 30.0


class ClusterRoutes:
    """The masters of a cluster; it has one database, whatever number is asked for.

    Args:
        seeds: Where some of its servers are.
        options: How connections are made.
    """

    sharded = True

    def __init__(self, seeds: Sequence[Endpoint], *, options: ConnectionOptions) -> None:
        self._seeds = tuple(seeds)
        self._options = options
        self._nodes: dict[Endpoint, Node] = {}
        self._owners: list[Endpoint | None] = [None] * _SLOT_COUNT
        self._probe_keys: dict[Endpoint, bytes] = {}
        self._failed_at: dict[Endpoint, float] = {}
        self._refreshed_at: float | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._tasks = OwnTasks()

    async def node(self, database: int, key: bytes) -> Node:
        """Returns the master of a key's slot; looks at the topology only where none is known."""
        del database
        if self._refreshed_at is None:
            await self._learn()
        owner = self._owners[key_slot(key)]
        if owner is None:
            self._refresh_soon()
            raise StoreFailure("no node serves the slot")
        return self._node(owner)

    async def listening_place(self) -> Node:
        """Returns one of the masters: each passes on what is published at another."""
        if self._refreshed_at is None:
            await self._learn()
        return self._node(random.choice(self._trusted(self._masters() or self._seeds)))

    async def probes(self) -> Sequence[Probe]:
        """Returns how to probe all masters, after a look at the topology where it may be old."""
        now = asyncio.get_running_loop().time()
        known = self._refreshed_at is not None and now - self._refreshed_at < _REFRESH_SECONDS
        if not known or self._doubted(now):
            try:
                await self._refresh()
            except Exception:
                if self._refreshed_at is None:
                    raise
        if not self._probe_keys:
            raise StoreFailure("no node serves any slot")
        return [Probe(self._node(owner), key) for owner, key in self._probe_keys.items()]

    def moved(self, key: bytes, endpoint: Endpoint, *, for_good: bool) -> Node:
        """Notes that a key is kept elsewhere; where for good, the rest may have changed as well."""
        if for_good:
            self._owners[key_slot(key)] = endpoint
            self._refresh_soon()
        return self._node(endpoint)

    def doubt(self, node: Node) -> None:
        """Looks at the topology in the background: another server may have taken over."""
        for endpoint, known in self._nodes.items():
            if known is node:
                self._failed_at[endpoint] = asyncio.get_running_loop().time()
                self._refresh_soon()

    async def close(self) -> None:
        """Ends all connections."""
        await self._tasks.finish()
        await close_all(self._nodes.values())

    def _node(self, endpoint: Endpoint) -> Node:
        if endpoint not in self._nodes:
            self._nodes[endpoint] = Node(endpoint, database=0, options=self._options)
        return self._nodes[endpoint]

    def _masters(self) -> list[Endpoint]:
        return [owner for owner in dict.fromkeys(self._owners) if owner is not None]

    def _doubted(self, now: float) -> set[Endpoint]:
        return {endpoint for endpoint, at in self._failed_at.items() if now - at < _DOUBT_SECONDS}

    def _trusted(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        """Returns those that have not just failed; all of them where all have."""
        everyone = list(dict.fromkeys(endpoints))
        doubted = self._doubted(asyncio.get_running_loop().time())
        return [endpoint for endpoint in everyone if endpoint not in doubted] or everyone

    def _refresh_soon(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._tasks.start(self._refresh())

    async def _learn(self) -> None:
        """Asks for the topology, together with all who need it at the same time."""
        self._refresh_soon()
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        """Asks some servers at once for the topology and believes the first that answers."""
        trusted = self._trusted([*self._masters(), *self._seeds])
        sample = random.sample(trusted, min(len(trusted), _ASKED_COUNT))
        self._take(await first_of([self._tasks.start(self._ask(endpoint)) for endpoint in sample]))

    async def _ask(self, endpoint: Endpoint) -> list[Endpoint | None]:
        try:
            (reply,) = await self._node(endpoint).exchange([("CLUSTER", "SLOTS")])
        except Exception:
            self._failed_at[endpoint] = asyncio.get_running_loop().time()
            raise
        if isinstance(reply, ResponseError):
            raise StoreFailure("server is not part of a cluster")
        return _owners(reply, asked=endpoint)

    def _find_probe_keys(self) -> dict[Endpoint, bytes]:
        """Returns a key that each master keeps."""
        keys: dict[Endpoint, bytes] = {}
        missing = set(self._masters())
        numbers = count()
        while missing:
            key = PROBE_KEY + b":%d" % next(numbers)
            owner = self._owners[key_slot(key)]
            if owner in missing:
                missing.discard(owner)
                keys[owner] = key
        return keys

    def _take(self, owners: list[Endpoint | None]) -> None:
        self._owners = owners
        self._probe_keys = self._find_probe_keys()
        self._refreshed_at = asyncio.get_running_loop().time()
        needed = {*self._masters(), *self._seeds}
        gone = [self._nodes.pop(endpoint) for endpoint in set(self._nodes) - needed]
        for endpoint in set(self._failed_at) - needed:
            del self._failed_at[endpoint]
        if gone:
            self._tasks.start_aside(close_all(gone))


def _owners(reply: Reply, *, asked: Endpoint) -> list[Endpoint | None]:
    """Reads a reply to CLUSTER SLOTS.

    Args:
        reply: Entries of first slot, last slot, master, replicas.
        asked: Who answered; where it names no host, its own is meant.
    """
    owners: list[Endpoint | None] = [None] * _SLOT_COUNT
    for first, last, master, *_ in reply:
        host = master[0].decode() if master[0] else asked[0]
        owners[first : last + 1] = [(host, master[1])] * (last + 1 - first)
    return owners
