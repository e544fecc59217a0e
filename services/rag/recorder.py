"""Records the stages of a call, for its profile, its trace and its listeners at the same time.

All come from the same place and the same times, so that what a caller reads and what a trace shows
cannot disagree.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from enum import Enum

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.util.types import AttributeValue

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.tracing import mark_failed
from services.rag.core.profile import (
    Degradation,
    DegradationReason,
    Profile,
    Stage,
    WarningKind,
    profile_of,
)
from services.rag.core.query_record import CacheEntry
from services.rag.stage_spans import StageSpan, span_of

__all__ = ["CANCELLED", "OpenStage", "Progress", "ProgressState", "Recorder"]

CANCELLED = "CANCELLED"
"""Reason of a stage that was told to stop; it has not failed by itself."""


class ProgressState(Enum):
    """What a stage has just done."""

    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Progress:
    """A stage has begun or ended.

    Attributes:
        stage: Its name.
        state: Which of them.
        elapsed_seconds: When, counted from the call's arrival.
        item_count: See `Stage`.
        cache_outcome: See `Stage`.
    """

    stage: str
    state: ProgressState
    elapsed_seconds: float
    item_count: int | None = None
    cache_outcome: str = ""


@dataclass(slots=True, kw_only=True)
class OpenStage:
    """A stage under way, for its code to note what came of it.

    Attributes:
        span: Its span; one that records nothing where it has none of its own.
        called: How it is called in the trace; None where it is not.
        cache_outcome: See `Stage`.
        item_count: See `Stage`.
        failed: Whether it failed although no error left it.
        error_reason: See `Stage`.
        model: See `Stage`.
        backend_id: See `Stage`.
        prompt_token_count: See `Stage`.
        completion_token_count: See `Stage`.
    """

    name: str
    number: int
    parent: int | None
    start_seconds: float
    span: Span
    called: StageSpan | None
    cache_outcome: str = ""
    item_count: int | None = None
    failed: bool = False
    error_reason: str = ""
    model: str = ""
    backend_id: str = ""
    prompt_token_count: int = 0
    completion_token_count: int = 0

    def note_failure(self, error: BaseException) -> None:
        """Notes an error that the stage ends in."""
        self.failed = True
        if isinstance(error, ServiceError):
            self.error_reason = error.error_reason
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self.error_reason = CANCELLED
        elif isinstance(error, TimeoutError):
            self.error_reason = "DEADLINE_EXCEEDED"
        else:
            self.error_reason = "INTERNAL"


_inside: ContextVar[tuple["Recorder", OpenStage] | None] = ContextVar("inside", default=None)


class Recorder:
    """The stages, degradations and warnings of one call.

    Args:
        clock: Measures.
        tracer: Makes a span for each stage.
        query_id: Name of the call, by which it can be asked for; empty where it cannot.

    Attributes:
        variants: Variants of experiments that the call is part of, by experiment.
        cache_entry: What the cache has of its answer.
        told_profile: The profile as its caller was told of it; empty before.
        told_bottleneck: The stage that it says took longest.
        warning_kinds: What each of the warnings is about.
        prompt_passage_counts: Passages in each prompt that a model was given to answer from.
        is_out_of_time: Whether what works for the call is being ended since its time is up.
    """

    def __init__(self, *, clock: Clock, tracer: Tracer, query_id: str = "") -> None:
        self._clock = clock
        self._tracer = tracer
        self._started = clock.monotonic()
        self._started_ns = round(clock.now() * 1e9)
        self._count = 0
        self._listeners: list[Callable[[Progress], None]] = []
        self._first_text_seconds: float | None = None
        self.query_id = query_id
        self.stages: list[Stage] = []
        self.degradations: list[Degradation] = []
        self.warnings: list[str] = []
        self.variants: dict[str, str] = {}
        self.cache_entry: CacheEntry | None = None
        self.told_profile = b""
        self.told_bottleneck = ""
        self.warning_kinds: list[WarningKind] = []
        self.prompt_passage_counts: list[int] = []
        self.is_out_of_time: Callable[[], bool] = lambda: False

    def listen(self, listener: Callable[[Progress], None]) -> None:
        """Has a listener told of each stage when it begins and when it ends."""
        self._listeners.append(listener)

    def stage(self, name: str) -> AbstractContextManager[OpenStage]:
        """Records what happens inside the context as one stage.

        What is begun inside, tasks included, is a part of it. Must not hold a `yield` of an async
        generator, whose consumer may run in another context: `begin` and `end` are for those.
        """
        return _Inside(self, name)

    def begin(self, name: str) -> OpenStage:
        """Begins a stage that `end` must end; what happens meanwhile is not a part of it."""
        outer = _inside.get()
        start = self.elapsed_seconds()
        called = span_of(name)
        stage = OpenStage(
            name=name,
            number=self._count,
            parent=outer[1].number if outer is not None and outer[0] is self else None,
            start_seconds=start,
            span=(
                self._tracer.start_span(
                    called.name, attributes=called.attributes, start_time=self._time_ns(start)
                )
                if called is not None
                else INVALID_SPAN
            ),
            called=called,
        )
        self._count += 1
        self._tell(Progress(name, ProgressState.STARTED, start))
        return stage

    def end(self, stage: OpenStage) -> None:
        """Ends a stage."""
        elapsed = self.elapsed_seconds()
        self.stages.append(
            Stage(
                number=stage.number,
                parent=stage.parent,
                name=stage.name,
                start_seconds=stage.start_seconds,
                duration_seconds=elapsed - stage.start_seconds,
                cache_outcome=stage.cache_outcome,
                item_count=stage.item_count,
                failed=stage.failed,
                error_reason=stage.error_reason,
                model=stage.model,
                backend_id=stage.backend_id,
                prompt_token_count=stage.prompt_token_count,
                completion_token_count=stage.completion_token_count,
            )
        )
        _describe(stage)
        stage.span.end(self._time_ns(elapsed))
        state = ProgressState.FAILED if stage.failed else ProgressState.FINISHED
        self._tell(Progress(stage.name, state, elapsed, stage.item_count, stage.cache_outcome))

    def start_span(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """Begins a span that is no stage; `end_span` ends it."""
        start = self._time_ns(self.elapsed_seconds())
        return self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=start)

    def end_span(self, span: Span) -> None:
        """Ends a span that is no stage."""
        span.end(self._time_ns(self.elapsed_seconds()))

    def warn(self, kind: WarningKind, text: str) -> None:
        """Warns the caller of something."""
        self.warnings.append(text)
        self.warning_kinds.append(kind)

    def degrade(self, reason: DegradationReason, stage: str, detail: object) -> None:
        """Notes a degradation, each reason once for each stage."""
        if all((each.reason, each.stage) != (reason, stage) for each in self.degradations):
            self.degradations.append(Degradation(reason, stage, str(detail)))

    def mark_first_text(self) -> None:
        """Notes that the first text of the answer is there."""
        if self._first_text_seconds is None:
            self._first_text_seconds = self.elapsed_seconds()

    @property
    def first_text_seconds(self) -> float | None:
        """When the first text was there, counted from the call's arrival; None before."""
        return self._first_text_seconds

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

    def _time_ns(self, elapsed_seconds: float) -> int:
        return self._started_ns + round(elapsed_seconds * 1e9)

    def _tell(self, progress: Progress) -> None:
        for listener in self._listeners:
            listener(progress)


