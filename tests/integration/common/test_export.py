"""Spans over the wire: to a receiver, to one that is away, to one that accepts and is silent."""

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as pb_grpc

from services.common.metrics import Metrics
from services.common.tracing import make_tracer_provider

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def details(code, delay):
    """What tells a sender when to come again, or cannot be read."""
    if isinstance(delay, bytes):
        return delay
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(int(delay * 1000))
    status = status_pb2.Status(code=code.value[0], message="not now")
    status.details.add().Pack(retry)
    return status.SerializeToString()


class Receiver(pb_grpc.TraceServiceServicer):
    """Keeps names of spans; answers as it is told."""

    def __init__(self):
        self.requests = []
        self.times = []
        self.failures = []
        self.rejected_count = 0

    @property
    def names(self):
        return [
            span.name
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def Export(self, request, context):
        self.times.append(time.monotonic())
        if self.failures:
            code, *delay = self.failures.pop(0)
            if delay:
                context.set_trailing_metadata([("grpc-status-details-bin", details(code, *delay))])
            context.abort(code, "not now")
        self.requests.append(request)
        rejected = pb.ExportTracePartialSuccess(rejected_spans=self.rejected_count)
        return pb.ExportTraceServiceResponse(partial_success=rejected)


@contextmanager
def receiving():
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield receiver, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def make(endpoint, **options):
    metrics = Metrics((), version="1")
    provider = make_tracer_provider(
        "rag", version="1", otlp_endpoint=endpoint, metrics=metrics, **options
    )
    return provider, provider.get_tracer("test"), metrics


def counted(metrics):
    return tuple(
        int(metrics.registry.get_sample_value(f"telemetry_spans_{fate}_total"))
        for fate in ("exported", "dropped")
    )


def test_a_receiver_gets_every_span_with_the_process_it_comes_from():
    with receiving() as (receiver, endpoint):
        provider, tracer, metrics = make(endpoint, instance_id="i-1", environment="test")
        for number in range(500):
            tracer.start_span(str(number)).end()
        provider.shutdown()
        assert receiver.names == [str(number) for number in range(500)]
        assert counted(metrics) == (500, 0)
        resource = receiver.requests[0].resource_spans[0].resource
        known = {each.key: each.value.string_value for each in resource.attributes}
        assert known["service.name"] == "rag"
        assert known["service.instance.id"] == "i-1"
        assert known["deployment.environment.name"] == "test"


def test_what_the_receiver_rejects_is_dropped_and_told_apart():
    with receiving() as (receiver, endpoint):
        receiver.rejected_count = 2
        provider, tracer, metrics = make(endpoint)
        for _ in range(10):
            tracer.start_span("a").end()
        provider.shutdown()
        assert counted(metrics) == (8, 2)


@pytest.mark.parametrize("rejected", [-5, 11, 1 << 40])
def test_a_receiver_that_rejects_what_it_was_never_sent_breaks_nothing(rejected):
    with receiving() as (receiver, endpoint):
        receiver.rejected_count = rejected
        provider, tracer, metrics = make(endpoint)
        for _ in range(2):
            for _ in range(5):
                tracer.start_span("a").end()
            assert provider.force_flush(5000)
        provider.shutdown()
        assert len(receiver.names) == 10
        assert counted(metrics) == ((10, 0) if rejected < 0 else (0, 10))


def test_a_span_that_cannot_be_encoded_costs_no_other(caplog):
    with receiving() as (receiver, endpoint):
        provider, tracer, metrics = make(endpoint)
        endless = []
        endless.append(endless)
        odd = {"x": endless}, {5: "x"}
        for number in range(10):
            tracer.start_span(f"good {number}").end()
            for attributes in odd:
                tracer.start_span("odd", attributes=attributes).end()
            tracer.start_span("odd", start_time=-1).end()
        provider.shutdown()
        assert receiver.names == [f"good {number}" for number in range(10)]
        assert counted(metrics) == (10, 30)
    told = [r.span_count for r in caplog.records if r.message == "spans cannot be encoded"]
    assert sum(told) == 30
    assert len(told) < 10


def test_what_is_too_much_for_one_request_goes_in_several():
    with receiving() as (receiver, endpoint):
        provider, tracer, metrics = make(endpoint)
        for number in range(9):
            tracer.start_span(str(number), attributes={"text": "x" * 1_000_000}).end()
        provider.shutdown()
        assert receiver.names == [str(number) for number in range(9)]
        assert counted(metrics) == (9, 0)


def test_a_span_that_no_receiver_has_room_for_is_tried_once_and_holds_up_none():
    with receiving() as (receiver, endpoint):
        provider, tracer, metrics = make(endpoint)
        tracer.start_span("large", attributes={"text": "x" * 5_000_000}).end()
        tracer.start_span("small").end()
        assert provider.force_flush(3000)
        provider.shutdown()
        assert receiver.names == ["small"]
        assert counted(metrics) == (1, 1)


def assert_one_span_arrives(receiver, endpoint):
    provider, tracer, metrics = make(endpoint)
    tracer.start_span("a").end()
    assert provider.force_flush()
    provider.shutdown()
    assert receiver.names == ["a"]
    assert counted(metrics) == (1, 0)


def test_a_receiver_that_is_away_for_a_moment_costs_no_span(caplog):
    with receiving() as (receiver, endpoint):
        receiver.failures = [(UNAVAILABLE,)]
        assert_one_span_arrives(receiver, endpoint)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "receiver takes no spans"
    ]


