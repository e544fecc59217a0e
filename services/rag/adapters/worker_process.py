"""What runs in a worker process: reads jobs, does them, writes results.

Frames on the standard streams are a length of eight bytes and a pickle. The parent alone writes
jobs; when its end of the pipe closes, for whatever reason, the process ends.
"""

import io
import os
import pickle
import resource
import signal
import struct
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, NamedTuple

from services.common.errors import ServiceError

__all__ = ["LENGTH", "Failed", "OutOfMemory", "Returned", "main", "rebuild_error"]

LENGTH = struct.Struct(">Q")
# A process that still holds this share of its memory after a job is not used again.
_WORN_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Returned:
    """What a job returned.

    Attributes:
        value: The result.
        is_worn: Whether the process should be replaced.
    """

    value: Any
    is_worn: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """What a job raised.

    Attributes:
        kind: Class of the error where it is part of the contract; None for a fault of the service.
        arguments: The error's arguments.
        state: The error's attributes.
        trace: For the log.
    """

    kind: type[ServiceError] | None
    arguments: tuple[object, ...]
    state: dict[str, object]
    trace: str


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """A job needed more memory than it may have."""


class _Memory(NamedTuple):
    virtual: int
    resident: int


def rebuild_error(failed: Failed) -> Exception:
    """Returns the error of a job, to be raised in the parent."""
    if failed.kind is None:
        return RuntimeError(f"a worker process failed:\n{failed.trace}")
    # Constructors take what an error is about, not what the error consists of.
    error = failed.kind.__new__(failed.kind)
    error.args = failed.arguments
    for name, value in failed.state.items():
        setattr(error, name, value)
    return error


def main(memory_limit_bytes: int, cpu_limit_seconds: int) -> None:
    """Works until the parent closes the standard input.

    Args:
        memory_limit_bytes: Address space that a job may take beyond what the process has.
        cpu_limit_seconds: Processor time of one job, after which the system ends the process; a
            backstop for a parent that is gone.
    """
    # The parent decides when to end; Ctrl-C in a terminal reaches it as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs, results = _take_streams()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    queue: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, queue), daemon=True).start()
    is_limited = False
    while True:
        job = pickle.loads(queue.get())  # noqa: S301 -- from the parent
        if not is_limited:
            # After the first job's modules are loaded.
            _limit_memory(memory_limit_bytes)
            is_limited = True
        _limit_processor_time(cpu_limit_seconds)
        _send(results, _do(job, memory_limit_bytes))
        del job


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Returns the pipes from and to the parent; nothing else may read or write them."""
    jobs = os.fdopen(os.dup(0), "rb")
    results = os.fdopen(os.dup(1), "wb")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return jobs, results


def _receive(jobs: BinaryIO, queue: "SimpleQueue[bytes]") -> None:
    """Passes jobs on, and ends the process when the parent is gone or has closed the pipe."""
    while len(head := jobs.read(LENGTH.size)) == LENGTH.size:
        (size,) = LENGTH.unpack(head)
        body = jobs.read(size)
        if len(body) < size:
            break
        queue.put(body)
        del body
    os._exit(0)


def _do(
    job: tuple[Callable[..., object], tuple[object, ...]], memory_limit_bytes: int
) -> memoryview:
    function, arguments = job
    try:
        value = function(*arguments)
        worn = _memory_bytes().resident > _WORN_RATIO * memory_limit_bytes
        return _dump(Returned(value, worn))
    except MemoryError:
        return _dump(OutOfMemory())
    except ServiceError as error:
        return _dump(Failed(type(error), error.args, vars(error), ""))
    except Exception:  # noqa: BLE001 -- the parent raises and logs it
        return _dump(Failed(None, (), {}, traceback.format_exc()))


def _dump(result: Returned | Failed | OutOfMemory) -> memoryview:
    buffer = io.BytesIO()
    pickle.dump(result, buffer, protocol=pickle.HIGHEST_PROTOCOL)
    return buffer.getbuffer()


def _send(results: BinaryIO, body: memoryview) -> None:
    try:
        results.write(LENGTH.pack(len(body)))
        results.write(body)
        results.flush()
    except BrokenPipeError:
        os._exit(0)


def _limit_memory(memory_limit_bytes: int) -> None:
    limit = _memory_bytes().virtual + memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _limit_processor_time(cpu_limit_seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + cpu_limit_seconds
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _memory_bytes() -> _Memory:
    virtual, resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[:2]
    page_bytes = resource.getpagesize()
    return _Memory(int(virtual) * page_bytes, int(resident) * page_bytes)
