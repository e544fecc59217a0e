"""Between messages and values of evaluations, with the checks of what a caller asks for."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pannier.rag.v1 import evaluation_service_pb2 as pb
from services.common.validation import Violations
from services.rag.caller import caller_access
from services.rag.core.effectiveness import Interval
from services.rag.core.evaluation import (
    DEFAULT_VARIANTS,
    JudgedQuery,
    QueryResult,
    Report,
    Variant,
    VariantResult,
    percentile,
)
from services.rag.evaluate import EvaluationProgress, EvaluationTask
from services.rag.retrieval_convert import check_collection, retrieval_of
from services.rag.times_convert import to_duration

__all__ = ["task_of", "to_progress", "to_report"]

MAXIMUM_QUERY_COUNT = 10_000
MAXIMUM_JUDGEMENT_COUNT = 10_000
MAXIMUM_VARIANT_COUNT = 16
MAXIMUM_ID_LENGTH = 512
MAXIMUM_NAME_LENGTH = 64
MAXIMUM_TEXT_LENGTH = 8000
MAXIMUM_GRADE = 1000
MAXIMUM_DEPTH = 100
MAXIMUM_CONCURRENCY = 32
DEFAULT_DEPTH = 10
DEFAULT_CONCURRENCY = 4


def task_of(message: pb.EvaluateRequest) -> EvaluationTask:
    """Reads what to evaluate.

    Raises:
        InvalidRequest: Fields break the rules that the message states.
    """
    violations = Violations()
    check_collection(message.collection, violations)
    count = len(message.queries)
    violations.require(
        1 <= count <= MAXIMUM_QUERY_COUNT,
        "queries",
        f"Holds {count}, must hold from 1 to {MAXIMUM_QUERY_COUNT}.",
    )
    violations.check_range("depth", message.depth or None, 1, MAXIMUM_DEPTH)
    violations.check_range("concurrency", message.concurrency or None, 1, MAXIMUM_CONCURRENCY)
    queries = [
        _query_of(query, violations, field=f"queries[{index}]")
        for index, query in enumerate(message.queries[:MAXIMUM_QUERY_COUNT])
    ]
    _check_distinct([each.query_id for each in queries], violations, field="queries")
    variants = _variants_of(message, violations)
    violations.raise_found()
    return EvaluationTask(
        collection=message.collection,
        queries=queries,
        variants=variants,
        depth=message.depth or DEFAULT_DEPTH,
        concurrency=message.concurrency or DEFAULT_CONCURRENCY,
    )


def to_progress(progress: EvaluationProgress) -> pb.EvaluateResponse:
    """Writes how far an evaluation is."""
    return pb.EvaluateResponse(
        progress=pb.EvaluationProgress(
            done_count=progress.done_count, total_count=progress.total_count
        )
    )


def to_report(report: Report, *, include_queries: bool) -> pb.EvaluateResponse:
    """Writes what an evaluation found."""
    return pb.EvaluateResponse(
        completed=pb.EvaluationReport(
            query_count=report.query_count,
            unanswerable_count=report.unanswerable_count,
            depth=report.depth,
            variants=[
                _to_variant(each, depth=report.depth, include_queries=include_queries)
                for each in report.variants
            ],
        )
    )


def _query_of(message: pb.EvaluationQuery, violations: Violations, *, field: str) -> JudgedQuery:
    violations.check_text(
        f"{field}.query_id", message.query_id, minimum_length=1, maximum_length=MAXIMUM_ID_LENGTH
    )
    violations.check_text(
        f"{field}.text", message.text, minimum_length=1, maximum_length=MAXIMUM_TEXT_LENGTH
    )
    violations.check_plain(f"{field}.text", message.text)
    count = len(message.judgements)
    violations.require(
        1 <= count <= MAXIMUM_JUDGEMENT_COUNT,
        f"{field}.judgements",
        f"Holds {count}, must hold from 1 to {MAXIMUM_JUDGEMENT_COUNT}.",
    )
    for index, judgement in enumerate(message.judgements[:MAXIMUM_JUDGEMENT_COUNT]):
        path = f"{field}.judgements[{index}]"
        violations.check_text(
            f"{path}.document_id",
            judgement.document_id,
            minimum_length=1,
            maximum_length=MAXIMUM_ID_LENGTH,
        )
        violations.require(
            judgement.grade <= MAXIMUM_GRADE, f"{path}.grade", f"Must be at most {MAXIMUM_GRADE}."
        )
    grades = {each.document_id: each.grade for each in message.judgements}
    return JudgedQuery(message.query_id, message.text, grades)


def _variants_of(message: pb.EvaluateRequest, violations: Violations) -> tuple[Variant, ...]:
    count = len(message.variants)
    violations.require(
        count <= MAXIMUM_VARIANT_COUNT,
        "variants",
        f"Holds {count}, at most {MAXIMUM_VARIANT_COUNT} are allowed.",
    )
    given = []
    for index, variant in enumerate(message.variants[:MAXIMUM_VARIANT_COUNT]):
        path = f"variants[{index}]"
        violations.check_text(
            f"{path}.name", variant.name, minimum_length=1, maximum_length=MAXIMUM_NAME_LENGTH
        )
        violations.check_plain(f"{path}.name", variant.name)
        options = retrieval_of(variant.options, violations, field=f"{path}.options")
        given.append(Variant(variant.name, options))
    _check_distinct([each.name for each in given], violations, field="variants")
    access = caller_access()
    return tuple(given) or tuple(
        Variant(each.name, replace(each.options, access=access)) for each in DEFAULT_VARIANTS
    )


def _check_distinct(names: list[str], violations: Violations, *, field: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        violations.add(field, f"Holds {repeated[0][:MAXIMUM_NAME_LENGTH]!r} more than once.")


def _to_variant(result: VariantResult, *, depth: int, include_queries: bool) -> pb.VariantReport:
    searches = [each.search for each in result.queries]
    times = [each.seconds for each in searches if not each.failure_reason]
    return pb.VariantReport(
        name=result.name,
        figures=_to_figures(result.figures),
        gains=_to_figures(result.gains),
        latency_p50=to_duration(percentile(times, 0.50)),
        latency_p95=to_duration(percentile(times, 0.95)),
        latency_p99=to_duration(percentile(times, 0.99)),
        failed_count=sum(bool(each.failure_reason) for each in searches),
        degraded_count=sum(each.degraded for each in searches),
        confidence_auc=result.confidence_auc,
        queries=[_to_query(each, depth) for each in result.queries] if include_queries else (),
    )


def _to_figures(intervals: Mapping[str, Interval]) -> list[pb.Figure]:
    return [
        pb.Figure(name=name, mean=each.mean, low=each.low, high=each.high)
        for name, each in intervals.items()
    ]


def _to_query(result: QueryResult, depth: int) -> pb.QueryReport:
    return pb.QueryReport(
        query_id=result.query_id,
        figures=result.figures,
        document_ids=result.search.document_ids[:depth],
        latency=to_duration(result.search.seconds),
        confidence=result.search.confidence,
        failure_reason=result.search.failure_reason,
    )
