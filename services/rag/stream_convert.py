"""From what happens to a question to the messages that tell of it."""

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from pannier.rag.v1 import tool_pb2
from services.common.errors import ServiceError, StatusCode
from services.common.validation import Violations
from services.rag.answer_convert import TO_MODES, drop_texts, to_passages
from services.rag.core.options import Mode, Question
from services.rag.core.passages import RankedPassage
from services.rag.core.profile import Degradation, DegradationReason, Profile, ProfiledStage
from services.rag.recorder import Progress, ProgressState, Recorder
from services.rag.statistics import (
    ModeCounts,
    RagStatistics,
    StageCounts,
    ToolCounts,
    quantile_seconds,
)
from services.rag.times_convert import to_duration, to_optional_duration

__all__ = [
    "check_resume",
    "to_degradation",
    "to_failed",
    "to_heartbeat",
    "to_profile",
    "to_progress",
    "to_retrieved",
    "to_started",
    "to_stats",
]

_REASONS = {
    reason: pb.DegradationReason.Value(f"DEGRADATION_REASON_{reason.name}")
    for reason in DegradationReason
}
_STATES = {state: pb.ProgressState.Value(f"PROGRESS_STATE_{state.name}") for state in ProgressState}
_LONGEST_QUERY_ID = 64
# What need not be so the next time.
_PASSING_CODES = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.ABORTED,
        StatusCode.RESOURCE_EXHAUSTED,
        StatusCode.DEADLINE_EXCEEDED,
    }
)


