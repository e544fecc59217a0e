"""The one mapping of errors to `google.rpc.Status`, and back."""

from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common.errors import (
    FieldViolation,
    QuotaViolation,
    RelayedError,
    ServiceError,
    StatusCode,
)

__all__ = ["STATUS_DETAILS_KEY", "error_from_call", "grpc_code", "to_status"]

STATUS_DETAILS_KEY = "grpc-status-details-bin"

_GRPC_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

# The status travels in a trailer: gRPC refuses some above 8 KiB and all above 16 KiB, the message
# is written with up to three bytes for one, the details in base64.
_MESSAGE_BYTES = 512
_VALUE_BYTES = 256
_VIOLATIONS_BYTES = 2048


def grpc_code(code: StatusCode) -> grpc.StatusCode:
    """Converts our status code to gRPC's."""
    return _GRPC_CODES[code.value]


def to_status(error: BaseException, *, domain: str, request_id: str) -> status_pb2.Status:
    """Describes an error to the caller.

    Args:
        error: What was raised. Anything but a `ServiceError` becomes INTERNAL with a fixed text,
            so that nothing of the inside gets out.
        domain: `ErrorInfo` domain, for example `rag.pannier`.
        request_id: Trace id, for the caller to report with an INTERNAL error.
    """
    if not isinstance(error, ServiceError):
        status = status_pb2.Status(
            code=code_pb2.INTERNAL,
            message=f"An internal error occurred. Report it with the request id {request_id}.",
        )
        _pack(status, error_details_pb2.ErrorInfo(reason="INTERNAL", domain=domain))
        _pack(status, error_details_pb2.RequestInfo(request_id=request_id))
        return status
    status = status_pb2.Status(
        code=error.status_code.value, message=_cut(error.message, _MESSAGE_BYTES)
    )
    metadata = {name: _cut(value, _VALUE_BYTES) for name, value in error.metadata.items()}
    _pack(
        status,
        error_details_pb2.ErrorInfo(reason=error.error_reason, domain=domain, metadata=metadata),
    )
    if error.violations:
        _pack(status, _bad_request(error))
    if error.quota_violations:
        _pack(status, _quota_failure(error))
    if error.retry_delay_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_delay_seconds * 1e9))
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def error_from_call(error: grpc.aio.AioRpcError) -> RelayedError:
    """Rebuilds what another service said.

    Args:
        error: A failed call to one of our services. Without a rich status its code and text are
            used, and the reason is empty.
    """
    code = StatusCode(error.code().value[0])
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    bad_request = error_details_pb2.BadRequest()
    quota_failure = error_details_pb2.QuotaFailure()
    retry_delay_seconds: float | None = None
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has what is called
    except ValueError:
        # gRPC itself ended the call with another code than the one in the details.
        status = None
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_delay_seconds = retry.retry_delay.ToNanoseconds() / 1e9
        detail.Unpack(bad_request)
        detail.Unpack(quota_failure)
    return RelayedError(
        error.details() or code.name,
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        retry_delay_seconds=retry_delay_seconds,
        violations=[
            FieldViolation(each.field, each.description) for each in bad_request.field_violations
        ],
        quota_violations=[
            QuotaViolation(each.subject, each.description) for each in quota_failure.violations
        ],
    )


def _bad_request(error: ServiceError) -> Any:
    details = error_details_pb2.BadRequest()
    for each in error.violations:
        details.field_violations.add(
            field=_cut(each.field, _VALUE_BYTES), description=_cut(each.description, _VALUE_BYTES)
        )
        if details.ByteSize() > _VIOLATIONS_BYTES:
            break
    return details


def _quota_failure(error: ServiceError) -> Any:
    details = error_details_pb2.QuotaFailure()
    for each in error.quota_violations:
        details.violations.add(
            subject=_cut(each.subject, _VALUE_BYTES),
            description=_cut(each.description, _VALUE_BYTES),
        )
        if details.ByteSize() > _VIOLATIONS_BYTES:
            break
    return details


def _cut(text: str, limit_bytes: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= limit_bytes:
        return text
    return data[: limit_bytes - 3].decode("utf-8", "ignore") + "…"


def _pack(
    status: status_pb2.Status,
    detail: error_details_pb2.ErrorInfo
    | error_details_pb2.RequestInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.QuotaFailure
    | error_details_pb2.RetryInfo,
) -> None:
    status.details.add().Pack(detail)
