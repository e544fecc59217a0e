"""Work that a caller need not wait for: it is done once the answer is on its way."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial, wraps
from typing import ParamSpec

__all__ = ["Afterwards", "after_answer", "current_afterwards", "done_after_answer"]

P = ParamSpec("P")

_logger = logging.getLogger(__name__)

Work = Callable[[], None]


class Afterwards:
    """What is to be done after the answer of one call, in the order in which it was left."""

    def __init__(self) -> None:
        self._left: list[Work] | None = []

    def leave(self, work: Work) -> None:
        """Leaves work for later; does it at once where that time has come already."""
        if self._left is None:
            work()
        else:
            self._left.append(work)

    def do(self) -> None:
        """Does all that was left; a piece that fails keeps none of the others from being done."""
        left, self._left = self._left, None
        for work in left or ():
            try:
                work()
            except Exception:
                _logger.exception("what was left for after an answer failed")


current_afterwards: ContextVar[Afterwards | None] = ContextVar("current_afterwards", default=None)
"""Of the call that the running task works for."""


def after_answer(work: Work) -> None:
    """Does something after the answer of the running call, on its event loop; else at once.

    What is asked of the same process by a later call comes after it.

    Args:
        work: Takes microseconds, and does not wait.
    """
    afterwards = current_afterwards.get()
    if afterwards is None:
        work()
    else:
        afterwards.leave(work)


def done_after_answer(work: Callable[P, None]) -> Callable[P, None]:
    """Makes a function be called after the answer of the running call; see `after_answer`."""

    @wraps(work)
    def later(*args: P.args, **kwargs: P.kwargs) -> None:
        after_answer(partial(work, *args, **kwargs))

    return later
