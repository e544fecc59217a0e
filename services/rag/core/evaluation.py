"""What an evaluation asks and what it finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from random import Random

from services.rag.core.effectiveness import (
    Interval,
    area_under_curve,
    average_precision,
    confidence_interval,
    discounted_gain,
    precision,
    recall,
    reciprocal_rank,
)
from services.rag.core.fusion import FusionMethod
from services.rag.core.options import ExpansionPolicy, RerankPolicy, RetrievalOptions, SearchArms

__all__ = [
    "DEFAULT_VARIANTS",
    "RANKING_DEPTH",
    "JudgedQuery",
    "QueryResult",
    "Report",
    "SearchResult",
    "Variant",
    "VariantResult",
    "percentile",
    "summarise",
]

RANKING_DEPTH = 100
"""Documents that a ranking is looked at for."""

# Equal evaluations have equal intervals.
_SEED = 5


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A question whose answer is known: grades by document, above 0 for what answers it."""

    query_id: str
    text: str
    judgements: Mapping[str, int]

    @property
    def is_answerable(self) -> bool:
        """Whether any document answers it."""
        return any(grade > 0 for grade in self.judgements.values())


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of searching."""

    name: str
    options: RetrievalOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What one search for one query found.

    Attributes:
        document_ids: The documents, best first, each once.
        seconds: Time it took.
        confidence: Confidence in what was found, 0 to 1.
        degraded: Whether it could not be done as it should have been.
        failure_reason: Why it failed; empty where it did not.
    """

    document_ids: tuple[str, ...]
    seconds: float
    confidence: float = 0.0
    degraded: bool = False
    failure_reason: str = ""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """One search and how good it was, by the name of the measure."""

    query_id: str
    search: SearchResult
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """How good one way of searching is.

    Attributes:
        name: Its name.
        figures: Means over the queries that have an answer, by the name of the measure.
        gains: By how much the means lie above those of the first way; empty for the first.
        confidence_auc: How likely the confidence is higher where something relevant was found in
            the depth than where nothing was; None where all belong to one kind.
        queries: Each of those queries.
    """

    name: str
    figures: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    confidence_auc: float | None
    queries: tuple[QueryResult, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found."""

    query_count: int
    unanswerable_count: int
    depth: int
    variants: tuple[VariantResult, ...]


def _ablation(name: str, **options: object) -> Variant:
    plain = {"rerank": RerankPolicy.OFF, "expansion": ExpansionPolicy.NONE}
    return Variant(name, RetrievalOptions(**{**plain, **options}))  # type: ignore[arg-type]


DEFAULT_VARIANTS = (
    _ablation("keyword", arms=SearchArms.KEYWORD),
    _ablation("vector", arms=SearchArms.VECTOR),
    _ablation("hybrid-convex", fusion=FusionMethod.CONVEX),
    _ablation("hybrid-rrf", fusion=FusionMethod.RECIPROCAL_RANK),
)
"""Each arm by itself and both ways of merging them."""


def summarise(
    queries: Sequence[JudgedQuery],
    results: Mapping[str, Sequence[SearchResult]],
    *,
    depth: int,
) -> Report:
    """Compares what was found with the judgements.

    Args:
        queries: The queries.
        results: For each variant by name, what its searches found, in the order of the queries.
        depth: Depth of nDCG, precision and the like.
    """
    variants: list[VariantResult] = []
    for name, searches in results.items():
        judged = tuple(
            QueryResult(query.query_id, search, _measure(query, search, depth))
            for query, search in zip(queries, searches, strict=True)
            if query.is_answerable
        )
        first = variants[0].queries if variants else None
        variants.append(
            VariantResult(
                name=name,
                figures=_intervals(judged, lambda each, measure: each.figures[measure]),
                gains={} if first is None else _gains(judged, first),
                confidence_auc=_confidence_auc(judged),
                queries=judged,
            )
        )
    unanswerable_count = sum(not query.is_answerable for query in queries)
    return Report(len(queries), unanswerable_count, depth, tuple(variants))


def percentile(values: Sequence[float], ratio: float) -> float:
    """Returns the value that a share of all do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[max(ceil(ratio * len(ordered)) - 1, 0)] if ordered else 0.0


def _measure(query: JudgedQuery, search: SearchResult, depth: int) -> dict[str, float]:
    ranking, judgements = search.document_ids, query.judgements
    return {
        "ndcg": discounted_gain(ranking, judgements, depth=depth),
        "precision": precision(ranking, judgements, depth=depth),
        "recall": recall(ranking, judgements, depth=depth),
        "recall_100": recall(ranking, judgements, depth=RANKING_DEPTH),
        "mrr": reciprocal_rank(ranking, judgements),
        "map": average_precision(ranking, judgements),
    }


def _intervals(
    judged: Sequence[QueryResult], value: Callable[[QueryResult, str], float]
) -> dict[str, Interval]:
    if not judged:
        return {}
    return {
        measure: confidence_interval([value(each, measure) for each in judged], Random(_SEED))
        for measure in judged[0].figures
    }


def _gains(judged: Sequence[QueryResult], first: Sequence[QueryResult]) -> dict[str, Interval]:
    base = {each.query_id: each.figures for each in first}
    return _intervals(
        judged, lambda each, measure: each.figures[measure] - base[each.query_id][measure]
    )


def _confidence_auc(judged: Sequence[QueryResult]) -> float | None:
    found = [each.search.confidence for each in judged if each.figures["recall"] > 0]
    missed = [each.search.confidence for each in judged if not each.figures["recall"]]
    return area_under_curve(found, missed) if found and missed else None
