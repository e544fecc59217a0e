"""From rows to the values of the core."""

from collections.abc import Mapping

import asyncpg
import orjson

from services.rag.core.model import (
    CollectionStats,
    DocumentSummary,
    Passage,
    TermStatistics,
)

__all__ = ["collection_of", "passage_of", "statistics_of", "summary_of"]


def collection_of(row: asyncpg.Record) -> CollectionStats:
    """Returns the collection of a row of `rag.collection`."""
    return CollectionStats(
        name=row["name"],
        embedding_model=row["embedding_model"],
        embedding_dimension=row["embedding_dimension"],
        document_count=row["document_count"],
        chunk_count=row["chunk_count"],
        token_sum=row["token_sum"],
        version=row["version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def summary_of(row: asyncpg.Record) -> DocumentSummary:
    """Returns the facts of a document joined with its collection."""
    return DocumentSummary(
        collection=row["name"],
        document_id=row["document_id"],
        title=row["title"],
        source_uri=row["source_uri"],
        media_type=row["media_type"],
        content_digest=row["content_digest"],
        index_fingerprint=row["index_fingerprint"],
        byte_count=row["byte_count"],
        character_count=row["character_count"],
        chunk_count=row["chunk_count"],
        version=row["version"],
        metadata=_metadata(row),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def passage_of(row: asyncpg.Record) -> Passage:
    """Returns a chunk joined with its document and collection."""
    return Passage(
        chunk_id=row["chunk_id"],
        collection=row["collection"],
        document_id=row["document_id"],
        title=row["title"],
        source_uri=row["source_uri"],
        media_type=row["media_type"],
        metadata=_metadata(row),
        ordinal=row["ordinal"],
        char_start=row["char_start"],
        char_end=row["char_end"],
        text=row["text"],
        heading_path=tuple(row["heading_path"]),
        header=row["header"],
        token_estimate=row["token_estimate"],
    )


def statistics_of(row: asyncpg.Record) -> TermStatistics:
    """Returns the statistics that the search statements give beside their hits."""
    return TermStatistics(
        chunk_count=row["chunk_count"],
        average_length=row["average_length"],
        document_frequencies=dict(zip(row["terms"], row["document_frequencies"], strict=True)),
    )


def _metadata(row: asyncpg.Record) -> Mapping[str, str]:
    metadata: dict[str, str] = orjson.loads(row["metadata"])
    return metadata
