"""The balancer as it comes, in the fleet's time."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.bench import processes
from tests.bench.balancer.contenders.port import Contender, Contending
from tests.bench.balancer.fleet import Fleet
from tests.kit.ports import free_port

__all__ = ["command", "contenders"]

_PREFIX = "PANNIER_BALANCER_"
_READY_SECONDS = 30.0
_IN_FLEET_TIME = Path(__file__).parents[1] / "in_fleet_time.py"


def command(time_scale: float) -> Sequence[str]:
    """Returns what runs the balancer in the fleet's time, in the folder of its source.

    Args:
        time_scale: Fleet seconds per wall second.
    """
    if time_scale == 1.0:
        return (sys.executable, "-m", "services.balancer")
    # Not as a module: that would be one of the source measured, which may be older.
    return (sys.executable, "-P", str(_IN_FLEET_TIME), str(time_scale))


@asynccontextmanager
async def _start(
    fleet: Fleet, folder: Path, *, root: Path, driver: str
) -> AsyncIterator[Contending]:
    port, http_port = free_port(), free_port()
    environment = {
        "PYTHONPATH": str(root),
        f"{_PREFIX}BACKENDS": ",".join(fleet.urls),
        f"{_PREFIX}GRPC_ADDRESS": f"127.0.0.1:{port}",
        f"{_PREFIX}HTTP_ADDRESS": f"127.0.0.1:{http_port}",
        f"{_PREFIX}LOG_LEVEL": "warning",
    }
    async with processes.running(
        "pannier",
        command(fleet.time_scale),
        log=folder / "pannier.log",
        environment=environment,
        folder=root,
    ) as started:
        await processes.wait_until(
            started, f"http://127.0.0.1:{http_port}/readyz", within_seconds=_READY_SECONDS
        )
        yield Contending(f"{driver}=127.0.0.1:{port}", started.pid)


def _version(root: Path) -> str:
    # A fixed command; the revision says which planner was measured.
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"pannier {done.stdout.strip() or root}"


def contenders(root: Path) -> tuple[Contender, ...]:
    """Lists the balancer, and the balancer used with resumption.

    Args:
        root: Source tree that it is run from.
    """
    return tuple(
        Contender(
            name=name,
            rule=rule,
            start=partial(_start, root=root, driver=name),
            version=partial(_version, root),
            peer=False,
        )
        for name, rule in (
            ("pannier", "as it comes"),
            ("pannier-resume", "each request allows to resume once"),
        )
    )
