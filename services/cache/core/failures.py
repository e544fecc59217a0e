"""How long a failed computation is remembered, so that those who ask next are told at once.

What may go better the next time is only remembered where it happens often: three failures within
30 s hold the value for impossible for 10 s, which protects whoever computes it.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "COUNTED_LIMIT",
    "COUNTED_SECONDS",
    "MAXIMUM_MESSAGE_LENGTH",
    "PROTECTION_SECONDS",
    "Failure",
    "FailureKind",
    "Failures",
    "KnownFailure",
    "remembered_seconds",
]

MAXIMUM_MESSAGE_LENGTH = 500
COUNTED_LIMIT = 3
COUNTED_SECONDS = 30.0
PROTECTION_SECONDS = 10.0

_MAXIMUM_ENTRIES = 4096


class FailureKind(Enum):
    """Kinds of failures, by the letter that marks them in the store."""

    UNSPECIFIED = "u"
    TRANSIENT = "t"
    MODEL_NOT_FOUND = "m"
    REJECTED = "r"


_REMEMBERED_SECONDS = {FailureKind.MODEL_NOT_FOUND: 30.0, FailureKind.REJECTED: 300.0}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a computation came to nothing.

    Attributes:
        kind: What kind of failure it was.
        message: What to tell those who ask next.
    """

    kind: FailureKind = FailureKind.UNSPECIFIED
    message: str = ""


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """A failure that is still remembered.

    Attributes:
        failure: The failure.
        remaining_seconds: For how long.
    """

    failure: Failure
    remaining_seconds: float


def remembered_seconds(kind: FailureKind) -> float:
    """Returns how long one failure of a kind is remembered; 0 where it is only counted."""
    return _REMEMBERED_SECONDS.get(kind, 0.0)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one value: when it failed of late, or what stands in for it until when."""

    failed_at: tuple[float, ...] = ()
    failure: Failure | None = None
    until: float = 0.0


class Failures:
    """The failures of this process, for while the store is away; bounded."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def note(self, key: bytes, failure: Failure, now: float) -> float:
        """Learns of a failure.

        Args:
            key: What was to be computed.
            failure: Why it came to nothing.
            now: Seconds on the monotonic clock.

        Returns:
            How long it is remembered from now, seconds; 0 where it is only counted.
        """
        seconds = remembered_seconds(failure.kind)
        recent: tuple[float, ...] = ()
        if not seconds:
            before = self._entries.get(key, _Entry()).failed_at
            recent = (*(each for each in before if each > now - COUNTED_SECONDS), now)
            if len(recent) >= COUNTED_LIMIT:
                seconds, recent = PROTECTION_SECONDS, ()
        self._entries[key] = (
            _Entry(failure=failure, until=now + seconds) if seconds else _Entry(failed_at=recent)
        )
        self._entries.move_to_end(key)
        if len(self._entries) > _MAXIMUM_ENTRIES:
            self._entries.popitem(last=False)
        return seconds

    def known(self, key: bytes, now: float) -> KnownFailure | None:
        """Returns the failure that stands in for a value, if it is still remembered."""
        entry = self._entries.get(key)
        if entry is None or entry.failure is None:
            return None
        if entry.until <= now:
            del self._entries[key]
            return None
        return KnownFailure(entry.failure, entry.until - now)

    def forget(self, key: bytes) -> None:
        """Learns that a value could be computed after all."""
        self._entries.pop(key, None)
