"""How an attempt at a backend fails, and what follows from it."""

import re
from enum import Enum

__all__ = ["AttemptFailed", "FailureKind", "failure_of_status"]

_MAXIMUM_MESSAGE_LENGTH = 500
# Faults of the request that Ollama reports as its own (status 500).
_CALLERS_FAULT = re.compile(r'invalid format|option "[^"]*" must be of type')
_RETRYABLE_STATUSES_BELOW_500 = frozenset({408, 425, 429, 499})


class FailureKind(Enum):
    """Kinds of failure; the values serve as labels of metrics and spans."""

    CONNECTION = "connection"
    """Not connected, or cut off before the first byte of a reply."""
    TIMEOUT = "timeout"
    """No first token in time."""
    STALLED = "stalled"
    """No further token in time."""
    BUSY = "busy"
    """The backend's own queue is full."""
    SERVER_ERROR = "server_error"
    """The backend says that it failed."""
    BROKEN_REPLY = "broken_reply"
    """The reply is cut short, or is not what it should be."""
    MODEL_ABSENT = "model_absent"
    """The backend does not have the model."""
    REJECTED = "rejected"
    """The request itself is at fault."""

    @property
    def retryable(self) -> bool:
        """Whether another backend may do better."""
        return self is not FailureKind.REJECTED


class AttemptFailed(Exception):
    """A backend did not do what it was asked.

    Args:
        kind: What kind of failure it is.
        message: What happened, or what the backend said.
        status_code: HTTP status of the reply; None where there was none.
        quotes: Whether the message holds words of the backend, which may be the caller's again.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        status_code: int | None = None,
        quotes: bool = False,
    ) -> None:
        super().__init__(message[:_MAXIMUM_MESSAGE_LENGTH])
        self.kind = kind
        self.message = message[:_MAXIMUM_MESSAGE_LENGTH]
        self.status_code = status_code
        self._quotes = quotes

    @property
    def summary(self) -> str:
        """What happened, for others than the caller: nothing of what the backend says."""
        if not self._quotes:
            return self.message
        status = "" if self.status_code is None else f" (HTTP status {self.status_code})"
        return f"{self.kind.value}{status}"


def failure_of_status(status_code: int, message: str) -> AttemptFailed:
    """Classifies a reply that is no success.

    Args:
        status_code: HTTP status, other than 200.
        message: The error text of the reply.
    """
    return AttemptFailed(
        _kind_of_status(status_code, message),
        message or f"HTTP status {status_code}",
        status_code=status_code,
        quotes=bool(message),
    )


def _kind_of_status(status_code: int, message: str) -> FailureKind:
    if status_code == 404:
        return FailureKind.MODEL_ABSENT
    if status_code in (429, 503):
        return FailureKind.BUSY
    # 501 is how a server says that the model cannot do this at all.
    if status_code == 501 or _CALLERS_FAULT.search(message):
        return FailureKind.REJECTED
    if 400 <= status_code < 500 and status_code not in _RETRYABLE_STATUSES_BELOW_500:
        return FailureKind.REJECTED
    return FailureKind.SERVER_ERROR
