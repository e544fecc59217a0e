"""Errors that a caller may see.

A service raises subclasses of `ServiceError`; one interceptor turns them into `google.rpc.Status`
(`services.common.status`). Whatever else is raised leaves the process as INTERNAL without its text.

    ServiceError
    +-- InvalidRequest        INVALID_ARGUMENT      INVALID_FIELD
    +-- MalformedRequest      INVALID_ARGUMENT      MALFORMED_REQUEST
    +-- MessageTooLarge       RESOURCE_EXHAUSTED    MESSAGE_TOO_LARGE
    +-- InvalidIdentity       UNAUTHENTICATED       INVALID_IDENTITY
    +-- DeadlineExceeded      DEADLINE_EXCEEDED     DEADLINE_EXCEEDED
    +-- PageTokenMismatch     INVALID_ARGUMENT      PAGE_TOKEN_MISMATCH
    +-- StreamProtocolViolation  INVALID_ARGUMENT   STREAM_PROTOCOL
    +-- PeerUnavailable       UNAVAILABLE           PEER_UNAVAILABLE
    +-- ShuttingDown          UNAVAILABLE           SHUTTING_DOWN
    +-- RelayedError          as the peer said
    +-- (those of each service, in its core/errors.py)

This module knows nothing of gRPC, so that the pure core of a service may use it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import ClassVar

__all__ = [
    "MAXIMUM_VIOLATIONS",
    "DeadlineExceeded",
    "FieldViolation",
    "InvalidIdentity",
    "InvalidRequest",
    "MalformedRequest",
    "MessageTooLarge",
    "PageTokenMismatch",
    "PeerUnavailable",
    "QuotaViolation",
    "RelayedError",
    "ServiceError",
    "ShuttingDown",
    "StatusCode",
    "StreamProtocolViolation",
]


class StatusCode(Enum):
    """The gRPC status codes that errors use, by their canonical numbers (google/rpc/code.proto)."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


# A status travels in a trailer, which clients accept up to 8 KiB of.
MAXIMUM_VIOLATIONS = 16


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that breaks a rule.

    Attributes:
        field: Path of the field, for example `messages[2].content`.
        description: The rule and what to do, a full sentence without the field's name.
    """

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A quota that is spent.

    Attributes:
        subject: Whose it is, for example `tenant:acme`.
        description: Which one it is, and how much of it, a full sentence.
    """

    subject: str
    description: str


class ServiceError(Exception):
    """A failure that is part of a service's contract.

    Args:
        message: For the developer who calls: what went wrong and what to do about it.
        metadata: Every variable part of the message, under stable keys.
        retry_delay_seconds: When the same call may succeed; None where waiting does not help.
        violations: The fields at fault.
        quota_violations: The quotas that are spent.
    """

    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[StatusCode] = StatusCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] = MappingProxyType({}),
        retry_delay_seconds: float | None = None,
        violations: Sequence[FieldViolation] = (),
        quota_violations: Sequence[QuotaViolation] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata)
        self.retry_delay_seconds = retry_delay_seconds
        self.violations = tuple(violations)
        self.quota_violations = tuple(quota_violations)

    @property
    def status_code(self) -> StatusCode:
        """The status code the call ends with."""
        return self.code

    @property
    def error_reason(self) -> str:
        """The reason given in `ErrorInfo`."""
        return self.reason


class InvalidRequest(ServiceError):
    """One or more fields of the request break a rule.

    Args:
        violations: The fields at fault, at least one; only the first `MAXIMUM_VIOLATIONS` are kept.
    """

    reason = "INVALID_FIELD"
    code = StatusCode.INVALID_ARGUMENT

    def __init__(self, *violations: FieldViolation) -> None:
        violations = violations[:MAXIMUM_VIOLATIONS]
        text = "; ".join(f"{each.field}: {each.description}" for each in violations)
        super().__init__(text, metadata={"field": violations[0].field}, violations=violations)


class MalformedRequest(ServiceError):
    """The bytes received are no valid message of the method's request type."""

    reason = "MALFORMED_REQUEST"
    code = StatusCode.INVALID_ARGUMENT

    def __init__(self, method: str) -> None:
        super().__init__(
            f"The request is no valid message for {method}. Generate stubs from the protos.",
            metadata={"method": method},
        )


