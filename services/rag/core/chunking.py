"""Cutting a parsed document into chunks along its structure.

A section that fits is one chunk. A larger one is cut between blocks; a block that is still too
large between sentences (prose) or lines (code and tables), then between words, then characters.
Small neighbouring sections share a chunk. There is no overlap: public comparisons show next to no
gain from it at equal token cost.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile

from services.rag.core.model import Chunk
from services.rag.core.parsing.parsed import (
    Block,
    BlockKind,
    ParsedDocument,
    Section,
)
from services.rag.core.sentences import Span, segment_sentences
from services.rag.core.tokens import TokenMeter, estimate_tokens

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "DEFAULT_TARGET_TOKENS",
    "chunk_document",
    "fingerprint",
    "restore_chunks",
]

NAME = "structure"
VERSION = 1

# The default embedding model sees 256 tokens, of which two are its own marks.
DEFAULT_TARGET_TOKENS = 200
DEFAULT_MAX_TOKENS = 240
MIN_TARGET_TOKENS = 32

# A header takes at most this share of a chunk; longer ones lose their middle headings.
_MAX_HEADER_RATIO = 0.25
_HEADER_SEPARATOR = " › "  # noqa: RUF001

_WORD = re.compile(r"\S+")
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_PARAGRAPH = re.compile(r"[^\n]*\S(?:[^\n]|\n(?![ \t|]*\n))*")
_JOINING = frozenset("\u200d\ufe0e\ufe0f")

_Splitter = Callable[[str], Iterable[Span]]


def fingerprint(
    *, target_tokens: int = DEFAULT_TARGET_TOKENS, max_tokens: int = DEFAULT_MAX_TOKENS
) -> str:
    """Return what identifies this way of chunking: same text and fingerprint, same chunks."""
    return f"{NAME}-{VERSION}/target={target_tokens}/max={max_tokens}"


def chunk_document(
    document: ParsedDocument,
    *,
    target_tokens: int = DEFAULT_TARGET_TOKENS,
    max_tokens: int = DEFAULT_MAX_TOKENS,
) -> tuple[Chunk, ...]:
    """Cut a document into chunks.

    Chunks are in order, never overlap and are never empty; together they hold every character that
    is not white space. Sizes are estimated tokens of the header and the text together.

    Args:
        document: The parsed document.
        target_tokens: Size up to which neighbours are joined, at least 32.
        max_tokens: Size that no chunk exceeds, at least the target.

    Raises:
        ValueError: The sizes contradict each other.
    """
    if not MIN_TARGET_TOKENS <= target_tokens <= max_tokens:
        raise ValueError(
            f"need {MIN_TARGET_TOKENS} <= target_tokens <= max_tokens, "
            f"got {target_tokens} and {max_tokens}"
        )
    chunker = _Chunker(document, target_tokens, max_tokens)
    pieces = chunker.merge(chunker.split_sections())
    places = [(*piece.span, piece.path) for piece in pieces]
    return restore_chunks(document, places, max_tokens=max_tokens)


def restore_chunks(
    document: ParsedDocument,
    spans: Iterable[tuple[int, int, tuple[str, ...]]],
    *,
    max_tokens: int = DEFAULT_MAX_TOKENS,
) -> tuple[Chunk, ...]:
    """Make the chunks of a document again from their places, without looking for them.

    Args:
        document: The same document.
        spans: `char_start`, `char_end` and `heading_path` of each chunk, in order.
        max_tokens: As it was for `chunk_document`.
    """
    headers = _Headers(document.title, max_tokens)
    return tuple(
        _make_chunk(document.text, ordinal, Span(start, end), path, headers)
        for ordinal, (start, end, path) in enumerate(spans)
    )


@dataclass(frozen=True, slots=True)
class _Piece:
    """A future chunk.

    Attributes:
        span: Its place in the text.
        path: Headings that all of it stands under.
        last_path: Headings of its last section.
        section: Index of the section that it is a part of; None when it is all of one or more.
    """

    span: Span
    path: tuple[str, ...]
    last_path: tuple[str, ...]
    section: int | None


class _Headers:
    """The header lines of one document's chunks, by heading path.

    Args:
        title: The document's title.
        max_tokens: Largest chunk.
    """

    def __init__(self, title: str, max_tokens: int) -> None:
        self._title = title
        self._limit = int(max_tokens * _MAX_HEADER_RATIO)
        self._made: dict[tuple[str, ...], tuple[str, int]] = {}

    def line(self, path: tuple[str, ...]) -> str:
        """Return the header line."""
        return self._make(path)[0]

    def token_count(self, path: tuple[str, ...]) -> int:
        """Return the line's estimated tokens."""
        return self._make(path)[1]

    def _make(self, path: tuple[str, ...]) -> tuple[str, int]:
        if path not in self._made:
            line = _header_line([self._title, *path], self._limit)
            # One more, for what rounding up may add.
            self._made[path] = line, estimate_tokens(line) + 1
        return self._made[path]


