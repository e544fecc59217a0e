"""What a client learns of a failed call."""

from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from pannier.client import FieldViolation, QuotaViolation, RemoteError

KEY = "grpc-status-details-bin"
CODE = grpc.StatusCode.UNAVAILABLE


def failed_call(
    *details: Any, message: str = "away", status_message: str = "away", raw: bytes | None = None
) -> grpc.aio.AioRpcError:
    status = status_pb2.Status(code=CODE.value[0], message=status_message)
    for detail in details:
        if isinstance(detail, AnyMessage):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    data = status.SerializeToString() if raw is None else raw
    return grpc.aio.AioRpcError(CODE, grpc.aio.Metadata(), grpc.aio.Metadata((KEY, data)), message)


def test_everything_a_rich_status_says_is_read():
    error = RemoteError.from_call(
        failed_call(
            error_details_pb2.ErrorInfo(
                reason="STORE_UNAVAILABLE", domain="rag.pannier", metadata={"store": "postgresql"}
            ),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field="query", description="Must not be empty."
                    )
                ]
            ),
            error_details_pb2.QuotaFailure(
                violations=[
                    error_details_pb2.QuotaFailure.Violation(
                        subject="tenant:acme", description="All is spent."
                    )
                ]
            ),
            error_details_pb2.RequestInfo(request_id="abc"),
        )
    )
    assert error.code is CODE
    assert (error.reason, error.domain) == ("STORE_UNAVAILABLE", "rag.pannier")
    assert error.metadata == {"store": "postgresql"}
    assert error.retry_delay_seconds == 1.5
    assert error.field_violations == (FieldViolation("query", "Must not be empty."),)
    assert error.quota_violations == (QuotaViolation("tenant:acme", "All is spent."),)
    assert (error.request_id, error.message) == ("abc", "away")
    assert str(error) == "STORE_UNAVAILABLE: away"


def test_a_failure_without_rich_status_has_code_and_message():
    plain = grpc.aio.AioRpcError(CODE, grpc.aio.Metadata(), grpc.aio.Metadata(), "refused")
    error = RemoteError.from_call(plain)
    assert (error.code, error.reason, error.message) == (CODE, "", "refused")
    assert error.retry_delay_seconds is None


def test_a_detail_of_unknown_type_is_passed_over():
    unknown = AnyMessage(type_url="type.googleapis.com/evil.Type", value=b"\xff\xff")
    info = error_details_pb2.ErrorInfo(reason="SHUTTING_DOWN")
    assert RemoteError.from_call(failed_call(unknown, info)).reason == "SHUTTING_DOWN"


@pytest.mark.parametrize(
    "call",
    [
        failed_call(raw=b"\xff\xff\xff"),
        failed_call(status_message="something else"),
        failed_call(AnyMessage(type_url="x/google.rpc.ErrorInfo", value=b"\xff\xff")),
    ],
    ids=["no status", "another status", "broken detail"],
)
def test_a_status_that_does_not_fit_is_as_good_as_none(call: grpc.aio.AioRpcError):
    error = RemoteError.from_call(call)
    assert (error.code, error.reason, error.message) == (CODE, "", "away")
