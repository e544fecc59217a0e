"""What comes of loading a model."""

import asyncio
import logging
from dataclasses import dataclass

from opentelemetry import trace

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.models import LoadedModel
from services.common.tracing import mark_failed

__all__ = ["LoadResult", "Loaded", "NotLoaded", "end_load_span", "result_of"]

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
