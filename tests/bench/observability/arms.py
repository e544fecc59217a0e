"""Three suites side by side that differ in what they show of themselves, and in nothing else."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import processes
from tests.bench.rag.suite import Suite, running_suite
from tests.kit.ports import free_port

__all__ = ["ARMS", "Receiver", "running_arm", "running_receiver"]

ARMS = ("nothing", "metrics", "metrics and traces")
"""What is switched on, from the baseline upwards."""

_CONNECTED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where spans go.

    Attributes:
        endpoint: Its `host:port`.
        out: Where it writes how many spans came, once it has ended.
    """

    endpoint: str
    out: Path


@asynccontextmanager
async def running_receiver(folder: Path) -> AsyncIterator[Receiver]:
    """Runs a receiver of spans while the context is open."""
    port, out = free_port(), folder / "spans.txt"
    command = [
        *(sys.executable, "-m", "tests.bench.observability.receiver"),
        *("--port", str(port), "--out", str(out)),
    ]
    async with processes.running("receiver", command, log=folder / "receiver.log") as started:
        async with asyncio.timeout(_CONNECTED_SECONDS):
            while not await _listens(port):
                if started.process.returncode is not None:
                    raise processes.ProcessEnded("the receiver of spans has ended")
        yield Receiver(f"127.0.0.1:{port}", out)


@asynccontextmanager
async def running_arm(
    arm: str, folder: Path, receiver: Receiver, *, standins: Sequence[Sequence[str]] = ()
) -> AsyncIterator[Suite]:
    """Runs a suite with some of its telemetry while the context is open.

    Args:
        arm: One of `ARMS`.
        folder: For logs.
        receiver: Where spans go, if there are any.
        standins: Arguments of each stand-in; without any, models need no time.
    """
    place = folder / arm.replace(" ", "-")
    place.mkdir()
    seen = arm == ARMS[-1]
    common = {"otlp_endpoint": receiver.endpoint} if seen else {}
    start = None if seen else partial(_unseen, metrics=arm == ARMS[1])
    async with running_suite(place, start=start, common=common, standins=standins) as suite:
        yield suite


def _unseen(service: str, *, metrics: bool) -> Sequence[str]:
    options = ("--metrics",) if metrics else ()
    return (sys.executable, "-m", "tests.bench.observability.unseen", *options, service)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        await asyncio.sleep(0.05)
        return False
    writer.close()
    await writer.wait_closed()
    return True
