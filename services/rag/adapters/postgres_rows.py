"""From rows to the values of the core."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import asyncpg
import orjson

from services.rag.core.documents import CollectionStats, DocumentSummary, StoredChunk
from services.rag.core.passages import Passage, PassageOrigin, TermStatistics

__all__ = ["chunk_of", "collection_of", "passage_of", "statistics_of", "summary_of"]

Value = TypeVar("Value", CollectionStats, DocumentSummary, Passage, StoredChunk, TermStatistics)


def collection_of(row: asyncpg.Record) -> CollectionStats:
    """Returns the collection of a row of `rag.collection`."""
    return _read(CollectionStats, row, languages=tuple(row["languages"]))


def summary_of(row: asyncpg.Record) -> DocumentSummary:
    """Returns the facts of a document joined with its collection."""
    return _read(
        DocumentSummary,
        row,
        collection=row["name"],
        metadata=_metadata(row),
        tags=tuple(row["tags"]),
        readers=tuple(row["readers"]),
    )


def passage_of(row: asyncpg.Record) -> Passage:
    """Returns a chunk joined with its document and collection."""
    return _read(
        Passage,
        row,
        metadata=_metadata(row),
        heading_path=tuple(row["heading_path"]),
        ordinal_end=0,
        origin=PassageOrigin.CORPUS,
        injection_suspected=False,
        page_spans=(),
    )


def chunk_of(row: asyncpg.Record) -> StoredChunk:
    """Returns a chunk joined with its vector."""
    return _read(StoredChunk, row, heading_path=tuple(row["heading_path"]))


def statistics_of(row: asyncpg.Record) -> TermStatistics:
    """Returns the statistics that the search statements give beside their hits."""
    frequencies = dict(zip(row["terms"], row["document_frequencies"], strict=True))
    return _read(TermStatistics, row, document_frequencies=frequencies)


def _read(kind: type[Value], row: asyncpg.Record, **converted: object) -> Value:
    """Fills a value from the columns that have its attributes' names, but for those converted."""
    columns = {each.name: row[each.name] for each in fields(kind) if each.name not in converted}
    attributes: dict[str, Any] = columns | converted
    return kind(**attributes)


def _metadata(row: asyncpg.Record) -> Mapping[str, str]:
    metadata: dict[str, str] = orjson.loads(row["metadata"])
    return metadata
