"""What comes of loading a model, and the span that tells of it."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Tracer

from services.balancer.backend import Backend, ModelState
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import LoadedModel
from services.balancer.core.outcomes import LoadCause
from services.balancer.core.plan import LoadOrder
from services.balancer.own_spans import start_own_span
from services.common.tracing import mark_failed

__all__ = [
    "LoadResult",
    "Loaded",
    "NotLoaded",
    "end_load_span",
    "result_of",
    "start_load_span",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load that has ended well.

    Attributes:
        seconds: What it took, making room included.
        listed: The models in memory after it; None where the backend did not tell.
        asked_at: When it was asked for them, monotonic seconds.
    """

    seconds: float
    listed: tuple[LoadedModel, ...] | None
    asked_at: float


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """A load that has not come about, and for which the backend is not to blame.

    Attributes:
        cause: What was in the way.
    """

    cause: str


LoadResult = Loaded | NotLoaded | AttemptFailed


def result_of(load: asyncio.Task[LoadResult]) -> LoadResult:
    """Returns what has come of a load, however it has ended."""
    if load.cancelled():
        return NotLoaded("it was given up")
    error = load.exception()
    if error is None:
        return load.result()
    _logger.error("load ended", exc_info=error)
    # Nobody's fault but ours.
    return AttemptFailed(FailureKind.REJECTED, "the load could not be ordered")


def start_load_span(
    tracer: Tracer,
    backend: Backend,
    state: ModelState,
    order: LoadOrder,
    cause: LoadCause,
    *,
    evicted_count: int,
    callers: Iterable[SpanContext],
) -> Span:
    """Begins the span of a load.

    Args:
        tracer: Makes it.
        backend: Where.
        state: What is loaded.
        order: How.
        cause: Why.
        evicted_count: How many models go for it.
        callers: The calls that wait for it.
    """
    span = start_own_span(tracer, "load", backend, state, kind=SpanKind.CLIENT, causes=callers)
    span.set_attributes(
        {
            "app.model_load.cause": cause.value,
            "app.model_load.evicted_count": evicted_count,
            "app.model_load.context_tokens": order.context_token_count,
            "app.model_load.predicted_s": order.predicted_seconds,
        }
    )
    return span


def end_load_span(result: LoadResult) -> None:
    """Ends the span of a load, which is the current one.

    Args:
        result: What has come of it.
    """
    span = trace.get_current_span()
    match result:
        case Loaded():
            outcome = "success"
        case NotLoaded():
            outcome = "not_loaded"
        case AttemptFailed():
            outcome = "error"
            mark_failed(span, result.kind.value)
    span.set_attribute("app.model_load.outcome", outcome)
    span.end()
