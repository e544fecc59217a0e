"""How things end; the values serve as labels of metrics."""

from enum import Enum

__all__ = [
    "AttemptOutcome",
    "HedgeOutcome",
    "LoadCause",
    "RequestOutcome",
    "TrialOutcome",
]


class RequestOutcome(Enum):
    """What becomes of a request; each has one of these."""

    SUCCESS = "success"
    ERROR = "error"
    """The balancer or the fleet has failed."""
    CANCELLED = "cancelled"
    """Its caller has left."""
    DEADLINE = "deadline"
    """Its time was up, or would have been."""
    REFUSED = "refused"
    """There was no room for it."""
    REJECTED = "rejected"
    """It is at fault itself."""


class AttemptOutcome(Enum):
    """What becomes of an attempt at a backend."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    """The backend was silent for too long, or longer than the caller could wait."""
    CANCELLED = "cancelled"
    """The caller has left or does not read, or another backend was quicker."""
    REJECTED = "rejected"
    """The request is at fault."""


class TrialOutcome(Enum):
    """What a check or a canary finds."""

    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"


class HedgeOutcome(Enum):
    """What becomes of asking a second backend."""

    WON = "won"
    """The second one answered first."""
    LOST = "lost"
    """The first one did, or the second one failed."""
    UNSPENT = "unspent"
    """The first one was late, but there was no free slot or no budget for a second one."""


class LoadCause(Enum):
    """Why the balancer loads a model."""

    DEMAND = "demand"
    """A request waits for it."""
    PIN = "pin"
    """It is to be kept in memory."""
    OPERATOR = "operator"
    CURE = "cure"
    """It had lost a slot."""
