"""Cutting a parsed document into chunks along its structure.

A section that fits is one chunk. A larger one is cut between blocks; a block that is still too
large between sentences (prose) or lines (code and tables), then between words, then characters.
Small neighbouring sections share a chunk. There is no overlap: public comparisons show next to no
gain from it at equal token cost.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile

from services.rag.core import parsing
from services.rag.core.model import Chunk
from services.rag.core.packing import Packer
from services.rag.core.parsing.parsed import Block, BlockKind, ParsedDocument, Section
from services.rag.core.sentences import Span
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
# What rounding, and cutting a word at either end, may add to the sum of parts.
_ROUNDING_TOKENS = 3
_HEADER_SEPARATOR = " › "  # noqa: RUF001


def fingerprint(
    *, target_tokens: int = DEFAULT_TARGET_TOKENS, max_tokens: int = DEFAULT_MAX_TOKENS
) -> str:
    """Returns what identifies this way of chunking.

    Equal bytes, titles, media types and fingerprints have equal chunks.
    """
    return f"{NAME}-{VERSION}/parser-{parsing.VERSION}/target={target_tokens}/max={max_tokens}"


def chunk_document(
    document: ParsedDocument,
    *,
    target_tokens: int = DEFAULT_TARGET_TOKENS,
    max_tokens: int = DEFAULT_MAX_TOKENS,
) -> tuple[Chunk, ...]:
    """Cuts a document into chunks.

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
    """Makes the chunks of a document again from their places, without looking for them.

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


class _Chunker:
    def __init__(self, document: ParsedDocument, target_tokens: int, max_tokens: int) -> None:
        self._document = document
        self._text = document.text
        self._meter = TokenMeter(document.text)
        self._target = target_tokens
        self._max = max_tokens
        self._headers = _Headers(document.title, max_tokens)

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
        if self._size(span) > self._target - self._headers.token_count(path):
            return None
        return _Piece(span, path, second.last_path, first.section)

    def _size(self, span: Span) -> float:
        return self._meter.count(*span)

    def _pack(self, blocks: Sequence[Block], path: tuple[str, ...]) -> list[Span]:
        header_tokens = self._headers.token_count(path)
        packer = Packer(
            self._text,
            self._size,
            target=max(self._target - header_tokens, MIN_TARGET_TOKENS // 2),
            limit=self._max - header_tokens,
        )
        return packer.pack_blocks(blocks)


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
