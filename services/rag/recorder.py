"""Records the stages of a call, for its profile and its trace at the same time.

Both come from the same place, so that what a caller reads and what a trace shows cannot disagree.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.trace import SpanKind, Tracer

from services.common.clock import Clock
from services.common.tracing import mark_failed
from services.rag.core.profile import Degradation, DegradationReason, Profile, Stage, profile_of

__all__ = ["OpenStage", "Recorder"]


@dataclass(slots=True)
class OpenStage:
    """A stage under way, for its code to note what came of it.

    Attributes:
        cache_outcome: See `Stage`.
        item_count: See `Stage`.
        failed: Whether it failed although no error left it.
    """

    cache_outcome: str = ""
    item_count: int | None = None
    failed: bool = False


class Recorder:
    """The stages, degradations and warnings of one call.

    Args:
        clock: Measures.
        tracer: Makes a span for each stage.
    """

    def __init__(self, *, clock: Clock, tracer: Tracer) -> None:
        self._clock = clock
        self._tracer = tracer
        self._started = clock.monotonic()
        self._first_text_seconds: float | None = None
        self.stages: list[Stage] = []
        self.degradations: list[Degradation] = []
        self.warnings: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[OpenStage]:
        """Records what happens inside the context as one stage.

        Must not hold a `yield` of an async generator, whose consumer may run in another context.
        """
        stage = OpenStage()
        start = self.elapsed_seconds()
        with self._tracer.start_as_current_span(
            f"rag.{name}", kind=SpanKind.INTERNAL, record_exception=False
        ) as span:
            try:
                yield stage
            except BaseException as error:
                stage.failed = True
                mark_failed(span, error)
                raise
            finally:
                self.add_stage(name, start, stage)
                if stage.cache_outcome:
                    span.set_attribute("app.rag.cache", stage.cache_outcome)
                if stage.item_count is not None:
                    span.set_attribute("app.rag.item_count", stage.item_count)

    def add_stage(self, name: str, start_seconds: float, stage: OpenStage) -> None:
        """Records a stage that ends now."""
        self.stages.append(
            Stage(
                name=name,
                start_seconds=start_seconds,
                duration_seconds=self.elapsed_seconds() - start_seconds,
                cache_outcome=stage.cache_outcome,
                item_count=stage.item_count,
                failed=stage.failed,
            )
        )

    def degrade(self, reason: DegradationReason, stage: str, detail: object) -> None:
        """Notes a degradation, each reason once for each stage."""
        if all((each.reason, each.stage) != (reason, stage) for each in self.degradations):
            self.degradations.append(Degradation(reason, stage, str(detail)))

    def mark_first_text(self) -> None:
        """Notes that the first text of the answer is there."""
        if self._first_text_seconds is None:
            self._first_text_seconds = self.elapsed_seconds()

    def elapsed_seconds(self) -> float:
        """Returns the time since the call's arrival."""
        return self._clock.monotonic() - self._started

    def profile(self) -> Profile:
        """Sums up the call so far."""
        return profile_of(
            self.stages,
            total_seconds=self.elapsed_seconds(),
            first_text_seconds=self._first_text_seconds,
        )
