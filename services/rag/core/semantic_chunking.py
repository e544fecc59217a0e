"""Cutting a document where its meaning changes, found by comparing neighbouring sentences.

Whoever embeds calls `sentences_of`, embeds their texts, and hands the vectors to
`semantic_places`; `restore_chunks` then makes the chunks. Only sentences of one section share a
chunk, and the sizes are those of cutting by structure.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from services.rag.core.chunking import ChunkSizes, HeaderLines, Place
from services.rag.core.documents import Vector
from services.rag.core.packing import Packer
from services.rag.core.parsing.parsed import Block, BlockKind, ParsedDocument
from services.rag.core.sentences import Span, segment_sentences
from services.rag.core.tokens import TokenMeter

__all__ = ["SentencePlace", "semantic_places", "sentences_of"]

# Of all changes of meaning between neighbours in a document, the largest tenth are breakpoints.
_BREAKPOINT_PERCENTILE = 90.0
# What rounding may add to the difference of equal vectors.
_LEAST_CHANGE = 1e-5
# Smaller groups are joined to a neighbour however different it is, as a share of the target.
_LEAST_RATIO = 0.25


@dataclass(frozen=True, slots=True)
class SentencePlace:
    """One sentence, or one block that has none, such as code.

    Attributes:
        span: Its place in the text.
        section: Index of its section.
        kind: The kind of its block.
    """

    span: Span
    section: int
    kind: BlockKind


def sentences_of(document: ParsedDocument) -> tuple[SentencePlace, ...]:
    """Returns the sentences of a document in order; they cover all that is not white space."""
    return tuple(
        SentencePlace(span, index, block.kind)
        for index, section in enumerate(document.sections)
        for block in section.blocks
        for span in _split(document.text, block)
    )


def semantic_places(
    document: ParsedDocument,
    sentences: Sequence[SentencePlace],
    vectors: Sequence[Vector],
    sizes: ChunkSizes,
) -> tuple[Place, ...]:
    """Returns where to cut a document.

    Args:
        document: The document.
        sentences: What `sentences_of` returned for it.
        vectors: Their embeddings, in the same order.
        sizes: How large chunks are.

    Raises:
        ValueError: There is not one vector for each sentence.
    """
    if len(sentences) != len(vectors):
        raise ValueError(f"{len(sentences)} sentences have {len(vectors)} vectors")
    breaks = _breakpoints(vectors)
    meter = TokenMeter(document.text)
    headers = HeaderLines(document.title, sizes)
    places: list[Place] = []
    for index, section in enumerate(document.sections):
        members = [number for number, each in enumerate(sentences) if each.section == index]
        header_tokens = headers.token_count(section.heading_path)
        grouping = _Grouping(sentences, breaks, meter, sizes.target - header_tokens)
        packer = Packer(
            document.text,
            lambda span: meter.count(*span),
            target=max(sizes.target - header_tokens, 1),
            limit=sizes.maximum - header_tokens,
            whole_limit=sizes.whole - header_tokens,
        )
        for group in grouping.groups(members):
            blocks = [Block(sentences[each].kind, *sentences[each].span) for each in group]
            places += [(*span, section.heading_path) for span in packer.pack_blocks(blocks)]
    return tuple(places)


@dataclass(frozen=True, slots=True)
class _Grouping:
    sentences: Sequence[SentencePlace]
    breaks: frozenset[int]
    meter: TokenMeter
    target: int

    def groups(self, members: Sequence[int]) -> Iterator[list[int]]:
        """Yields runs of sentences that belong together."""
        group: list[int] = []
        for member in members:
            if group and self._ends(group, member):
                yield group
                group = []
            group.append(member)
        if group:
            yield group

    def _ends(self, group: Sequence[int], following: int) -> bool:
        size = self._size(group[0], group[-1])
        if self._size(group[0], following) > self.target:
            return True
        return following in self.breaks and size >= self.target * _LEAST_RATIO

    def _size(self, first: int, last: int) -> float:
        return self.meter.count(
            self.sentences[first].span.char_start, self.sentences[last].span.char_end
        )


def _breakpoints(vectors: Sequence[Vector]) -> frozenset[int]:
    """Returns the indexes of sentences that differ most from the one before."""
    changes = [1.0 - _cosine(first, second) for first, second in pairwise(vectors)]
    if not changes:
        return frozenset()
    threshold = float(np.percentile(changes, _BREAKPOINT_PERCENTILE))
    return frozenset(
        index
        for index, change in enumerate(changes, start=1)
        if change >= max(threshold, _LEAST_CHANGE)
    )


def _cosine(first: Vector, second: Vector) -> float:
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norms if norms else 0.0


def _split(text: str, block: Block) -> Iterator[Span]:
    start, end = block.char_start, block.char_end
    if block.kind is BlockKind.VERBATIM:
        yield Span(start, end)
        return
    spans = [
        Span(start + first, start + last) for first, last in segment_sentences(text[start:end])
    ]
    yield from spans or [Span(start, end)]
