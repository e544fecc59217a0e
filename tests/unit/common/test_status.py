import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2

from services.common.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    PeerUnavailable,
    QuotaViolation,
    ServiceError,
    StatusCode,
)
from services.common.status import grpc_code, to_status


def detail(status, message):
    for each in status.details:
        assert isinstance(each, Any)
        if each.Unpack(message):
            return message
    return None


def test_every_status_code_has_its_grpc_twin():
    for code in StatusCode:
        assert grpc_code(code).name == code.name
    assert len(StatusCode) == len(grpc.StatusCode) - 1


def test_a_bad_field_is_named():
    error = InvalidRequest(FieldViolation("a.b", "Must be set."), FieldViolation("c", "Is NaN."))
    status = to_status(error, domain="rag.pannier", request_id="0")
    info = detail(status, error_details_pb2.ErrorInfo())
    assert (status.code, info.reason, info.domain) == (3, "INVALID_FIELD", "rag.pannier")
    assert dict(info.metadata) == {"field": "a.b"}
    violations = detail(status, error_details_pb2.BadRequest()).field_violations
    assert [(each.field, each.description) for each in violations] == [
        ("a.b", "Must be set."),
        ("c", "Is NaN."),
    ]
    assert "a.b: Must be set." in status.message


def test_a_retry_delay_is_told():
    status = to_status(PeerUnavailable("cache", "gone"), domain="rag.pannier", request_id="0")
    assert detail(status, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() == 1000


def test_a_spent_quota_is_told_with_whose_it_is():
    class Spent(ServiceError):
        code = StatusCode.RESOURCE_EXHAUSTED

    error = Spent(
        "All is spent.", quota_violations=[QuotaViolation("tenant:acme", "5 of 5 \N{OX}.")]
    )
    status = to_status(error, domain="rag.pannier", request_id="0")
    (violation,) = detail(status, error_details_pb2.QuotaFailure()).violations
    assert (violation.subject, violation.description) == ("tenant:acme", "5 of 5 \N{OX}.")
    plain = to_status(Spent("All is spent."), domain="rag.pannier", request_id="0")
    assert detail(plain, error_details_pb2.QuotaFailure()) is None


def test_the_inside_does_not_leak():
    status = to_status(ValueError("password=hunter2"), domain="rag.pannier", request_id="abc")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "hunter2" not in str(status)
    assert detail(status, error_details_pb2.RequestInfo()).request_id == "abc"


def test_a_default_deadline_says_so():
    status = to_status(DeadlineExceeded(120), domain="rag.pannier", request_id="0")
    assert "Set a deadline" in status.message
    info = detail(status, error_details_pb2.ErrorInfo())
    assert info.metadata["deadline_source"] == "default"


def test_a_status_fits_a_trailer_whatever_is_in_it():
    error = InvalidRequest(*(FieldViolation("\N{OX}" * 500, "\N{OX}" * 500) for _ in range(16)))
    status = to_status(error, domain="d", request_id="0")
    assert len(status.SerializeToString()) * 4 / 3 + 3 * len(status.message.encode()) < 8192


def test_a_long_message_stays_within_the_limit_of_a_header():
    error = InvalidRequest(*(FieldViolation(f"field{n}", "x" * 100) for n in range(100)))
    assert len(to_status(error, domain="d", request_id="0").message) <= 1024


def test_very_many_bad_fields_do_not_overflow_the_trailer():
    error = InvalidRequest(*(FieldViolation(f"texts[{n}]", "Is empty.") for n in range(512)))
    status = to_status(error, domain="cache.pannier", request_id="0")
    assert len(detail(status, error_details_pb2.BadRequest()).field_violations) == 16
    assert len(status.SerializeToString()) < 4096