def check_resume(request: pb.ResumeQueryRequest) -> None:
    """Checks what an answer is to be gone on with by.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    violations.check_text(
        "query_id", request.query_id, minimum_length=1, maximum_length=_LONGEST_QUERY_ID
    )
    violations.require(request.after_sequence >= 0, "after_sequence", "Must be 0 or more.")
    violations.raise_found()


def to_started(
    question: Question, *, trace_id: str, query_id: str, resumable: bool
) -> pb.QueryStarted:
    """Writes that work has begun."""
    return pb.QueryStarted(
        mode=TO_MODES[question.mode], trace_id=trace_id, query_id=query_id, resumable=resumable
    )


def to_progress(progress: Progress) -> pb.QueryProgress:
    """Writes that a stage has begun or ended."""
    return pb.QueryProgress(
        stage=progress.stage,
        state=_STATES[progress.state],
        elapsed=to_duration(progress.elapsed_seconds),
        item_count=progress.item_count,
        cache_outcome=progress.cache_outcome,
    )


def to_heartbeat(elapsed_seconds: float) -> pb.QueryHeartbeat:
    """Writes that work goes on."""
    return pb.QueryHeartbeat(elapsed=to_duration(elapsed_seconds))


def to_failed(error: ServiceError, partial_answer: str) -> pb.QueryFailed:
    """Writes why there is no whole answer."""
    return pb.QueryFailed(
        reason=error.error_reason,
        message=error.message,
        partial_answer=partial_answer,
        retryable=error.status_code in _PASSING_CODES,
    )


def to_retrieved(
    passages: tuple[RankedPassage, ...], recorder: Recorder, *, shows_passage_texts: bool = True
) -> pb.QueryRetrieved:
    """Writes what was found on the way to an answer."""
    retrieved = pb.QueryRetrieved(
        passages=to_passages(passages),
        degradations=[to_degradation(each) for each in recorder.degradations],
    )
    if not shows_passage_texts:
        drop_texts(retrieved.passages)
    return retrieved


def to_degradation(degradation: Degradation) -> pb.Degradation:
    """Writes a lesser result than was asked for."""
    return pb.Degradation(
        reason=_REASONS[degradation.reason], stage=degradation.stage, detail=degradation.detail
    )


def to_profile(profile: Profile) -> pb.Profile:
    """Writes where the time went."""
    return pb.Profile(
        stages=[_to_stage(each) for each in profile.stages],
        total=to_duration(profile.total_seconds),
        bottleneck=profile.bottleneck,
        first_text=to_optional_duration(profile.first_text_seconds),
        critical_path=to_duration(profile.critical_path_seconds),
        parallel_saving=to_duration(profile.parallel_saving_seconds),
        bottlenecks=profile.bottlenecks,
        advice=profile.advice,
        retrieval=to_optional_duration(profile.retrieval_seconds),
        rerank=to_optional_duration(profile.rerank_seconds),
        generation=to_optional_duration(profile.generation_seconds),
        verification=to_optional_duration(profile.verification_seconds),
    )


def to_stats(statistics: RagStatistics, *, resumable_count: int = 0) -> pb.GetStatsResponse:
    """Writes statistics."""
    response = pb.GetStatsResponse(
        in_flight_count=statistics.in_flight_count,
        modes=[_to_mode_stats(mode, counts) for mode, counts in statistics.modes.items()],
        stages=[_to_stage_stats(name, each) for name, each in sorted(statistics.stages.items())],
        ingest=pb.IngestStats(
            **{f"{outcome.value}_count": count for outcome, count in statistics.documents.items()},
            chunk_count=statistics.chunk_count,
        ),
        degradations=[
            pb.DegradationStats(reason=_REASONS[reason], count=count)
            for reason, count in statistics.degradations.items()
        ],
        resumable_count=resumable_count,
        tools=[_to_tool_stats(name, each) for name, each in sorted(statistics.tools.items())],
    )
    response.start_time.FromNanoseconds(int(statistics.start_time_seconds * 1e9))
    return response


def _to_stage(each: ProfiledStage) -> pb.ProfileStage:
    stage = each.stage
    usage = None
    if stage.prompt_token_count or stage.completion_token_count:
        usage = generation_pb2.TokenUsage(
            prompt_token_count=stage.prompt_token_count,
            completion_token_count=stage.completion_token_count,
        )
    return pb.ProfileStage(
        name=stage.name,
        start=to_duration(stage.start_seconds),
        duration=to_duration(stage.duration_seconds),
        cache_outcome=stage.cache_outcome,
        item_count=stage.item_count,
        failed=stage.failed,
        parent_index=each.parent_index,
        self_duration=to_duration(each.self_seconds),
        on_critical_path=each.on_critical_path,
        model=stage.model,
        backend_id=stage.backend_id,
        usage=usage,
        error_reason=stage.error_reason,
    )


def _to_mode_stats(mode: Mode, counts: ModeCounts) -> pb.ModeStats:
    return pb.ModeStats(
        mode=TO_MODES[mode],
        query_count=counts.query_count,
        failure_count=counts.failure_count,
        degraded_count=counts.degraded_count,
        cached_count=counts.cached_count,
        similar_count=counts.similar_count,
        cancelled_count=counts.cancelled_count,
        usage=generation_pb2.TokenUsage(
            prompt_token_count=counts.prompt_token_count,
            completion_token_count=counts.completion_token_count,
        ),
        answer_time_p50=to_optional_duration(quantile_seconds(counts.answer_seconds, 0.5)),
        answer_time_p95=to_optional_duration(quantile_seconds(counts.answer_seconds, 0.95)),
        answer_time_p99=to_optional_duration(quantile_seconds(counts.answer_seconds, 0.99)),
        mean_quality=counts.mean_quality,
    )


def _to_stage_stats(name: str, counts: StageCounts) -> pb.StageStats:
    return pb.StageStats(
        name=name,
        run_count=counts.run_count,
        failure_count=counts.failure_count,
        duration_p50=to_optional_duration(quantile_seconds(counts.duration_seconds, 0.5)),
        duration_p95=to_optional_duration(quantile_seconds(counts.duration_seconds, 0.95)),
        duration_p99=to_optional_duration(quantile_seconds(counts.duration_seconds, 0.99)),
    )


def _to_tool_stats(name: str, counts: ToolCounts) -> tool_pb2.ToolStats:
    count = counts.execution_count
    return tool_pb2.ToolStats(
        name=name,
        execution_count=count,
        success_count=counts.success_count,
        success_ratio=counts.success_count / count if count else None,
        duration_p50=to_optional_duration(quantile_seconds(counts.duration_seconds, 0.5)),
        duration_p95=to_optional_duration(quantile_seconds(counts.duration_seconds, 0.95)),
    )
