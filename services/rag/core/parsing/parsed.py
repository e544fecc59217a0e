"""What every parser returns: the stored text, cut into sections and blocks.

A parser only says where blocks start (`Mark`). Each block then reaches to the next mark, so that
the blocks of a document cover its whole text whatever the parser overlooked.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Block",
    "BlockKind",
    "Draft",
    "Mark",
    "PageSpan",
    "ParsedDocument",
    "Section",
    "build_sections",
    "shorten_heading",
    "trim_block",
]

MAX_HEADING_CHARACTERS = 120


class BlockKind(Enum):
    """What a block is, which decides how it may be cut."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    ITEM = "item"
    """A list item or a table row."""
    VERBATIM = "verbatim"
    """Code or preformatted text, cut between lines only."""


# From the least to the most telling, where several marks meet.
_TELLING = (BlockKind.PARAGRAPH, BlockKind.ITEM, BlockKind.VERBATIM, BlockKind.HEADING)


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of the stored text that reads as one; never empty or only white space."""

    kind: BlockKind
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True)
class Section:
    """The blocks under one heading, with the headings above them, outermost first."""

    heading_path: tuple[str, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class PageSpan:
    """The text of one page; empty where the page has none.

    Attributes:
        number: The page, from 1.
        char_start: Its first character in the stored text.
        char_end: One past its last character.
    """

    number: int
    char_start: int
    char_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedDocument:
    """A document as text with structure.

    Attributes:
        text: The stored text; its only line breaks are line feeds.
        title: From the document itself, else from its file name.
        media_type: What the document turned out to be.
        sections: In order; their blocks cover every character that is not white space.
        pages: All pages, in order and without gaps, so that they cover the text; empty for what
            has no pages.
        warnings: What was lost or is doubtful, as sentences for the sender.
    """

    text: str
    title: str
    media_type: str
    sections: tuple[Section, ...]
    pages: tuple[PageSpan, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """The start of a block.

    Attributes:
        char_start: First character; the start of a line.
        kind: What starts here.
        heading: The heading's words, for a block that opens a section.
        level: Depth of that section, from 1; a section ends all deeper and equal ones. With an
            empty heading, what follows belongs to the section one level up.
    """

    char_start: int
    kind: BlockKind
    heading: str = ""
    level: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """What a parser makes of one kind of document; an empty title means that it has none."""

    text: str
    title: str
    marks: Sequence[Mark]
    pages: tuple[PageSpan, ...] = ()
    warnings: tuple[str, ...] = ()


def build_sections(text: str, marks: Iterable[Mark], *, title: str = "") -> tuple[Section, ...]:
    """Cuts a text at the marks.

    Args:
        text: The stored text.
        marks: Where blocks start, in any order; of several at one place the most telling counts.
        title: A heading that only repeats the title is left out of the heading paths.
    """
    by_start: dict[int, Mark] = {}
    for mark in (Mark(0, BlockKind.PARAGRAPH), *marks):
        rival = by_start.get(mark.char_start)
        if rival is None or _weight(mark) > _weight(rival):
            by_start[mark.char_start] = mark
    ordered = sorted(by_start.values(), key=lambda mark: mark.char_start)
    ends = [mark.char_start for mark in ordered[1:]] + [len(text)]

    sections: list[Section] = []
    path: list[tuple[int, str]] = []
    blocks: list[Block] = []

    def close_section() -> None:
        if blocks:
            words = tuple(heading for _, heading in path if heading not in ("", title))
            sections.append(Section(words, tuple(blocks)))
            blocks.clear()

    for mark, end in zip(ordered, ends, strict=True):
        if mark.level:
            close_section()
            path = [entry for entry in path if entry[0] < mark.level]
            path.append((mark.level, shorten_heading(mark.heading)))
        block = trim_block(text, mark.kind, mark.char_start, end)
        if block:
            blocks.append(block)
    close_section()
    return tuple(sections)


def _weight(mark: Mark) -> tuple[int, int]:
    return mark.level, _TELLING.index(mark.kind)


def trim_block(text: str, kind: BlockKind, char_start: int, char_end: int) -> Block | None:
    """Returns the range without blank lines around it, or None if nothing is left.

    The indentation of the first line stays, because in code it carries meaning.
    """
    stretch = text[char_start:char_end]
    visible = stretch.lstrip()
    if not visible:
        return None
    first = len(stretch) - len(visible)
    line_start = stretch.rfind("\n", 0, first) + 1
    return Block(kind, char_start + line_start, char_start + len(stretch.rstrip()))


def shorten_heading(words: str) -> str:
    """Returns a heading on one line, cut to a bearable length."""
    line = " ".join(words.split())
    return line if len(line) <= MAX_HEADING_CHARACTERS else line[: MAX_HEADING_CHARACTERS - 1] + "…"
