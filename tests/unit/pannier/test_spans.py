"""Reading traces from OTLP in JSON, and finding what they still lack."""

from typing import Any

import pytest

from pannier.commands.spans import Span, find_gaps, parse_trace

TRACE_ID = "AAAAAAAAAAAAAAAAAAAAAQ=="


def document(*spans: dict[str, Any], service: str = "rag", key: str = "batches") -> dict[str, Any]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {key: [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def raw_span(**fields: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": "1000", "endTimeUnixNano": "3000"}
    return {"traceId": TRACE_ID, "spanId": "AAAAAAAAAAE=", "name": "work"} | times | fields


def span(span_id: str, parent_id: str = "", **fields: Any) -> Span:
    defaults: dict[str, Any] = {
        "service": "rag",
        "name": "work",
        "start_nanoseconds": 0,
        "end_nanoseconds": 1,
        "attributes": {},
    }
    return Span(span_id=span_id, parent_id=parent_id, **(defaults | fields))


def test_ids_in_base64_are_read_as_hexadecimal():
    (read,) = parse_trace(document(raw_span(parentSpanId="AAAAAAAAAAI=")))
    assert (read.span_id, read.parent_id) == ("0000000000000001", "0000000000000002")


def test_ids_in_hexadecimal_are_kept():
    (read,) = parse_trace(document(raw_span(spanId="00000000000000AB")))
    assert read.span_id == "00000000000000ab"


@pytest.mark.parametrize("key", ["batches", "resourceSpans"])
def test_both_names_of_the_batches_are_read(key: str):
    assert len(parse_trace(document(raw_span(), key=key))) == 1


def test_batches_within_a_trace_are_read():
    assert len(parse_trace({"trace": document(raw_span(), key="resourceSpans")})) == 1


@pytest.mark.parametrize(
    ("raw", "kind"),
    [("SPAN_KIND_SERVER", "server"), (3, "client"), ("SPAN_KIND_UNSPECIFIED", ""), (0, "")],
)
def test_kinds_are_read_by_name_and_by_number(raw: str | int, kind: str):
    assert parse_trace(document(raw_span(kind=raw)))[0].kind == kind


@pytest.mark.parametrize(("code", "failed"), [("STATUS_CODE_ERROR", True), (2, True), (1, False)])
def test_an_error_status_marks_a_span_as_failed(code: str | int, failed: bool):
    assert parse_trace(document(raw_span(status={"code": code})))[0].failed is failed


def test_attributes_have_their_types():
    attributes = [
        {"key": "count", "value": {"intValue": "7"}},
        {"key": "ratio", "value": {"doubleValue": 0.5}},
        {"key": "names", "value": {"arrayValue": {"values": [{"stringValue": "a"}]}}},
        {"key": "nothing", "value": {}},
    ]
    (read,) = parse_trace(document(raw_span(attributes=attributes)))
    assert read.attributes == {"count": 7, "ratio": 0.5, "names": ["a"], "nothing": None}


def test_spans_stand_by_their_start_and_each_once():
    later = raw_span(spanId="AAAAAAAAAAI=", startTimeUnixNano="2000")
    spans = parse_trace(document(later, raw_span(), raw_span()))
    assert [each.start_nanoseconds for each in spans] == [1000, 2000]


def test_what_is_no_trace_is_refused():
    with pytest.raises(ValueError, match="no trace"):
        parse_trace({"batches": [{"scopeSpans": [{"spans": [{"name": "without id"}]}]}]})


CALL = {"kind": "client", "attributes": {"rpc.system.name": "grpc"}}
CALLER = "caller"


def test_a_trace_that_hangs_together_has_no_gaps():
    client = span("2", "1", name="cache.v1.CacheService/Lookup", **CALL)
    spans = (span("1", CALLER, kind="server"), client, span("3", "2", kind="server"))
    assert find_gaps(spans, caller_id=CALLER) == []


def test_a_missing_parent_is_a_gap():
    spans = (span("1", CALLER), span("3", "2", name="lost"))
    assert find_gaps(spans, caller_id=CALLER) == ["the parent of rag: lost is missing"]


def test_a_missing_root_is_a_gap():
    assert find_gaps((span("2", "1"), span("1", "9")), caller_id=CALLER)[-1] == (
        "the call itself is missing"
    )


def test_a_call_that_nobody_answered_is_a_gap():
    client = span("2", "1", name="cache.v1.CacheService/Lookup", **CALL)
    gaps = find_gaps((span("1", CALLER), client), caller_id=CALLER)
    assert gaps == ["what cache.v1.CacheService did is missing"]


def test_a_failed_call_need_not_have_an_answer():
    client = span("2", "1", failed=True, **CALL)
    assert find_gaps((span("1", CALLER), client), caller_id=CALLER) == []


def test_a_call_to_a_store_leaves_nothing_on_the_other_side():
    client = span("2", "1", kind="client", attributes={"db.system.name": "redis"})
    assert find_gaps((span("1", CALLER), client), caller_id=CALLER) == []
