"""Starts components in the order they need each other, and stops them the other way round."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from signal import Signals

from deploy.local.component import Component, NotReady, Progress, Report, Step
from deploy.local.processes import (
    ProcessIdentity,
    exit_status,
    spawn,
    terminate,
    wait_for_exit,
)
from deploy.local.state import ProcessRecord, StackState, StateFile

__all__ = ["StartFailed", "Supervisor", "last_lines"]

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.25
_LOG_TAIL_LINES = 15
_LOG_TAIL_BYTES = 16 * 1024


class StartFailed(Exception):
    """A component did not start.

    Args:
        name: The component.
        cause: What happened.
        log: File with its output.
    """

    def __init__(self, name: str, cause: str, log: Path) -> None:
        tail = last_lines(log)
        shown = f"the end of {log}:\n{tail}" if tail else f"it has written nothing to {log}"
        super().__init__(f"{name} {cause}; {shown}")
        self.name = name
        self.cause = cause


def last_lines(log: Path) -> str:
    """Returns the last lines of a log, indented; empty where there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-_LOG_TAIL_LINES:])


class Supervisor:
    """Runs the stack of one state folder.

    Args:
        state_file: Where the stack is recorded.
        state: What is known of it so far; from `StateFile.read` to stop what another command
            has started.
    """

    def __init__(self, state_file: StateFile, state: StackState) -> None:
        self._file = state_file
        self._state = state

    @property
    def state(self) -> StackState:
        """The stack as it is recorded now."""
        return self._state

    async def start(self, components: Sequence[Component], report: Report) -> None:
        """Starts components, independent ones at the same time.

        What was started before a failure keeps running; call `stop`.

        Args:
            components: What to start; what they need is among them, or not ours to start.
            report: Receives every step.

        Raises:
            StartFailed: A component ended, or did not answer in time.
        """
        (self._file.home / "log").mkdir(parents=True, exist_ok=True)
        ready = {each.name: asyncio.Event() for each in components}
        try:
            async with asyncio.TaskGroup() as tasks:
                for component in components:
                    tasks.create_task(self._start(component, ready, report))
        except BaseExceptionGroup as group:
            # The others were cancelled because of the first.
            raise group.exceptions[0] from None
        self._state = replace(self._state, ready=True)
        self._file.write(self._state)

    async def _start(
        self, component: Component, ready: dict[str, asyncio.Event], report: Report
    ) -> None:
        for name in component.needs:
            if name in ready:
                await ready[name].wait()
        _tell(report, component, Step.STARTING)
        started = time.monotonic()
        log = self._file.home / "log" / f"{component.name}.log"
        log.write_bytes(b"")
        try:
            await component.prepare()
            identity = spawn(
                component.command,
                environment=component.environment,
                directory=self._file.home,
                log=log,
                user=component.user,
            )
        except OSError as error:
            raise StartFailed(component.name, f"could not be started: {error}", log) from error
        self._record(component, identity, log)
        await _until_ready(component, identity, log)
        _tell(report, component, Step.READY, time.monotonic() - started)
        ready[component.name].set()

    def _record(self, component: Component, identity: ProcessIdentity, log: Path) -> None:
        record = ProcessRecord(
            name=component.name,
            identity=identity,
            address=component.address,
            grpc_address=component.grpc_address,
            log=str(log),
            needs=component.needs,
            stop_signal=component.stop_signal,
            stop_limit_seconds=component.stop_limit_seconds,
        )
        self._state = self._state.with_process(record)
        self._file.write(self._state)

    async def wait_for_end(self) -> ProcessRecord:
        """Waits until any process of the stack ends, and returns its record."""
        watches = {
            asyncio.create_task(wait_for_exit(each.identity)): each
            for each in self._state.processes
        }
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            return watches[done.pop()]
        finally:
            for watch in watches:
                watch.cancel()

    async def stop(self, report: Report) -> None:
        """Stops all processes, those that need others first, and forgets the stack.

        Args:
            report: Receives every step.
        """
        left = list(self._state.processes)
        while left:
            needed = {name for each in left for name in each.needs}
            now = [each for each in left if each.name not in needed] or left
            async with asyncio.TaskGroup() as tasks:
                for record in now:
                    tasks.create_task(self._stop(record, report))
            left = [each for each in left if each not in now]
        self._state = replace(self._state, processes=(), ready=False)
        self._file.remove()

    async def _stop(self, record: ProcessRecord, report: Report) -> None:
        report(Progress(name=record.name, step=Step.STOPPING, address=record.address))
        started = time.monotonic()
        followed = await terminate(
            record.identity,
            stop_signal=Signals(record.stop_signal),
            limit_seconds=record.stop_limit_seconds,
        )
        report(
            Progress(
                name=record.name,
                step=Step.STOPPED if followed else Step.KILLED,
                address=record.address,
                seconds=time.monotonic() - started,
            )
        )


def _tell(report: Report, component: Component, step: Step, seconds: float = 0.0) -> None:
    report(Progress(name=component.name, step=step, address=component.address, seconds=seconds))


async def _until_ready(component: Component, identity: ProcessIdentity, log: Path) -> None:
    seen = "nothing yet"
    pause = _FIRST_PAUSE_SECONDS
    try:
        async with asyncio.timeout(component.ready_limit_seconds):
            while (problem := await _problem(component)) is not None:
                _raise_if_ended(component, identity, log)
                seen = problem
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            # Something else may have answered in its place.
            _raise_if_ended(component, identity, log)
    except TimeoutError:
        raise StartFailed(
            component.name, f"was not ready after {component.ready_limit_seconds:g} s ({seen})", log
        ) from None


def _raise_if_ended(component: Component, identity: ProcessIdentity, log: Path) -> None:
    status = exit_status(identity)
    if status is not None:
        raise StartFailed(component.name, _ending(status), log)


async def _problem(component: Component) -> str | None:
    """Returns why a component does not answer; None where it does."""
    try:
        await component.check()
    except (NotReady, OSError) as error:
        return str(error) or type(error).__name__
    return None


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {Signals(-status).name}"
    return f"ended with status {status}"
