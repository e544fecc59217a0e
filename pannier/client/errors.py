"""What a service says about a failed call."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

__all__ = ["FieldViolation", "QuotaViolation", "RemoteError"]


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that breaks a rule.

    Attributes:
        field: Path of the field, for example `messages[2].content`.
        description: The rule and what to do.
    """

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A quota that is spent.

    Attributes:
        subject: Whose it is, for example `tenant:acme`.
        description: Which one it is, and how much of it.
    """

    subject: str
    description: str


class RemoteError(Exception):
    """A call that failed, with everything its status says.

    Attributes:
        code: gRPC status code.
        reason: Reason from `ErrorInfo`, see `pannier.common.v1.ErrorReason`; empty where the
            failure did not come from a pannier service, for example because none was reached.
        domain: Who gave the reason, for example `rag.pannier`.
        metadata: Variable parts of the message.
        retry_delay_seconds: When the same call may succeed; None where waiting does not help.
        field_violations: Fields of the request that break a rule.
        quota_violations: Quotas that are spent.
        request_id: Trace id to report with an internal error; empty where none was given.
        message: What went wrong, for people.
    """

    def __init__(
        self,
        *,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_delay_seconds: float | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
        quota_violations: tuple[QuotaViolation, ...] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.code = code
        self.reason = reason
        self.domain = domain
        self.metadata = dict(metadata or {})
        self.retry_delay_seconds = retry_delay_seconds
        self.field_violations = field_violations
        self.quota_violations = quota_violations
        self.request_id = request_id
        self.message = message

    @classmethod
    def from_call(cls, error: grpc.aio.AioRpcError) -> "RemoteError":
        """Reads a failed call.

        Only the detail messages known here are read; others are passed over.
        """
        info = error_details_pb2.ErrorInfo()
        retry = error_details_pb2.RetryInfo()
        bad_request = error_details_pb2.BadRequest()
        quota_failure = error_details_pb2.QuotaFailure()
        request_info = error_details_pb2.RequestInfo()
        retry_delay_seconds: float | None = None
        with suppress(DecodeError):
            for detail in _status(error).details:
                for known in (info, bad_request, quota_failure, request_info):
                    detail.Unpack(known)
                if detail.Unpack(retry):
                    retry_delay_seconds = retry.retry_delay.ToNanoseconds() / 1e9
        return cls(
            code=error.code(),
            message=error.details() or error.code().name,
            reason=info.reason,
            domain=info.domain,
            metadata=dict(info.metadata),
            retry_delay_seconds=retry_delay_seconds,
            field_violations=tuple(
                FieldViolation(each.field, each.description)
                for each in bad_request.field_violations
            ),
            quota_violations=tuple(
                QuotaViolation(each.subject, each.description) for each in quota_failure.violations
            ),
            request_id=request_info.request_id,
        )


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Returns the rich status of a call; an empty one where there is none that fits."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has the three methods it calls
    except ValueError:
        # Code or message differ from those of the call: not written by the service itself.
        status = None
    return status if status is not None else status_pb2.Status()
