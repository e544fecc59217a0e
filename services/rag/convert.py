"""Between messages and values of RagService, with the checks of its requests."""

from google.protobuf.duration_pb2 import Duration

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.sampling import sampling_violations
from services.common.validation import Violations
from services.rag.answer_convert import TO_MODES, to_answer_message, to_duration, to_passages
from services.rag.core.answer import Answer
from services.rag.core.conversation import Sampling
from services.rag.core.fusion import FusionMethod
from services.rag.core.model import RankedPassage
from services.rag.core.options import CachePolicy, Mode, Question, RetrievalOptions
from services.rag.core.profile import Degradation, DegradationReason, Profile
from services.rag.recorder import Recorder
from services.rag.statistics import RagStatistics, quantile_seconds

__all__ = [
    "check_collection",
    "question_of",
    "retrieval_of",
    "to_profile",
    "to_query_response",
    "to_retrieve_response",
    "to_retrieved",
    "to_stats",
]

MAXIMUM_QUERY_LENGTH = 8000
MAXIMUM_MODEL_LENGTH = 500
MAXIMUM_COLLECTION_LENGTH = 64

_MODES = {
    pb.QUERY_MODE_UNSPECIFIED: Mode.RAG,
    pb.QUERY_MODE_DIRECT: Mode.DIRECT,
    pb.QUERY_MODE_RAG: Mode.RAG,
    pb.QUERY_MODE_DEEP: Mode.DEEP,
}
_POLICIES = {
    pb.CACHE_POLICY_UNSPECIFIED: CachePolicy.USE,
    pb.CACHE_POLICY_USE: CachePolicy.USE,
    pb.CACHE_POLICY_BYPASS: CachePolicy.BYPASS,
    pb.CACHE_POLICY_REFRESH: CachePolicy.REFRESH,
}
_FUSIONS = {
    pb.FUSION_METHOD_UNSPECIFIED: FusionMethod.CONVEX,
    pb.FUSION_METHOD_CONVEX: FusionMethod.CONVEX,
    pb.FUSION_METHOD_RRF: FusionMethod.RECIPROCAL_RANK,
}
_REASONS = {
    reason: pb.DegradationReason.Value(f"DEGRADATION_REASON_{reason.name}")
    for reason in DegradationReason
}


def check_collection(name: str, violations: Violations) -> None:
    """Checks the form of a collection's name in a request that reads it."""
    violations.check_text(
        "collection", name, minimum_length=1, maximum_length=MAXIMUM_COLLECTION_LENGTH
    )
    violations.check_plain("collection", name)


def retrieval_of(
    message: pb.RetrievalOptions, violations: Violations, *, field: str
) -> RetrievalOptions:
    """Reads retrieval options.

    Args:
        message: The options.
        violations: Receives what is wrong.
        field: Path of the options in the request.
    """
    defaults = RetrievalOptions()
    passage_count = _given(message, "passage_count", defaults.passage_count)
    candidate_count = _given(message, "candidate_count", defaults.candidate_count)
    weight = _given(message, "vector_weight_ratio", defaults.vector_weight_ratio)
    violations.check_range(f"{field}.passage_count", passage_count, 1, 50)
    violations.check_range(f"{field}.candidate_count", candidate_count, 1, 500)
    violations.check_range(f"{field}.vector_weight_ratio", weight, 0, 1)
    violations.require(message.fusion in _FUSIONS, f"{field}.fusion", "Is no known FusionMethod.")
    return RetrievalOptions(
        passage_count=int(passage_count),
        candidate_count=max(int(candidate_count), int(passage_count)),
        fusion=_FUSIONS.get(message.fusion, FusionMethod.CONVEX),
        vector_weight_ratio=weight,
    )


def check_query(text: str, violations: Violations) -> None:
    """Checks a question."""
    violations.check_text("query", text, minimum_length=1, maximum_length=MAXIMUM_QUERY_LENGTH)
    violations.check_plain("query", text)


