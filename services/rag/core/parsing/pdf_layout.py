"""From the lines of a PDF's pages to one text: running heads out, words whole, headings found."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.rag.core.parsing.parsed import BlockKind, Draft, Mark, PageSpan

__all__ = ["Line", "OutlineEntry", "lay_out"]

# Lines at the top and bottom edge of a page that may be running heads.
_EDGE_LINES = 2
_RUNNING_MINIMUM_PAGES = 3
# A running head stands on at least this share of the pages; those of left and right pages differ.
_RUNNING_RATIO = 0.4
_NUMBER = re.compile(r"\d{1,6}")
_MAX_RUNNING_NUMBERS = 4

_MAX_WORD_CHARACTERS = 80
_LAST_WORD = re.compile(r"[^\W\d_]+(?=-\Z)")
_FIRST_WORD = re.compile(r"[^\W\d_]+")
_COMPOUND = re.compile(r"[^\W\d_]+-[^\W\d_]+")

_HEADING_RATIO = 1.15
_HEADING_LEVELS = 3
_MAX_HEADING_CHARACTERS = 120
_MAX_HEADING_LINES = 3
_SENTENCE_END = re.compile(r"[.!?:;][\"')\]\u201d\u2019]*\Z")
_ITEM = re.compile(r"\s*(?:[-*\u2022\u25aa\u25cf\u2013]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
# A line this much shorter than most, and ending a sentence, ends its paragraph.
_SHORT_LINE_RATIO = 0.8


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page.

    Attributes:
        text: Its characters; empty for a blank line.
        size: Height of most of its letters in points; 0 if it is not known.
    """

    text: str
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """An entry of the document's table of contents.

    Attributes:
        title: Its words.
        level: Its depth, from 1.
        page_index: Where it leads, from 0.
    """

    title: str
    level: int
    page_index: int


def lay_out(
    pages: Sequence[Sequence[Line]],
    outline: Sequence[OutlineEntry],
    *,
    title: str,
    warnings: tuple[str, ...] = (),
) -> Draft:
    """Joins the lines of all pages to a text with marks and pages.

    Args:
        pages: The lines of each page; none for a page without text.
        outline: The table of contents; without one, large type makes headings.
        title: From the document's properties; may be empty.
        warnings: Passed on.
    """
    kept = [_trim(lines) for lines in _without_running_heads(pages)]
    compounds = _compounds(kept)
    kept = [_join_hyphens(lines, compounds) for lines in kept]
    sizes = _Sizes(kept)
    writer = _Writer(sizes)
    by_page: dict[int, list[OutlineEntry]] = {}
    for entry in outline:
        by_page.setdefault(entry.page_index, []).append(entry)
    for index, lines in enumerate(kept):
        writer.write_page(lines, by_page.get(index, ()) if outline else None)
    found = title or _largest_line(kept[:1], sizes)
    return Draft(writer.text(), found, writer.marks, writer.page_spans(), warnings)


def _trim(lines: Sequence[Line]) -> list[Line]:
    filled = [index for index, line in enumerate(lines) if line.text.strip()]
    return list(lines[filled[0] : filled[-1] + 1]) if filled else []


def _without_running_heads(pages: Sequence[Sequence[Line]]) -> Iterator[list[Line]]:
    """Yields the pages without the lines that most of them begin or end with.

    A number in such a line may count the pages, unless the line is larger than the text: then it
    is a heading.
    """
    large = _body_size(pages) * _HEADING_RATIO
    edges = [_edge_keys(lines, index, large) for index, lines in enumerate(pages)]
    seen: Counter[str] = Counter()
    for edge in edges:
        seen.update({key for keys in edge.values() for key in keys})
    page_count = sum(1 for edge in edges if edge)
    needed = max(_RUNNING_MINIMUM_PAGES, page_count * _RUNNING_RATIO)
    for lines, edge in zip(pages, edges, strict=True):
        running = {
            index for index, keys in edge.items() if any(seen[key] >= needed for key in keys)
        }
        kept = [line for index, line in enumerate(lines) if index not in running]
        # Pages of nothing else are all content: labels, forms, slides.
        yield kept if any(line.text.strip() for line in kept) else list(lines)


