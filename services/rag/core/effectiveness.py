"""How good rankings are, by the measures of information retrieval as trec_eval computes them.

A ranking is a sequence of document ids, best first, without repetitions. Judgements give a grade to
a document; a grade above 0 is relevant, and what was not judged is not. Source: the definitions of
trec_eval; its discount is log2(rank + 1) and its gain is the grade itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2
from random import Random
from statistics import fmean

__all__ = [
    "Interval",
    "area_under_curve",
    "average_precision",
    "confidence_interval",
    "discounted_gain",
    "precision",
    "recall",
    "reciprocal_rank",
]

Judgements = Mapping[str, int]
"""Grades of one query's documents by id."""

_RESAMPLE_COUNT = 1_000
_CONFIDENCE_RATIO = 0.95


def discounted_gain(ranking: Sequence[str], judgements: Judgements, *, depth: int) -> float:
    """Returns nDCG at a depth, 0 to 1; 0 where nothing is relevant.

    Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques (2002).
    """
    gains = [max(judgements.get(each, 0), 0) for each in ranking[:depth]]
    ideal = sorted((grade for grade in judgements.values() if grade > 0), reverse=True)[:depth]
    best = _discount(ideal)
    return _discount(gains) / best if best else 0.0


def recall(ranking: Sequence[str], judgements: Judgements, *, depth: int) -> float:
    """Returns the share of the relevant documents that the first `depth` hold."""
    relevant_count = _relevant_count(judgements)
    return _hit_count(ranking[:depth], judgements) / relevant_count if relevant_count else 0.0


def precision(ranking: Sequence[str], judgements: Judgements, *, depth: int) -> float:
    """Returns the share of relevant ones among the first `depth`; missing ones count as wrong."""
    return _hit_count(ranking[:depth], judgements) / depth


def reciprocal_rank(ranking: Sequence[str], judgements: Judgements) -> float:
    """Returns one over the rank of the first relevant document; 0 where there is none."""
    ranks = (rank for rank, each in enumerate(ranking, start=1) if judgements.get(each, 0) > 0)
    return 1.0 / first if (first := next(ranks, 0)) else 0.0


def average_precision(ranking: Sequence[str], judgements: Judgements) -> float:
    """Returns the mean precision at the ranks of the relevant documents."""
    relevant_count = _relevant_count(judgements)
    found, total = 0, 0.0
    for rank, each in enumerate(ranking, start=1):
        if judgements.get(each, 0) > 0:
            found += 1
            total += found / rank
    return total / relevant_count if relevant_count else 0.0


def area_under_curve(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Returns how likely a positive scores above a negative; ties count half.

    Raises:
        ValueError: One of them is empty.
    """
    if not positives or not negatives:
        raise ValueError("the area under the curve needs positives and negatives")
    ordered = sorted(
        [(score, False) for score in negatives] + [(score, True) for score in positives]
    )
    wins, below, index = 0.0, 0, 0
    while index < len(ordered):
        end = index
        while end < len(ordered) and ordered[end][0] == ordered[index][0]:
            end += 1
        positive_count = sum(positive for _, positive in ordered[index:end])
        negative_count = end - index - positive_count
        wins += positive_count * (below + negative_count / 2)
        below += negative_count
        index = end
    return wins / (len(positives) * len(negatives))


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the range it would fall into with other queries, at 95 % confidence."""

    mean: float
    low: float
    high: float


def confidence_interval(values: Sequence[float], random: Random) -> Interval:
    """Estimates how far a mean over queries can be relied on, by resampling them.

    Source: Efron, Bootstrap methods (1979); the percentile interval.

    Args:
        values: One value per query, at least one.
        random: Draws the samples; equal seeds give equal intervals.
    """
    means = sorted(fmean(random.choices(values, k=len(values))) for _ in range(_RESAMPLE_COUNT))
    tail = (1.0 - _CONFIDENCE_RATIO) / 2
    low = means[int(tail * _RESAMPLE_COUNT)]
    high = means[ceil((1.0 - tail) * _RESAMPLE_COUNT) - 1]
    return Interval(fmean(values), low, high)


def _discount(gains: Sequence[int]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _relevant_count(judgements: Judgements) -> int:
    return sum(grade > 0 for grade in judgements.values())


def _hit_count(ranking: Sequence[str], judgements: Judgements) -> int:
    return sum(judgements.get(each, 0) > 0 for each in ranking)
