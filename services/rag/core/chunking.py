"""Cutting a parsed document into chunks along its structure.

A section that fits is one chunk. A larger one is cut between blocks; a block that is still too
large between sentences (prose) or lines (code and tables), then between words, then characters.
Small neighbouring sections share a chunk. There is no overlap: public comparisons show next to no
gain from it at equal token cost.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile

from services.rag.core import parsing
from services.rag.core.documents import Chunk
from services.rag.core.packing import Packer
from services.rag.core.parsing.parsed import (
    Block,
    BlockKind,
    PageSpan,
    ParsedDocument,
    Section,
)
from services.rag.core.sentences import Span
from services.rag.core.tokens import TokenMeter, estimate_tokens

__all__ = [
    "DEFAULT_SIZES",
    "MIN_TARGET_TOKENS",
    "ChunkSizes",
    "HeaderLines",
    "Place",
    "chunk_document",
    "document_head",
    "fingerprint",
    "fit_sizes",
    "restore_chunks",
]

VERSION = 2

MIN_TARGET_TOKENS = 32
# Code and tables may be larger by this factor before they are split.
_WHOLE_RATIO = 1.5
# What the model's own marks take, and what the estimate may be short of.
_WINDOW_SHARE_RATIO = 0.94
_TARGET_SHARE_RATIO = 5 / 6

# So much of a document's beginning says what it is about.
_HEAD_CHARACTERS = 200
# A header takes at most this share of a chunk; longer ones lose their middle headings.
_MAX_HEADER_RATIO = 0.25
# What rounding, and cutting a word at either end, may add to the sum of parts.
_ROUNDING_TOKENS = 3
_HEADER_SEPARATOR = " › "  # noqa: RUF001


Place = tuple[int, int, tuple[str, ...]]
"""`char_start`, `char_end` and `heading_path` of a chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSizes:
    """How large chunks are, in estimated tokens of the header and the text together.

    Attributes:
        target: Size up to which neighbours are joined, at least 32.
        maximum: Size that no chunk exceeds, code and tables apart; at least the target.
        whole: Size up to which code and tables are not split; at least the maximum.

    Raises:
        ValueError: The sizes contradict each other.
    """

    target: int
    maximum: int
    whole: int

    def __post_init__(self) -> None:
        """Checks that the sizes fit together."""
        if not MIN_TARGET_TOKENS <= self.target <= self.maximum <= self.whole:
            raise ValueError(
                f"need {MIN_TARGET_TOKENS} <= target <= maximum <= whole, "
                f"got {self.target}, {self.maximum} and {self.whole}"
            )


def fit_sizes(target: int, maximum: int, *, window: int = 0) -> ChunkSizes:
    """Returns sizes that an embedding model can read, as near to those wanted as possible.

    Args:
        target: Size wanted, in estimated tokens.
        maximum: Largest size wanted.
        window: Tokens the model reads of a text, from 64; 0 where that is not known.

    Raises:
        ValueError: The sizes contradict each other.
    """
    whole = int(maximum * _WHOLE_RATIO)
    readable = int(window * _WINDOW_SHARE_RATIO) if window else whole
    whole = min(whole, readable)
    if readable < maximum:
        maximum = readable
        target = min(target, max(int(maximum * _TARGET_SHARE_RATIO), MIN_TARGET_TOKENS))
    return ChunkSizes(target=target, maximum=maximum, whole=whole)


DEFAULT_SIZES = fit_sizes(400, 512)
"""Sizes where nothing is known of the model."""


def fingerprint(sizes: ChunkSizes = DEFAULT_SIZES, *, strategy: str = "structure") -> str:
    """Returns what identifies this way of chunking.

    Equal bytes, titles, media types and fingerprints have equal chunks.
    """
    size_names = f"target={sizes.target}/max={sizes.maximum}/whole={sizes.whole}"
    return f"{strategy}-{VERSION}/parser-{parsing.VERSION}/{size_names}"


def chunk_document(
    document: ParsedDocument, sizes: ChunkSizes = DEFAULT_SIZES
) -> tuple[Chunk, ...]:
    """Cuts a document into chunks.

    Chunks are in order, never overlap and are never empty; together they hold every character that
    is not white space.

    Args:
        document: The parsed document.
        sizes: How large chunks are.
    """
    chunker = _Chunker(document, sizes)
    pieces = chunker.merge(chunker.split_sections())
    places = [(*piece.span, piece.path) for piece in pieces]
    return restore_chunks(document, places, sizes)


