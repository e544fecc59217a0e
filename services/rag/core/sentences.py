"""Cutting text into sentences with exact offsets.

Works line by line first, so that list items, table rows, headings, code and indented definitions
each stand alone, and then at sentence ends inside a run of prose. A citation marker directly after
a full stop belongs to the sentence before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "LOOKAHEAD_CHARACTERS",
    "MARKER_PATTERN",
    "Span",
    "iterate_blocks",
    "segment_sentences",
    "split_block",
]

_ABBREVIATION_LIST = """
adj adm al approx apr art aug ave bd blvd ca capt cf ch chap co col corp dec dept dr e.g ed eds
eq eqs esp est et etc feb fig figs gen gov hon i.e inc jan jr jul jun lt ltd mar min mr mrs ms
mt no nos nov oct op p.m a.m ph.d pp prof ref refs rep rev sec sect sen sep sept sgt sr st tab
tel u.k u.s u.s.a univ viz vol vols vs
"""

# What decides whether a sentence has ended lies within so many characters after it.
LOOKAHEAD_CHARACTERS = 40

MARKER_PATTERN = r"[\[【［][ ]{0,2}\d{1,3}(?:[ ]{0,2}[,，、;][ ]{0,2}\d{1,3}){0,5}[ ]{0,2}[\]】］]"  # noqa: RUF001

_END = re.compile(
    r"(?<![。！？｡])(?P<wide>[。！？｡]++[」』”’）〉》]{0,3})"  # noqa: RUF001
    r"|(?<![.!?…])(?P<mark>[.!?…]++)[\"'”’)\]*_`]{0,3}(?=\s|$|[\[【［])"  # noqa: RUF001
)
_TRAILING_MARKERS = re.compile(rf"(?:[ ]{{0,2}}{MARKER_PATTERN})+[.。]?")
_LINE = re.compile(r"[^\n]+\n?|\n")
_FENCE = re.compile(r"[ >|]*(?:```|~~~)")
_ITEM = re.compile(r"[ \t>|]*(?:[-*+•‣\u2013]|\d{1,3}[.)]|[a-zA-Z][.)])[ \t]+(?=\S)")
_ALONE = re.compile(r"[ \t]*(?:#{1,6}[ \t]|\|.*\|[ \t]*$|={3,}|-{3,}|>>> |\.\.\. )")
_BLANK = re.compile(r"[\s|>]*")
_INDENT = re.compile(r"[ \t|>]*")
_LAST_WORD = re.compile(r"[\w.]+$")

_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
# A line of at least so many characters may have been wrapped.
_WRAPPED_CHARACTERS = 50
# These end a sentence when a capital follows.
_OFTEN_LAST = frozenset({"etc", "a.m", "p.m", "inc", "ltd", "co", "corp", "u.s", "u.k", "al"})


class Span(NamedTuple):
    """A half-open range of character offsets."""

    char_start: int
    char_end: int


def segment_sentences(text: str) -> list[Span]:
    """Returns the sentences of a text, in order, without the white space around them.

    Every character that is not white space lies in exactly one sentence.
    """
    return [span for block in iterate_blocks(text) for span in split_block(text, block)]


def iterate_blocks(text: str, start: int = 0) -> Iterator[Span]:
    """Yields runs of lines that no sentence crosses, from `start` (the start of a block) on."""
    block_start, indent = -1, 0
    previous = fence = ""
    for match in _LINE.finditer(text, start):
        line = match[0]
        if fence:
            if _FENCE.match(line) and fence in line:
                yield Span(block_start, match.end())
                block_start, fence = -1, ""
            continue
        opening = _FENCE.match(line)
        if block_start >= 0 and (opening or _starts_block(line, previous, indent)):
            yield Span(block_start, match.start())
            block_start = -1
        if block_start < 0:
            block_start = match.start()
        indent, previous = _text_indent(line), line
        if opening:
            fence = opening[0][-3:]
        elif _ALONE.match(line) or _BLANK.fullmatch(line):
            yield Span(block_start, match.end())
            block_start = -1
    if block_start >= 0:
        yield Span(block_start, len(text))


def split_block(text: str, block: Span) -> Iterator[Span]:
    """Yields the sentences of one block of `iterate_blocks`."""
    start = block.char_start
    if not _FENCE.match(text, start, block.char_end):
        position = start
        while (end := _END.search(text, position, block.char_end)) is not None:
            position = end.end()
            if not _ends_sentence(text, block.char_start, end):
                continue
            markers = _TRAILING_MARKERS.match(text, position, block.char_end)
            if markers:
                position = markers.end()
            yield from _trimmed(text, start, position)
            start = position
    yield from _trimmed(text, start, block.char_end)


def _text_indent(line: str) -> int:
    """Returns the column where the words of a line start, behind a list marker if there is one."""
    marker = _ITEM.match(line) or _INDENT.match(line)
    return marker.end() if marker else 0


def _starts_block(line: str, previous: str, indent: int) -> bool:
    if _ITEM.match(line) or _ALONE.match(line) or _BLANK.fullmatch(line):
        return True
    change = _text_indent(line) - indent
    return change < 0 or (change > 0 and not _is_wrapped(previous))


def _is_wrapped(line: str) -> bool:
    """Returns whether a line seems to go on in the next one, even if that is indented further."""
    words = line.strip()
    return len(words) >= _WRAPPED_CHARACTERS and (words[-1].isalnum() or words[-1] == ",")


def _ends_sentence(text: str, block_start: int, end: re.Match[str]) -> bool:
    if end["wide"]:
        return True
    following = text[end.end() : end.end() + LOOKAHEAD_CHARACTERS].lstrip()[:1]
    if following.islower():
        return False
    if end["mark"] != ".":
        return True
    window_start = max(block_start, end.start() - LOOKAHEAD_CHARACTERS)
    line_start = text.rfind("\n", window_start, end.start()) + 1
    before = text[max(line_start, window_start) : end.start()]
    word_match = _LAST_WORD.search(before)
    if word_match is None:
        return True
    word = word_match[0].casefold()
    starts_line = line_start > 0 or window_start == block_start
    lead = before[: word_match.start()]
    if starts_line and not lead.strip(" \t|>") and (word.isdigit() or len(word) == 1):
        return False
    if len(word) == 1 and word.isalpha() and word_match[0].isupper():
        return False
    return word not in _ABBREVIATIONS or (word in _OFTEN_LAST and following.isupper())


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    stretch = text[start:end]
    kept = stretch.strip()
    if kept:
        start += len(stretch) - len(stretch.lstrip())
        yield Span(start, start + len(kept))
