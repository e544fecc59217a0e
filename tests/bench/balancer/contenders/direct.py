"""No balancer at all: one host, and a queue in the client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.balancer.contenders.port import Contender, Contending
from tests.bench.balancer.fleet import Fleet

__all__ = ["CENTRAL_FIFO", "ONE_HOST"]


@asynccontextmanager
async def _one_host(fleet: Fleet, folder: Path) -> AsyncIterator[Contending]:
    yield Contending(f"ollama={fleet.urls[0]}")


@asynccontextmanager
async def _central_fifo(fleet: Fleet, folder: Path) -> AsyncIterator[Contending]:
    # First slots first, so that no host begins with two requests while another has none.
    slots = [
        url
        for place in range(max(fleet.slot_counts))
        for url, count in zip(fleet.urls, fleet.slot_counts, strict=True)
        if place < count
    ]
    yield Contending("fifo=" + ",".join(slots))


ONE_HOST = Contender(name="one-host", rule="all to the first host", start=_one_host, peer=False)
CENTRAL_FIFO = Contender(
    name="central-fifo", rule="first free slot, in the client", start=_central_fifo, peer=False
)