class _Inside:
    """What is done inside a stage."""

    __slots__ = ("_attached", "_name", "_recorder", "_stage", "_token")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder = recorder
        self._name = name

    def __enter__(self) -> OpenStage:
        self._stage = stage = self._recorder.begin(self._name)
        self._token: Token[tuple[Recorder, OpenStage] | None] = _inside.set((self._recorder, stage))
        self._attached: Token[Context] | None = None
        if stage.called is not None:
            self._attached = attach(set_span_in_context(stage.span))
        return stage

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if self._attached is not None:
            detach(self._attached)
        if error is not None:
            self._stage.note_failure(error)
        _inside.reset(self._token)
        self._recorder.end(self._stage)


def _describe(stage: OpenStage) -> None:
    """Writes what is known of a stage on its span."""
    if stage.called is None:
        return
    if stage.failed and stage.error_reason == CANCELLED:
        # Whoever tells a stage to stop wants nothing of it any more, which is no failure of it.
        stage.span.set_attribute("app.cancelled", True)  # noqa: FBT003 - the name says it
    elif stage.failed:
        mark_failed(stage.span, stage.error_reason or "failed")
    known: dict[str, AttributeValue] = {}
    if stage.cache_outcome:
        known["app.cache.outcome"] = stage.cache_outcome
    if stage.item_count is not None:
        known[stage.called.count] = stage.item_count
    if stage.model:
        known["gen_ai.request.model"] = stage.model
    if stage.backend_id:
        known["app.backend"] = stage.backend_id
    if stage.prompt_token_count or stage.completion_token_count:
        known["gen_ai.usage.input_tokens"] = stage.prompt_token_count
        known["gen_ai.usage.output_tokens"] = stage.completion_token_count
    stage.span.set_attributes(known)
