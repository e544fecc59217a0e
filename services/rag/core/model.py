"""The values that the rag service passes between its parsers, its store and its use cases.

Offsets everywhere are half-open Python character offsets (code points) into a document's stored
text, so `document.text[item.char_start:item.char_end]` is the item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from services.rag.core.bm25 import inverse_document_frequency

Vector = NDArray[np.float32]
"""One embedding: float32, shape (dimension,)."""

_NO_METADATA: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One version of a document, as it is handed to the store.

    Attributes:
        tenant_id: Owner; nothing is ever shared between tenants.
        collection: Name of the collection inside the tenant.
        document_id: Identity inside the collection, chosen by the caller.
        title: Shown with citations and put in front of every chunk.
        source_uri: Where the document came from; may be empty.
        media_type: What the bytes turned out to be, such as `text/markdown`.
        text: The stored text that all offsets refer to.
        content_digest: Hexadecimal digest of the received bytes.
        index_fingerprint: How the document was cut and analysed; with another one it must be
            ingested again although its bytes are the same.
        byte_count: Size of the received bytes.
        metadata: The caller's own labels.
        tags: The caller's own tags.
        readers: Who may read it, `user:<id>` and `group:<id>`; empty for everyone of the tenant.
        language: ISO 639-1 code; empty where it is not known.
        expires_at: When it ceases to be found; None for never.
        page_count: Pages; 0 where it has none.
    """

    tenant_id: str
    collection: str
    document_id: str
    title: str
    source_uri: str = ""
    media_type: str
    text: str
    content_digest: str
    index_fingerprint: str = ""
    byte_count: int
    metadata: Mapping[str, str] = field(default_factory=lambda: _NO_METADATA)
    tags: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    language: str = ""
    expires_at: datetime | None = None
    page_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A slice of a document that is embedded, indexed and cited as one.

    Attributes:
        ordinal: Position in the document, from 0.
        char_start: First character of the slice in the stored text.
        char_end: One past the last character of the slice.
        text: Exactly the stored slice.
        heading_path: The headings above the slice, outermost first, without the title.
        header: Title and heading path in one line; embedded and indexed with the text, shown apart.
        token_estimate: Estimated model tokens of `embedding_text`.
        text_digest: Hexadecimal digest of `embedding_text`: equal digests, equal embeddings.
        page_start: First page, from 1; 0 where the document has no pages.
        page_end: Last page; 0 where the document has no pages.
    """

    ordinal: int
    char_start: int
    char_end: int
    text: str
    heading_path: tuple[str, ...]
    header: str
    token_estimate: int
    text_digest: str
    page_start: int = 0
    page_end: int = 0

    @property
    def embedding_text(self) -> str:
        """What is embedded and indexed for this chunk: the header line, then the text."""
        return f"{self.header}\n{self.text}" if self.header else self.text


@dataclass(frozen=True, slots=True)
class TermFrequencies:
    """The analysed form of a text: how often each term occurs, and the sum of those counts."""

    counts: Mapping[str, int]
    length: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IndexedChunk:
    """A chunk with everything the store needs to find it again.

    Attributes:
        chunk: The chunk.
        terms: Analysed `chunk.embedding_text`.
        embedding: float32, shape (dimension,); None where it has still to be computed.
    """

    chunk: Chunk
    terms: TermFrequencies
    embedding: Vector | None


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
    """The keyword arm's hits, best first, with the statistics of the terms that were searched."""

    hits: tuple[ScoredChunk, ...]
    statistics: TermStatistics


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A stored chunk, or several that follow each other, with the facts of the document.

    This is what is shown to a model and cited.

    Attributes:
        ordinal_end: One past the last chunk's place in its document; 0 stands for one chunk.
        page_start: First page, from 1; 0 where the document has no pages.
        page_end: Last page; 0 where the document has no pages.
        updated_at: When the document was last replaced; None where that is not known.
        origin: Where it comes from. A passage of the web has a negative `chunk_id`, the page's
            address as `document_id` and `source_uri`, and offsets into the text read from the page.
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
    updated_at: datetime | None = None
    language: str = ""
    origin: PassageOrigin = PassageOrigin.CORPUS
    injection_suspected: bool = False


@dataclass(frozen=True, slots=True)
class RankedPassage:
    """A passage together with the ranks and scores that brought it up."""

    passage: Passage
    ranking: FusedChunk


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionStats:
    """A collection and its counters, all as of one committed version.

    Attributes:
        name: Name inside the tenant.
        embedding_model: Model of the stored vectors; None until the first ingest.
        embedding_dimension: Length of the stored vectors; None until the first ingest.
        document_count: Documents.
        chunk_count: Chunks.
        token_sum: Sum of the analysed lengths of all chunks, in terms.
        version: Grows with every change of the collection's contents. No version is ever used
            twice under one name, not even after the collection was deleted and made anew.
        created_at: When the collection was created.
        updated_at: When its contents last changed.
    """

    name: str
    embedding_model: str | None
    embedding_dimension: int | None
    document_count: int
    chunk_count: int
    token_sum: int
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSummary:
    """A stored document without its text.

    Attributes:
        version: Grows by one each time the document is replaced, from 1.
        character_count: Length of the stored text.
        byte_count: Size of the bytes that were received.
    """

    collection: str
    document_id: str
    title: str
    source_uri: str
    media_type: str
    content_digest: str
    index_fingerprint: str
    byte_count: int
    character_count: int
    chunk_count: int
    version: int
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    tags: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    language: str = ""
    expires_at: datetime | None = None
    page_count: int = 0
    pending_vector_count: int = 0


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A stored document with its text."""

    summary: DocumentSummary
    text: str


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """Documents in the order of their ids, and where the next page starts (None: no more)."""

    documents: tuple[DocumentSummary, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutReceipt:
    """What one `put_document` did.

    Attributes:
        replaced: Whether an earlier version of the document went away.
        document_version: The version now stored.
        collection_version: The collection's version after the change.
        chunk_count: Chunks written.
        posting_count: Keyword index entries written.
    """

    replaced: bool
    document_version: int
    collection_version: int
    chunk_count: int
    posting_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionReceipt:
    """Rows that a deletion removed, and the collection's version after it."""

    document_count: int
    chunk_count: int
    posting_count: int
    embedding_count: int
    collection_version: int
