"""Traces of documents on their way in, and how long each stage takes.

Each document has a trace of its own, linked to the call that brought it: in that of the call
thousands of them would lie side by side.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, Tracer, get_current_span, use_span

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.metrics import Metrics
from services.common.tracing import TENANT, mark_failed
from services.rag.core.intake import DocumentDone, IncomingDocument

__all__ = ["IngestTrace", "TracedStage", "describe_document"]

_NANOS = 1e9
_SPAN_NAMES = {
    "parse": "ingest.parse",
    "chunk": "ingest.chunk",
    "embed": "ingest.embed",
    "store": "index.write",
}


class TracedStage:
    """A stage under way.

    Args:
        span: Its span.

    Attributes:
        chunk_seconds: How much at its end was for cutting chunks, which is a stage of its own.
        chunk_count: Chunks that came of that.
        strategy: How they were cut.
    """

    def __init__(self, span: Span) -> None:
        self.span = span
        self.chunk_seconds: float | None = None
        self.chunk_count = 0
        self.strategy = ""

    def note_chunks(self, count: int, strategy: str, *, seconds: float | None = None) -> None:
        """Notes what came of cutting a document, and how long that took at the end."""
        self.chunk_seconds = seconds
        self.chunk_count = count
        self.strategy = strategy
        if seconds is None:
            self.describe(self.span)

    def describe(self, span: Span) -> None:
        """Writes what came of cutting a document on a span."""
        span.set_attributes(
            {"app.chunk.count": self.chunk_count, "app.chunk.strategy": self.strategy}
        )


class IngestTrace:
    """Makes spans for documents, and measures stages.

    Args:
        tracer: Makes the spans.
        clock: Measures.
        metrics: Receives how long stages took that have ended well.
    """

    def __init__(self, *, tracer: Tracer, clock: Clock, metrics: Metrics) -> None:
        self._tracer = tracer
        self._clock = clock
        self._metrics = metrics

    @contextmanager
    def document(
        self, tenant_id: str, collection: str, incoming: IncomingDocument
    ) -> Iterator[Span]:
        """Begins the trace of a document, in which all runs that is begun inside."""
        cause = get_current_span().get_span_context()
        span = self._tracer.start_span(
            "ingest.document",
            context=Context(),
            links=[Link(cause)] if cause.is_valid else [],
            attributes={
                TENANT: tenant_id,
                "gen_ai.data_source.id": collection,
                "app.doc.id": incoming.document_id,
                "app.doc.bytes": len(incoming.content),
            },
        )
        with self._ended(span):
            yield span
        span.end()

    @contextmanager
    def stage(self, name: str) -> Iterator[TracedStage]:
        """Traces and measures a stage: `parse`, `chunk`, `embed` or `store`."""
        started, started_ns = self._clock.monotonic(), self._now_ns()
        span = self._tracer.start_span(_SPAN_NAMES[name], start_time=started_ns)
        stage = TracedStage(span)
        with self._ended(span):
            yield stage
        seconds, ended_ns = self._clock.monotonic() - started, self._now_ns()
        chunk_seconds = stage.chunk_seconds
        if chunk_seconds is not None:
            chunk_seconds = min(chunk_seconds, seconds)
            seconds -= chunk_seconds
            parsed_ns = started_ns + round(seconds * _NANOS)
            chunk_span = self._tracer.start_span(_SPAN_NAMES["chunk"], start_time=parsed_ns)
            stage.describe(chunk_span)
            chunk_span.end(ended_ns)
            ended_ns = parsed_ns
            self._observe("chunk", chunk_seconds)
        self._observe(name, seconds)
        span.end(ended_ns)

    @contextmanager
    def _ended(self, span: Span) -> Iterator[None]:
        """Makes a span the current one, and ends it where something goes wrong."""
        try:
            with use_span(span, record_exception=False, set_status_on_exception=False):
                yield
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError | GeneratorExit):
                span.set_attribute("app.cancelled", True)  # noqa: FBT003 - the name says it
            else:
                mark_failed(span, error.error_reason if isinstance(error, ServiceError) else error)
            span.end()
            raise

    def _observe(self, stage: str, seconds: float) -> None:
        self._metrics.observe("rag_ingest_stage_duration_seconds", seconds, stage)

    def _now_ns(self) -> int:
        return round(self._clock.now() * _NANOS)


def describe_document(span: Span, done: DocumentDone) -> None:
    """Writes what became of a document on its span."""
    span.set_attributes(
        {"app.ingest.outcome": done.outcome.value, "app.chunk.count": done.chunk_count}
    )
    if done.failure is not None:
        mark_failed(span, done.failure.error_reason)
