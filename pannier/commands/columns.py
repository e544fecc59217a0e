"""Tables that fit: columns are left out, the least wanted first, until a line is short enough.

Widths are those that a terminal gives to characters: two cells for most of Chinese, none for marks.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from pannier.commands.formatting import clean

__all__ = ["Column", "crop", "fit_columns", "fit_parts", "one_line"]

_GAP = "  "
# A text that is shortened keeps so many cells.
_LEAST_CELLS = 4


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
        return max(_cells(self.title), *(_cells(each) for each in self.cells), 0)

    def line(self, index: int) -> str:
        """Returns a cell, or the heading for -1, as wide as the column."""
        text = self.title if index < 0 else self.cells[index]
        padding = " " * (self.width - _cells(text))
        return padding + text if self.align == "right" else text + padding


def _cells(text: str) -> int:
    """Returns how many cells a text takes; most of what is shown is ASCII."""
    return len(text) if text.isascii() else cell_len(text)


def one_line(text: str) -> str:
    """Brings a text onto one line, without what would steer a terminal."""
    return " ".join(clean(text).split())


def crop(text: str, width: int) -> str:
    """Cuts a line to a width in cells."""
    return text if _cells(text) <= width else set_cell_size(text, width).rstrip()


def fit_columns(columns: Sequence[Column], *, width: int) -> list[str]:
    """Returns the lines of a table, heading first, none longer than a width.

    Args:
        columns: In their order; all have the same number of cells.
        width: Cells that there are.
    """
    shown = [each._replace(cells=[one_line(cell) for cell in each.cells]) for each in columns]
    while _width(shown) > width and any(each.rank for each in shown):
        shown.remove(max(shown, key=lambda each: each.rank))
    if (excess := _width(shown) - width) > 0:
        shown = _narrowed(shown, excess)
    count = len(shown[0].cells)
    lines = [_GAP.join(each.line(index) for each in shown).rstrip() for index in range(-1, count)]
    return [crop(each, width) for each in lines]


def fit_parts(parts: Sequence[tuple[str, int]], *, width: int, separator: str = "") -> str:
    """Joins parts of a line, the least wanted left out where they do not fit.

    Args:
        parts: Texts with their ranks, from 0 for what is never left out.
        width: Cells that there are.
        separator: What stands between; parts may bring along their own instead, of which that of
            the first one shown is left out.
    """
    shown = list(parts)
    while any(rank for _, rank in shown) and _cells(_joined(shown, separator)) > width:
        shown.remove(max(shown, key=lambda each: each[1]))
    return _joined(shown, separator)


def _joined(parts: Sequence[tuple[str, int]], separator: str) -> str:
    return separator.join(text for text, _ in parts).lstrip(",; ")


def _narrowed(columns: Sequence[Column], excess: int) -> list[Column]:
    """Shortens the texts of the widest column of texts, which say enough by their beginning."""
    texts = [each for each in columns if each.align == "left"]
    widest = max(texts or columns, key=lambda each: each.width)
    limit = max(_LEAST_CELLS, widest.width - excess)
    cells = [
        each if _cells(each) <= limit else crop(each, limit - 1) + "…" for each in widest.cells
    ]
    title = crop(widest.title, limit)
    return [each._replace(title=title, cells=cells) if each is widest else each for each in columns]


def _width(columns: Sequence[Column]) -> int:
    return sum(each.width for each in columns) + len(_GAP) * (len(columns) - 1)
