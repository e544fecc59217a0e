"""Between messages and values of UsageService, with the checks of its requests."""

import re
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pannier.rag.v1 import rag_service_pb2
from pannier.rag.v1 import usage_service_pb2 as pb
from services.common.errors import PageTokenMismatch
from services.common.validation import Violations
from services.rag.core.budget import Budget
from services.rag.core.experiment import Experiment
from services.rag.core.experiment_report import (
    FeedbackCounts,
    MeanDifference,
    VariantFigures,
    share_interval,
    welch_difference,
)
from services.rag.core.feedback import Feedback
from services.rag.core.profile import DegradationReason
from services.rag.core.query_record import QueryFilter, QueryRecord
from services.rag.core.usage import (
    AMOUNTS,
    HOUR_SECONDS,
    Amounts,
    UsageBucket,
    UsageDimension,
    UsageRow,
    hour_of,
)
from services.rag.times_convert import to_duration, to_optional_duration
from services.rag.usage_port import UsageSpan

__all__ = [
    "budget_of",
    "check_mode",
    "check_name",
    "feedback_of",
    "filter_of",
    "place_of",
    "position_of",
    "seconds_of",
    "span_of",
    "to_amounts",
    "to_budget",
    "to_counts",
    "to_feedback",
    "to_record",
    "to_timestamp",
    "to_usage_row",
    "to_variant_reports",
]

MAXIMUM_QUERY_ID_LENGTH = 64
MAXIMUM_REASON_COUNT = 16
MAXIMUM_COMMENT_LENGTH = 4000
MAXIMUM_CORRECTION_LENGTH = 16_000
MAXIMUM_PASSAGE_COUNT = 50
MAXIMUM_BUDGET = 10**18
MAXIMUM_SPAN_SECONDS = 400 * 86_400
_DAY_SECONDS = 86_400
_WORD = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_MODE = re.compile(r"[a-z0-9._-]{0,64}", re.ASCII)
_LATEST_SECONDS = 253_402_300_800
_NANOS = 1_000_000_000
_MICROS = 1_000_000

_BUCKETS = {
    pb.USAGE_BUCKET_UNSPECIFIED: UsageBucket.TOTAL,
    **{pb.UsageBucket.Value(f"USAGE_BUCKET_{each.name}"): each for each in UsageBucket},
}
_DIMENSIONS = {
    pb.UsageDimension.Value(f"USAGE_DIMENSION_{each.name}"): each for each in UsageDimension
}
_REASONS = {
    each: rag_service_pb2.DegradationReason.Value(f"DEGRADATION_REASON_{each.name}")
    for each in DegradationReason
}


def check_name(field: str, name: str, violations: Violations) -> None:
    """Checks the name of a query or the like."""
    violations.check_text(field, name, minimum_length=1, maximum_length=MAXIMUM_QUERY_ID_LENGTH)
    violations.check_plain(field, name)


def check_mode(field: str, mode: str, violations: Violations) -> None:
    """Checks the name of a mode."""
    violations.require(
        bool(_MODE.fullmatch(mode)),
        field,
        "Must have at most 64 characters of a-z, 0-9, '.', '_', '-'.",
    )


def seconds_of(message: Timestamp, field: str, violations: Violations) -> float:
    """Reads a time, in seconds since the epoch."""
    valid = 0 <= message.seconds < _LATEST_SECONDS and 0 <= message.nanos < _NANOS
    violations.require(valid, field, "Must be a time from 1970 to 9999.")
    return message.seconds + message.nanos / _NANOS if valid else 0.0


def filter_of(request: pb.ListProfilesRequest, violations: Violations) -> QueryFilter:
    """Reads which queries are listed."""
    check_mode("mode", request.mode, violations)
    slower: float | None = None
    if request.HasField("slower_than"):
        slower = request.slower_than.seconds + request.slower_than.nanos / _NANOS
        violations.check_range("slower_than", slower, 0, _DAY_SECONDS)
    since: float | None = None
    if request.HasField("since"):
        since = seconds_of(request.since, "since", violations)
    return QueryFilter(
        slower_than_seconds=slower,
        degraded_only=request.degraded_only,
        failed_only=request.failed_only,
        mode=request.mode,
        since_seconds=since,
    )


