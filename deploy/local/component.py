"""What the supervisor needs to know of a part of the stack."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Component", "NotReady", "Progress", "Report", "Step"]


class NotReady(Exception):
    """A component does not answer yet; says what was seen instead."""


async def _nothing() -> None:
    """Prepares nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A process of the stack.

    Attributes:
        name: Its name, also of its log.
        command: Program and arguments.
        environment: All of its environment variables.
        address: Where it is reached; shown to people.
        grpc_address: Where its health is asked over gRPC; empty where it has none.
        check: Returns once the component answers; raises NotReady or OSError while it does not.
        prepare: Done before the process is started.
        needs: Names of the components that must be ready before.
        ready_limit_seconds: How long it has until it answers.
        stop_signal: How it is asked to end.
        stop_limit_seconds: How long it has to end.
        user: System user to run as; None for the caller's.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    address: str
    grpc_address: str = ""
    check: Callable[[], Awaitable[None]]
    prepare: Callable[[], Awaitable[None]] = _nothing
    needs: tuple[str, ...] = ()
    ready_limit_seconds: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_limit_seconds: float = 30.0
    user: str | None = None


class Step(Enum):
    """What happens to a component."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    KILLED = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of one component.

    Attributes:
        name: The component.
        step: What happened.
        address: Where it is reached.
        seconds: How long the step took; 0 where it has just begun.
    """

    name: str
    step: Step
    address: str
    seconds: float = 0.0


Report = Callable[[Progress], None]
