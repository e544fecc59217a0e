"""The fleet of stand-ins: eight processes, started cold for each run."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench import processes
from tests.bench.balancer.reference import Host, ModelProfile, profile_toml
from tests.kit.ports import free_port

__all__ = ["Fleet", "Totals", "counted_since", "running_fleet"]

Totals = dict[str, float]
"""What a host has counted, by name."""

_READY_SECONDS = 60.0
# Two models that a host computes at once each run at 0.6 of their rate: 1 / 2^0.737.
_CONTENTION_EXPONENT = 0.737
# All prompts fit, so that no contender's requests are cut.
_CONTEXT_TOKENS = 16_384
# No model is unloaded for being idle: what is loaded is decided by what is asked for.
_KEEP_ALIVE = "24h"


class Fleet:
    """Running stand-ins.

    Args:
        hosts: What each is like.
        model_count: Models that each has on disk.
        ports: Where each listens.
        folder: For their logs and the profile of their models.
        time_scale: Fleet seconds per wall second.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        model_count: int,
        ports: Sequence[int],
        folder: Path,
        time_scale: float,
    ) -> None:
        self.hosts = tuple(hosts)
        self._model_count = model_count
        self.time_scale = time_scale
        self.folder = folder
        self.ports = tuple(ports)
        self._started: dict[int, processes.Started] = {}

    @property
    def urls(self) -> tuple[str, ...]:
        """Addresses of all hosts."""
        return tuple(f"http://127.0.0.1:{port}" for port in self.ports)

    @property
    def slot_counts(self) -> tuple[int, ...]:
        """Requests that each host can work on at a time: one per model that it holds."""
        return tuple(min(host.model_room_count, self._model_count) for host in self.hosts)

    async def start_host(self, index: int) -> None:
        """Starts a host with nothing loaded."""
        host, port = self.hosts[index], self.ports[index]
        command = [
            *(sys.executable, "-m", "services.standin"),
            *("--name", f"host-{index}", "--port", str(port)),
            *("--profile", str(self.folder / "models.toml")),
            *("--speed", str(host.speed), "--time-scale", str(self.time_scale)),
            *("--num-parallel", "1", "--max-loaded-models", str(host.model_room_count)),
            *("--contention", str(_CONTENTION_EXPONENT), "--keep-alive", _KEEP_ALIVE),
            *("--context-length", str(_CONTEXT_TOKENS)),
        ]
        log = self.folder / f"host-{index}.log"
        self._started[index] = await processes.start(f"host-{index}", command, log=log)

    async def wait_for_host(self, index: int) -> None:
        """Waits until a host answers."""
        url = f"{self.urls[index]}/api/version"
        await processes.wait_until(self._started[index], url, within_seconds=_READY_SECONDS)

    async def kill_host(self, index: int) -> None:
        """Kills a host as a crash would, with what it was doing."""
        started = self._started[index]
        os.kill(started.pid, signal.SIGKILL)
        await started.process.wait()

    async def stop(self) -> None:
        """Stops all hosts that still run."""
        async with asyncio.TaskGroup() as group:
            for started in self._started.values():
                group.create_task(processes.stop(started))

    async def order_fault(self, index: int, fault: dict[str, Any]) -> None:
        """Has a host misbehave from now on."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.urls[index]}/standin/faults", json=fault) as response,
        ):
            response.raise_for_status()

    async def end_faults(self, index: int) -> None:
        """Has a host behave again."""
        async with (
            aiohttp.ClientSession() as session,
            session.delete(f"{self.urls[index]}/standin/faults") as response,
        ):
            response.raise_for_status()

    async def totals(self) -> list[Totals]:
        """Asks all hosts what they have counted; one that does not answer has counted nothing."""
        async with aiohttp.ClientSession() as session:
            return [await _totals(session, url) for url in self.urls]

    def cpu_seconds(self) -> float:
        """Processor time of all hosts since they were started."""
        return sum(processes.cpu_seconds(each.pid) for each in self._started.values())


def counted_since(before: Sequence[Totals], after: Sequence[Totals]) -> Totals:
    """Sums up what hosts have counted; one that was started anew has begun at nothing."""
    sums: Totals = {}
    for earlier, later in zip(before, after, strict=True):
        began_anew = any(later.get(name, 0.0) < value for name, value in earlier.items())
        for name, value in later.items():
            sums[name] = (
                sums.get(name, 0.0) + value - (0.0 if began_anew else earlier.get(name, 0.0))
            )
    return sums


async def _totals(session: aiohttp.ClientSession, url: str) -> Totals:
    try:
        async with session.get(f"{url}/standin/totals") as response:
            counted = await response.json()
    except aiohttp.ClientConnectionError:
        return {}
    return {
        name: float(value) for name, value in counted.items() if isinstance(value, (int, float))
    }


def _write_profile(folder: Path, models: Sequence[ModelProfile]) -> None:
    (folder / "models.toml").write_text(profile_toml(models))


@asynccontextmanager
async def running_fleet(
    hosts: Sequence[Host], models: Sequence[ModelProfile], folder: Path, time_scale: float
) -> AsyncIterator[Fleet]:
    """Runs a fleet while the context is open."""
    _write_profile(folder, models)
    ports = [free_port() for _ in hosts]
    fleet = Fleet(hosts, len(models), ports, folder, time_scale)
    try:
        for index in range(len(hosts)):
            await fleet.start_host(index)
        for index in range(len(hosts)):
            await fleet.wait_for_host(index)
        yield fleet
    finally:
        await asyncio.shield(fleet.stop())
