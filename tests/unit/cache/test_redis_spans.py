"""What goes to Redis for a recorded call has a span; what fails there fails nothing else."""

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode

from services.cache.adapters.redis_spans import RedisSpans
from services.cache.core.store_address import parse_store_url
from services.cache.ports import StoreTimeout
from services.common.tracing import make_tracer_provider


class Traced:
    """Spans of one store, and what came of them."""

    def __init__(self, url: str = "redis://:secret@example.org:6380") -> None:
        self._exporter = InMemorySpanExporter()
        provider = make_tracer_provider("cache", version="test", otlp_endpoint="")
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = provider.get_tracer("test")
        self.spans = RedisSpans(self.tracer, parse_store_url(url))
        self.call = self.tracer.start_span("call")

    def ask(self, *arguments, error: BaseException | None = None, **fields) -> None:
        with self.spans.around(*arguments, **fields):
            if error is not None:
                raise error

    def ended(self):
        return self._exporter.get_finished_spans()


@pytest.fixture
def traced() -> Traced:
    return Traced()


def test_a_span_names_command_server_database_and_script(traced) -> None:
    with trace.use_span(traced.call):
        traced.ask("EVALSHA", 3, procedure="take_lease")
    (span,) = traced.ended()
    assert (span.name, span.kind) == ("EVALSHA", SpanKind.CLIENT)
    assert span.parent.span_id == traced.call.get_span_context().span_id
    assert dict(span.attributes) == {
        "db.system.name": "redis",
        "db.operation.name": "EVALSHA",
        "db.namespace": "3",
        "db.stored_procedure.name": "take_lease",
        "server.address": "example.org",
        "server.port": 6380,
    }


@pytest.mark.parametrize(("count", "shown"), [(1, None), (7, 7)])
def test_only_several_commands_are_a_batch(traced, count, shown) -> None:
    with trace.use_span(traced.call):
        traced.ask("MGET", 0, count)
    assert traced.ended()[0].attributes.get("db.operation.batch.size") == shown


def test_a_socket_has_no_port() -> None:
    traced = Traced("unix:///run/redis.sock")
    with trace.use_span(traced.call):
        traced.ask("GET", 0)
    attributes = traced.ended()[0].attributes
    assert attributes["server.address"] == "/run/redis.sock"
    assert "server.port" not in attributes


def test_a_failure_marks_the_command_and_not_the_call(traced) -> None:
    with trace.use_span(traced.call), pytest.raises(StoreTimeout):
        traced.ask("MGET", 0, error=StoreTimeout("no answer in time"))
    (span,) = traced.ended()
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "StoreTimeout"
    assert traced.call.status.status_code is StatusCode.UNSET


def test_a_caller_who_leaves_is_no_failure_of_redis(traced) -> None:
    with trace.use_span(traced.call), pytest.raises(asyncio.CancelledError):
        traced.ask("XREAD", 0, error=asyncio.CancelledError())
    (span,) = traced.ended()
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in span.attributes


@pytest.mark.parametrize("context", [SpanContext(1, 2, is_remote=True), SpanContext(0, 0, False)])
def test_what_is_not_recorded_has_no_spans(traced, context) -> None:
    with trace.use_span(NonRecordingSpan(context)):
        traced.ask("GET", 0)
    assert traced.ended() == ()
