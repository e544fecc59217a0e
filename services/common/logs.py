"""One line of JSON per log record, on standard error, with the running trace.

Writing is left to a thread: a line costs 0.1 ms where nobody reads fast (measured), and a reader
that stands still would stop the event loop. What the thread cannot know is taken down where the
record is made: trace, question and tenant.
"""

import logging
import os
import queue
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import orjson
from opentelemetry.trace import format_span_id, format_trace_id, get_current_span

from services.common.baggage import current_baggage
from services.common.identity import NO_IDENTITY, current_identity

__all__ = ["LogQueue", "log_line", "logging_to_standard_error"]

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_EXCEPTIONS = logging.Formatter()
# What waits longer than this at the end of the process is given up.
_LAST_SECONDS = 2.0
_WRITE_BYTES = 64 * 1024
# Of longer texts the beginning and the end are kept: an exception's name stands at its end.
_MOST_CHARACTERS = 16 * 1024
_MOST_INTEGER = 2**63 - 1
_STANDARD_ERROR = 2


def log_line(record: logging.LogRecord, service_name: str) -> dict[str, object]:
    """Returns what a line says; to be called where the record is made.

    Args:
        record: What was logged. Its `extra` fields stand beside ours.
        service_name: Stands in every line.
    """
    line: dict[str, object] = {
        "time": record.created,
        "level": record.levelname.lower(),
        "service": service_name,
        "logger": record.name,
        "message": _cut(_message(record)),
    }
    for key, value in vars(record).items():
        if key not in _STANDARD_FIELDS and key not in line:
            line[key] = _cut(value) if isinstance(value, str) else value
    span = get_current_span().get_span_context()
    if span.is_valid:
        line["trace_id"] = format_trace_id(span.trace_id)
        line["span_id"] = format_span_id(span.span_id)
    query_id = current_baggage.get().query_id
    if query_id:
        line.setdefault("query_id", query_id)
    identity = current_identity.get()
    if identity is not NO_IDENTITY:
        line.setdefault("tenant", identity.tenant_id)
    if record.exc_info:
        line["exception"] = _cut(_EXCEPTIONS.formatException(record.exc_info))
    return line


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit, or cannot be written
        return f"{_text(record.msg)} (arguments do not fit)"


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - what it raises is its own affair
        return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_CHARACTERS
    if left_out <= 0:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]} ({left_out} characters left out) {text[-half:]}"


class LogQueue(logging.Handler):
    """Writes lines in a thread, in the order of their records; never blocks who logs.

    Where more records wait than it has room for, the new ones are dropped, and a line says how
    many when there is room again.

    Args:
        descriptor: File descriptor that the lines are written to.
        service_name: Stands in every line.
        limit: Most records that wait.
    """

    def __init__(self, descriptor: int, *, service_name: str, limit: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._service_name = service_name
        self._limit = limit
        self._lines: queue.SimpleQueue[dict[str, object] | None] = queue.SimpleQueue()
        self._dropped_count = 0
        self._dropped_at = 0.0
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record; called with the handler's lock held, so that the order is kept."""
        try:
            if self._lines.qsize() >= self._limit:
                self._dropped_count += 1
                self._dropped_at = record.created
                return
            self._tell_dropped()
            self._lines.put(log_line(record, self._service_name))
        except Exception:  # noqa: BLE001 - logging never breaks what logs
            # The base class would print it, and wait for whoever reads that.
            self._dropped_count += 1
            self._dropped_at = record.created

    def close(self) -> None:
        """Writes what waits, for two seconds at most where nobody reads."""
        self.acquire()
        try:
            self._tell_dropped()
            self._lines.put(None)
        finally:
            self.release()
        self._thread.join(_LAST_SECONDS)
        super().close()

    def _tell_dropped(self) -> None:
        if self._dropped_count:
            self._lines.put(
                {
                    "time": self._dropped_at,
                    "level": "warning",
                    "service": self._service_name,
                    "logger": __name__,
                    "message": "log records lost",
                    "record_count": self._dropped_count,
                }
            )
            self._dropped_count = 0

    def _write_all(self) -> None:
        line = self._lines.get()
        while line is not None:
            data = bytearray()
            while line is not None:
                # One that cannot be written must not end the thread.
                with suppress(Exception):
                    data += _encode(line) + b"\n"
                if len(data) >= _WRITE_BYTES or self._lines.empty():
                    break
                line = self._lines.get()
            # Without anybody who reads, there is nobody to be told.
            with suppress(OSError):
                self._write(data)
            if line is not None:
                line = self._lines.get()

    def _write(self, data: bytearray) -> None:
        # Not through `sys.stderr`: at the end of the process, its lock must not be held by a thread
        # that waits for a reader.
        written = 0
        while written < len(data):
            try:
                written += os.write(self._descriptor, data[written:])
            except BlockingIOError:
                # Whoever opened it has others in mind who do not wait.
                select.select([], [self._descriptor], [])


def _encode(line: dict[str, object]) -> bytes:
    created = line["time"]
    if isinstance(created, float):
        moment = datetime.fromtimestamp(created, UTC)
        line["time"] = moment.isoformat(timespec="milliseconds")
    try:
        return orjson.dumps(line, default=_text)
    except TypeError:
        # Numbers beyond 64 bits, halves of characters.
        return orjson.dumps({_whole(key): _plain(value) for key, value in line.items()})


def _plain(value: object) -> object:
    if value is None or isinstance(value, float | bool):
        return value
    if isinstance(value, int) and abs(value) <= _MOST_INTEGER:
        return value
    return _whole(_text(value))


def _whole(text: str) -> str:
    """Replaces halves of characters."""
    return text.encode("utf-8", "replace").decode()


@contextmanager
def logging_to_standard_error(service_name: str, *, level: str, limit: int) -> Iterator[None]:
    """Sends all logs of the process to standard error while the context is open.

    Args:
        service_name: Stands in every line.
        level: `debug`, `info`, `warning` or `error`.
        limit: Most records that wait to be written.
    """
    handler = LogQueue(_STANDARD_ERROR, service_name=service_name, limit=limit)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Logs a line for each request to a backend; the spans say the same.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Warns of what stands in any caller's headers, and quotes it.
    logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
