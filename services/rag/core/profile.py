"""Where the time of a call went: stages with start and duration, and the bottleneck."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["Degradation", "DegradationReason", "Profile", "Stage", "profile_of"]


class DegradationReason(Enum):
    """What could not be done as it should have been."""

    EMBEDDING_UNAVAILABLE = "embedding_unavailable"
    MODEL_UNAVAILABLE = "model_unavailable"
    CACHE_UNAVAILABLE = "cache_unavailable"
    SEARCH_ARM_FAILED = "search_arm_failed"
    GENERATION_INTERRUPTED = "generation_interrupted"
    RERANK_UNAVAILABLE = "rerank_unavailable"
    RERANK_BUDGET_EXCEEDED = "rerank_budget_exceeded"
    REWRITE_SKIPPED = "rewrite_skipped"
    EXPANSION_SKIPPED = "expansion_skipped"
    WEB_SEARCH_UNAVAILABLE = "web_search_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    SERVED_STALE = "served_stale"
    UNGROUNDED = "ungrounded"
    CONTEXT_TRUNCATED = "context_truncated"
    DEADLINE_TRUNCATED = "deadline_truncated"
    VECTORS_PENDING = "vectors_pending"
    VERIFICATION_REDUCED = "verification_reduced"
    TOOL_FAILED = "tool_failed"


@dataclass(frozen=True, slots=True)
class Degradation:
    """A lesser result than was asked for, with the stage and what is known of the cause."""

    reason: DegradationReason
    stage: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a call.

    Attributes:
        name: For example `vector_search`.
        start_seconds: Counted from the call's arrival.
        duration_seconds: How long it took.
        cache_outcome: `hit_local`, `hit_shared`, `miss`, `bypassed` or `unavailable`; empty where
            the stage asks no cache.
        item_count: Items it produced; None where it produces none.
        failed: Whether it failed.
    """

    name: str
    start_seconds: float
    duration_seconds: float
    cache_outcome: str = ""
    item_count: int | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All stages of a call in the order of their starts.

    Attributes:
        stages: The stages; parallel ones overlap.
        total_seconds: From the call's arrival until its end.
        bottleneck: Stage with the most time of its own; empty without stages.
        first_text_seconds: From the call's arrival until the first text; None without text.
    """

    stages: tuple[Stage, ...]
    total_seconds: float
    bottleneck: str
    first_text_seconds: float | None


def profile_of(
    stages: Sequence[Stage], *, total_seconds: float, first_text_seconds: float | None
) -> Profile:
    """Sums up a call.

    A stage's own time is what no shorter stage inside it explains, so that a stage that merely
    waits for others is no bottleneck.

    Args:
        stages: In any order.
        total_seconds: From the call's arrival until its end.
        first_text_seconds: From the call's arrival until the first text; None without text.
    """
    ordered = tuple(sorted(stages, key=lambda stage: (stage.start_seconds, -_end(stage))))
    bottleneck = max(ordered, key=lambda stage: _own_seconds(stage, ordered), default=None)
    return Profile(
        stages=ordered,
        total_seconds=total_seconds,
        bottleneck=bottleneck.name if bottleneck is not None else "",
        first_text_seconds=first_text_seconds,
    )


def _end(stage: Stage) -> float:
    return stage.start_seconds + stage.duration_seconds


def _own_seconds(stage: Stage, stages: Sequence[Stage]) -> float:
    covered = 0.0
    reached = stage.start_seconds
    for other in stages:
        inside = (
            other is not stage
            and other.start_seconds >= stage.start_seconds
            and _end(other) <= _end(stage)
            and other.duration_seconds < stage.duration_seconds
        )
        if inside and _end(other) > reached:
            covered += _end(other) - max(reached, other.start_seconds)
            reached = _end(other)
    return stage.duration_seconds - covered