class MessageTooLarge(ServiceError):
    """A request message is larger than the service accepts."""

    reason = "MESSAGE_TOO_LARGE"
    code = StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The request message has {size_bytes} bytes, the limit is {limit_bytes}. Split it.",
            metadata={"size_bytes": str(size_bytes), "limit_bytes": str(limit_bytes)},
        )


class InvalidIdentity(ServiceError):
    """The call's metadata names an invalid tenant or user."""

    reason = "INVALID_IDENTITY"
    code = StatusCode.UNAUTHENTICATED

    def __init__(self, header: str, rule: str) -> None:
        super().__init__(f"The metadata {header} is invalid: {rule}", metadata={"header": header})


class DeadlineExceeded(ServiceError):
    """A call whose caller set no deadline took longer than the default one.

    Where the caller has set one, gRPC ends the call by itself.

    Args:
        deadline_seconds: The default.
    """

    reason = "DEADLINE_EXCEEDED"
    code = StatusCode.DEADLINE_EXCEEDED

    def __init__(self, deadline_seconds: float) -> None:
        super().__init__(
            f"The call took longer than {deadline_seconds:g} s. It had no deadline, so the "
            "service's default applied. Set a deadline.",
            metadata={"deadline_source": "default", "deadline_seconds": f"{deadline_seconds:g}"},
        )


class PageTokenMismatch(ServiceError):
    """A page token was not issued for this request."""

    reason = "PAGE_TOKEN_MISMATCH"
    code = StatusCode.INVALID_ARGUMENT

    def __init__(self) -> None:
        super().__init__(
            "The page token was not issued for this request. Repeat the request without a token.",
            violations=[FieldViolation("page_token", "Must come from the page before.")],
        )


class StreamProtocolViolation(ServiceError):
    """The messages of a client stream came in an order that the method does not allow.

    Args:
        expected: What had to come.
        actual: What came.
    """

    reason = "STREAM_PROTOCOL"
    code = StatusCode.INVALID_ARGUMENT

    def __init__(self, *, expected: str, actual: str) -> None:
        super().__init__(
            f"The stream must continue with {expected}, but {actual} came.",
            metadata={"expected": expected, "actual": actual},
        )


class PeerUnavailable(ServiceError):
    """Another service of the suite cannot be reached.

    Args:
        peer: Name of the service.
        detail: What is known about the cause.
    """

    reason = "PEER_UNAVAILABLE"
    code = StatusCode.UNAVAILABLE

    def __init__(self, peer: str, detail: str) -> None:
        super().__init__(
            f"The service {peer} cannot be reached: {detail}",
            metadata={"peer": peer},
            retry_delay_seconds=1.0,
        )


class ShuttingDown(ServiceError):
    """The process takes no new calls."""

    reason = "SHUTTING_DOWN"
    code = StatusCode.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__(
            "The service is shutting down. Try again; another replica will answer.",
            retry_delay_seconds=1.0,
        )


class RelayedError(ServiceError):
    """What another service of the suite said, passed on to our caller.

    Args:
        message: The peer's message.
        code: The peer's status code.
        reason: The peer's reason.
        metadata: The peer's metadata.
        retry_delay_seconds: The peer's retry delay.
        violations: The peer's violations.
        quota_violations: Those of the peer's quotas.
    """

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode,
        reason: str,
        metadata: Mapping[str, str] = MappingProxyType({}),
        retry_delay_seconds: float | None = None,
        violations: Sequence[FieldViolation] = (),
        quota_violations: Sequence[QuotaViolation] = (),
    ) -> None:
        super().__init__(
            message,
            metadata=metadata,
            retry_delay_seconds=retry_delay_seconds,
            violations=violations,
            quota_violations=quota_violations,
        )
        self._code = code
        self._reason = reason

    @property
    def status_code(self) -> StatusCode:
        """The peer's status code."""
        return self._code

    @property
    def error_reason(self) -> str:
        """The peer's reason."""
        return self._reason
