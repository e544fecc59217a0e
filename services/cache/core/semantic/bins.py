"""Verdicts on matches, counted by how similar the questions were."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["BIN_COUNT", "NO_VERDICTS", "Verdicts", "bin_of", "lower_edge"]

_FIRST_EDGE = 0.80
_WIDTH = 0.005
BIN_COUNT = 40
# 0.95 lies a rounding error below its own edge.
_ROUNDING = 1e-9


def bin_of(similarity: float) -> int | None:
    """Returns the bin of a similarity, [0, BIN_COUNT); None below the first one."""
    if similarity < _FIRST_EDGE - _ROUNDING:
        return None
    return min(BIN_COUNT - 1, int((similarity - _FIRST_EDGE) / _WIDTH + _ROUNDING))


def lower_edge(number: int) -> float:
    """Returns the least similarity of a bin; 1 behind the last one."""
    return round(_FIRST_EDGE + _WIDTH * number, 3)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What was found out about matches.

    Attributes:
        right: Right ones, per bin.
        wrong: Wrong ones, per bin, those that were found out before the answer was given included.
    """

    right: tuple[int, ...]
    wrong: tuple[int, ...]

    def adding(self, number: int, *, right_count: int = 0, wrong_count: int = 0) -> "Verdicts":
        """Returns the verdicts with more of them in a bin."""
        return replace(
            self,
            right=_adding(self.right, number, right_count),
            wrong=_adding(self.wrong, number, wrong_count),
        )

    def wrong_and_verified(self, numbers: Iterable[int]) -> tuple[int, int]:
        """Adds up bins.

        Args:
            numbers: The bins; those that do not exist hold nothing.

        Returns:
            How many were wrong, and how many there were.
        """
        existing = [number for number in numbers if 0 <= number < BIN_COUNT]
        wrong_count = sum(self.wrong[number] for number in existing)
        return wrong_count, wrong_count + sum(self.right[number] for number in existing)


NO_VERDICTS = Verdicts((0,) * BIN_COUNT, (0,) * BIN_COUNT)


def _adding(counts: tuple[int, ...], number: int, amount: int) -> tuple[int, ...]:
    return (*counts[:number], counts[number] + amount, *counts[number + 1 :])
