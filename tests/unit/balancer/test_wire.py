import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.balancer.adapters import wire
from services.balancer.core.failures import AttemptFailed, FailureKind

LINES = st.lists(st.binary().map(lambda line: line.replace(b"\n", b"")), max_size=20)


@given(LINES, st.lists(st.integers(0, 200), max_size=20))
def test_lines_are_the_same_wherever_the_network_cuts_them(lines, cuts):
    data = b"\n".join(lines)
    splitter, found, start = wire.LineSplitter(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += splitter.feed(data[start:cut])
        start = max(start, cut)
    found += splitter.rest()
    assert found == [line for line in lines if line.strip()]
    assert splitter.rest() == []


def test_a_line_may_have_8_mib_but_not_more():
    splitter = wire.LineSplitter()
    assert splitter.feed(b"x" * wire.MAXIMUM_LINE_BYTES) == []
    assert splitter.feed(b"\n") == [b"x" * wire.MAXIMUM_LINE_BYTES]
    splitter.feed(b"x" * wire.MAXIMUM_LINE_BYTES)
    with pytest.raises(AttemptFailed) as caught:
        splitter.feed(b"x")
    assert caught.value.kind is FailureKind.BROKEN_REPLY


@pytest.mark.parametrize("data", [b"{", b"[]", b"1", b"\xff", b""])
def test_what_is_no_object_breaks_the_reply(data):
    with pytest.raises(AttemptFailed) as caught:
        wire.parse_object(data)
    assert caught.value.kind is FailureKind.BROKEN_REPLY


def test_an_error_in_a_line_is_a_failure_of_the_server():
    with pytest.raises(AttemptFailed, match="died") as caught:
        wire.parse_line(b'{"error":"died"}')
    assert caught.value.kind is FailureKind.SERVER_ERROR


def test_the_message_of_an_error_reply_is_its_error_or_else_its_text():
    assert wire.error_reply(500, b'{"error":"out of memory"}').message == "out of memory"
    assert wire.error_reply(405, b"405 method not allowed\n").message == "405 method not allowed"
    assert wire.error_reply(403, b"").message == "HTTP status 403"


@given(st.binary(max_size=200))
def test_an_error_reply_of_any_bytes_is_a_failure(data):
    assert wire.error_reply(500, data).kind in FailureKind


@pytest.mark.parametrize("value", [None, "7", 1.5, [], -1])
def test_what_is_no_count_counts_as_none(value):
    assert wire.count(orjson.loads(orjson.dumps({"n": value})), "n") == 0
    assert wire.count({}, "n") == 0
