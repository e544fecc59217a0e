"""Candidates for tests of ranking."""

from dataclasses import replace
from datetime import datetime

from services.rag.core.passages import FusedChunk, Passage
from services.rag.core.ranking.candidate import Candidate

__all__ = ["candidate", "passage"]


def passage(
    chunk_id: int,
    text: str = "text",
    *,
    document_id: str = "doc",
    ordinal: int = 0,
    char_start: int = 0,
    updated_at: datetime | None = None,
    token_estimate: int = 10,
) -> Passage:
    """Returns a passage with everything filled in."""
    return Passage(
        chunk_id=chunk_id,
        collection="docs",
        document_id=document_id,
        title=f"Title of {document_id}",
        source_uri="",
        media_type="text/plain",
        metadata={},
        ordinal=ordinal,
        char_start=char_start,
        char_end=char_start + len(text),
        text=text,
        heading_path=(),
        header=f"Title of {document_id}",
        token_estimate=token_estimate,
        updated_at=updated_at,
    )


def candidate(found: Passage, score: float, *, relevance: float | None = None) -> Candidate:
    """Returns a candidate with a fused score, which is its relevance where none is given."""
    ranking = FusedChunk(chunk_id=found.chunk_id, score=score)
    return Candidate(replace(found), ranking, score if relevance is None else relevance)
