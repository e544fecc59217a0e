"""How long the store is waited for, so that time is left for what can be done without it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.rag.core.errors import StoreUnavailable

__all__ = ["waiting_for_store"]

# Less than a search may take: what is read by its key comes at once, or something is wrong. Several
# such steps in a row still leave a third of the time for a lesser answer.
_DEADLINE_SHARE_RATIO = 0.25


@asynccontextmanager
async def waiting_for_store(remaining_seconds: float | None) -> AsyncIterator[None]:
    """Bounds what is read by key in the block; a store that is late is as good as none.

    Args:
        remaining_seconds: What is left of the running call's deadline; None where there is none,
            so that only the limit of one statement holds.

    Raises:
        StoreUnavailable: A quarter of the time left was over.
    """
    limit = None if remaining_seconds is None else remaining_seconds * _DEADLINE_SHARE_RATIO
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError as error:
        raise StoreUnavailable("timed out") from error
