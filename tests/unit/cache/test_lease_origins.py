"""Tokens tell to whose span a lease was given; links are made where that is news."""

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanContext, TraceFlags

from services.cache.core.leases import make_token, origin_of
from services.cache.lease_origins import link_to_cause, link_to_holder, new_nonce
from services.common.tracing import make_tracer_provider

GRANTED_US = 1_700_000_000_000_000


@pytest.fixture
def tracer():
    return make_tracer_provider("cache", version="test", otlp_endpoint="").get_tracer("test")


def token_of(span) -> str:
    with trace.use_span(span):
        return make_token(GRANTED_US, new_nonce())


def test_a_token_names_the_span_that_is_current(tracer) -> None:
    span = tracer.start_span("leader")
    context = span.get_span_context()
    assert origin_of(token_of(span)) == (context.trace_id, context.span_id)


@pytest.mark.parametrize("context", [SpanContext(1, 2, is_remote=True), SpanContext(0, 0, False)])
def test_the_token_of_who_is_not_recorded_names_nobody(context) -> None:
    assert origin_of(token_of(trace.NonRecordingSpan(context))) is None


def test_no_two_tokens_are_alike(tracer) -> None:
    span = tracer.start_span("leader")
    assert len({token_of(span) for _ in range(100)}) == 100


def test_a_span_is_linked_to_that_of_another_trace(tracer) -> None:
    leader, follower = tracer.start_span("leader"), tracer.start_span("follower")
    link_to_holder(follower, token_of(leader))
    (link,) = follower.links
    assert link.context.trace_id == leader.get_span_context().trace_id
    assert link.context.span_id == leader.get_span_context().span_id
    assert link.context.trace_flags & TraceFlags.SAMPLED
    assert link.context.is_remote


def test_who_waits_is_linked_within_a_trace_and_who_ends_the_lease_is_not(tracer) -> None:
    leader = tracer.start_span("leader")
    sibling = tracer.start_span("sibling", context=trace.set_span_in_context(leader))
    with trace.use_span(sibling):
        link_to_cause(token_of(leader))
    assert list(sibling.links) == []
    link_to_holder(sibling, token_of(leader))
    assert len(sibling.links) == 1


def test_who_ends_a_lease_elsewhere_is_linked_to_its_cause(tracer) -> None:
    leader, storing = tracer.start_span("leader"), tracer.start_span("storing")
    token = token_of(leader)
    with trace.use_span(storing):
        link_to_cause(token)
    assert [link.context.span_id for link in storing.links] == [leader.get_span_context().span_id]


@pytest.mark.parametrize("token", ["", "nonsense", make_token(GRANTED_US, "abc")])
def test_a_token_that_does_not_tell_makes_no_link(tracer, token) -> None:
    span = tracer.start_span("follower")
    link_to_holder(span, token)
    assert list(span.links) == []


def test_what_is_not_recorded_is_not_linked(tracer) -> None:
    link_to_holder(trace.INVALID_SPAN, token_of(tracer.start_span("leader")))