def span_of(request: pb.GetUsageRequest, violations: Violations, *, now: float) -> UsageSpan:
    """Reads which usage is summed up, and how."""
    end = now
    if request.HasField("end_time"):
        end = seconds_of(request.end_time, "end_time", violations)
    start = max(0.0, end - _DAY_SECONDS)
    if request.HasField("start_time"):
        start = seconds_of(request.start_time, "start_time", violations)
    first = hour_of(start)
    last = min(-hour_of(-end), _LATEST_SECONDS - HOUR_SECONDS)
    violations.require(first <= last, "start_time", "Must not be after the end.")
    violations.require(
        last - first <= MAXIMUM_SPAN_SECONDS + HOUR_SECONDS,
        "start_time",
        "Must be at most 400 days before the end.",
    )
    violations.require(request.bucket in _BUCKETS, "bucket", "Is no known UsageBucket.")
    group_by: list[UsageDimension] = []
    for index, number in enumerate(request.group_by):
        dimension = _DIMENSIONS.get(number)
        if dimension is None:
            violations.add(f"group_by[{index}]", "Is no known UsageDimension.")
        elif dimension in group_by:
            violations.add(f"group_by[{index}]", "Is there twice.")
        else:
            group_by.append(dimension)
        if index >= len(_DIMENSIONS):
            break
    return UsageSpan(
        start_seconds=first,
        end_seconds=last,
        bucket=_BUCKETS.get(request.bucket, UsageBucket.TOTAL),
        group_by=tuple(group_by),
    )


