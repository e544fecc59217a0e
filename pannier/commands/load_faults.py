"""Carries out the faults of a scenario, and undoes them whatever happens.

Stand-ins are told over HTTP, with rules that end by themselves should nobody be left to take them
back. Processes of the local stack are stopped and continued by signals. Nothing here needs an event
loop, so that it can still be undone when there is none any more.
"""

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.local.processes import is_alive
from deploy.local.state import ProcessRecord
from pannier.load.faults import STUTTER, Fault, standin_rules

__all__ = ["FaultSession", "NotAStandin", "is_stopped", "resume", "rule_count", "undo_all"]

_REQUEST_SECONDS = 3.0
# Rules outlive their phase by this, should the phase end late.
_MARGIN_SECONDS = 30.0
# Nothing can reopen a closed listener before its time, so it is closed for a little while again
# and again.
_REFUSAL_SECONDS = 5.0
_PAUSE_SECONDS = 0.05


class NotAStandin(Exception):
    """A backend that cannot be told to fail.

    Args:
        backend: Its host and port.
        cause: What came of telling it.
    """

    def __init__(self, backend: str, cause: str) -> None:
        super().__init__(f"{backend} is no stand-in that takes orders: {cause}")


@dataclass(slots=True)
class _Stutter:
    """A process that stops for moments.

    Attributes:
        fault: How often and for how long.
        changes_at: When it stops or goes on next, monotonic seconds.
        stopped: Whether it stands still now.
    """

    fault: Fault
    changes_at: float
    stopped: bool = False


@dataclass(slots=True)
class FaultSession:
    """Faults that are in force; a context manager that undoes them at its end.

    Attributes:
        standins: Backends that take orders, host and port, by name.
        processes: Processes of the local stack by name.
        problems: What could not be undone.
    """

    standins: Sequence[str]
    processes: Mapping[str, ProcessRecord]
    problems: list[str] = field(default_factory=list)
    _told: set[str] = field(default_factory=set)
    _paused: set[str] = field(default_factory=set)
    _stutters: list[_Stutter] = field(default_factory=list)
    _refusing: list[Fault] = field(default_factory=list)
    _refusals_end: float = 0.0
    # Orders are given from a thread, which may still be at it when everything is taken back.
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: bool = False

    def __enter__(self) -> Self:
        """Begins without any fault."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Undoes what is still in force."""
        self.close()

    @property
    def is_active(self) -> bool:
        """Whether anything is in force."""
        return bool(self._told or self._paused or self._stutters or self._refusing)

    def apply(self, faults: Sequence[Fault], *, for_seconds: float) -> None:
        """Puts faults in force.

        Args:
            faults: What is to go wrong.
            for_seconds: How long they are wanted.

        Raises:
            NotAStandin: A backend does not take the order.
            ProcessLookupError: A process is not there.
        """
        with self._lock:
            for fault in faults:
                if self._closed:
                    return
                if fault.kind == STUTTER:
                    self._look_up(fault.process)
                    self._stutters.append(_Stutter(fault, time.monotonic()))
                elif fault.process:
                    self._pause(fault.process)
                elif fault.kind == "refuse":
                    self._refusing.append(fault)
                else:
                    self._order(fault, for_seconds + _MARGIN_SECONDS)
            self._refuse()

    def renew(self) -> None:
        """Does again what ends by itself, and what comes and goes; to be called often.

        Raises:
            NotAStandin: A backend does not take the order any more.
            ProcessLookupError: A process has ended.
        """
        with self._lock:
            if self._closed:
                return
            if time.monotonic() >= self._refusals_end:
                self._refuse()
            for each in self._stutters:
                if time.monotonic() >= each.changes_at:
                    self._turn(each)

    def undo(self) -> None:
        """Takes everything back; what cannot be is a problem, and the rest is done all the same."""
        with self._lock:
            self._undo()

    def close(self) -> None:
        """Takes everything back, and does nothing from then on."""
        self._closed = True
        self.undo()

    def _refuse(self) -> None:
        if not self._refusing:
            return
        for fault in self._refusing:
            # The listener may be a moment late to reopen.
            self._order(fault, _REFUSAL_SECONDS, patience_seconds=1.0)
        self._refusals_end = time.monotonic() + _REFUSAL_SECONDS

    def _turn(self, stutter: _Stutter) -> None:
        """Stops a process that runs, and continues one that stands still."""
        options, name = stutter.fault.options, stutter.fault.process
        if stutter.stopped:
            _signal(self.processes[name], signal.SIGCONT)
            self._paused.discard(name)
            stutter.changes_at = time.monotonic() + options["every"] - options["seconds"]
        else:
            self._pause(name)
            stutter.changes_at = time.monotonic() + options["seconds"]
        stutter.stopped = not stutter.stopped

    def _undo(self) -> None:
        self._stutters = []
        refused_until = self._refusals_end + 1.0 if self._refusing else 0.0
        self._refusing = []
        for name in tuple(self._paused):
            try:
                _signal(self.processes[name], signal.SIGCONT)
                self._paused.discard(name)
            except OSError as error:
                self.problems.append(f"{name} could not be continued: {error}")
        for address in tuple(self._told):
            try:
                _clear(address, until=refused_until)
                self._told.discard(address)
            except NotAStandin as error:
                self.problems.append(str(error))

    def _look_up(self, name: str) -> ProcessRecord:
        record = self.processes.get(name)
        if record is None or not is_alive(record.identity):
            raise ProcessLookupError(f"there is no process {name} in the local stack")
        return record

    def _pause(self, name: str) -> None:
        record = self._look_up(name)
        # Noted first: what is noted is undone, even if this is the last that we do.
        self._paused.add(name)
        _signal(record, signal.SIGSTOP)

    def _order(self, fault: Fault, for_seconds: float, *, patience_seconds: float = 0.0) -> None:
        for address in self.standins[: fault.backends]:
            self._told.add(address)
            for rule in standin_rules(fault, for_seconds=for_seconds):
                until = time.monotonic() + patience_seconds
                _call_until(address, "POST", rule, until=until)


