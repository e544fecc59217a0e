"""Spans on their way out: a bounded queue, emptied by a thread, with exact books.

Every span that was recorded is counted once, as exported or as dropped.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from services.common.metrics import Metrics

__all__ = ["SpanQueue", "SpanReceiver"]

_logger = logging.getLogger(__name__)

# A request costs as much as encoding a hundred spans (measured), so many are sent together.
_SPANS_TOGETHER = 1024


class SpanReceiver(Protocol):
    """Takes spans; called in a thread of its own."""

    def send(self, spans: Sequence[ReadableSpan]) -> int:
        """Sends spans, at least one, and returns how many were taken; blocks."""
        ...

    def hurry(self) -> None:
        """Says that from now on there is no time to try again what fails."""
        ...

    def close(self) -> None:
        """Ends a sending under way and all to come."""
        ...


class SpanQueue(SpanProcessor):
    """Keeps ended spans until a thread has sent them; never blocks who ends a span.

    When the queue is full, new spans are dropped: traces that are whole help more than parts of
    all.

    Args:
        receiver: Takes the spans.
        metrics: Counts them.
        limit: Most spans that wait.
        patience_seconds: Longest time that few wait for more.
        shutdown_seconds: Longest time for the last ones.
    """

    def __init__(
        self,
        receiver: SpanReceiver,
        *,
        metrics: Metrics,
        limit: int,
        patience_seconds: float = 1.0,
        shutdown_seconds: float = 3.0,
    ) -> None:
        self._receiver = receiver
        self._metrics = metrics
        self._limit = limit
        self._wake_at = min(limit, _SPANS_TOGETHER)
        self._patience_seconds = patience_seconds
        self._shutdown_seconds = shutdown_seconds
        self._waiting: deque[ReadableSpan] = deque()
        self._sending = 0
        self._closing = False
        self._gave_up = False
        self._awaken = threading.Event()
        # Guards all of the above; held for microseconds. Reentrant: the garbage collector may run
        # within, and end a span.
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Does nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Takes a span that has ended."""
        with self._lock:
            count = len(self._waiting)
            kept = count < self._limit and not self._closing
            if kept:
                self._waiting.append(span)
        if not kept:
            self._metrics.count("telemetry_spans_dropped_total")
        elif count + 1 == self._wake_at:
            self._awaken.set()

    def shutdown(self) -> None:
        """Sends what waits, for so long as is allowed; the rest is dropped, and counted."""
        with self._settled:
            if self._closing:
                return
            self._closing = True
        self._receiver.hurry()
        self._awaken.set()
        self._thread.join(self._shutdown_seconds)
        with self._settled:
            self._gave_up = True
            lost = self._sending + len(self._waiting)
            self._waiting.clear()
        if lost:
            self._metrics.count("telemetry_spans_dropped_total", amount=lost)
            _logger.warning("spans lost at the end", extra={"span_count": lost})
        self._receiver.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Waits until nothing waits; returns whether that came about in time."""
        self._awaken.set()
        with self._settled:
            return self._settled.wait_for(
                lambda: not self._waiting and not self._sending, timeout_millis / 1000
            )

    def _run(self) -> None:
        while not self._closing:
            self._awaken.wait(self._patience_seconds)
            self._awaken.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        # Not what comes meanwhile: each request would then carry the few of a moment.
        rest = len(self._waiting)
        while rest > 0 and (batch := self._take()):
            rest -= len(batch)
            try:
                taken = self._receiver.send(batch)
            except BaseException:
                # Whatever it is: without this thread, all spans to come would be lost.
                _logger.exception("spans not sent")
                taken = 0
            self._settle(len(batch), taken)

    def _take(self) -> list[ReadableSpan]:
        with self._settled:
            count = min(len(self._waiting), _SPANS_TOGETHER)
            self._sending = count
            return [self._waiting.popleft() for _ in range(count)]

    def _settle(self, sent: int, taken: int) -> None:
        with self._settled:
            self._sending = 0
            # Those that were given up are counted, though they may have arrived at the last moment.
            if not self._gave_up:
                self._metrics.count("telemetry_spans_exported_total", amount=taken)
                if taken < sent:
                    self._metrics.count("telemetry_spans_dropped_total", amount=sent - taken)
            self._settled.notify_all()
