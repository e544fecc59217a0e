"""How likely the passages found hold the answer, without asking a model.

Each signal is scaled so that 1 is what a good match reaches; the estimate is their weighted mean
over those there are. Weights and bands were chosen on three collections for telling questions that
a collection answers from those of other domains, and from those whose answer was taken out of it;
docs/retrieval.md has the figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.rag.core.bm25 import score_bound
from services.rag.core.documents import Vector
from services.rag.core.fusion import Hits
from services.rag.core.passages import TermStatistics
from services.rag.core.retrieved import NOTHING_FOUND, Band, Confidence

__all__ = [
    "BAND_FLOORS",
    "SAMPLE_COUNT",
    "WEIGHTS",
    "Likeness",
    "band_of",
    "coverage_ratio",
    "estimate",
    "likeness_of",
]

SAMPLE_COUNT = 200
"""Chunks whose pairs say how alike any two passages of a collection are."""

WEIGHTS: Mapping[str, float] = {
    "vector": 0.5,
    "agreement": 0.2,
    "keyword": 0.15,
    "coverage": 0.15,
    "rerank": 0.5,
}
"""What each signal counts; the weights of those that are missing fall to the others."""

BAND_FLOORS: Mapping[Band, float] = {Band.HIGH: 0.6, Band.MEDIUM: 0.25, Band.LOW: 0.0}
"""Least score of each band. Low is meant to be sure: a question is refused for it."""

# What a good match reaches, where that is not 1.
_GOOD_KEYWORD_RATIO = 0.45
_GOOD_AGREEMENT_RATIO = 0.5

_AGREEMENT_DEPTH = 10
# Where there is little to choose from, both arms find the same whatever is asked.
_AGREEMENT_SHARE = 5

# What two passages of any collection are like, and how many pairs that counts as: a handful of
# passages says little about chance.
_USUAL_LIKENESS = 0.2
_USUAL_PAIR_COUNT = 10
_GREATEST_LIKENESS = 0.7
_SHARES = np.linspace(0.0, 1.0, 201)


@dataclass(frozen=True, slots=True, eq=False)
class Likeness:
    """How alike any two passages of a collection are, as cosine similarities.

    Attributes:
        mean: Their mean, drawn to what is usual where there are few passages.
        quantiles: Their quantiles at equal distances, shape (n,), n >= 2; None without a pair.
    """

    mean: float
    quantiles: NDArray[np.float64] | None

    def percentile(self, similarity: float) -> float | None:
        """Returns the share of pairs that are less alike, 0 to 1; None without a pair."""
        if self.quantiles is None:
            return None
        return float(np.interp(similarity, self.quantiles, _SHARES))

    def margin(self, similarity: float) -> float:
        """Returns how far a similarity has come from that of chance to identity, 0 to 1.

        Unlike a percentile it still tells a good match from a perfect one, and unlike the
        similarity itself it means about the same for every embedding model.
        """
        return min(1.0, max(0.0, (similarity - self.mean) / (1.0 - self.mean)))


def likeness_of(vectors: Sequence[Vector]) -> Likeness:
    """Measures how alike passages are.

    Args:
        vectors: Vectors of chunks chosen by chance; a few hundred suffice.
    """
    rows = np.asarray([each for each in vectors if np.any(each)], dtype=np.float64)
    similarities = np.empty(0)
    if len(rows) > 1:
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        similarities = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    total = float(similarities.sum()) + _USUAL_LIKENESS * _USUAL_PAIR_COUNT
    mean = total / (len(similarities) + _USUAL_PAIR_COUNT)
    return Likeness(
        mean=min(_GREATEST_LIKENESS, max(0.0, mean)),
        quantiles=np.quantile(similarities, _SHARES) if len(similarities) else None,
    )


def coverage_ratio(
    terms: Sequence[str], statistics: TermStatistics, found: Collection[str]
) -> float:
    """Returns the share of a question's terms that a passage holds, weighted by rarity, 0 to 1.

    Args:
        terms: Analysed terms of the question.
        statistics: How common they are.
        found: Analysed terms of the passage.
    """
    rarities = {term: statistics.idf(term) for term in terms}
    total = sum(rarities.values())
    held = sum(rarity for term, rarity in rarities.items() if term in found)
    return held / total if total else 0.0


def estimate(
    hits: Hits,
    *,
    terms: Sequence[str],
    statistics: TermStatistics | None,
    likeness: Likeness | None,
    coverage: float | None,
    rerank_ratio: float | None = None,
) -> Confidence:
    """Estimates how likely the best passages hold the answer.

    Args:
        hits: What the arms found for the question, best first.
        terms: Analysed terms that were searched for.
        statistics: How common they are; None without the keyword arm.
        likeness: How alike passages of the collection are; None without the vector arm.
        coverage: See `coverage_ratio`, for the best passage; None without the keyword arm.
        rerank_ratio: The cross-encoder's belief in the best passage, 0 to 1; None where not asked.
    """
    if not hits.vector and not hits.keyword:
        return NOTHING_FOUND
    keyword = _keyword_ratio(hits, terms, statistics)
    agreement = _agreement_ratio(hits) if statistics is not None and likeness is not None else None
    nearest = max((hit.score for hit in hits.vector), default=None)
    signals = {
        "vector": None if likeness is None or nearest is None else likeness.margin(nearest),
        "agreement": _scaled(agreement, _GOOD_AGREEMENT_RATIO),
        "keyword": _scaled(keyword, _GOOD_KEYWORD_RATIO),
        "coverage": coverage,
        "rerank": rerank_ratio,
    }
    known = {name: value for name, value in signals.items() if value is not None}
    weight = sum(WEIGHTS[name] for name in known)
    score = sum(WEIGHTS[name] * value for name, value in known.items()) / weight if known else 0.0
    return Confidence(
        score=score,
        band=band_of(score),
        keyword_ratio=keyword,
        coverage_ratio=coverage,
        vector_percentile=None
        if likeness is None or nearest is None
        else likeness.percentile(nearest),
        agreement_ratio=agreement,
        rerank_ratio=rerank_ratio,
    )


def band_of(score: float) -> Band:
    """Returns the band of a score."""
    return next(band for band, floor in BAND_FLOORS.items() if score >= floor)


def _keyword_ratio(
    hits: Hits, terms: Sequence[str], statistics: TermStatistics | None
) -> float | None:
    if statistics is None:
        return None
    bound = score_bound(terms, statistics)
    best = max((hit.score for hit in hits.keyword), default=0.0)
    return min(1.0, best / bound) if bound else 0.0


def _agreement_ratio(hits: Hits) -> float:
    found = {hit.chunk_id for hit in (*hits.vector, *hits.keyword)}
    depth = min(_AGREEMENT_DEPTH, max(1, len(found) // _AGREEMENT_SHARE))
    first, second = ({hit.chunk_id for hit in arm[:depth]} for arm in (hits.vector, hits.keyword))
    return len(first & second) / depth


def _scaled(value: float | None, good: float) -> float | None:
    return None if value is None else min(1.0, value / good)
