"""How similar two questions must be that no guard tells apart.

The more words two questions share, in the same relations, the less is left for which they could be
mistaken: that many words agree is evidence of its own beside the similarity of their vectors. Below
three shared words the vectors alone would decide, and these are blind to what matters.
"""

from __future__ import annotations

from services.cache.core.semantic.features import Features
from services.cache.core.semantic.guards import Guard, refusal_of

__all__ = ["LEAST_SIMILARITY", "refusal_at", "required_similarity"]

# By the number of shared words; the last counts for all above. Chosen on parts of CLINC150 and
# BANKING77 with all-MiniLM-L6-v2, and measured on the other parts (tests.bench.cache.quality).
_REQUIRED = (0.95, 0.95, 0.92, 0.88, 0.80)

LEAST_SIMILARITY = min(_REQUIRED)
"""Below this cosine no two questions share an answer, whatever words they share."""


def required_similarity(query: Features, other: Features) -> float:
    """Returns the least cosine at which two questions may share an answer; symmetric."""
    shared_count = len(query.words & other.words)
    return _REQUIRED[min(shared_count, len(_REQUIRED) - 1)]


def refusal_at(similarity: float, query: Features, other: Features) -> Guard | None:
    """Returns what forbids two questions to share an answer; None where they may.

    Args:
        similarity: Cosine of their vectors, [-1, 1].
        query: One question's features.
        other: The other's.
    """
    # First, since it costs least. Above every threshold that can be set, the guards alone decide.
    if similarity < required_similarity(query, other):
        return Guard.CONTENT_WORDS
    return refusal_of(query, other)
