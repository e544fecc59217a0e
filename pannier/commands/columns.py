"""Tables that fit: columns are left out, the least wanted first, until a line is short enough."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Column", "fit_columns"]

_GAP = "  "


class Column(NamedTuple):
    """A column.

    Attributes:
        title: Its heading.
        rank: How much it is wanted, from 0 for what is never left out.
        cells: Its cells.
        align: `right`, as numbers are, or `left`.
    """

    title: str
    rank: int
    cells: Sequence[str]
    align: str = "right"

    @property
    def width(self) -> int:
        """How wide it is."""
        return max(len(self.title), *(len(each) for each in self.cells), 0)

    def line(self, index: int) -> str:
        """Returns a cell, or the heading for -1, as wide as the column."""
        text = self.title if index < 0 else self.cells[index]
        return text.rjust(self.width) if self.align == "right" else text.ljust(self.width)


def fit_columns(columns: Sequence[Column], *, width: int) -> list[str]:
    """Returns the lines of a table, heading first, none longer than a width.

    Args:
        columns: In their order; all have the same number of cells.
        width: Characters that there are.
    """
    shown = list(columns)
    while len(shown) > 1 and _width(shown) > width:
        shown.remove(max(shown, key=lambda each: each.rank))
    count = len(shown[0].cells)
    return [
        _GAP.join(each.line(index) for each in shown).rstrip()[:width] for index in range(-1, count)
    ]


def _width(columns: Sequence[Column]) -> int:
    return sum(each.width for each in columns) + len(_GAP) * (len(columns) - 1)
