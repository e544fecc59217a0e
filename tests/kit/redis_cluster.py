"""A real Redis cluster on loopback: three masters, each with a replica where the test wants one.

A `conftest.py` or a test module offers the fixtures:

    from tests.kit.redis_cluster import private_cluster, shared_cluster
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis.crc import key_slot

from deploy.local.ports import is_free
from tests.kit.ports import free_port
from tests.kit.redis import RedisServer

__all__ = ["RedisCluster", "private_cluster", "shared_cluster"]

_SLOT_COUNT = 16_384
_MASTER_COUNT = 3
# The cluster's bus listens so far above.
_BUS_OFFSET = 10_000
_NODE_TIMEOUT_MS = 1000
_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.05


class RedisCluster:
    """Servers that form a cluster.

    Args:
        replicated: Whether each master has a replica.
    """

    def __init__(self, *, replicated: bool = False) -> None:
        options = {
            "cluster-enabled": "yes",
            "cluster-config-file": "nodes.conf",
            "cluster-node-timeout": str(_NODE_TIMEOUT_MS),
            # A replica whose master died long after their last contact may still take over.
            "cluster-replica-validity-factor": "0",
            "repl-diskless-sync-delay": "0",
        }
        count = _MASTER_COUNT * (2 if replicated else 1)
        self.servers = [
            RedisServer(databases=1, port=_port_with_bus(), options=options) for _ in range(count)
        ]
        self.masters = self.servers[:_MASTER_COUNT]
        self.replicas = self.servers[_MASTER_COUNT:]
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        self.url = f"redis+cluster://{hosts}"

    def start(self) -> None:
        """Starts the servers and waits until they agree; in a loop, call it from a thread."""
        with ThreadPoolExecutor(len(self.servers)) as pool:
            list(pool.map(RedisServer.start, self.servers))
        bounds = [round(_SLOT_COUNT * part / _MASTER_COUNT) for part in range(_MASTER_COUNT + 1)]
        for number, master in enumerate(self.masters):
            master.command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        for number, server in enumerate(self.servers):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            server.command("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        _wait(self._all_know_each_other)
        for master, replica in zip(self.masters, self.replicas, strict=False):
            replica.command("CLUSTER", "REPLICATE", master.command("CLUSTER", "MYID"))
        _wait(self._complete)

    def flush(self) -> None:
        """Empties all masters."""
        for master in self.masters:
            master.flush()

    def stop(self) -> None:
        """Ends all processes."""
        for server in self.servers:
            server.stop()

    def master_of(self, key: bytes) -> RedisServer:
        """Returns the server that kept a key when the cluster was made."""
        return self.masters[key_slot(key) * _MASTER_COUNT // _SLOT_COUNT]

    def keys_of(self, server: RedisServer, count: int) -> list[bytes]:
        """Returns keys that a master kept when the cluster was made."""
        names = (b"key %d" % number for number in range(1000 * count))
        return [name for name in names if self.master_of(name) is server][:count]

    def wait_for_promotion(self, victim: RedisServer) -> None:
        """Waits until all servers but one know that its replica has taken over."""
        successor = self.replicas[self.masters.index(victim)]
        others = [server for server in self.servers if server is not victim]

        def promoted() -> bool:
            return all(
                successor.port in ports and victim.port not in ports
                for ports in (
                    {master[1] for _, _, master, *_ in server.command("CLUSTER", "SLOTS")}
                    for server in others
                )
            )

        _wait(promoted)

    def move_slot(self, key: bytes, to: RedisServer, *, finished: bool = True) -> None:
        """Moves the slot of a key, and what is in it, to another master.

        Args:
            key: Any key of the slot.
            to: Where to.
            finished: Whether the slot is handed over as well, or its keys only are on their way.
        """
        slot = key_slot(key)
        source = self.master_of(key)
        source_id, target_id = (one.command("CLUSTER", "MYID") for one in (source, to))
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        for name in source.command("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            source.command("MIGRATE", "127.0.0.1", to.port, name, 0, 1000)
        if finished:
            for server in (to, source):
                server.command("CLUSTER", "SETSLOT", slot, "NODE", target_id)

    def _all_know_each_other(self) -> bool:
        expected = f"cluster_known_nodes:{len(self.servers)}"
        return all(
            expected in info and "cluster_state:ok" in info
            for info in (server.command("CLUSTER", "INFO") for server in self.servers)
        )

    def _complete(self) -> bool:
        """Whether every server knows every range of slots, with a replica in step."""
        for server in self.servers:
            ranges = server.command("CLUSTER", "SLOTS")
            servers_per_range = 2 if self.replicas else 1
            if len(ranges) != _MASTER_COUNT or any(
                len(one) != 2 + servers_per_range for one in ranges
            ):
                return False
        links = [replica.command("INFO", "replication") for replica in self.replicas]
        return all("master_link_status:up" in link for link in links)


def _port_with_bus() -> int:
    while not is_free((port := free_port()) + _BUS_OFFSET):
        pass
    return port


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the cluster does not come together"
        time.sleep(_POLL_SECONDS)


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[RedisCluster]:
    """The one cluster of this process, of three masters; leave it as it is."""
    cluster = RedisCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def private_cluster() -> Iterator[RedisCluster]:
    """A cluster of the test's own with replicas, not yet started, to be treated badly."""
    cluster = RedisCluster(replicated=True)
    yield cluster
    cluster.stop()
