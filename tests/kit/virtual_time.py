"""Event loops in which waiting takes no time: when nothing else is to do, the next timer is due."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["LoopClock", "run_virtually", "stand_still"]

T = TypeVar("T")


class _VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to its next timer; for coroutines that do no input or output."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_time = 1000.0

    def time(self) -> float:
        return self._virtual_time

    def _run_once(self) -> None:
        if not self._ready:
            due = [timer.when() for timer in self._scheduled if not timer.cancelled()]
            assert due, "nothing is left that could happen"
            self._virtual_time = max(self._virtual_time, min(due))
        super()._run_once()


def stand_still(seconds: float) -> None:
    """Lets time pass in which the running loop does nothing, as when its process is frozen."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _VirtualLoop)
    loop._virtual_time += seconds


class LoopClock:
    """The time of the running event loop."""

    def monotonic(self) -> float:
        """Returns seconds, 1000 at the start."""
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        """Returns seconds since some epoch."""
        return 1_700_000_000.0 + self.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in virtual time.

    Raises:
        AssertionError: It waits for something that will never happen.
    """
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
