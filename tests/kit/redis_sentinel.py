"""A master, a replica and three Sentinels on loopback, which fail over within seconds.

A `conftest.py` or a test module offers the fixtures:

    from tests.kit.redis_sentinel import private_sentinels, shared_sentinels
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.redis import RedisServer

__all__ = ["RedisSentinels", "private_sentinels", "shared_sentinels"]

SERVICE = "pannier"

_SENTINEL_COUNT = 3
_DOWN_AFTER_MS = 500
_FAILOVER_TIMEOUT_MS = 3000
_TIMEOUT_SECONDS = 30.0
_POLL_SECONDS = 0.05


class RedisSentinels:
    """A service with a master, a replica and those who watch them.

    Args:
        sentinel_password: What the Sentinels want; empty for nothing.
    """

    def __init__(self, *, sentinel_password: str = "") -> None:
        replication = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
        self.master = RedisServer(options=replication)
        self.replica = RedisServer(
            options=replication | {"replicaof": f"127.0.0.1 {self.master.port}"}
        )
        options = {
            "sentinel monitor": f"{SERVICE} 127.0.0.1 {self.master.port} 2",
            "sentinel down-after-milliseconds": f"{SERVICE} {_DOWN_AFTER_MS}",
            "sentinel failover-timeout": f"{SERVICE} {_FAILOVER_TIMEOUT_MS}",
        }
        if sentinel_password:
            options |= {
                "requirepass": sentinel_password,
                "sentinel sentinel-pass": sentinel_password,
            }
        self.sentinels = [
            RedisServer(options=options, sentinel=True) for _ in range(_SENTINEL_COUNT)
        ]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> None:
        """Starts everything and waits until all are known; in a loop, call it from a thread."""
        self.master.start()
        self.replica.start()
        _wait(lambda: "master_link_status:up" in self.replica.command("INFO", "replication"))
        with ThreadPoolExecutor(_SENTINEL_COUNT) as pool:
            list(pool.map(RedisServer.start, self.sentinels))
        _wait(self._complete)

    def flush(self) -> None:
        """Empties the master."""
        self.master.flush()

    def stop(self) -> None:
        """Ends all processes."""
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()

    def known_master_ports(self) -> set[int]:
        """Returns the ports that the Sentinels name when asked for the master."""
        return {
            int(sentinel.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
            for sentinel in self.sentinels
            if sentinel.running
        }

    def wait_for_promotion(self) -> None:
        """Waits until the replica is the master, to itself and to all Sentinels."""
        _wait(
            lambda: (
                self.known_master_ports() == {self.replica.port}
                and self.replica.command("ROLE")[0] == "master"
            )
        )

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            details = sentinel.command("SENTINEL", "MASTER", SERVICE)
            fields = dict(zip(details[::2], details[1::2], strict=True))
            others = int(fields["num-other-sentinels"])
            if others != _SENTINEL_COUNT - 1 or int(fields["num-slaves"]) != 1:
                return False
        return True


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the Sentinels do not come together"
        time.sleep(_POLL_SECONDS)


@pytest.fixture(scope="session")
def shared_sentinels() -> Iterator[RedisSentinels]:
    """The ones of this process; leave them as they are."""
    sentinels = RedisSentinels()
    try:
        sentinels.start()
        yield sentinels
    finally:
        sentinels.stop()


@pytest.fixture
def private_sentinels() -> Iterator[RedisSentinels]:
    """Ones of the test's own, not yet started, to be treated badly."""
    sentinels = RedisSentinels()
    yield sentinels
    sentinels.stop()
