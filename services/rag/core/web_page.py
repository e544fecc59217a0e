"""Reads a page of the web into chunks, and ranks those of several pages for a question."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice

import numpy as np

from services.rag.core.analysis import analyse_document, analyse_query
from services.rag.core.bm25 import score_chunks
from services.rag.core.chunking import DEFAULT_SIZES, ChunkSizes, chunk_document
from services.rag.core.documents import Chunk, Vector
from services.rag.core.fusion import FusionMethod, Hits, fuse
from services.rag.core.language import detect_language
from services.rag.core.parsing import media_types as types
from services.rag.core.parsing import parse_document
from services.rag.core.parsing.cleaning import clean_text
from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import shorten_heading
from services.rag.core.passages import Passage, PassageOrigin, RankedPassage, ScoredChunk
from services.rag.core.ranking.candidate import Candidate
from services.rag.core.ranking.duplicates import without_near_duplicates
from services.rag.core.ranking.variety import spread_documents

__all__ = ["MEDIA_TYPES", "WebPage", "passages_of", "preselect", "rank_passages", "read_page"]

MEDIA_TYPES = frozenset(
    {types.HTML, "application/xhtml+xml", types.PLAIN, types.MARKDOWN, types.PDF}
)
"""What is read of the web."""

_LIMITS = ParseLimits()
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I)
_META_SEARCH_BYTES = 2048
# Python knows other encodings, of which some take long or unpack what they are given.
_ENCODINGS = re.compile(
    r"(?:iso-?8859-?\d{1,2}|latin-?\d|windows-?\d{3,4}|cp\d{3,4}|koi8-[rtu]|gb(?:k|2312|18030)|"
    r"big5(?:-?hkscs)?|euc-?(?:jp|kr)|shift[_-]?jis|iso-2022-(?:jp|kr)|utf-?(?:8|16)(?:-?[bl]e)?|"
    r"mac-?\w{4,10}|(?:us-)?ascii|tis-620)",
    re.IGNORECASE,
)
_MOST_CHUNKS = 400
_ID_BYTES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPage:
    """A page as it was read.

    Attributes:
        url: Where it was read from, after redirects.
        title: Its title.
        media_type: What it turned out to be.
        language: ISO 639-1 code; empty where it is not known.
        chunks: Its text, cut.
    """

    url: str
    title: str
    media_type: str
    language: str
    chunks: tuple[Chunk, ...]

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return sum(4 * len(each.text) + 500 for each in self.chunks)


def read_page(
    content: bytes,
    url: str,
    media_type: str,
    charset: str,
    title: str,
    sizes: ChunkSizes = DEFAULT_SIZES,
) -> WebPage:
    """Reads a page.

    Args:
        content: Its bytes.
        url: Where they came from.
        media_type: What the server says they are, without parameters.
        charset: How the server says text is encoded; empty where it does not.
        title: Used where the page has none.
        sizes: How large chunks are.

    Raises:
        DocumentRejected: It cannot be read.
    """
    if media_type != types.PDF:
        content = _as_utf8(content, charset)
    # Of text the server's word decides; a page without a doctype would count as plain text.
    name = "page.html" if media_type in (types.HTML, "application/xhtml+xml") else ""
    document = parse_document(content, file_name=name, media_type=media_type, limits=_LIMITS)
    if document.title in ("", "Untitled", name):
        document = replace(document, title=shorten_heading(clean_text(title)) or url)
    chunks = chunk_document(document, sizes)[:_MOST_CHUNKS]
    return WebPage(
        url=url,
        title=document.title,
        media_type=document.media_type,
        language=detect_language(document.text),
        chunks=chunks,
    )


def passages_of(pages: Sequence[WebPage]) -> dict[int, Passage]:
    """Returns the chunks of pages as passages, by ids that are the same whenever they are read."""
    return {
        passage.chunk_id: passage
        for page in pages
        for chunk in page.chunks
        for passage in (_passage(page, chunk),)
    }


def preselect(question: str, passages: Mapping[int, Passage], limit: int) -> list[ScoredChunk]:
    """Returns the passages that fit a question by their words, best first."""
    languages = tuple(dict.fromkeys(each.language for each in passages.values()))
    terms = analyse_query(question, languages=languages or ("",))
    analysed = {
        key: analyse_document(f"{each.header}\n{each.text}", language=each.language)
        for key, each in passages.items()
    }
    scores = score_chunks(terms, analysed)
    order = sorted(scores, key=lambda key: (-scores[key], key))
    return [ScoredChunk(key, scores[key]) for key in order[:limit]]


def rank_passages(
    passages: Mapping[int, Passage],
    by_words: Sequence[ScoredChunk],
    *,
    question_vector: Vector | None = None,
    vectors: Mapping[int, Vector] | None = None,
    limit: int,
) -> tuple[RankedPassage, ...]:
    """Ranks passages by words, and by meaning where there are vectors; best first.

    Args:
        passages: By id.
        by_words: What fits by words, best first.
        question_vector: The question's vector; None where there is none.
        vectors: Vectors of passages by id.
        limit: Most passages to return.
    """
    near: list[ScoredChunk] = []
    if question_vector is not None and vectors:
        cosines = {key: _cosine(question_vector, each) for key, each in vectors.items()}
        order = sorted(cosines, key=lambda key: -cosines[key])
        near = [ScoredChunk(key, cosines[key]) for key in order]
    fused = fuse(FusionMethod.CONVEX, Hits(vector=near, keyword=by_words)).best
    candidates = [
        Candidate.of(RankedPassage(passages[each.chunk_id], each)) for each in fused[: 4 * limit]
    ]
    distinct = without_near_duplicates(candidates)
    chosen = islice(spread_documents(distinct, places=limit), limit)
    return tuple(RankedPassage(each.passage, each.ranking) for each in chosen)


def _passage(page: WebPage, chunk: Chunk) -> Passage:
    place = f"{page.url}\0{chunk.char_start}\0{chunk.text_digest}"
    digest = blake2b(place.encode("utf-8", "replace"), digest_size=_ID_BYTES).digest()
    return Passage(
        chunk_id=-1 - int.from_bytes(digest),
        collection="",
        document_id=page.url,
        title=page.title,
        source_uri=page.url,
        media_type=page.media_type,
        metadata={},
        ordinal=chunk.ordinal,
        char_start=chunk.char_start,
        char_end=chunk.char_end,
        text=chunk.text,
        heading_path=chunk.heading_path,
        header=chunk.header or page.title,
        token_estimate=chunk.token_estimate,
        page_start=chunk.page_start,
        page_end=chunk.page_end,
        language=page.language,
        origin=PassageOrigin.WEB,
    )


def _as_utf8(content: bytes, charset: str) -> bytes:
    """Writes text anew as UTF-8 where it is encoded otherwise."""
    declared = charset
    if not declared:
        found = _META_CHARSET.search(content[:_META_SEARCH_BYTES])
        declared = found[1].decode("ascii", "replace") if found else ""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        return content
    name = declared.lower() if _ENCODINGS.fullmatch(declared) else "windows-1252"
    try:
        text = content.decode(name, "replace")
    except LookupError:
        text = content.decode("utf-8", "replace")
    return text.encode("utf-8", "replace")


def _cosine(first: Vector, second: Vector) -> float:
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(np.dot(first, second)) / lengths if lengths else 0.0