def rule_count(address: str) -> int:
    """Returns how many faults a stand-in has been ordered.

    Raises:
        NotAStandin: It is none, or does not answer.
    """
    text = _call(address, "GET")
    try:
        return len(json.loads(text)["rules"])
    except (ValueError, TypeError, LookupError) as error:
        raise NotAStandin(address, "it answers something else") from error


def is_stopped(record: ProcessRecord) -> bool:
    """Whether a process stands still."""
    try:
        text = Path(f"/proc/{record.identity.pid}/stat").read_text()
    except OSError:
        return False
    # The name, in parentheses, may hold anything.
    return text.rpartition(")")[2].split()[0] == "T"


def resume(records: Sequence[ProcessRecord]) -> int:
    """Continues processes, those that were not stopped too; returns how many run."""
    count = 0
    for record in records:
        # One that has ended stands still no more.
        with suppress(ProcessLookupError):
            _signal(record, signal.SIGCONT)
            count += 1
    return count


def undo_all(standins: Sequence[str]) -> list[str]:
    """Removes all fault rules of stand-ins, whoever ordered them; returns what did not work."""
    problems = []
    for address in standins:
        try:
            _clear(address, until=time.monotonic() + _REFUSAL_SECONDS)
        except NotAStandin as error:
            problems.append(str(error))
    return problems


def _clear(address: str, *, until: float) -> None:
    """Removes all fault rules of a stand-in, which may refuse connections for some time yet."""
    _call_until(address, "DELETE", None, until=until)


def _call_until(address: str, method: str, body: Mapping[str, Any] | None, *, until: float) -> None:
    """Calls a stand-in, again and again until a time where it does not answer."""
    while True:
        try:
            _call(address, method, body)
        except NotAStandin:
            if time.monotonic() >= until:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _call(address: str, method: str, body: Mapping[str, Any] | None = None) -> str:
    """Calls a stand-in and returns its answer."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise NotAStandin(address, "write its address as HOST:PORT")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_REQUEST_SECONDS)
    try:
        connection.request(
            method,
            "/standin/faults",
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise NotAStandin(address, str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise NotAStandin(address, f"it answers {response.status} {text.strip()[:200]}")
    return text


def _signal(record: ProcessRecord, number: signal.Signals) -> None:
    """Sends a signal to this very process, not to another that has got its id, and to its children.

    PostgreSQL works in children, which would go on without their parent.
    """
    descriptor = os.pidfd_open(record.identity.pid)
    try:
        if not is_alive(record.identity):
            raise ProcessLookupError(f"{record.name} has ended")
        signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)
    for pid in _descendants(record.identity.pid):
        # One that has ended meanwhile needs no signal.
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    """Returns the ids of the children of a process, of their children, and so on."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                # The name, in parentheses, may hold anything.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, pending = [], [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found