class _Chunker:
    def __init__(self, document: ParsedDocument, target_tokens: int, max_tokens: int) -> None:
        self._document = document
        self._text = document.text
        self._meter = TokenMeter(document.text)
        self._target = target_tokens
        self._max = max_tokens
        self._headers = _Headers(document.title, max_tokens)

    def split_sections(self) -> Iterator[_Piece]:
        """Yield each section whole, or in parts if it is too large."""
        pending: list[Block] = []
        sections = self._document.sections
        for index, section in enumerate(sections):
            blocks = [*pending, *section.blocks]
            if index + 1 < len(sections) and _only_headings(section):
                # A bare heading introduces what follows.
                pending = blocks
                continue
            pending = []
            spans = self._pack(blocks, section.heading_path)
            whole = len(spans) == 1
            for span in spans:
                path = section.heading_path
                yield _Piece(span, path, path, None if whole else index)

    def merge(self, pieces: Iterable[_Piece]) -> list[_Piece]:
        """Join neighbours that fit the target together and belong together."""
        merged: list[_Piece] = []
        for piece in pieces:
            joined = self._join(merged[-1], piece) if merged else None
            if joined:
                merged[-1] = joined
            else:
                merged.append(piece)
        return merged

    def _join(self, first: _Piece, second: _Piece) -> _Piece | None:
        same_section = first.section is not None and first.section == second.section
        both_whole = first.section is None and second.section is None
        if not same_section and not (both_whole and _related(first.last_path, second.path)):
            return None
        path = _common_prefix(first.path, second.path)
        span = Span(first.span.char_start, second.span.char_end)
        if self._size(span) > self._target - self._headers.token_count(path):
            return None
        return _Piece(span, path, second.last_path, first.section)

    def _size(self, span: Span) -> float:
        return self._meter.count(*span)

    def _pack(self, blocks: Sequence[Block], path: tuple[str, ...]) -> list[Span]:
        header_tokens = self._headers.token_count(path)
        packer = _Packer(
            self._text, self._size, self._target - header_tokens, self._max - header_tokens
        )
        return packer.pack_blocks(blocks)


@dataclass(frozen=True, slots=True)
class _Packer:
    """Fills spans with units, up to a target, and cuts the units that are too large.

    Attributes:
        text: The whole text.
        size: Estimated tokens of a span.
        target: Size up to which units are put together.
        limit: Size that no span exceeds.
    """

    text: str
    size: Callable[[Span], float]
    target: int
    limit: int

    def pack_blocks(self, blocks: Sequence[Block]) -> list[Span]:
        """Pack blocks, cutting large ones by their kind."""
        kinds = {block.char_start: block.kind for block in blocks}
        units = [Span(block.char_start, block.char_end) for block in blocks]
        return self._pack(units, lambda unit: self._cut(unit, _splitters(kinds[unit.char_start])))

    def _pack(self, units: Sequence[Span], cut: Callable[[Span], list[Span]]) -> list[Span]:
        packed: list[Span] = []
        index = 0
        while index < len(units):
            start = units[index].char_start
            rest = Span(start, units[-1].char_end)
            if self.size(rest) <= self.limit:
                return [*packed, rest]
            end = index
            while (
                end + 1 < len(units)
                and self.size(Span(start, units[end + 1].char_end)) <= self.target
            ):
                end += 1
            filled = Span(start, units[end].char_end)
            packed.extend([filled] if self.size(filled) <= self.limit else cut(filled))
            index = end + 1
        return packed

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
            while end < unit.char_end and end > start + 1 and _sticks(self.text, end):
                end -= 1
            yield Span(start, end)
            start = end


def _make_chunk(
    text: str, ordinal: int, span: Span, path: tuple[str, ...], headers: _Headers
) -> Chunk:
    start, end = span
    header, body = headers.line(path), text[start:end]
    whole = f"{header}\n{body}" if header else body
    return Chunk(
        ordinal=ordinal,
        char_start=start,
        char_end=end,
        text=body,
        heading_path=path,
        header=header,
        token_estimate=estimate_tokens(whole),
        text_digest=blake2b(whole.encode(), digest_size=20).hexdigest(),
    )


def _splitters(kind: BlockKind) -> tuple[_Splitter, ...]:
    if kind is BlockKind.VERBATIM:
        return (_matches(_PARAGRAPH), _matches(_LINE), _matches(_WORD))
    return (segment_sentences, _matches(_LINE), _matches(_WORD))


def _matches(pattern: re.Pattern[str]) -> _Splitter:
    return lambda text: [Span(*match.span()) for match in pattern.finditer(text)]


def _sticks(text: str, position: int) -> bool:
    """Return whether the character at `position` forms one glyph with the one before."""
    character = text[position]
    return (
        unicodedata.category(character).startswith("M")
        or character in _JOINING
        or text[position - 1] == "\u200d"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )


def _only_headings(section: Section) -> bool:
    return all(block.kind is BlockKind.HEADING for block in section.blocks)


def _related(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Return whether two headings are siblings, or one is the other's parent."""
    shared = len(_common_prefix(first, second))
    return shared >= len(first) - 1 and shared >= len(second) - 1


def _common_prefix(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return tuple(heading for heading, _ in pairs)


def _header_line(headings: list[str], limit_tokens: int) -> str:
    while len(headings) > 2 and estimate_tokens(_HEADER_SEPARATOR.join(headings)) > limit_tokens:
        del headings[1]
    line = _HEADER_SEPARATOR.join(headings)
    while estimate_tokens(line) > limit_tokens:
        line = line[: len(line) * 3 // 4].rstrip()
    return line
