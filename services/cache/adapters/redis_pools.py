"""How full the pools of connections are, and how long their users wait.

Each server and database has pools of its own; those for the same purpose are shown as one.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from services.common.metrics import Metrics
from services.common.pools import PoolGauge

__all__ = ["PoolBook", "PoolUsage", "watched_book"]


class PoolUsage(NamedTuple):
    """How full pools are.

    Attributes:
        in_use: Connections that somebody uses.
        idle: Connections that are open without being used.
        limit: Most connections there may be.
    """

    in_use: int = 0
    idle: int = 0
    limit: int = 0


class UsedPool(Protocol):
    """A pool that can be asked how full it is, from any thread."""

    @property
    def usage(self) -> PoolUsage:
        """How full it is."""
        ...


def _ignore(_seconds: float) -> None:
    return


class PoolBook:
    """All pools for one purpose.

    Args:
        observe_wait: Is told how long each user has waited for a connection, seconds.
    """

    def __init__(self, observe_wait: Callable[[float], None] = _ignore) -> None:
        self.observe_wait = observe_wait
        self._pools: dict[UsedPool, None] = {}

    def add(self, pool: UsedPool) -> None:
        """Counts a pool in."""
        self._pools[pool] = None

    def remove(self, pool: UsedPool) -> None:
        """Counts a pool in no more."""
        self._pools.pop(pool, None)

    def usage(self) -> PoolUsage:
        """Returns how full they are together; may be called from any thread."""
        # Copied in one step: meanwhile the loop may open and close pools.
        usages = [pool.usage for pool in tuple(self._pools)]
        return PoolUsage(*map(sum, zip(*usages, strict=True))) if usages else PoolUsage()


def watched_book(metrics: Metrics, name: str) -> PoolBook:
    """Makes a book that is looked into at each scrape.

    Args:
        metrics: Where the pools are shown.
        name: What they are shown as.
    """
    gauge = PoolGauge(metrics, name, 0)
    book = PoolBook(gauge.observe_wait)

    def show() -> None:
        usage = book.usage()
        gauge.set_maximum(usage.limit)
        gauge.set(usage.in_use, usage.idle)

    metrics.before_scrape(show)
    return book
