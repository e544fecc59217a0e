"""Newer documents first, among candidates that match equally well."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby

from services.rag.core.ranking.candidate import Candidate

__all__ = ["newest_first_among_equals"]

EQUAL_SHARE_RATIO = 0.95
"""Share of the relevance of the best of a group from which on a candidate matches equally well."""

_UNKNOWN = datetime.min.replace(tzinfo=UTC)


def newest_first_among_equals(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Orders candidates that follow each other with nearly the same relevance by their age.

    Args:
        candidates: Best first; those whose age is not known count as the oldest.
    """
    leader = float("inf")
    groups: list[int] = []
    for candidate in candidates:
        if not groups or not _are_equal(candidate.relevance, leader):
            leader = candidate.relevance
            groups.append(groups[-1] + 1 if groups else 0)
        else:
            groups.append(groups[-1])
    ordered: list[Candidate] = []
    for _, members in groupby(zip(groups, candidates, strict=True), key=lambda member: member[0]):
        ordered += sorted(
            (candidate for _, candidate in members),
            key=lambda each: each.passage.updated_at or _UNKNOWN,
            reverse=True,
        )
    return ordered


def _are_equal(one: float, other: float) -> bool:
    # Where documents take turns, a better candidate may follow a worse one.
    return min(one, other) >= EQUAL_SHARE_RATIO * max(one, other)