def restore_chunks(
    document: ParsedDocument, places: Iterable[Place], sizes: ChunkSizes = DEFAULT_SIZES
) -> tuple[Chunk, ...]:
    """Makes the chunks of a document again from their places, without looking for them.

    Args:
        document: The same document.
        places: Where the chunks are, in order.
        sizes: As they were when the places were found.
    """
    headers = HeaderLines(document.title, sizes)
    pages = _Pages(document.pages)
    return tuple(
        _make_chunk(document.text, ordinal, Span(start, end), path, headers, pages)
        for ordinal, (start, end, path) in enumerate(places)
    )


def document_head(document: ParsedDocument) -> str:
    """Returns how a document begins, to be indexed with its later chunks; ends with a word."""
    beginning = document.text.lstrip()
    if len(beginning) <= _HEAD_CHARACTERS:
        return beginning.rstrip()
    return beginning[:_HEAD_CHARACTERS].rpartition(" ")[0].rstrip()


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


class HeaderLines:
    """The header lines of one document's chunks, by heading path.

    Args:
        title: The document's title.
        sizes: How large chunks are.
    """

    def __init__(self, title: str, sizes: ChunkSizes) -> None:
        self._title = title
        self._limit = int(sizes.maximum * _MAX_HEADER_RATIO)
        self._made: dict[tuple[str, ...], tuple[str, int]] = {}

    def line(self, path: tuple[str, ...]) -> str:
        """Returns the header line."""
        return self._make(path)[0]

    def token_count(self, path: tuple[str, ...]) -> int:
        """Returns the line's estimated tokens."""
        return self._make(path)[1]

    def _make(self, path: tuple[str, ...]) -> tuple[str, int]:
        if path not in self._made:
            line = _header_line([self._title, *path], self._limit)
            self._made[path] = line, estimate_tokens(line) + _ROUNDING_TOKENS
        return self._made[path]


class _Pages:
    """The pages of a document, by place.

    Args:
        pages: In order.
    """

    def __init__(self, pages: Sequence[PageSpan]) -> None:
        self._pages = pages
        self._starts = [page.char_start for page in pages]

    def range(self, span: Span) -> tuple[int, int]:
        """Returns the first and the last page of a span; zeros where there are no pages."""
        if not self._pages:
            return 0, 0
        return self._at(span.char_start), self._at(span.char_end - 1)

    def _at(self, position: int) -> int:
        return self._pages[max(bisect_right(self._starts, position) - 1, 0)].number


class _Chunker:
    def __init__(self, document: ParsedDocument, sizes: ChunkSizes) -> None:
        self._document = document
        self._text = document.text
        self._meter = TokenMeter(document.text)
        self._sizes = sizes
        self._headers = HeaderLines(document.title, sizes)

    def split_sections(self) -> Iterator[_Piece]:
        """Yields each section whole, or in parts if it is too large."""
        pending: list[Block] = []
        sections = self._document.sections
        for index, section in enumerate(sections):
            pending.extend(section.blocks)
            if index + 1 < len(sections) and _only_headings(section):
                # A bare heading introduces what follows.
                continue
            spans = self._pack(pending, section.heading_path)
            pending = []
            whole = len(spans) == 1
            for span in spans:
                path = section.heading_path
                yield _Piece(span, path, path, None if whole else index)

    def merge(self, pieces: Iterable[_Piece]) -> list[_Piece]:
        """Joins neighbours that fit the target together and belong together."""
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
        if self._size(span) > self._sizes.target - self._headers.token_count(path):
            return None
        return _Piece(span, path, second.last_path, first.section)

    def _size(self, span: Span) -> float:
        return self._meter.count(*span)

    def _pack(self, blocks: Sequence[Block], path: tuple[str, ...]) -> list[Span]:
        header_tokens = self._headers.token_count(path)
        packer = Packer(
            self._text,
            self._size,
            target=max(self._sizes.target - header_tokens, MIN_TARGET_TOKENS // 2),
            limit=self._sizes.maximum - header_tokens,
            whole_limit=self._sizes.whole - header_tokens,
        )
        return packer.pack_blocks(blocks)


def _make_chunk(
    text: str,
    ordinal: int,
    span: Span,
    path: tuple[str, ...],
    headers: HeaderLines,
    pages: _Pages,
) -> Chunk:
    start, end = span
    page_start, page_end = pages.range(span)
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
        page_start=page_start,
        page_end=page_end,
    )


def _only_headings(section: Section) -> bool:
    return all(block.kind is BlockKind.HEADING for block in section.blocks)


def _related(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Returns whether two headings are siblings, or one is the other's parent."""
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