def question_of(request: pb.QueryRequest) -> Question:
    """Reads a question.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    check_query(request.query, violations)
    mode = _MODES.get(request.mode, Mode.RAG)
    violations.require(request.mode in _MODES, "mode", "Is no known QueryMode.")
    if mode is not Mode.DIRECT:
        check_collection(request.collection, violations)
    violations.check_text("model", request.model, maximum_length=MAXIMUM_MODEL_LENGTH)
    violations.require(
        request.cache_policy in _POLICIES, "cache_policy", "Is no known CachePolicy."
    )
    retrieval = retrieval_of(request.retrieval, violations, field="retrieval")
    sampling = _sampling_of(request.sampling, violations)
    violations.raise_found()
    return Question(
        collection=request.collection,
        text=request.query.strip(),
        mode=mode,
        retrieval=retrieval,
        model=request.model.strip(),
        sampling=sampling,
        cache_policy=_POLICIES[request.cache_policy],
    )


def _sampling_of(message: generation_pb2.SamplingOptions, violations: Violations) -> Sampling:
    violations.extend(sampling_violations(message, field="sampling"))
    given = {field.name: value for field, value in message.ListFields()}
    given["stop_sequences"] = tuple(message.stop_sequences)
    return Sampling(**given)


def to_query_response(answer: Answer, recorder: Recorder, *, trace_id: str) -> pb.QueryResponse:
    """Writes a finished answer."""
    response = to_answer_message(answer, recorder.warnings)
    response.degradations.extend(_to_degradation(each) for each in recorder.degradations)
    response.profile.CopyFrom(to_profile(recorder.profile()))
    response.trace_id = trace_id
    response.backend_id = answer.backend_id
    return response


def to_retrieved(passages: tuple[RankedPassage, ...], recorder: Recorder) -> pb.QueryRetrieved:
    """Writes what was found on the way to an answer."""
    return pb.QueryRetrieved(
        passages=to_passages(passages),
        degradations=[_to_degradation(each) for each in recorder.degradations],
    )


def to_retrieve_response(
    passages: tuple[RankedPassage, ...], recorder: Recorder
) -> pb.RetrieveResponse:
    """Writes what was found."""
    return pb.RetrieveResponse(
        passages=to_passages(passages),
        degradations=[_to_degradation(each) for each in recorder.degradations],
        profile=to_profile(recorder.profile()),
    )


def to_started(question: Question, *, trace_id: str) -> pb.QueryStarted:
    """Writes that work has begun."""
    return pb.QueryStarted(mode=TO_MODES[question.mode], trace_id=trace_id)


def to_profile(profile: Profile) -> pb.Profile:
    """Writes where the time went."""
    return pb.Profile(
        stages=[
            pb.ProfileStage(
                name=stage.name,
                start=to_duration(stage.start_seconds),
                duration=to_duration(stage.duration_seconds),
                cache_outcome=stage.cache_outcome,
                item_count=stage.item_count,
                failed=stage.failed,
            )
            for stage in profile.stages
        ],
        total=to_duration(profile.total_seconds),
        bottleneck=profile.bottleneck,
        first_text=None
        if profile.first_text_seconds is None
        else to_duration(profile.first_text_seconds),
    )


def to_stats(statistics: RagStatistics) -> pb.GetStatsResponse:
    """Writes statistics."""
    response = pb.GetStatsResponse(in_flight_count=statistics.in_flight_count)
    response.start_time.FromNanoseconds(int(statistics.start_time_seconds * 1e9))
    for mode, counts in statistics.modes.items():
        response.modes.append(
            pb.ModeStats(
                mode=TO_MODES[mode],
                query_count=counts.query_count,
                failure_count=counts.failure_count,
                degraded_count=counts.degraded_count,
                cached_count=counts.cached_count,
                similar_count=counts.similar_count,
                usage=generation_pb2.TokenUsage(
                    prompt_token_count=counts.prompt_token_count,
                    completion_token_count=counts.completion_token_count,
                ),
                answer_time_p50=_optional(quantile_seconds(counts.answer_seconds, 0.5)),
                answer_time_p95=_optional(quantile_seconds(counts.answer_seconds, 0.95)),
                answer_time_p99=_optional(quantile_seconds(counts.answer_seconds, 0.99)),
            )
        )
    for name, stage in sorted(statistics.stages.items()):
        response.stages.append(
            pb.StageStats(
                name=name,
                run_count=stage.run_count,
                failure_count=stage.failure_count,
                duration_p50=_optional(quantile_seconds(stage.duration_seconds, 0.5)),
                duration_p99=_optional(quantile_seconds(stage.duration_seconds, 0.99)),
            )
        )
    response.ingest.CopyFrom(
        pb.IngestStats(
            **{f"{outcome.value}_count": count for outcome, count in statistics.documents.items()},
            chunk_count=statistics.chunk_count,
        )
    )
    return response


def _to_degradation(degradation: Degradation) -> pb.Degradation:
    return pb.Degradation(
        reason=_REASONS[degradation.reason], stage=degradation.stage, detail=degradation.detail
    )


def _given(message: pb.RetrievalOptions, name: str, default: float) -> float:
    present = message.HasField(name)  # type: ignore[arg-type]  # an optional field's name
    return float(getattr(message, name)) if present else default


def _optional(seconds: float | None) -> Duration | None:
    return None if seconds is None else to_duration(seconds)
