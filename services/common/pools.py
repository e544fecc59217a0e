"""Connection pools, as every service shows them.

    pool = PoolGauge(runtime.metrics, "postgres", settings.connection_limit)
    pool.watch(lambda: (used(), idle()))     # read at each scrape: nothing is done per call
    with pool.waiting():                     # around what waits for a connection, and only that
        connection = await acquire()

A pool that cannot be asked for its state calls `set` whenever that changes.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from services.common.clock import Clock, SystemClock
from services.common.metrics import Metrics

__all__ = ["PoolGauge"]

_CONNECTIONS = "connection_pool_connections"
_MAXIMUM = "connection_pool_max_connections"
_WAIT = "connection_pool_wait_seconds"


class PoolGauge:
    """Shows how full a pool is and how long its users wait.

    Args:
        metrics: Where it is shown.
        pool: Name of the pool, for example `postgres`.
        maximum: Most connections that the pool opens; 0 where it has no limit.
        clock: Measures the waits of `waiting`.
    """

    def __init__(
        self, metrics: Metrics, pool: str, maximum: int, *, clock: Clock | None = None
    ) -> None:
        self._metrics = metrics
        self._pool = pool
        self._clock = clock or SystemClock()
        self._shown = (-1, -1)
        metrics.create_series("pool", pool)
        self.set_maximum(maximum)
        self.set(0, 0)

    def set_maximum(self, maximum: int) -> None:
        """Shows how many connections the pool may open, where that changes."""
        self._metrics.set_gauge(_MAXIMUM, maximum, self._pool)

    def set(self, in_use: int, idle: int) -> None:
        """Shows how many connections are in use and how many are open without being in use."""
        if (in_use, idle) == self._shown:
            return
        self._shown = (in_use, idle)
        self._metrics.set_gauge(_CONNECTIONS, in_use, self._pool, "in_use")
        self._metrics.set_gauge(_CONNECTIONS, idle, self._pool, "idle")

    def watch(self, read: Callable[[], tuple[int, int]]) -> None:
        """Has the pool be asked whenever somebody looks.

        Args:
            read: Returns how many connections are in use and how many are idle. Called from
                another thread, so that it must not change anything, nor iterate over what changes.
        """
        self._metrics.before_scrape(lambda: self.set(*read()))

    def observe_wait(self, seconds: float) -> None:
        """Counts one wait for a connection, of 0 s where one was free."""
        self._metrics.observe(_WAIT, seconds, self._pool)

    def waiting(self) -> "_Wait":
        """Makes a context manager that measures a wait, whether it ends well or not."""
        return _Wait(self, self._clock)


class _Wait:
    # A class, since a generator behind `contextmanager` costs three times as much.
    __slots__ = ("_clock", "_gauge", "_started")

    def __init__(self, gauge: PoolGauge, clock: Clock) -> None:
        self._gauge = gauge
        self._clock = clock
        self._started = 0.0

    def __enter__(self) -> Self:
        self._started = self._clock.monotonic()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._gauge.observe_wait(self._clock.monotonic() - self._started)
