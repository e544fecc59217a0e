"""Work on documents in processes of its own, so that no document holds up or ends the service.

Processes are started when they are first needed and used again. One that takes too long, takes too
much memory, dies, or whose caller has left is killed; the next job gets a new one.
"""

import asyncio
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from services.common.errors import ShuttingDown
from services.rag.adapters.worker_process import (
    LENGTH,
    Failed,
    OutOfMemory,
    Returned,
    rebuild_error,
)
from services.rag.core.document_errors import DocumentTooHard

__all__ = ["ProcessDocumentWorker"]

Result = TypeVar("Result")

# The processor time after which the system ends a process, over the time limit.
_CPU_LIMIT_RATIO = 2
_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from services.rag.adapters.worker_process import main; main({memory}, {seconds})"
)


class ProcessDocumentWorker:
    """Runs heavy work in at most `process_count` processes, and light work in threads.

    Args:
        process_count: Processes, and so heavy jobs at the same time; others wait.
        time_limit_seconds: Longest time of a heavy job, once it has a process.
        memory_limit_bytes: Memory that a heavy job may take.
    """

    def __init__(
        self, *, process_count: int, time_limit_seconds: float, memory_limit_bytes: int
    ) -> None:
        self._time_limit_seconds = time_limit_seconds
        self._memory_limit_bytes = memory_limit_bytes
        self._slots = asyncio.Semaphore(process_count)
        self._idle: list[Process] = []
        self._all: set[Process] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Returns the worker; processes start when they are needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the worker."""
        await self.close()

    async def run(self, function: Callable[..., Result], *arguments: object, heavy: bool) -> Result:
        """Returns what `function` returns, and raises what it raises.

        Of errors that are no `ServiceError`, heavy work raises a `RuntimeError` with the trace.

        Args:
            function: A function at the top level of a module.
            arguments: Its arguments; where the work is heavy, they are pickled, and so is the
                result.
            heavy: Whether the work needs a process of its own.

        Raises:
            DocumentTooHard: The work took too long or too much memory, or its process died of it.
            ShuttingDown: The worker is closed.
        """
        if self._closed:
            raise ShuttingDown
        if not heavy:
            return await asyncio.to_thread(function, *arguments)
        job = await asyncio.to_thread(pickle.dumps, (function, arguments), pickle.HIGHEST_PROTOCOL)
        async with self._slots:
            result: Result = await self._run_in_process(job)
        return result

    async def close(self) -> None:
        """Ends all processes and waits until they are gone; jobs that run fail."""
        self._closed = True
        for process in list(self._all):
            await self._end(process)

    async def _run_in_process(self, job: bytes) -> Any:
        process = self._idle_process() or await self._start()
        is_reusable = False
        try:
            async with asyncio.timeout(self._time_limit_seconds):
                answer = await _exchange(process, job)
            is_reusable = isinstance(answer, Failed) or (
                isinstance(answer, Returned) and not answer.is_worn
            )
        except TimeoutError:
            raise DocumentTooHard("time_seconds", f"{self._time_limit_seconds:g}") from None
        except (EOFError, OSError):
            if self._closed:
                raise ShuttingDown from None
            raise DocumentTooHard("process") from None
        finally:
            if is_reusable and not self._closed:
                self._idle.append(process)
            else:
                await self._end(process)
        if isinstance(answer, OutOfMemory):
            raise DocumentTooHard("memory_bytes", str(self._memory_limit_bytes))
        if isinstance(answer, Failed):
            raise rebuild_error(answer)
        return answer.value

    def _idle_process(self) -> Process | None:
        while self._idle:
            process = self._idle.pop()
            is_open = process.stdout is not None and not process.stdout.at_eof()
            takes = process.stdin is not None and not process.stdin.is_closing()
            if process.returncode is None and is_open and takes:
                return process
            # It died, by a hand that is not ours.
            self._all.discard(process)
        return None

    async def _start(self) -> Process:
        program = _PROGRAM.format(
            path=sys.path,
            memory=self._memory_limit_bytes,
            seconds=int(_CPU_LIMIT_RATIO * self._time_limit_seconds) + 1,
        )
        # In a session of its own, so that Ctrl-C in a terminal reaches this process only.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdin=PIPE, stdout=PIPE, start_new_session=True
        )
        self._all.add(process)
        if self._closed:
            await self._end(process)
            raise ShuttingDown
        return process

    async def _end(self, process: Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        # Shielded, so that no process is left behind by a caller that leaves twice.
        await asyncio.shield(self._reap(process))

    async def _reap(self, process: Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
        self._all.discard(process)


async def _exchange(process: Process, job: bytes) -> Returned | Failed | OutOfMemory:
    """Sends a job and returns the answer.

    Raises:
        EOFError: The process ended.
        OSError: The process ended.
    """
    stdin, stdout = process.stdin, process.stdout
    # uvloop says of a pipe that is closed what is no OSError.
    if stdin is None or stdout is None or stdin.is_closing():
        raise EOFError
    stdin.write(LENGTH.pack(len(job)))
    stdin.write(job)
    await stdin.drain()
    (size,) = LENGTH.unpack(await stdout.readexactly(LENGTH.size))
    body = await stdout.readexactly(size)
    answer: Returned | Failed | OutOfMemory = await asyncio.to_thread(pickle.loads, body)
    return answer
