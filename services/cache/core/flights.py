"""What comes of waiting in line for an answer."""

from dataclasses import dataclass

from services.cache.core.failures import Failure, KnownFailure
from services.cache.core.leases import Lease
from services.cache.core.model import Hit

__all__ = ["Found", "Granted", "Interrupted", "Missed", "Outcome", "Refused", "WaitEnded"]


@dataclass(frozen=True, slots=True)
class Found:
    """There is an answer.

    Attributes:
        hit: The answer.
        coalesced: Whether it was computed while the caller waited.
    """

    hit: Hit
    coalesced: bool


@dataclass(frozen=True, slots=True)
class Granted:
    """The caller is the one to compute the answer.

    Attributes:
        lease: Its right to.
    """

    lease: Lease


@dataclass(frozen=True, slots=True)
class Refused:
    """There will be no answer for now.

    Attributes:
        known: Why not.
    """

    known: KnownFailure


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The one whose text the caller has followed has failed.

    Attributes:
        failure: Why.
    """

    failure: Failure


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """The caller has waited in vain."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Nothing could be found out in time."""


Outcome = Found | Granted | Refused | Interrupted | WaitEnded | Missed
