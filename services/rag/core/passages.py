"""What a search finds: hits of its arms, their fused places, and the passages that they are.

Offsets are those of the documents: half-open, in code points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from services.rag.core.bm25 import inverse_document_frequency


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """One hit of one search arm; a list of them is ordered best first.

    The score is BM25 (0 and up) for the keyword arm and cosine similarity (-1 to 1) for the
    vector arm.
    """

    chunk_id: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TermStatistics:
    """How common terms are inside one collection.

    Attributes:
        chunk_count: Chunks in the collection.
        average_length: Mean analysed length of a chunk, in terms.
        document_frequencies: Chunks that contain the term; terms found nowhere are absent.
    """

    chunk_count: int
    average_length: float
    document_frequencies: Mapping[str, int]

    def idf(self, term: str) -> float:
        """Returns the inverse document frequency that BM25 uses; greatest for unknown terms."""
        return inverse_document_frequency(self.chunk_count, self.document_frequencies.get(term, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordMatches:
    """The keyword arm's hits, best first, with the statistics of the terms that were searched.

    Attributes:
        hits: The chunks.
        statistics: How common all terms asked for are in the collection.
        pruned_terms: Terms that do not count in the scores, because all terms together are in too
            many chunks; the most common ones, sorted.
    """

    hits: tuple[ScoredChunk, ...]
    statistics: TermStatistics
    pruned_terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedChunk:
    """A chunk's place after both arms were fused.

    Attributes:
        chunk_id: The chunk.
        score: Fused score, 0 to 1.
        vector_rank: Place in the vector arm from 1, or None if that arm did not return it.
        vector_score: Cosine similarity, or None.
        keyword_rank: Place in the keyword arm from 1, or None.
        keyword_score: BM25, or None.
        rerank_score: The cross-encoder's belief, 0 to 1, or None if it was not asked.
    """

    chunk_id: int
    score: float
    vector_rank: int | None = None
    vector_score: float | None = None
    keyword_rank: int | None = None
    keyword_score: float | None = None
    rerank_score: float | None = None


class PassageOrigin(Enum):
    """Where a passage comes from."""

    CORPUS = "corpus"
    WEB = "web"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class PageSpan:
    """Characters [char_start, char_end) of a document, and the pages that they are on."""

    char_start: int
    char_end: int
    page_start: int
    page_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A stored chunk, or several that follow each other, with the facts of the document.

    This is what is shown to a model and cited.

    Attributes:
        ordinal_end: One past the last chunk's place in its document; 0 stands for one chunk.
        page_start: First page, from 1; 0 where the document has no pages.
        page_end: Last page; 0 where the document has no pages.
        updated_at: When the document was last replaced; None where that is not known.
        page_spans: Of several chunks, where each is and on which pages; empty for one.
        origin: Where it comes from. A passage of the web has a negative `chunk_id`, the page's
            address as `document_id` and `source_uri`, and offsets into the text read from the page;
            so has one of a tool that computes, with `tool:<name>` as `document_id`.
        injection_suspected: Whether its text looks like instructions to a model.
    """

    chunk_id: int
    collection: str
    document_id: str
    title: str
    source_uri: str
    media_type: str
    metadata: Mapping[str, str]
    ordinal: int
    char_start: int
    char_end: int
    text: str
    heading_path: tuple[str, ...]
    header: str
    token_estimate: int
    ordinal_end: int = 0
    page_start: int = 0
    page_end: int = 0
    page_spans: tuple[PageSpan, ...] = ()
    updated_at: datetime | None = None
    language: str = ""
    origin: PassageOrigin = PassageOrigin.CORPUS
    injection_suspected: bool = False

    def pages_of(self, char_start: int, char_end: int) -> tuple[int, int]:
        """Returns the first and the last page of the chunks that hold a part of it.

        Args:
            char_start: First character of the part in the document.
            char_end: One past its last character.
        """
        held = [
            each
            for each in self.page_spans
            if each.char_start < char_end and char_start < each.char_end
        ]
        if not held:
            return self.page_start, self.page_end
        return held[0].page_start, held[-1].page_end


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """A passage together with the ranks and scores that brought it up."""

    passage: Passage
    ranking: FusedChunk


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Characters [char_start, char_end) of the document version that a chunk belongs to."""

    chunk_id: int
    char_start: int
    char_end: int
