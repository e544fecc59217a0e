"""Finds the stages that a call's duration consists of, in a tree of stages that may overlap.

Walking back from the call's end, at each moment the stage counts that ended last before it: what
ran beside it and ended earlier could have taken longer without the call taking longer. Where stages
overlap without one being part of the other, an earlier one counts up to the start of the later.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Interval", "covered_seconds", "critical_seconds"]


class Interval(NamedTuple):
    """A time from its start until its end, in seconds of one clock."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


def covered_seconds(intervals: Sequence[Interval], window: Interval) -> float:
    """Returns how much of a window is covered by at least one interval."""
    covered, reached = 0.0, window.start
    for each in sorted(intervals):
        start, end = max(each.start, reached), min(each.end, window.end)
        if end > start:
            covered += end - start
            reached = end
    return covered


def critical_seconds(
    intervals: Sequence[Interval], parents: Sequence[int | None], window: Interval
) -> list[float]:
    """Returns how much of the critical path each stage is by itself, without its parts.

    Together they are the time in which some stage was under way, so never more than the window.

    Args:
        intervals: The stages.
        parents: For each stage the index of the one it is part of; None for a part of the call.
        window: The call.
    """
    if _are_in_turn(intervals, parents, window):
        return [each.seconds for each in intervals]
    children: defaultdict[int | None, list[int]] = defaultdict(list)
    for index, parent in enumerate(parents):
        if intervals[index].end > intervals[index].start:
            children[parent].append(index)
    own = [0.0] * len(intervals)
    pending: list[tuple[int | None, Interval]] = [(None, window)]
    while pending:
        parent, within = pending.pop()
        at = within.end
        while at > within.start:
            chosen = _last(children[parent], intervals, Interval(within.start, at))
            reached = within.start if chosen is None else min(intervals[chosen].end, at)
            if parent is not None:
                own[parent] += at - reached
            at = within.start
            if chosen is not None:
                at = max(intervals[chosen].start, within.start)
                pending.append((chosen, Interval(at, reached)))
    return own


def _are_in_turn(
    intervals: Sequence[Interval], parents: Sequence[int | None], window: Interval
) -> bool:
    """Says whether stages follow each other, so that all of each counts."""
    return (
        all(parent is None for parent in parents)
        and all(before.end <= after.start for before, after in pairwise(intervals))
        and all(window.start <= each.start <= each.end <= window.end for each in intervals)
    )


def _last(candidates: Sequence[int], intervals: Sequence[Interval], window: Interval) -> int | None:
    """Returns the stage that ends last in a window; of several, that which began first."""
    within = [
        index
        for index in candidates
        if intervals[index].start < window.end and intervals[index].end > window.start
    ]
    return max(
        within,
        key=lambda index: (
            min(intervals[index].end, window.end),
            -intervals[index].start,
            -index,
        ),
        default=None,
    )
