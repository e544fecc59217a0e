"""Processes of the benchmark: started in sessions of their own, stopped by their ids."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

__all__ = [
    "PROCESSOR_COUNT",
    "TICKS_PER_SECOND",
    "ProcessEnded",
    "Started",
    "answers",
    "cpu_seconds",
    "fetch",
    "own_cpu_seconds",
    "resident_bytes",
    "running",
    "start",
    "stop",
    "wait_until",
]

_PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PROCESSOR_COUNT = os.cpu_count() or 1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STOP_SECONDS = 5.0
_POLL_SECONDS = 0.05
# Of the three clocks that a process has, the one that counts what it ran.
_SCHEDULED = 2


class ProcessEnded(Exception):
    """A process ended, or did not get ready, when it was needed."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process that was started here.

    Attributes:
        name: What it is called in messages.
        process: The process.
        log: File that its output goes to.
    """

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid


async def start(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Started:
    """Starts a process; Ctrl-C does not reach it, so it ends when it is told to.

    Args:
        name: What it is called in messages.
        command: Program and arguments.
        log: File that its output is added to.
        environment: Variables beside those of this process.
        folder: Where it runs; where this process runs if None.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            cwd=folder,
        )
    return Started(name, process, log)


async def stop(started: Started) -> None:
    """Ends a process and what it has started; kills what does not end in time."""
    family = _family(started.pid) if started.process.returncode is None else []
    if started.process.returncode is None:
        with suppress(ProcessLookupError):
            started.process.terminate()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await started.process.wait()
        except TimeoutError:
            started.process.kill()
            await started.process.wait()
    for pid, start_ticks in family:
        if (stat := _stat(pid)) is not None and stat.start_ticks == start_ticks:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def running(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> AsyncIterator[Started]:
    """Runs a process while the context is open; the arguments are those of `start`."""
    started = await start(name, command, log=log, environment=environment, folder=folder)
    try:
        yield started
    finally:
        await asyncio.shield(stop(started))


async def wait_until(started: Started, url: str, *, within_seconds: float) -> None:
    """Waits until a process answers GET with 200.

    Raises:
        ProcessEnded: It ended before, or does not answer in time.
    """
    try:
        async with asyncio.timeout(within_seconds), aiohttp.ClientSession() as session:
            while not await answers(session, url):
                if started.process.returncode is not None:
                    break
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return
    except TimeoutError:
        pass
    tail = started.log.read_text(errors="replace")[-2000:]
    raise ProcessEnded(f"{started.name} is not ready; the end of {started.log}:\n{tail}")


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    """Tells whether a GET is answered with 200."""
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def fetch(url: str) -> str:
    """Returns what a GET is answered with."""
    async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url) as reply:
        return await reply.text()


@dataclass(frozen=True, slots=True)
class _Stat:
    parent_pid: int
    cpu_ticks: int
    start_ticks: int
    resident_pages: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return _Stat(int(fields[1]), sum(map(int, fields[11:15])), int(fields[19]), int(fields[21]))


def _family(pid: int) -> list[tuple[int, int]]:
    """Ids and start times of a process's descendants."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in _PROC.glob("[0-9]*")}
    found, parents = [], {pid}
    while parents:
        children = {
            child
            for child, stat in stats.items()
            if stat is not None and stat.parent_pid in parents
        }
        found += [(child, stat.start_ticks) for child in children if (stat := stats[child])]
        parents = children
    return found


def cpu_seconds(pid: int) -> float:
    """Returns the processor time used by a process and its descendants, those gone included."""
    pids = [pid, *(child for child, _ in _family(pid))]
    return sum(stat.cpu_ticks for each in pids if (stat := _stat(each))) / TICKS_PER_SECOND


def own_cpu_seconds(pid: int) -> float:
    """Returns the processor time used by a process alone, to the nanosecond."""
    # Linux makes the clock of a process from its id (clock_getcpuclockid(3)).
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process and its descendants."""
    pids = [pid, *(child for child, _ in _family(pid))]
    return sum(stat.resident_pages for each in pids if (stat := _stat(each))) * _PAGE_BYTES
