"""Whether the same words in another order still say the same."""

from __future__ import annotations

from collections import Counter

from services.cache.core.semantic.features import Features
from services.cache.core.semantic.reading import Gap, Segment
from services.cache.core.semantic.vocabulary import ALTERNATIVES

__all__ = ["says_the_same"]

_NEUTRAL = frozenset({"", ","})
# After them subject and object may have changed places.
_RELATIVE = frozenset({"who", "whom", "whos", "whose", "which", "that"})
_OWNING = frozenset({"of", "on", "for", "in"})


def says_the_same(query: Features, other: Features) -> bool:
    """Whether two questions about the same words put them into the same relations.

    A phrase may stand elsewhere as a whole ("in Python, how ..."), alternatives may change places
    ("A or B"), an owner may follow ("the limit of the card"), and two parts may change places where
    neither a verb nor a preposition stands between them in both; what else is in another order is
    taken to play another role.
    """
    if query.segments == other.segments:
        return True
    shared = query.words & other.words
    segments, others = _restricted(query, shared), _restricted(other, shared)
    if _flat(segments) == _flat(others):
        return True
    is_plain = not any(preposition in _RELATIVE for preposition, _ in segments + others)
    if is_plain and _exchanged(_with_gaps(query, shared), _with_gaps(other, shared)):
        return True
    if _same_parts(segments, others):
        return True
    segments, others = _owners_first(segments), _owners_first(others)
    if _flat(segments) == _flat(others):
        return True
    segments, others = _alternatives_sorted(segments), _alternatives_sorted(others)
    return (
        _flat(segments) == _flat(others)
        or _moved_to_front(segments, others)
        or _moved_to_front(others, segments)
        or _same_parts(segments, others)
    )


def _restricted(query: Features, shared: frozenset[str]) -> list[Segment]:
    """The segments without what stands in one question only."""
    segments = (
        (preposition, tuple(word for word in words if word in shared))
        for preposition, words in query.segments
    )
    return [segment for segment in segments if segment[1]]


def _with_gaps(query: Features, shared: frozenset[str]) -> list[tuple[str, Gap]]:
    words = [word for _, segment in query.segments for word in segment]
    return [pair for pair in zip(words, query.gaps, strict=True) if pair[0] in shared]


def _flat(segments: list[Segment]) -> list[str]:
    return [word for _, words in segments for word in words]


def _exchanged(words: list[tuple[str, Gap]], others: list[tuple[str, Gap]]) -> bool:
    """Whether two neighbouring parts have changed places, harmlessly.

    "activate the card" and "the card's activation", "report my card as stolen" and "report my
    stolen card"; but not "is a square a rectangle" and "is a rectangle a square".
    """
    if len(words) != len(others):
        return False
    start = 0
    while words[start][0] == others[start][0]:
        start += 1
    end = len(words)
    while words[end - 1][0] == others[end - 1][0]:
        end -= 1
    here, there = [word for word, _ in words[start:end]], [word for word, _ in others[start:end]]
    for cut in range(1, len(here)):
        if here[cut:] + here[:cut] == there:
            gap, other_gap = words[start + cut][1], others[end - cut][1]
            if len(here) == 2:
                return min(gap, other_gap) is Gap.NONE and max(gap, other_gap) is not Gap.NONE
            return min(gap, other_gap) is not Gap.RELATION
    return False


def _owners_first(segments: list[Segment]) -> list[Segment]:
    """Writes "the limit of the card" as "the card's limit"."""
    result: list[Segment] = []
    for preposition, words in segments:
        if preposition in _OWNING and result and len(result[-1][1]) <= 2:
            before, owned = result[-1]
            result[-1] = (before, words + owned)
        else:
            result.append((preposition, words))
    return result


def _alternatives_sorted(segments: list[Segment]) -> list[Segment]:
    """Puts what "and" and "or" join into one order, where it is single words."""
    result: list[Segment] = []
    for preposition, words in segments:
        if preposition in ALTERNATIVES and result and result[-1][1]:
            before, earlier = result[-1]
            first, second = sorted((earlier[-1], words[0]))
            result[-1] = (before, (*earlier[:-1], first, second, *words[1:]))
        else:
            result.append((preposition, words))
    return result


def _moved_to_front(segments: list[Segment], others: list[Segment]) -> bool:
    """Whether the first phrase of one stands elsewhere in the other."""
    if len(segments) < 2:
        return False
    first, rest = segments[0][1], _flat(segments[1:])
    for position, (preposition, words) in enumerate(others):
        if words == first and preposition == segments[0][0] and preposition not in _NEUTRAL:
            return _flat(others[:position] + others[position + 1 :]) == rest
    return False


def _same_parts(segments: list[Segment], others: list[Segment]) -> bool:
    """Whether both consist of the same phrases, each told by its own preposition."""
    prepositions = Counter(preposition for preposition, _ in segments)
    is_clear = all(count == 1 for count in prepositions.values())
    return is_clear and Counter(segments) == Counter(others)
