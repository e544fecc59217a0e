import pytest

from services.common.errors import PeerUnavailable
from services.rag.core.document_errors import DocumentEmpty
from services.rag.core.errors import DocumentChanged, StoreUnavailable
from services.rag.core.intake import is_retryable


@pytest.mark.parametrize(
    ("failure", "retryable"),
    [
        (PeerUnavailable("balancer", "away"), True),
        (StoreUnavailable("connection refused"), True),
        (DocumentEmpty(), False),
        (DocumentChanged("a", expected="1", stored="2"), False),
    ],
)
def test_what_has_to_do_with_the_time_may_succeed_later(failure, retryable):
    assert is_retryable(failure) is retryable
