"""Keeping one document, or one thing said many times, from taking all the places."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from services.rag.core.documents import Vector
from services.rag.core.ranking.candidate import Candidate
from services.rag.core.ranking.duplicates import Shingles

__all__ = ["choose_varied", "spread_documents"]

DOCUMENT_LIMIT = 3
"""Passages of one document that come before those of others."""

DOMINANT_SHARE_RATIO = 2 / 3
"""Share of the places from which on a document is what the question is about."""


def spread_documents(candidates: Iterable[Candidate], *, places: int) -> Iterator[Candidate]:
    """Moves what one document has beyond its limit behind the passages of others.

    Nothing is lost, so that all places are filled where there is nothing else. A document that
    would take most of the places is what the question is about, and keeps them.

    Args:
        candidates: Best first; no more are taken than are asked for, but for the first.
        places: How many will be returned.
    """
    remaining = iter(candidates)
    head = list(islice(remaining, places))
    first = Counter(map(_document, head))
    taken: Counter[tuple[str, str]] = Counter()
    behind: list[Candidate] = []
    for candidate in chain(head, remaining):
        document = _document(candidate)
        taken[document] += 1
        dominant = first[document] >= DOMINANT_SHARE_RATIO * places
        if dominant or taken[document] <= DOCUMENT_LIMIT:
            yield candidate
        else:
            behind.append(candidate)
    yield from behind


def choose_varied(
    candidates: Sequence[Candidate],
    vectors: Mapping[int, Vector],
    *,
    relevance_weight_ratio: float,
    limit: int,
) -> list[Candidate]:
    """Chooses candidates one by one, each for its relevance and for being unlike those before.

    Maximal marginal relevance (Carbonell and Goldstein, 1998). The best candidate always comes
    first. Where a candidate has no vector, its words are compared.

    Args:
        candidates: Best first.
        vectors: Vectors by chunk id, as far as there are any.
        relevance_weight_ratio: Weight of relevance against variety, 0 to 1.
        limit: Most candidates to choose.
    """
    likeness = _likeness(candidates, vectors)
    relevance = np.array([each.relevance for each in candidates])
    closest = np.zeros(len(candidates))
    chosen: list[int] = []
    while len(chosen) < min(limit, len(candidates)):
        gain = relevance_weight_ratio * relevance - (1.0 - relevance_weight_ratio) * closest
        gain[chosen] = -np.inf
        best = int(np.argmax(gain)) if chosen else 0
        chosen.append(best)
        closest = np.maximum(closest, likeness[best])
    return [candidates[place] for place in chosen]


def _likeness(
    candidates: Sequence[Candidate], vectors: Mapping[int, Vector]
) -> NDArray[np.float64]:
    """Returns how alike each two candidates are, 0 to 1."""
    count = len(candidates)
    likeness = np.eye(count)
    known = [
        place
        for place, each in enumerate(candidates)
        if _usable(vectors.get(each.ranking.chunk_id))
    ]
    if known:
        rows = np.asarray([vectors[candidates[place].ranking.chunk_id] for place in known], float)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        likeness[np.ix_(known, known)] = np.clip(rows @ rows.T, 0.0, 1.0)
    unknown = sorted(set(range(count)).difference(known))
    shingles = [Shingles(each.passage.text) for each in candidates] if unknown else []
    for one in unknown:
        for other in range(count):
            alike = shingles[one].similarity_ratio(shingles[other])
            likeness[one, other] = likeness[other, one] = alike
    return likeness


def _usable(vector: Vector | None) -> bool:
    return vector is not None and bool(np.any(vector))


def _document(candidate: Candidate) -> tuple[str, str]:
    return candidate.passage.collection, candidate.passage.document_id
