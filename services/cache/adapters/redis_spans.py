"""One client span for each operation that goes to Redis on a recorded call's behalf."""

import asyncio
from types import TracebackType

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind

from services.cache.core.store_address import StoreAddress
from services.common.tracing import SERVER_ADDRESS, SERVER_PORT, mark_failed

__all__ = ["RedisSpans"]


class RedisSpans:
    """Makes the spans.

    Args:
        tracer: Makes spans.
        address: What they name as the server; of several servers the first that was configured.
    """

    def __init__(self, tracer: trace.Tracer, address: StoreAddress) -> None:
        self._tracer = tracer
        self._common: dict[str, str | int] = {"db.system.name": "redis"}
        if address.path:
            self._common[SERVER_ADDRESS] = address.path
        else:
            self._common[SERVER_ADDRESS], self._common[SERVER_PORT] = address.endpoints[0]

    def around(
        self, operation: str, database: int, batch_size: int = 1, *, procedure: str = ""
    ) -> "_Around":
        """Makes a context manager around an operation.

        A failure marks the span only: its caller knows what to do without Redis. Whoever stops
        waiting since the call was cancelled has met no failure.

        Args:
            operation: The command.
            database: Number of the database.
            batch_size: How many commands, or keys, are sent in one go.
            procedure: Name of the script.
        """
        # What loops ask for is part of no call; of one that is not recorded nobody would see it.
        if not trace.get_current_span().get_span_context().trace_flags.sampled:
            return _NOTHING
        attributes = self._common | {"db.operation.name": operation, "db.namespace": str(database)}
        if batch_size > 1:
            attributes["db.operation.batch.size"] = batch_size
        if procedure:
            attributes["db.stored_procedure.name"] = procedure
        return _Around(
            self._tracer.start_span(operation, kind=SpanKind.CLIENT, attributes=attributes)
        )


class _Around:
    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def __enter__(self) -> None:
        return

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._span is None:
            return
        if error is not None and not isinstance(error, asyncio.CancelledError):
            mark_failed(self._span, error)
        self._span.end()


_NOTHING = _Around(None)