def feedback_of(request: pb.SubmitFeedbackRequest) -> Feedback:
    """Reads what a user says.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    check_name("query_id", request.query_id, violations)
    violations.check_range("rating", request.rating, -1, 1)
    _check_count("reasons", len(request.reasons), MAXIMUM_REASON_COUNT, violations)
    for index, reason in enumerate(request.reasons[:MAXIMUM_REASON_COUNT]):
        violations.require(
            bool(_WORD.fullmatch(reason)),
            f"reasons[{index}]",
            "Must have 1 to 64 characters of a-z, 0-9, '_', '-'.",
        )
    violations.check_text("comment", request.comment, maximum_length=MAXIMUM_COMMENT_LENGTH)
    violations.check_text(
        "corrected_answer", request.corrected_answer, maximum_length=MAXIMUM_CORRECTION_LENGTH
    )
    ids = request.relevant_passage_ids
    _check_count("relevant_passage_ids", len(ids), MAXIMUM_PASSAGE_COUNT, violations)
    for index, passage_id in enumerate(ids[:MAXIMUM_PASSAGE_COUNT]):
        check_name(f"relevant_passage_ids[{index}]", passage_id, violations)
    violations.raise_found()
    return Feedback(
        query_id=request.query_id,
        user_id="",
        rating=request.rating,
        reasons=tuple(dict.fromkeys(request.reasons)),
        comment=request.comment,
        corrected_answer=request.corrected_answer,
        relevant_passage_ids=tuple(dict.fromkeys(ids)),
    )


def budget_of(message: pb.Budget) -> Budget:
    """Reads a budget.

    Raises:
        InvalidRequest: Fields break their rules.
    """
    violations = Violations()
    given = {field.name: value for field, value in message.ListFields()}
    for name, value in given.items():
        violations.check_range(f"budget.{name}", value, 0, MAXIMUM_BUDGET)
    violations.raise_found()
    return Budget(**given)


def to_budget(budget: object) -> pb.Budget:
    """Writes a budget, or what is spent of one."""
    return pb.Budget(**{name: getattr(budget, name) for name in Budget.__slots__})


def to_record(record: QueryRecord, bottleneck: str) -> pb.QueryRecord:
    """Writes a query."""
    origin = rag_service_pb2.ANSWER_ORIGIN_UNSPECIFIED
    if record.origin:
        origin = rag_service_pb2.AnswerOrigin.Value(f"ANSWER_ORIGIN_{record.origin.upper()}")
    return pb.QueryRecord(
        query_id=record.query_id,
        user_id=record.user_id,
        start_time=to_timestamp(record.started_seconds),
        call=record.call,
        mode=record.mode,
        collection=record.collection,
        model=record.model,
        outcome=record.outcome,
        error_reason=record.error_reason,
        origin=origin,
        degradations=[_REASONS[each] for each in record.degradations],
        quality=record.quality,
        usage=to_amounts(record.amounts),
        duration=to_duration(record.duration_seconds),
        first_text=to_optional_duration(record.first_text_seconds),
        bottleneck=bottleneck,
        experiment_variants=record.variants,
        trace_id=record.trace_id,
        question=record.question,
        answer=record.answer,
    )


def to_amounts(amounts: Amounts) -> pb.UsageAmounts:
    """Writes how much was used."""
    return pb.UsageAmounts(**{name: getattr(amounts, name) for name in AMOUNTS})


def to_usage_row(row: UsageRow) -> pb.UsageRow:
    """Writes what was used in a period."""
    start = None if row.start_seconds is None else Timestamp(seconds=row.start_seconds)
    return pb.UsageRow(
        start_time=start,
        user_id=row.user_id,
        mode=row.mode,
        model=row.model,
        kind=row.kind,
        amounts=to_amounts(row.amounts),
    )


def to_feedback(feedback: Feedback) -> pb.Feedback:
    """Writes what a user has said."""
    return pb.Feedback(
        query_id=feedback.query_id,
        user_id=feedback.user_id,
        rating=feedback.rating,
        reasons=feedback.reasons,
        comment=feedback.comment,
        corrected_answer=feedback.corrected_answer,
        relevant_passage_ids=feedback.relevant_passage_ids,
        update_time=to_timestamp(feedback.updated_seconds),
        mode=feedback.mode,
        model=feedback.model,
    )


def to_counts(counts: FeedbackCounts) -> pb.FeedbackCounts:
    """Writes how many ratings there are."""
    return pb.FeedbackCounts(
        positive_count=counts.positive,
        neutral_count=counts.neutral,
        negative_count=counts.negative,
    )


def to_variant_reports(
    experiment: Experiment, figures: Sequence[VariantFigures]
) -> list[pb.ExperimentVariantReport]:
    """Writes how the variants of an experiment compare, in the order of the setting."""
    known = {each.variant: each for each in figures}
    ordered = [
        (each.share, known.pop(each.name, VariantFigures(variant=each.name)))
        for each in experiment.variants
    ]
    # Variants that there were once come last.
    ordered += [(0.0, known[name]) for name in sorted(known)]
    base = ordered[0][1].quality
    return [
        _to_variant_report(
            share, each, None if index == 0 else welch_difference(base, each.quality)
        )
        for index, (share, each) in enumerate(ordered)
    ]


def to_timestamp(seconds: float) -> Timestamp:
    """Writes a time, to the microsecond."""
    timestamp = Timestamp()
    timestamp.FromMicroseconds(round(seconds * _MICROS))
    return timestamp


def position_of(seconds: float, *names: str) -> str:
    """Writes where a listing by time goes on."""
    return " ".join((str(round(seconds * _MICROS)), *names))


def place_of(position: str, *, name_count: int) -> tuple[float, tuple[str, ...]] | None:
    """Reads where a listing by time goes on; None for its begin.

    Raises:
        PageTokenMismatch: That is no such place.
    """
    if not position:
        return None
    time, *names = position.split(" ")
    if len(names) != name_count or not time.isdecimal() or int(time) >= _LATEST_SECONDS * _MICROS:
        raise PageTokenMismatch
    return int(time) / _MICROS, tuple(names)


def _to_variant_report(
    share: float, figures: VariantFigures, difference: MeanDifference | None
) -> pb.ExperimentVariantReport:
    ratings = figures.feedback
    decided = ratings.positive + ratings.negative
    interval = share_interval(ratings.positive, decided)
    report = pb.ExperimentVariantReport(
        variant=figures.variant,
        share_ratio=share,
        query_count=figures.query_count,
        failed_query_count=figures.failed_count,
        degraded_query_count=figures.degraded_count,
        cached_query_count=figures.cached_count,
        duration_p50=to_optional_duration(figures.duration_p50_seconds),
        duration_p95=to_optional_duration(figures.duration_p95_seconds),
        feedback=to_counts(ratings),
        cost_nanos=figures.cost_nanos,
    )
    if figures.quality is not None:
        report.quality_count = figures.quality.count
        report.mean_quality = figures.quality.mean
    if difference is not None:
        report.quality_difference.CopyFrom(
            pb.MeanDifference(
                difference=difference.difference,
                low=difference.low,
                high=difference.high,
                significant=difference.is_significant,
            )
        )
    if interval is not None:
        report.positive_ratio = ratings.positive / decided
        report.positive_ratio_low, report.positive_ratio_high = interval
    return report


def _check_count(field: str, count: int, limit: int, violations: Violations) -> None:
    if count > limit:
        violations.add(field, f"Has {count} entries, at most {limit} are allowed.")
