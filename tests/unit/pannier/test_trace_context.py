"""The trace that calls belong to."""

import re

from pannier.client import TraceContext


def test_a_traceparent_has_the_standard_form_and_asks_to_be_recorded():
    context = TraceContext.new()
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", context.traceparent)
    assert context.trace_id in context.traceparent


def test_every_trace_is_another():
    assert TraceContext.new().trace_id != TraceContext.new().trace_id
