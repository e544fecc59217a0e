"""Okapi BM25 as this service scores keyword hits.

The store computes the same formula in SQL; this form is the reference that its tests compare with.
Source: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), with the idf that
Lucene uses, which is never negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.rag.core.documents import TermFrequencies
    from services.rag.core.passages import TermStatistics

__all__ = ["K1", "B", "inverse_document_frequency", "score_bound", "score_chunks", "term_weight"]

K1 = 1.5
"""Term frequency saturation: the higher, the more repetitions count."""

B = 0.75
"""Length normalisation, 0 (none) to 1 (full)."""


def inverse_document_frequency(chunk_count: int, document_frequency: int) -> float:
    """Returns the idf of a term found in `document_frequency` of `chunk_count` chunks."""
    return log(1.0 + (chunk_count - document_frequency + 0.5) / (document_frequency + 0.5))


def term_weight(frequency: int, length: int, average_length: float) -> float:
    """Returns what a term adds per unit of idf; below `K1 + 1` for any frequency.

    Args:
        frequency: How often the term occurs in the chunk, at least 1.
        length: Analysed length of the chunk, in terms.
        average_length: Mean analysed length in the collection, above 0.
    """
    norm = K1 * (1.0 - B + B * length / average_length)
    return frequency * (K1 + 1.0) / (frequency + norm)


def score_chunks(terms: Iterable[str], chunks: Mapping[int, TermFrequencies]) -> dict[int, float]:
    """Scores every chunk that contains at least one of the distinct query terms.

    Args:
        terms: Analysed query terms; repetitions count once.
        chunks: The whole collection, by chunk id.

    Returns:
        BM25 score by chunk id; chunks without any of the terms are absent.
    """
    if not chunks:
        return {}
    average_length = max(sum(chunk.length for chunk in chunks.values()) / len(chunks), 1.0)
    scores: dict[int, float] = {}
    for term in dict.fromkeys(terms):
        containing = {key: chunk for key, chunk in chunks.items() if chunk.counts.get(term)}
        idf = inverse_document_frequency(len(chunks), len(containing))
        for key, chunk in containing.items():
            weight = term_weight(chunk.counts[term], chunk.length, average_length)
            scores[key] = scores.get(key, 0.0) + idf * weight
    return scores


def score_bound(terms: Iterable[str], statistics: TermStatistics) -> float:
    """Returns a score that no chunk can exceed for these terms, for normalising BM25 to 0..1."""
    return (K1 + 1.0) * sum(statistics.idf(term) for term in dict.fromkeys(terms))
