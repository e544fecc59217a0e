"""From received bytes to chunks with their index terms.

This is all the work on a document that needs no one else, to be done where it holds nobody up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.rag.core.analysis import analyse_chunks
from services.rag.core.chunking import (
    ChunkSizes,
    Place,
    chunk_document,
    document_head,
    restore_chunks,
)
from services.rag.core.documents import Chunk, TermFrequencies, Vector
from services.rag.core.language import detect_language
from services.rag.core.parsing import ParsedDocument, parse_document
from services.rag.core.semantic_chunking import SentencePlace, semantic_places, sentences_of

__all__ = [
    "Reading",
    "ReadingOrder",
    "Sentences",
    "cut",
    "cut_by_meaning",
    "parse",
    "read_sentences",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingOrder:
    """How a document is to be read.

    Attributes:
        file_name: Its name, path or URI.
        media_type: What the sender says it is; may be empty.
        title: Given title; empty to take the document's own.
        language: ISO 639-1 code; empty to judge by the text.
        sizes: How large chunks are.
        places: Where it was cut before; None to find out.
    """

    file_name: str
    media_type: str
    title: str
    language: str
    sizes: ChunkSizes
    places: Sequence[Place] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a document holds.

    Attributes:
        title: Given, or its own.
        media_type: What it turned out to be.
        text: The stored text.
        language: ISO 639-1 code; empty where it is not known.
        page_count: Pages; 0 where it has none.
        warnings: What a reader should know of how it was read.
        chunks: The chunks, in order.
        terms: Their index terms, in the same order.
    """

    title: str
    media_type: str
    text: str
    language: str
    page_count: int
    warnings: tuple[str, ...]
    chunks: tuple[Chunk, ...]
    terms: tuple[TermFrequencies, ...]


@dataclass(frozen=True, slots=True)
class Sentences:
    """A document that is to be cut by meaning, and its sentences."""

    document: ParsedDocument
    places: tuple[SentencePlace, ...]

    def texts(self) -> list[str]:
        """Returns the sentences."""
        return [self.document.text[slice(*each.span)] for each in self.places]


def cut(parsed: ParsedDocument, order: ReadingOrder) -> Reading:
    """Cuts a document along its structure, or where it was cut before."""
    if order.places is None:
        chunks = chunk_document(parsed, order.sizes)
    else:
        chunks = restore_chunks(parsed, order.places, order.sizes)
    return _index(parsed, chunks, order)


def read_sentences(content: bytes, order: ReadingOrder) -> Sentences:
    """Reads a document whose sentences have to be embedded before it can be cut.

    Raises:
        DocumentRejected: One of its subclasses, by what is wrong with the bytes.
    """
    parsed = parse(content, order)
    return Sentences(parsed, sentences_of(parsed))


def cut_by_meaning(sentences: Sentences, vectors: Sequence[Vector], order: ReadingOrder) -> Reading:
    """Cuts a document where the meaning changes.

    Args:
        sentences: What `read_sentences` returned.
        vectors: Their embeddings, in the same order.
        order: As for `read_sentences`.
    """
    document = sentences.document
    places = semantic_places(document, sentences.places, vectors, order.sizes)
    return _index(document, restore_chunks(document, places, order.sizes), order)


def parse(content: bytes, order: ReadingOrder) -> ParsedDocument:
    """Finds out what a document says.

    Raises:
        DocumentRejected: One of its subclasses, by what is wrong with the bytes.
    """
    return parse_document(
        content, file_name=order.file_name, media_type=order.media_type, title=order.title
    )


def _index(parsed: ParsedDocument, chunks: tuple[Chunk, ...], order: ReadingOrder) -> Reading:
    language = order.language or detect_language(parsed.text)
    return Reading(
        title=parsed.title,
        media_type=parsed.media_type,
        text=parsed.text,
        language=language,
        page_count=len(parsed.pages),
        warnings=parsed.warnings,
        chunks=chunks,
        terms=analyse_chunks(chunks, language=language, head=document_head(parsed)),
    )
