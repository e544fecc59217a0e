"""A call has one outcome, and its time is shared out truthfully."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from services.balancer.call import Call, Waits, waiting
from services.balancer.core.budgets import RatioBudget
from services.balancer.core.errors import (
    AllAttemptsFailed,
    BackendRejectedRequest,
    DeadlineUnreachable,
    ModelNotFound,
    QueueFull,
)
from services.balancer.core.requests import Operation
from services.balancer.fleet import Counters
from services.balancer.metrics import CATALOGUE
from services.common.errors import DeadlineExceeded
from services.common.metrics import Metrics
from tests.kit.rpc import make_runtime


class SteppedClock:
    def __init__(self):
        self.instant = 100.0

    def monotonic(self):
        return self.instant

    def now(self):
        return self.instant

    async def sleep(self, seconds):
        self.instant += seconds


class Parts:
    def __init__(self):
        self.clock = SteppedClock()
        self.metrics = Metrics(CATALOGUE, version="test")
        self.counters = Counters()

    def call(self, operation=Operation.CHAT):
        return Call(
            operation,
            clock=self.clock,
            metrics=self.metrics,
            counters=self.counters,
            retries=RatioBudget(ratio=0.2, burst=5),
        )

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda pair: tuple(sorted(pair))),
        max_size=6,
    )
)
def test_what_overlaps_counts_once(intervals):
    clock = SteppedClock()
    waits = Waits(clock)
    for instant in range(21):
        clock.instant = 100.0 + instant
        for begin, end in intervals:
            if begin < end == instant:
                waits.__exit__(None, None, None)
        for begin, _ in (each for each in intervals if each[0] == instant < each[1]):
            assert begin == instant
            waits.__enter__()
    covered = {second for begin, end in intervals for second in range(begin, end)}
    assert waits.seconds == len(covered)


def test_a_wait_that_lasts_counts_as_far_as_it_has_come():
    clock = SteppedClock()
    waits = Waits(clock)
    with waits:
        clock.instant += 3
        assert waits.seconds == 3
        clock.instant += 1
    clock.instant += 5
    assert waits.seconds == 4


def test_what_a_call_does_not_wait_for_is_overhead():
    parts = Parts()
    call = parts.call()
    parts.clock.instant += 0.5
    with call:
        with call.waits:
            parts.clock.instant += 10
        parts.clock.instant += 0.25
    assert parts.value("balancer_overhead_seconds_sum", operation="chat") == 0.75
    assert parts.value("balancer_overhead_seconds_count", operation="chat") == 1


def test_all_who_wait_for_the_same_thing_wait_and_a_call_that_joins_later_does_not():
    parts = Parts()
    calls = [parts.call(), parts.call()]
    late = parts.call()
    with waiting(calls):
        calls.append(late)
        parts.clock.instant += 2
    assert [each.waits.seconds for each in calls] == [2, 2, 0]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "success"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (QueueFull("batch", 3, 1.0, "a-1"), "refused"),
        (DeadlineUnreachable(3.0, 1.0, "a-2"), "deadline"),
        (DeadlineExceeded(1.0), "deadline"),
        (AllAttemptsFailed("m", 3, "h: it failed"), "error"),
        (BackendRejectedRequest("m", "no"), "rejected"),
        (ModelNotFound("m", []), "rejected"),
        (RuntimeError("a fault of ours"), "error"),
    ],
)
def test_every_way_to_end_is_one_outcome(error, outcome):
    parts = Parts()
    call = parts.call()
    if error is None:
        with call:
            pass
    else:
        with pytest.raises(type(error)), call:
            raise error
    call.end(asyncio.CancelledError())
    counted = {
        sample.labels["outcome"]: sample.value
        for family in parts.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "balancer_outcomes_total"
    }
    assert counted.pop(outcome) == 1
    assert not any(counted.values())
    assert parts.counters.in_flight_count == 0
    failed = outcome not in ("success", "cancelled")
    assert (parts.counters.failure_count, parts.counters.request_count) == (failed, 1)


def test_a_call_that_no_work_is_begun_for_has_an_outcome_and_is_no_request():
    parts = Parts()
    parts.call().end(asyncio.CancelledError())
    assert parts.value("balancer_outcomes_total", outcome="cancelled") == 1
    assert parts.counters == Counters()


def test_the_span_of_a_call_tells_the_most_that_any_piece_needed():
    runtime, spans = make_runtime("balancer", CATALOGUE)
    parts = Parts()
    tracer = runtime.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("call") as span:
        call = parts.call(Operation.EMBED)
        assert call.span is span is trace.get_current_span()
        with call:
            call.note_queued(2.0)
            call.note_attempt(2, fell_back=True)
            call.note_queued(1.0)
            call.note_attempt(1, fell_back=False)
    attributes = spans.named("call")[-1].attributes
    assert attributes["app.balancer.attempts"] == 2
    assert attributes["app.balancer.fallback"] is True
    assert attributes["app.balancer.queue_wait_s"] == 2.0
    assert attributes["app.balancer.outcome"] == "success"