@pytest.mark.parametrize("code", [UNAVAILABLE, RESOURCE_EXHAUSTED])
def test_a_receiver_that_says_when_to_come_again_is_asked_then_and_not_before(code):
    with receiving() as (receiver, endpoint):
        receiver.failures = [(code, 1.2)]
        assert_one_span_arrives(receiver, endpoint)
    first, second = receiver.times
    assert 1.2 <= second - first < 3


@pytest.mark.parametrize(
    "failure",
    [
        (grpc.StatusCode.INVALID_ARGUMENT,),
        (grpc.StatusCode.INVALID_ARGUMENT, 0.1),
        (RESOURCE_EXHAUSTED,),
        (RESOURCE_EXHAUSTED, b"\xff\xff"),
        (RESOURCE_EXHAUSTED, 3600),
        (UNAVAILABLE, 3600),
    ],
)
def test_what_a_receiver_will_not_take_soon_is_not_tried_again(failure):
    with receiving() as (receiver, endpoint):
        receiver.failures = [failure]
        provider, tracer, metrics = make(endpoint)
        tracer.start_span("a").end()
        assert provider.force_flush()
        tracer.start_span("b").end()
        provider.shutdown()
        assert receiver.names == ["b"]
        assert counted(metrics) == (1, 1)


def test_a_receiver_that_nobody_knows_does_not_hold_up_the_end():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        provider, tracer, metrics = make(f"127.0.0.1:{unused.getsockname()[1]}")
        for _ in range(1000):
            tracer.start_span("a").end()
        started = time.monotonic()
        provider.shutdown()
        # Nor is what is left of the time for it used up: nobody is there.
        assert time.monotonic() - started < 2
        assert counted(metrics) == (0, 1000)


async def test_a_black_hole_holds_up_neither_the_loop_nor_the_end():
    with socket.create_server(("127.0.0.1", 0)) as hole:
        provider, tracer, metrics = make(f"127.0.0.1:{hole.getsockname()[1]}")
        longest = 0.0
        for _ in range(100):
            for _ in range(10):
                tracer.start_span("a").end()
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)
        # Far below the time-out of an export, which would show here if anything waited for it.
        assert longest < 1
        started = time.monotonic()
        await asyncio.to_thread(provider.shutdown)
        assert time.monotonic() - started < 5
    exported, dropped = counted(metrics)
    assert (exported, dropped) == (0, 1000)


@pytest.mark.slow
async def test_the_default_queue_loses_none_of_a_hundred_thousand_spans():
    with receiving() as (receiver, endpoint):
        provider, tracer, metrics = make(endpoint)
        # Four times the spans of 600 cached answers a second, in the bursts of a busy loop.
        burst, count = 200, 100_000
        for _ in range(0, count, burst):
            for _ in range(burst):
                tracer.start_span("a", attributes={"rpc.method": "x", "n": 1}).end()
            # Not made up for where it was late: that would be another rate.
            await asyncio.sleep(burst / 20_000)
        await asyncio.to_thread(provider.shutdown)
        assert counted(metrics) == (count, 0)
        assert len(receiver.names) == count
    assert not [t for t in threading.enumerate() if t.name == "spans"]
