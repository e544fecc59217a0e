"""Filling chunks with pieces of text, and cutting the pieces that are too large."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from services.rag.core.parsing.parsed import Block, BlockKind
from services.rag.core.sentences import Span, segment_sentences

__all__ = ["Packer"]

_WORD = re.compile(r"\S+")
_LINE = re.compile(r"^[^\n]*\S[^\n]*", re.M)
_PARAGRAPH = re.compile(r"^[^\n]*\S(?:[^\n]|\n(?![ \t|]*\n))*", re.M)
# In characters; a longer run of marks is no writing and is cut anywhere.
_LONGEST_GLYPH = 15
_JOINING = frozenset("\u200d\ufe0e\ufe0f")

_Splitter = Callable[[str], Iterable[Span]]


@dataclass(frozen=True, slots=True)
class Packer:
    """Fills spans with units, up to a target, and cuts the units that are too large.

    Attributes:
        text: The whole text.
        size: Estimated tokens of a span.
        target: Size up to which units are put together.
        limit: Size that no span exceeds, those of one block of code or one table apart.
        whole_limit: Size up to which code and tables are not cut.
    """

    text: str
    size: Callable[[Span], float]
    target: int
    limit: int
    whole_limit: int

    def pack_blocks(self, blocks: Sequence[Block]) -> list[Span]:
        """Packs blocks, cutting large ones by their kind."""
        kinds = {block.char_start: block.kind for block in blocks}
        units = [Span(block.char_start, block.char_end) for block in blocks]
        return self._pack(units, lambda unit: self._cut_block(unit, kinds[unit.char_start]))

    def _pack(self, units: Sequence[Span], cut: Callable[[Span], list[Span]]) -> list[Span]:
        packed: list[Span] = []
        index = 0
        while index < len(units):
            start = units[index].char_start
            rest = Span(start, units[-1].char_end)
            if self.size(rest) <= self.limit:
                return [*packed, rest]
            end = self._fill(units, index)
            filled = Span(start, units[end].char_end)
            packed.extend([filled] if self.size(filled) <= self.limit else cut(filled))
            index = end + 1
        return packed

    def _fill(self, units: Sequence[Span], first: int) -> int:
        """Returns the index of the last unit to put into one span with the unit at `first`.

        The rest is shared out evenly, so that no crumbs are left at its end.
        """
        start = units[first].char_start
        rest = self.size(Span(start, units[-1].char_end))
        share = rest / ceil(rest / self.target)
        last = first
        for index in range(first + 1, len(units)):
            size = self.size(Span(start, units[index].char_end))
            if size > self.target or size - self.size(units[index]) / 2 > share:
                break
            last = index
        return last

    def _cut_block(self, unit: Span, kind: BlockKind) -> list[Span]:
        if kind is BlockKind.VERBATIM and self.size(unit) <= self.whole_limit:
            return [unit]
        return self._cut(unit, _splitters(kind))

    def _cut(self, unit: Span, splitters: Sequence[_Splitter]) -> list[Span]:
        if not splitters:
            return list(self._cut_characters(unit))
        offset = unit.char_start
        parts = [
            Span(offset + start, offset + end)
            for start, end in splitters[0](self.text[offset : unit.char_end])
        ]
        # The first part keeps the indentation of its line.
        parts[0] = Span(offset, parts[0].char_end)
        return self._pack(parts, lambda part: self._cut(part, splitters[1:]))

    def _cut_characters(self, unit: Span) -> Iterator[Span]:
        start = unit.char_start
        while start < unit.char_end:
            end = min(start + self.limit // 2, unit.char_end)
            if end < unit.char_end:
                end = _glyph_end(self.text, end)
            yield Span(start, end)
            start = end


def _splitters(kind: BlockKind) -> tuple[_Splitter, ...]:
    if kind is BlockKind.VERBATIM:
        return (_matches(_PARAGRAPH), _matches(_LINE), _matches(_WORD))
    return (segment_sentences, _matches(_LINE), _matches(_WORD))


def _matches(pattern: re.Pattern[str]) -> _Splitter:
    return lambda text: [Span(*match.span()) for match in pattern.finditer(text)]


def _glyph_end(text: str, position: int) -> int:
    """Returns the nearest place before `position` where no glyph of several characters is cut."""
    for end in range(position, position - _LONGEST_GLYPH, -1):
        if not _sticks(text, end):
            return end
    return position


def _sticks(text: str, position: int) -> bool:
    """Returns whether the character at `position` forms one glyph with the one before."""
    character = text[position]
    return (
        unicodedata.category(character).startswith("M")
        or character in _JOINING
        or text[position - 1] == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )
