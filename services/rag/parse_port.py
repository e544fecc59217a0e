"""What the use cases need of the place where documents are read and cut."""

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["DocumentWorker"]

Result = TypeVar("Result")


class DocumentWorker(Protocol):
    """Runs work on documents where it neither holds up the event loop nor takes its memory."""

    async def run(self, function: Callable[..., Result], *arguments: object, heavy: bool) -> Result:
        """Returns what `function` returns, and raises what it raises.

        The work ends when the caller is cancelled.

        Args:
            function: A function at the top level of a module.
            arguments: Its arguments; where the work is heavy, they are pickled, and so is the
                result.
            heavy: Whether the work may take long or much memory, so that it needs a process of its
                own; `services.rag.core.parsing.is_heavy` tells.

        Raises:
            DocumentTooHard: The work took too long or too much memory, or its process died of it.
            ShuttingDown: The worker is closed.
        """
        ...
