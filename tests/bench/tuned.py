"""Measures as on a host that is tuned for short answers.

Cases of short calls are measured both ways where that may be done, all others with `--tuned` only.
The first thing such hosts do is to keep processors from halting (`tuned-adm profile
latency-performance`): one that has nothing to do is halted, and waking it takes a tenth of a
millisecond and more on a virtual machine. The second is to give each process a processor
(`CPUAffinity=` of systemd, the static CPU manager of Kubernetes): the thread of gRPC that reads a
message wakes the one that runs Python, which is else put on whatever processor is idle, whose
caches know nothing of it.
"""

import argparse
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

__all__ = ["add_option", "both_ways", "on_own_processors", "tuned_host"]

# https://docs.kernel.org/power/pm_qos_interface.html
_DEVICE = Path("/dev/cpu_dma_latency")
_NO_DELAY = struct.pack("i", 0)

_processors: ContextVar[tuple[int, ...]] = ContextVar("processors", default=())
"""What there is to give away; nothing unless the host is tuned."""


def add_option(parser: argparse.ArgumentParser) -> None:
    """Lets a benchmark be asked for it."""
    parser.add_argument(
        "--tuned",
        action="store_true",
        help="keep processors from halting and give each process one, in all cases, as hosts do "
        "that are tuned for short answers; cases of short calls are else measured both ways",
    )


def both_ways() -> tuple[bool, ...]:
    """Returns what a case calls `tuned_host` with that is measured without and with it.

    Once only where the host is tuned already, or may not be.
    """
    return (False, True) if not _processors.get() and _may_tune() else (False,)


@contextmanager
def tuned_host(wanted: bool) -> Iterator[None]:
    """Keeps processors awake within the context, and lets `on_own_processors` take effect.

    Args:
        wanted: Whether that is wanted; else nothing is done.

    Raises:
        SystemExit: It may not.
    """
    if not wanted:
        yield
        return
    if not _may_tune():
        raise SystemExit(f"{_DEVICE} is not there, or may not be written to")
    device = os.open(_DEVICE, os.O_WRONLY)
    token = _processors.set(tuple(sorted(os.sched_getaffinity(0))))
    try:
        os.write(device, _NO_DELAY)
        yield
    finally:
        _processors.reset(token)
        # Holds for as long as it is open.
        os.close(device)


@contextmanager
def on_own_processors(*pids: int) -> Iterator[None]:
    """Gives processes, and this one, a processor each within the context of `tuned_host`.

    Args:
        pids: Whose time counts most first; where processors are too few, the last ones share one,
            and this process with them.
    """
    processors = _processors.get()
    with ExitStack() as stack:
        if processors:
            for place, pid in enumerate((*pids, os.getpid())):
                stack.callback(_run_on, pid, os.sched_getaffinity(pid))
                _run_on(pid, {processors[-1 - min(place, len(processors) - 1)]})
        yield


def _may_tune() -> bool:
    return os.access(_DEVICE, os.W_OK)


def _run_on(pid: int, processors: set[int]) -> None:
    """Moves all threads of a process; those that it begins later follow."""
    # It or one of its threads may have ended.
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), processors)
