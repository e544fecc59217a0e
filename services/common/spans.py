"""Spans that cost little and hold no content.

The tracer and span of the OpenTelemetry SDK need 18 to 21 us for a span with six attributes, those
here 3 (measured): they check and copy nothing, since all who use them are part of this suite. What
an exception says can be a question or an answer, so it never becomes part of a span: exceptions
are logged, a failed span has `error.type`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    use_span,
)
from opentelemetry.util._decorator import _agnosticcontextmanager
from opentelemetry.util.types import Attributes, AttributeValue

__all__ = ["ERROR_TYPE", "LeanTracer", "LeanTracerProvider", "RecordedSpan"]

ERROR_TYPE = "error.type"

_SAMPLED = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
_NOT_SAMPLED = TraceFlags(TraceFlags.RANDOM_TRACE_ID)
_LOWER_HALF = (1 << 64) - 1
# Events and links beyond these are left out; nothing here has nearly as many.
_MOST_EVENTS = 128
_MOST_LINKS = 128
_UNSET = Status()

Report = Callable[["RecordedSpan"], None]


class RecordedSpan(Span):
    """A span that is recorded; what has ended changes no more.

    Has the properties of the SDK's `ReadableSpan`, for exporters.

    Attributes:
        name: Its name.
        context: Its ids.
        parent: Those of the span it is part of; None for the first of a trace.
        kind: Which side of a call it is.
        attributes: What is known of it.
        links: Spans it has to do with.
        dropped_links: How many of them had no room.
        events: What happened meanwhile.
        dropped_events: How many of them had no room.
        status: Whether it failed.
        start_time: When it began, nanoseconds since the epoch.
        end_time: When it ended; None before.
        resource: The process.
        instrumentation_scope: The part of the code.
    """

    __slots__ = (
        "_report",
        "attributes",
        "context",
        "dropped_events",
        "dropped_links",
        "end_time",
        "events",
        "instrumentation_scope",
        "kind",
        "links",
        "name",
        "parent",
        "resource",
        "start_time",
        "status",
    )

    dropped_attributes = 0

    def __init__(
        self,
        tracer: "LeanTracer",
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link] | None,
        start_time: int,
    ) -> None:
        self.name = name
        self.context = context
        self.parent = parent
        self.kind = kind
        self.attributes: dict[str, AttributeValue] = dict(attributes) if attributes else {}
        self.links: Sequence[Link] = tuple(links[:_MOST_LINKS]) if links else ()
        self.dropped_links = len(links) - len(self.links) if links else 0
        self.events: Sequence[Event] = ()
        self.dropped_events = 0
        self.status = _UNSET
        self.start_time = start_time
        self.end_time: int | None = None
        self.resource = tracer.resource
        self.instrumentation_scope = tracer.scope
        self._report = tracer.report

    def get_span_context(self) -> SpanContext:
        """Returns its ids."""
        return self.context

    def is_recording(self) -> bool:
        """Tells whether it has not ended."""
        return self.end_time is None

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        """Notes something."""
        if self.end_time is None:
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Notes several things."""
        if self.end_time is None:
            self.attributes.update(attributes)

    def add_event(
        self, name: str, attributes: Attributes = None, timestamp: int | None = None
    ) -> None:
        """Notes that something happened."""
        if self.end_time is not None:
            return
        if len(self.events) < _MOST_EVENTS:
            self.events = (*self.events, Event(name, attributes, timestamp or time.time_ns()))
        else:
            self.dropped_events += 1

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        """Notes that it has to do with another span."""
        if self.end_time is not None or not context.is_valid:
            return
        if len(self.links) < _MOST_LINKS:
            self.links = (*self.links, Link(context, attributes))
        else:
            self.dropped_links += 1

    def update_name(self, name: str) -> None:
        """Changes its name."""
        if self.end_time is None:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Marks it as failed or not; descriptions are left out, since they quote exceptions."""
        del description
        if self.end_time is None:
            self.status = Status(status.status_code if isinstance(status, Status) else status)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,  # noqa: FBT001, FBT002 - the base class has it so
    ) -> None:
        """Notes the kind of an exception, and nothing of what it says."""
        del attributes, timestamp, escaped
        self.set_attribute(ERROR_TYPE, type(exception).__qualname__)

    def end(self, end_time: int | None = None) -> None:
        """Ends it, once, whichever threads say so."""
        try:
            report = self._report
            # Only one thread gets beyond this: for all others, it is gone.
            del self._report
        except AttributeError:
            return
        self.end_time = time.time_ns() if end_time is None else end_time
        report(self)


class LeanTracer(Tracer):
    """Makes spans.

    Args:
        scope: The part of the code.
        resource: The process.
        ids: Makes ids.
        sampled_below: Traces that begin here are recorded whose id's lower half is below this.
        report: Told of each span that has ended.
    """

    def __init__(
        self,
        *,
        scope: InstrumentationScope,
        resource: Resource,
        ids: IdGenerator,
        sampled_below: int,
        report: Report,
    ) -> None:
        self.scope = scope
        self.resource = resource
        self.report = report
        self._ids = ids
        self._sampled_below = sampled_below

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002 - the base class has it so
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
    ) -> Span:
        """Begins a span; one that records nothing where its trace is not sampled."""
        del record_exception, set_status_on_exception
        parent = get_current_span(context).get_span_context()
        if parent.trace_id:
            if not parent.trace_flags & TraceFlags.SAMPLED:
                # Its id stands for whatever happens below it, too.
                return NonRecordingSpan(parent)
            own = SpanContext(
                parent.trace_id,
                self._ids.generate_span_id(),
                is_remote=False,
                trace_flags=parent.trace_flags,
                trace_state=parent.trace_state,
            )
        else:
            trace_id = self._ids.generate_trace_id()
            sampled = trace_id & _LOWER_HALF < self._sampled_below
            flags = _SAMPLED if sampled else _NOT_SAMPLED
            own = SpanContext(
                trace_id, self._ids.generate_span_id(), is_remote=False, trace_flags=flags
            )
            if not sampled:
                return NonRecordingSpan(own)
        return RecordedSpan(
            self,
            name,
            own,
            parent if parent.trace_id else None,
            kind,
            attributes,
            links,
            time.time_ns() if start_time is None else start_time,
        )

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002
        end_on_exit: bool = True,  # noqa: FBT001, FBT002
    ) -> Iterator[Span]:
        """Begins a span that is the current one within the context."""
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with use_span(
            span,
            end_on_exit=end_on_exit,
            record_exception=record_exception,
            set_status_on_exception=set_status_on_exception,
        ):
            yield span


class LeanTracerProvider(TracerProvider):
    """The source of a process's tracers.

    Args:
        resource: The process.
        sample_ratio: Share of the traces beginning here that are recorded; those that begin
            elsewhere are where their beginners record them.
    """

    def __init__(self, *, resource: Resource, sample_ratio: float = 1.0) -> None:
        super().__init__(resource=resource, shutdown_on_exit=False)
        self._sampled_below = round(sample_ratio * (1 << 64))

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes = None,
    ) -> Tracer:
        """Makes a tracer.

        Args:
            instrumenting_module_name: The part of the code.
            instrumenting_library_version: Its version.
            schema_url: Where the names of attributes are explained.
            attributes: What is known of the part.
        """
        return LeanTracer(
            scope=InstrumentationScope(
                instrumenting_module_name, instrumenting_library_version, schema_url, attributes
            ),
            resource=self.resource,
            ids=self.id_generator,
            sampled_below=self._sampled_below,
            report=self._report,
        )

    def _report(self, span: RecordedSpan) -> None:
        self._active_span_processor.on_end(_as_readable(span))


def _as_readable(span: RecordedSpan) -> ReadableSpan:
    # It has all that exporters read, without being a subclass: that would bring locks along.
    return span  # type: ignore[return-value]
