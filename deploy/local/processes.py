"""Processes that outlive the command that started them.

They are started with `subprocess`, since asyncio kills its children when the loop that started them
is gone. A process is known by its id, its start time and the boot it belongs to, so that a number
the system has given to something else in the meantime is never signalled. Reads `/proc` (Linux).
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ProcessIdentity",
    "exit_status",
    "identify",
    "is_alive",
    "resident_bytes",
    "spawn",
    "terminate",
    "wait_for_exit",
]

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_KILL_LIMIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Names one process for good.

    Attributes:
        pid: Process id.
        start_ticks: When it was started, in clock ticks since the boot.
        boot_id: The boot it was started in.
    """

    pid: int
    start_ticks: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class _Status:
    state: str
    parent_pid: int
    start_ticks: int


def _status(pid: int) -> _Status | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    fields = text.rpartition(")")[2].split()
    return _Status(fields[0], int(fields[1]), int(fields[19]))


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessIdentity:
    """Describes a process.

    Raises:
        ProcessLookupError: There is none with this id.
    """
    status = _status(pid)
    if status is None:
        raise ProcessLookupError(pid)
    return ProcessIdentity(pid, status.start_ticks, _boot_id())


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether this very process still runs; one that has ended but was not yet reaped does not."""
    status = _status(identity.pid)
    return (
        status is not None
        and status.state not in "ZX"
        and status.start_ticks == identity.start_ticks
        and _boot_id() == identity.boot_id
    )


def resident_bytes(identity: ProcessIdentity) -> int:
    """Returns the memory a process and its descendants hold, counting what they share once."""
    if not is_alive(identity):
        return 0
    parents = {
        int(folder.name): status.parent_pid
        for folder in _PROC.iterdir()
        if folder.name.isdigit() and (status := _status(int(folder.name))) is not None
    }
    total = _memory_pages(identity.pid)[0]
    pending = [identity.pid]
    while pending:
        parent = pending.pop()
        children = [pid for pid, its_parent in parents.items() if its_parent == parent]
        for child in children:
            resident, shared = _memory_pages(child)
            total += resident - shared
        pending += children
    return total * _PAGE_BYTES


def _memory_pages(pid: int) -> tuple[int, int]:
    try:
        fields = (_PROC / str(pid) / "statm").read_text().split()
    except OSError:
        return 0, 0
    return int(fields[1]), int(fields[2])


# Kept until they have ended: a child must be waited for by the process that started it.
_children: dict[int, subprocess.Popen[bytes]] = {}


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    user: str | None = None,
) -> ProcessIdentity:
    """Starts a process in a session of its own, so that the terminal's Ctrl-C does not reach it.

    Args:
        command: Program and arguments.
        environment: All of its environment variables.
        directory: Its working directory.
        log: File that its output is appended to.
        user: Name of the system user to run as; None for the caller's.

    Raises:
        OSError: The program cannot be started.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - the commands are ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            user=user,
            extra_groups=None if user is None else [],
        )
    _children[child.pid] = child
    return identify(child.pid)


def exit_status(identity: ProcessIdentity) -> int | None:
    """Returns how a child has ended, as `subprocess` counts it.

    None while it runs, and for what is no child of this process or was asked for before.
    """
    child = _children.get(identity.pid)
    status = None if child is None else child.poll()
    if status is not None:
        del _children[identity.pid]
    return status


async def wait_for_exit(identity: ProcessIdentity) -> None:
    """Waits until a process has ended; also one that another command has started."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        # Checked after opening: the descriptor then is that of this very process.
        if not is_alive(identity):
            return
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def terminate(
    identity: ProcessIdentity, *, stop_signal: signal.Signals, limit_seconds: float
) -> bool:
    """Ends a process: asks it, and after a limit kills it with its group.

    Args:
        identity: The process; one that has ended is left alone.
        stop_signal: How to ask.
        limit_seconds: How long it has to follow.

    Returns:
        Whether it followed (or was gone) rather than having to be killed.
    """
    try:
        if not _send(identity, stop_signal):
            return True
        async with asyncio.timeout(limit_seconds):
            await wait_for_exit(identity)
            return True
    except TimeoutError:
        if is_alive(identity):
            os.killpg(identity.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILL_LIMIT_SECONDS):
                await wait_for_exit(identity)
        return False
    finally:
        exit_status(identity)


def _send(identity: ProcessIdentity, signal_number: signal.Signals) -> bool:
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, signal_number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
