"""What runs, remembered between commands in `stack.json` of the state folder."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deploy.local.processes import ProcessIdentity, is_alive

__all__ = [
    "Addresses",
    "AlreadyUp",
    "FolderInUse",
    "ProcessRecord",
    "StackState",
    "StateFile",
    "home_folder",
]

_FORMAT = 1


class FolderInUse(Exception):
    """Another command is starting or stopping the stack of this folder."""


class AlreadyUp(Exception):
    """The stack runs.

    Args:
        state: Its record.
    """

    def __init__(self, state: "StackState") -> None:
        super().__init__("the stack is already up")
        self.state = state


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the parts of the stack are reached.

    Attributes:
        rag: gRPC address of rag, `host:port`.
        cache: gRPC address of cache.
        balancer: gRPC address of balancer.
        trace_url: Base address of the trace store's HTTP side.
    """

    rag: str
    cache: str
    balancer: str
    trace_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """One process of the stack.

    Attributes:
        name: Name of the component.
        identity: The process.
        address: Where it is reached; shown to people.
        grpc_address: Where its health is asked over gRPC; empty where it has none.
        log: File with its output.
        needs: Components that must be stopped after it.
        stop_signal: Number of the signal that ends it.
        stop_limit_seconds: How long it has to end.
    """

    name: str
    identity: ProcessIdentity
    address: str
    grpc_address: str
    log: str
    needs: tuple[str, ...]
    stop_signal: int = signal.SIGTERM
    stop_limit_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StackState:
    """The stack as last recorded.

    Attributes:
        addresses: Where its parts are reached.
        processes: Its processes in the order they were started.
        notes: What a user should know about it.
        ready: Whether all of it has started.
    """

    addresses: Addresses
    processes: tuple[ProcessRecord, ...] = ()
    notes: tuple[str, ...] = ()
    ready: bool = False

    def alive(self) -> tuple[ProcessRecord, ...]:
        """Returns the records of the processes that still run."""
        return tuple(each for each in self.processes if is_alive(each.identity))

    def with_process(self, record: ProcessRecord) -> "StackState":
        """Returns this state with one more process."""
        return replace(self, processes=(*self.processes, record))


def home_folder(environment: Mapping[str, str]) -> Path:
    """Returns the state folder: PANNIER_HOME, or `.pannier` in the current folder."""
    return Path(environment.get("PANNIER_HOME") or ".pannier").absolute()


@dataclass(frozen=True, slots=True)
class StateFile:
    """The record in a state folder.

    Attributes:
        home: The state folder.
    """

    home: Path
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        """Names the file."""
        object.__setattr__(self, "path", self.home / "stack.json")

    def read(self) -> StackState | None:
        """Returns the recorded stack; None where there is none, or it cannot be read."""
        try:
            return _parse(json.loads(self.path.read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, state: StackState) -> None:
        """Replaces the record in one step."""
        document = {"format": _FORMAT, **asdict(state)}
        draft = self.path.with_suffix(".new")
        draft.write_text(json.dumps(document, indent=2) + "\n")
        draft.replace(self.path)

    def remove(self) -> None:
        """Forgets the stack."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keeps other commands from starting or stopping the stack meanwhile.

        Raises:
            FolderInUse: Another command does so now.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FolderInUse(
                    f"another command is starting or stopping the stack in {self.home}"
                ) from None
            yield
        finally:
            os.close(descriptor)


def _parse(document: Any) -> StackState | None:
    if document["format"] != _FORMAT:
        return None
    return StackState(
        addresses=Addresses(**document["addresses"]),
        processes=tuple(
            ProcessRecord(
                **{
                    **each,
                    "identity": ProcessIdentity(**each["identity"]),
                    "needs": tuple(each["needs"]),
                }
            )
            for each in document["processes"]
        ),
        notes=tuple(document["notes"]),
        ready=bool(document["ready"]),
    )
