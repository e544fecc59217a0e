import pytest

from services.balancer.core.failures import AttemptFailed, FailureKind, failure_of_status


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "invalid model name", FailureKind.REJECTED),
        (401, "unauthorized", FailureKind.REJECTED),
        (403, "", FailureKind.REJECTED),
        (404, "model 'x' not found", FailureKind.MODEL_ABSENT),
        (499, "request canceled", FailureKind.SERVER_ERROR),
        (500, "model runner has unexpectedly stopped", FailureKind.SERVER_ERROR),
        (500, 'option "temperature" must be of type float32', FailureKind.REJECTED),
        (500, "invalid format: x", FailureKind.REJECTED),
        (501, "this model does not support embeddings", FailureKind.REJECTED),
        (502, "bad gateway", FailureKind.SERVER_ERROR),
        (503, "server busy, please try again.", FailureKind.BUSY),
        (302, "", FailureKind.SERVER_ERROR),
    ],
)
def test_status_and_text_tell_whose_fault_it_is(status, message, kind):
    failure = failure_of_status(status, message)
    assert failure.kind is kind
    assert failure.status_code == status
    assert failure.message


def test_only_a_faulty_request_is_not_tried_again():
    assert [kind for kind in FailureKind if not kind.retryable] == [FailureKind.REJECTED]


def test_messages_are_cut_to_a_length_that_fits_into_metadata():
    assert len(AttemptFailed(FailureKind.BUSY, "x" * 10_000).message) == 500


def test_what_a_backend_says_is_for_the_caller_only():
    quoting = failure_of_status(500, "cannot parse 'my secret'")
    assert "my secret" in quoting.message
    assert quoting.summary == "server_error (HTTP status 500)"
    own = AttemptFailed(FailureKind.TIMEOUT, "silent for 8 s")
    assert own.summary == own.message
