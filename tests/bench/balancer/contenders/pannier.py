"""The balancer as it comes; its time limits are scaled like everyone's."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.common.settings import duration_seconds
from tests.bench import processes
from tests.bench.balancer.contenders.port import Contender, Contending
from tests.bench.balancer.fleet import Fleet

__all__ = ["contenders", "scaled_durations"]

_PREFIX = "PANNIER_BALANCER_"
_READY_SECONDS = 30.0
_COMMAND = (sys.executable, "-m", "services.balancer")
_LISTED = re.compile(rf"^({_PREFIX}\w+_SECONDS)  \(default: '([^']+)'\)", re.MULTILINE)
_parse_seconds = duration_seconds("0s", "3650d")


def scaled_durations(listed: str, time_scale: float) -> dict[str, str]:
    """Divides the default of each duration by the time scale.

    Args:
        listed: What the service prints for `--print-config`.
        time_scale: Fleet seconds per wall second.
    """
    return {
        variable: f"{_parse_seconds(default) / time_scale * 1000:.0f}ms"
        for variable, default in _LISTED.findall(listed)
    }


def _environment(fleet: Fleet, root: Path) -> dict[str, str]:
    """Returns the settings; a duration that the service does not allow scaled is left alone."""
    required = {_PREFIX + "BACKENDS": ",".join(fleet.urls)}
    listed = _ask(root, "--print-config", {}).stdout
    durations = scaled_durations(listed, fleet.time_scale)
    problems = _ask(root, "--check-config", {**required, **durations}).stderr
    return required | {
        variable: value for variable, value in durations.items() if f"{variable}=" not in problems
    }


def _ask(
    root: Path, option: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    # A fixed command in the source tree that the command line names.
    return subprocess.run(
        [*_COMMAND, option], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@asynccontextmanager
async def _start(
    fleet: Fleet, folder: Path, *, root: Path, driver: str
) -> AsyncIterator[Contending]:
    port, http_port = processes.free_port(), processes.free_port()
    environment = {
        **_environment(fleet, root),
        f"{_PREFIX}GRPC_ADDRESS": f"127.0.0.1:{port}",
        f"{_PREFIX}HTTP_ADDRESS": f"127.0.0.1:{http_port}",
        f"{_PREFIX}LOG_LEVEL": "warning",
    }
    async with processes.running(
        "pannier", _COMMAND, log=folder / "pannier.log", environment=environment, folder=root
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