def _body_size(pages: Sequence[Sequence[Line]]) -> float:
    letters: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            letters[line.size] += len(line.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def _edge_keys(lines: Sequence[Line], page_index: int, large: float) -> dict[int, list[str]]:
    """Returns the indexes of a page's outermost lines with what they may share with others."""
    keys: dict[int, list[str]] = {}
    for index, at_top in _edges(lines).items():
        found = list(_running_keys(lines[index].text, page_index))
        only_whole = large and lines[index].size >= large
        keys[index] = [f"{at_top}\0{key}" for key in (found[:1] if only_whole else found)]
    return keys


def _edges(lines: Sequence[Line]) -> dict[int, bool]:
    """Returns the indexes of the outermost lines, and whether each is at the top."""
    filled = [index for index, line in enumerate(lines) if line.text.strip()]
    edges = dict.fromkeys(filled[-_EDGE_LINES:], False)
    edges.update(dict.fromkeys(filled[:_EDGE_LINES], True))
    return edges


def _running_keys(text: str, page_index: int) -> Iterator[str]:
    """Yields a line as it is, and with each number as its distance from the page's."""
    line = " ".join(text.split())
    if len(line) > _MAX_HEADING_CHARACTERS:
        return
    yield line
    for number in list(_NUMBER.finditer(line))[:_MAX_RUNNING_NUMBERS]:
        distance = int(number[0]) - page_index
        yield f"{line[: number.start()]}\0{distance}\0{line[number.end() :]}"
        # Beside the number of the page may stand the name of the chapter.
        if number.start() == 0 or number.end() == len(line):
            yield f"\0{distance}\0{number.start() == 0}"


def _compounds(pages: Sequence[Sequence[Line]]) -> frozenset[str]:
    """Returns the words that are written with a hyphen inside a line."""
    return frozenset(
        found.lower() for lines in pages for line in lines for found in _COMPOUND.findall(line.text)
    )


def _join_hyphens(lines: Sequence[Line], compounds: frozenset[str]) -> list[Line]:
    """Makes words whole that are divided between lines.

    The hyphen stays in a word that is written with one elsewhere.
    """
    joined: list[Line] = []
    for line in lines:
        before = joined[-1] if joined else None
        first = _FIRST_WORD.match(line.text)
        last = _LAST_WORD.search(before.text[-_MAX_WORD_CHARACTERS:]) if before and first else None
        if before and first and last and len(last[0]) > 1 and first[0][0].islower():
            keeps = f"{last[0]}-{first[0]}".lower() in compounds
            head = before.text if keeps else before.text[:-1]
            word, rest = _split_word(line.text)
            joined[-1] = Line(head + word, before.size)
            if rest:
                joined.append(Line(rest, line.size))
        else:
            joined.append(line)
    return joined


def _split_word(text: str) -> tuple[str, str]:
    """Returns the first word with the marks behind it, and the rest of a line."""
    word, _, rest = text.partition(" ")
    return word, rest.lstrip()


class _Sizes:
    """What the sizes of letters mean in one document.

    Args:
        pages: All its lines.
    """

    def __init__(self, pages: Sequence[Sequence[Line]]) -> None:
        self.body = _body_size(pages)
        widths: Counter[int] = Counter()
        for lines in pages:
            for line in lines:
                widths[len(line.text) // 4 * 4] += len(line.text)
        self.width = widths.most_common(1)[0][0] if widths else 0
        sizes = {line.size for lines in pages for line in lines}
        larger = sorted((each for each in sizes if self._is_larger(each)), reverse=True)
        steps: dict[float, int] = {}
        for size in larger:
            level = min(len(set(steps.values())) + 1, _HEADING_LEVELS)
            close = next((steps[each] for each in steps if each - size < 1), None)
            steps[size] = close or level
        self._levels = steps

    def _is_larger(self, size: float) -> bool:
        return self.body > 0 and size >= self.body * _HEADING_RATIO

    def heading_level(self, line: Line) -> int:
        """Returns the level of the heading that a line is by its size, or 0."""
        has_letters = any(map(str.isalpha, line.text))
        if not has_letters or len(line.text) > _MAX_HEADING_CHARACTERS:
            return 0
        return self._levels.get(line.size, 0)


class _Writer:
    """Writes page after page.

    Args:
        sizes: What sizes of letters mean.
    """

    def __init__(self, sizes: _Sizes) -> None:
        self.marks: list[Mark] = []
        self._sizes = sizes
        self._parts: list[str] = []
        self._length = 0
        self._page_starts: list[int] = []
        self._last_line = ""

    def text(self) -> str:
        """Returns all that was written."""
        return "".join(self._parts)

    def page_spans(self) -> tuple[PageSpan, ...]:
        """Returns the pages written."""
        starts = [*self._page_starts, self._length]
        return tuple(
            PageSpan(number, start, end) for number, (start, end) in enumerate(pairwise(starts), 1)
        )

    def write_page(self, lines: Sequence[Line], entries: Sequence[OutlineEntry] | None) -> None:
        """Writes a page.

        Args:
            lines: Its lines.
            entries: What the table of contents says of it; None where there is no such table.
        """
        goes_on = bool(lines) and self._goes_on(lines[0])
        if self._parts and lines and not goes_on:
            self._append("\n")
        self._page_starts.append(self._length)
        headings = _place(entries, lines) if entries else {}
        index = 0
        starts_block = not goes_on
        while index < len(lines):
            line = lines[index]
            if index in headings:
                for entry in headings[index]:
                    self._mark(BlockKind.HEADING, entry.title, entry.level)
                starts_block = True
                self._write_line(line)
                index += 1
            elif entries is None and (level := self._sizes.heading_level(line)):
                count = self._heading_lines(lines, index)
                words = " ".join(each.text for each in lines[index : index + count])
                self._mark(BlockKind.HEADING, words, level)
                for each in lines[index : index + count]:
                    self._write_line(each)
                index += count
                starts_block = True
            else:
                starts_block = self._write_body(line, starts_block=starts_block)
                index += 1

    def _write_body(self, line: Line, *, starts_block: bool) -> bool:
        """Writes a line of text and returns whether the next one starts a block."""
        if not line.text.strip():
            self._write_line(line)
            return True
        if _ITEM.match(line.text):
            self._mark(BlockKind.ITEM)
        elif starts_block:
            self._mark(BlockKind.PARAGRAPH)
        self._write_line(line)
        is_short = len(line.text) < self._sizes.width * _SHORT_LINE_RATIO
        return is_short and bool(_SENTENCE_END.search(line.text))

    def _goes_on(self, first: Line) -> bool:
        """Returns whether a page goes on with the paragraph of the one before."""
        return (
            bool(self._last_line)
            and not _SENTENCE_END.search(self._last_line)
            and first.text.lstrip()[:1].islower()
        )

    def _heading_lines(self, lines: Sequence[Line], index: int) -> int:
        """Returns how many lines a heading takes."""
        count = 1
        while (
            count < _MAX_HEADING_LINES
            and index + count < len(lines)
            and lines[index + count].size == lines[index].size
            and self._sizes.heading_level(lines[index + count])
        ):
            count += 1
        return count

    def _mark(self, kind: BlockKind, heading: str = "", level: int = 0) -> None:
        self.marks.append(Mark(self._length, kind, heading, level))

    def _write_line(self, line: Line) -> None:
        self._append(f"{line.text}\n")
        self._last_line = line.text.rstrip() or self._last_line

    def _append(self, data: str) -> None:
        self._parts.append(data)
        self._length += len(data)


def _place(entries: Sequence[OutlineEntry], lines: Sequence[Line]) -> dict[int, list[OutlineEntry]]:
    """Returns the entries of one page by the line that holds their words, else the first line."""
    placed: dict[int, list[OutlineEntry]] = {}
    by_words: dict[str, int] = {}
    for index, line in enumerate(lines):
        words = _letters(line.text)
        if words:
            by_words.setdefault(words, index)
    for entry in entries:
        wanted = _letters(entry.title)
        index = by_words.get(wanted, -1)
        if index < 0 and wanted:
            # Numbered in one place and not in the other, or broken into two lines.
            index = next(
                (
                    at
                    for words, at in by_words.items()
                    if words.endswith(wanted) or (len(words) > 3 and wanted.startswith(words))
                ),
                0,
            )
        if lines:
            placed.setdefault(max(index, 0), []).append(entry)
    return placed


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text)).casefold()


def _largest_line(pages: Sequence[Sequence[Line]], sizes: _Sizes) -> str:
    """Returns the first heading of the highest level on the given pages."""
    found = [(sizes.heading_level(line), line.text) for lines in pages for line in lines]
    return min((each for each in found if each[0]), key=lambda each: each[0], default=(0, ""))[1]
