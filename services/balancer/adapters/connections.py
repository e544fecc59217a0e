"""The connections to all backends, as one pool to whoever looks at the metrics."""

from collections.abc import Iterable
from typing import Protocol

from services.common.pools import PoolGauge

__all__ = ["ConnectionPool", "Connections"]


class Connections(Protocol):
    """The connections to one backend."""

    @property
    def in_use_count(self) -> int:
        """Connections on which a request is under way, those being opened included."""
        ...

    @property
    def idle_count(self) -> int:
        """Connections that are kept for the next request."""
        ...


class ConnectionPool:
    """All connections together.

    There is no limit to their number: what bounds it are the slots that the balancer gives out.

    Args:
        gauge: Shows them.
    """

    def __init__(self, gauge: PoolGauge) -> None:
        self.gauge = gauge
        self._members: list[Connections] = []
        gauge.watch(self._count)

    def add(self, member: Connections) -> None:
        """Takes in the connections to a backend."""
        self._members = [*self._members, member]

    def discard(self, member: Connections) -> None:
        """Leaves out those to a backend that has gone."""
        self._members = [each for each in self._members if each is not member]

    def _count(self) -> tuple[int, int]:
        # Read in another thread: the list is never changed, only replaced.
        members: Iterable[Connections] = self._members
        in_use = idle = 0
        for each in members:
            in_use += each.in_use_count
            idle += each.idle_count
        return in_use, idle
