"""Cutting text into sentences with exact offsets.

Works line by line first, so that list items, table rows, headings, code and indented definitions
each stand alone, and then at sentence ends inside a run of prose. A citation marker directly after
a full stop belongs to the sentence before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from typing import NamedTuple

__all__ = [
    "MARKER_PATTERN",
    "Sentence",
    "SentenceCutter",
    "Span",
    "segment_sentences",
]

_ABBREVIATION_LIST = """
adj adm al approx apr art aug ave bd blvd ca capt cf ch chap co col corp dec dept dr e.g ed eds
eq eqs esp est et etc feb fig figs gen gov hon i.e inc jan jr jul jun lt ltd mar min mr mrs ms
mt no nos nov oct op p.m a.m ph.d pp prof ref refs rep rev sec sect sen sep sept sgt sr st tab
tel u.k u.s u.s.a univ viz vol vols vs
"""

MARKER_PATTERN = r"[\[【［][ ]{0,2}\d{1,3}(?:[ ]{0,2}[,，、;][ ]{0,2}\d{1,3}){0,5}[ ]{0,2}[\]】］]"  # noqa: RUF001

_END = re.compile(
    r"(?<![。！？｡])(?P<wide>[。！？｡]++[」』”’）〉》]{0,3})"  # noqa: RUF001
    r"|(?<![.!?…])(?P<mark>[.!?…]++)[\"'”’)\]*_`]{0,3}(?=\s|$|[\[【［])"  # noqa: RUF001
)
_TRAILING_MARKERS = re.compile(rf"(?:[ ]{{0,2}}{MARKER_PATTERN})+[.。]?")
_LAST_MARKER = re.compile(rf"{MARKER_PATTERN}$")
# What may become a marker; the longest one holds 47 characters between its brackets.
_MARKER_START = re.compile(r"[ ]{0,2}(?:[\[【［][ \d,，、;]{0,47})?")  # noqa: RUF001
_END_MARK = re.compile(r"[.!?…。！？｡]")  # noqa: RUF001
_NEWLINE = re.compile(r"\n")
_FENCE = re.compile(r"[ >|]*(?:```|~~~)")
_ITEM = re.compile(r"[ \t>|]*(?:[-*+•‣\u2013]|\d{1,3}[.)]|[a-zA-Z][.)])[ \t]+(?=\S)")
_ALONE = re.compile(r"[ \t]*(?:#{1,6}[ \t]|\|.*\|[ \t]*$|={3,}|-{3,}|>>> |\.\.\. )")
_BLANK = re.compile(r"[\s|>]*")
_INDENT = re.compile(r"[ \t|>]*")
_LAST_WORD = re.compile(r"[\w.]+$")

_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
# So many characters before and after an end mark decide whether a sentence ends there.
_CONTEXT_CHARACTERS = 40
# So many characters after its indentation say what kind of line it is.
_KIND_CHARACTERS = 8
# By what share of the undecided text new text must add to it before it is looked at again.
_RETRY_RATIO = 0.25
# A line of at least so many characters may have been wrapped.
_WRAPPED_CHARACTERS = 50
# These end a sentence when a capital follows.
_OFTEN_LAST = frozenset({"etc", "a.m", "p.m", "inc", "ltd", "co", "corp", "u.s", "u.k", "al"})


class Span(NamedTuple):
    """A half-open range of character offsets."""

    char_start: int
    char_end: int


class Sentence(NamedTuple):
    """One sentence, without the white space around it."""

    span: Span
    text: str


class SentenceCutter:
    """Cuts a text into sentences while it arrives.

    A sentence is given out as soon as no later text can change it; however the text is cut into
    pieces, the sentences are the same. The work is linear in the length of the text: what has been
    decided is never looked at again, and what has not only when the text has grown by a share of
    it, or by a line.
    """

    def __init__(self) -> None:
        self._buffer = StringIO()
        self._length = 0
        # A block is a run of lines that no sentence crosses. The last one starts here, and is
        # still empty if the line that is not complete yet starts here, too.
        self._block_start = 0
        self._fence = ""
        self._indent = 0
        self._previous_line = ""
        self._line_start = 0
        # Whether it is known to which block the line belongs that is not complete yet, and then
        # whether it is one of its own.
        self._line_is_placed = self._line_stands_alone = False
        self._sentence_start = 0
        # No sentence end that is still to be decided lies before this.
        self._decided_end = 0
        self._examined_length = 0

    def feed(self, text: str) -> list[Sentence]:
        """Adds to the text, and returns the sentences that this completes."""
        start = self._length
        self._buffer.seek(start)
        self._buffer.write(text)
        self._length += len(text)
        return list(self._advance(text, start)) if self._may_decide(text) else []

    def finish(self) -> list[Sentence]:
        """Returns the sentences of what is left; the text is complete."""
        return list(self._end())

    def _may_decide(self, text: str) -> bool:
        if "\n" in text:
            return True
        if self._fence:
            return False
        undecided_count = self._examined_length - self._decided_end
        if undecided_count or not self._line_is_placed:
            new_count = self._length - self._examined_length
            return new_count >= _RETRY_RATIO * undecided_count
        return _END_MARK.search(text) is not None

    def _advance(self, text: str, start: int) -> Iterator[Sentence]:
        for newline in _NEWLINE.finditer(text):
            yield from self._take_line(start + newline.end())
        yield from self._take_part()
        self._examined_length = self._length

    def _end(self) -> Iterator[Sentence]:
        if self._length > self._line_start:
            yield from self._take_line(self._length)
        if self._length > self._block_start:
            yield from self._close_block(self._length)

    def _take_line(self, line_end: int) -> Iterator[Sentence]:
        """Takes the line that ends there and is complete."""
        line = self._slice(self._line_start, line_end)
        if self._fence and not self._line_is_placed:
            if _FENCE.match(line) and self._fence in line:
                yield from self._close_block(line_end)
        else:
            if not self._line_is_placed:
                yield from self._place_line(line)
            if self._line_stands_alone and not self._fence:
                yield from self._close_block(line_end)
        self._previous_line = line
        self._line_start, self._line_is_placed = line_end, False

    def _take_part(self) -> Iterator[Sentence]:
        """Takes what there is of a line that is not complete."""
        if not self._fence and not self._line_is_placed:
            part = self._slice(self._line_start, self._length)
            if _shows_kind(part):
                yield from self._place_line(part)
        if not self._fence:
            placed_end = self._length if self._line_is_placed else self._line_start
            yield from self._cut_block(placed_end, complete=False)

    def _place_line(self, line: str) -> Iterator[Sentence]:
        """Starts a block with a line, or adds the line to the last one."""
        opening, item = _FENCE.match(line), _ITEM.match(line)
        alone = _ALONE.match(line) is not None or _BLANK.fullmatch(line) is not None
        indent = item.end() if item else _match_end(_INDENT, line)
        if self._line_start > self._block_start and (
            opening or item or alone or self._is_set_off(indent)
        ):
            yield from self._close_block(self._line_start)
        if opening:
            self._fence = opening[0][-3:]
        self._indent, self._line_stands_alone, self._line_is_placed = indent, alone, True

    def _is_set_off(self, indent: int) -> bool:
        """Returns whether a line indented so far is set off from the one before."""
        change = indent - self._indent
        return change < 0 or (change > 0 and not _is_wrapped(self._previous_line))

    def _close_block(self, block_end: int) -> Iterator[Sentence]:
        if self._fence:
            yield from self._cut(block_end)
        else:
            yield from self._cut_block(block_end, complete=True)
        self._block_start = self._decided_end = block_end
        self._fence = ""

    def _cut_block(self, stop: int, *, complete: bool) -> Iterator[Sentence]:
        """Yields the sentences of the last block up to `stop`, where it ends if it is complete."""
        base = max(self._block_start, self._decided_end - _CONTEXT_CHARACTERS)
        text = self._slice(base, min(stop + _CONTEXT_CHARACTERS, self._length))
        position, text_stop = self._decided_end - base, stop - base
        while (end := _END.search(text, position, text_stop)) is not None:
            markers = _TRAILING_MARKERS.match(text, end.end(), text_stop)
            position = markers.end() if markers else end.end()
            if not complete and _is_undecided(text, end.end(), position, text_stop):
                self._decided_end = base + end.start()
                return
            if _ends_sentence(text, self._block_start - base, end):
                yield from self._cut(base + position)
            else:
                position = end.end()
        self._decided_end = stop
        if complete:
            yield from self._cut(stop)

    def _cut(self, end: int) -> Iterator[Sentence]:
        stretch = self._slice(self._sentence_start, end)
        kept = stretch.strip()
        if kept:
            start = self._sentence_start + len(stretch) - len(stretch.lstrip())
            yield Sentence(Span(start, start + len(kept)), kept)
        self._sentence_start = end

    def _slice(self, start: int, end: int) -> str:
        self._buffer.seek(start)
        return self._buffer.read(end - start)


def segment_sentences(text: str) -> list[Span]:
    """Returns the sentences of a text, in order, without the white space around them.

    Every character that is not white space lies in exactly one sentence.
    """
    cutter = SentenceCutter()
    return [sentence.span for sentence in (*cutter.feed(text), *cutter.finish())]


def _shows_kind(part: str) -> bool:
    """Returns whether the start of a line says already what kind of line it is.

    Whether a line is a table row shows at its end only.
    """
    return (
        not part.lstrip(" \t").startswith("|")
        and _match_end(_BLANK, part) < len(part)
        and len(part[_match_end(_INDENT, part) :].rstrip(" \t")) >= _KIND_CHARACTERS
    )


def _match_end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _is_undecided(text: str, end: int, markers_end: int, stop: int) -> bool:
    """Returns whether text after `stop` can change what to make of an end mark.

    Args:
        text: The text around the mark.
        end: One past the mark.
        markers_end: One past the citation markers that follow it.
        stop: Up to where it is known that the text is of the same block.
    """
    rest = _MARKER_START.match(text, markers_end, stop)
    if rest is not None and rest.end() == stop:
        return True
    following = text[end : end + _CONTEXT_CHARACTERS]
    return len(following) < _CONTEXT_CHARACTERS and not following.strip()


def _is_wrapped(line: str) -> bool:
    """Returns whether a line seems to go on in the next one, even if that is indented further."""
    words = line.strip()
    return len(words) >= _WRAPPED_CHARACTERS and (words[-1].isalnum() or words[-1] == ",")


def _ends_sentence(text: str, block_start: int, end: re.Match[str]) -> bool:
    if end["wide"]:
        return True
    window_start = max(block_start, end.start() - _CONTEXT_CHARACTERS)
    if _LAST_MARKER.search(text[window_start : end.start()]):
        # Sentences on code may begin with a small letter.
        return True
    following = text[end.end() : end.end() + _CONTEXT_CHARACTERS].lstrip()[:1]
    if following.islower():
        return False
    if end["mark"] != ".":
        return True
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
