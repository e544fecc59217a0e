"""Documents, their chunks and their collections: what is stored, and what is told of it.

Offsets everywhere are half-open Python character offsets (code points) into a document's stored
text, so `document.text[item.char_start:item.char_end]` is the item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

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
        terms: The chunk's index terms, as `analyse_chunks` returns them.
        embedding: float32, shape (dimension,); None where it has still to be computed.
    """

    chunk: Chunk
    terms: TermFrequencies
    embedding: Vector | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCounts:
    """How much is stored, of all tenants."""

    document_count: int
    chunk_count: int


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
        pending_vector_count: Chunks that have no vector yet and are found by words alone.
        created_at: When the collection was created.
        updated_at: When its contents last changed.
        languages: ISO 639-1 codes of its documents' languages, empty where one is not known; the
            earliest first.
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
    pending_vector_count: int = 0
    languages: tuple[str, ...] = ()


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
class DocumentLabels:
    """What of a document may change without another version of it; None leaves things as they are.

    Attributes:
        metadata: All of the caller's own labels.
        tags: All tags.
        readers: All readers, `user:<id>` and `group:<id>`; empty for everyone of the tenant.
        language: ISO 639-1 code; empty where it is not known.
        expires_at: When it ceases to be found.
        never_expires: Takes an expiry away.
    """

    metadata: Mapping[str, str] | None = None
    tags: tuple[str, ...] | None = None
    readers: tuple[str, ...] | None = None
    language: str | None = None
    expires_at: datetime | None = None
    never_expires: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChunk:
    """A chunk as it is stored.

    Attributes:
        text_digest: Hexadecimal digest of what is embedded.
        has_vector: Whether it can be found by meaning.
        (the others): As in `Chunk`.
    """

    chunk_id: int
    ordinal: int
    char_start: int
    char_end: int
    page_start: int
    page_end: int
    text: str
    heading_path: tuple[str, ...]
    header: str
    token_estimate: int
    text_digest: str
    has_vector: bool


@dataclass(frozen=True, slots=True)
class ChunkPage:
    """Chunks of a document in their order, and where the next page starts (None: no more).

    The place is that of the last chunk in this version, so pages of two versions never mix.
    """

    chunks: tuple[StoredChunk, ...]
    next_after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingVector:
    """A chunk that was stored without its vector.

    Attributes:
        tenant_id: Owner of the collection.
        collection: Its name.
        embedding_model: Model that has to make the vector; None where nothing has settled it yet.
        chunk_id: The chunk.
        text: What is to be embedded.
        text_digest: Hexadecimal digest of `text`.
    """

    tenant_id: str
    collection: str
    embedding_model: str | None
    chunk_id: int
    text: str
    text_digest: str
