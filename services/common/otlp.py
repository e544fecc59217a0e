"""The sender of spans: the OpenTelemetry protocol over gRPC."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from services.common.otlp_encoding import encode_request, encode_span

__all__ = ["OtlpSender"]

_logger = logging.getLogger(__name__)

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_TIMEOUT_SECONDS = 3.0
_RETRY_DELAYS_SECONDS = (0.5, 1.0, 2.0, 4.0)
# Who is asked to come again later than this has lost what it has.
_LONGEST_DELAY_SECONDS = 60.0
# Where nobody is there, or the receiver is short of something (OTLP specification, failures).
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# Receivers take 4 MiB by default.
_MOST_REQUEST_BYTES = 2 * 1024**2
# Whoever waits for the interpreter gets it after so many spans: less than a millisecond.
_SPANS_BETWEEN_PAUSES = 64
_PAUSE_SECONDS = 0.0001

_Encoded = tuple[InstrumentationScope | None, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What a receiver says to a request.

    Attributes:
        code: Whether it has taken it.
        rejected_count: Spans of it that it has not.
        delay_seconds: When it wants it again; None where it says nothing of that.
    """

    code: grpc.StatusCode
    rejected_count: int = 0
    delay_seconds: float | None = None

    @property
    def is_retryable(self) -> bool:
        """Whether it is of use to try again."""
        if self.delay_seconds is None:
            return self.code in _RETRYABLE
        # Refused once and for all, as what is too large is, where the receiver names no delay.
        wanted = self.code in _RETRYABLE or self.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        return wanted and self.delay_seconds <= _LONGEST_DELAY_SECONDS


class OtlpSender:
    """Sends spans to a receiver; for one thread, apart from `hurry` and `close`.

    Args:
        endpoint: `host:port` of the receiver.
        timeout_seconds: Longest time of one try.
    """

    def __init__(self, endpoint: str, *, timeout_seconds: float = _TIMEOUT_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._hurried = threading.Event()
        self._call: Any = None
        self._failing = False
        self._channel = grpc.insecure_channel(
            endpoint,
            options=[
                ("grpc.enable_http_proxy", 0),
                ("grpc.initial_reconnect_backoff_ms", 500),
                ("grpc.max_reconnect_backoff_ms", 5_000),
            ],
        )
        self._export: Any = self._channel.unary_unary(
            _EXPORT,
            request_serializer=None,
            response_deserializer=trace_service_pb2.ExportTraceServiceResponse.FromString,
        )

    def send(self, spans: Sequence[ReadableSpan]) -> int:
        """Sends spans, at least one, and returns how many were taken; blocks."""
        resource = spans[0].resource
        return sum(
            self._send(encode_request(resource, part), len(part))
            for part in _parts(_encoded(spans))
        )

    def hurry(self) -> None:
        """Says that from now on there is no time to try again what fails."""
        self._hurried.set()

    def close(self) -> None:
        """Ends a sending under way and all to come."""
        self._hurried.set()
        call = self._call
        if call is not None:
            call.cancel()
        self._channel.close()

    def _send(self, request: bytes, span_count: int) -> int:
        for delay in (*_RETRY_DELAYS_SECONDS, None):
            reply = self._try(request)
            if reply.code is grpc.StatusCode.OK:
                self._note(failing=False, code=reply.code)
                # The number is the receiver's word, which can be any.
                return span_count - min(max(reply.rejected_count, 0), span_count)
            self._note(failing=True, code=reply.code)
            if delay is None or not reply.is_retryable:
                break
            if self._hurried.wait(max(delay, reply.delay_seconds or 0.0)):
                break
        return 0

    def _try(self, request: bytes) -> _Reply:
        try:
            self._call = self._export.future(request, timeout=self._timeout_seconds)
            response = self._call.result()
        except grpc.RpcError as error:
            return _Reply(code=error.code(), delay_seconds=_delay_seconds(error))
        except (grpc.FutureCancelledError, ValueError):
            # Cancelled by `close`, or the channel is closed.
            return _Reply(code=grpc.StatusCode.CANCELLED)
        rejected_count = response.partial_success.rejected_spans
        return _Reply(code=grpc.StatusCode.OK, rejected_count=rejected_count)

    def _note(self, *, failing: bool, code: grpc.StatusCode) -> None:
        """Logs the first failure of a series and its end, not each one."""
        if failing != self._failing:
            self._failing = failing
            if failing:
                _logger.warning("receiver takes no spans", extra={"code": code.name})
            else:
                _logger.info("receiver takes spans again")


def _delay_seconds(error: grpc.RpcError) -> float | None:
    """Returns when a receiver wants to be asked again; None where it says nothing of that."""
    retry = error_details_pb2.RetryInfo()
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # has what is called
        for detail in status.details if status is not None else ():
            if detail.Unpack(retry):
                return float(retry.retry_delay.ToNanoseconds() / 1e9)
    except (ValueError, DecodeError):
        # Another code in the details than gRPC's own, or no details that anybody could read.
        pass
    return None


def _encoded(spans: Sequence[ReadableSpan]) -> Iterator[_Encoded]:
    """Encodes spans; one that cannot be encoded is left out, so that it costs no other."""
    failures: list[tuple[str, str]] = []
    for count, span in enumerate(spans, 1):
        if count % _SPANS_BETWEEN_PAUSES == 0:
            time.sleep(_PAUSE_SECONDS)
        try:
            encoded = encode_span(span)
        except Exception as error:  # noqa: BLE001 - whatever somebody has put into it
            failures.append((span.name, type(error).__name__))
        else:
            yield span.instrumentation_scope, encoded
    if failures:
        # One line for all: what is wrong with one span is so with all of its kind.
        name, reason = failures[0]
        _logger.error(
            "spans cannot be encoded",
            extra={"span_count": len(failures), "span_name": name, "error_type": reason},
        )


def _parts(spans: Iterator[_Encoded]) -> Iterator[list[_Encoded]]:
    """Divides spans into requests that a receiver has room for."""
    part: list[_Encoded] = []
    size = 0
    for each in spans:
        if part and size + len(each[1]) > _MOST_REQUEST_BYTES:
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each[1])
    if part:
        yield part
