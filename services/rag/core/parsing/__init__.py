"""From received bytes to text with structure."""

from services.rag.core.parsing.document import is_heavy, parse_document
from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import Block, BlockKind, PageSpan, ParsedDocument, Section

__all__ = [
    "VERSION",
    "Block",
    "BlockKind",
    "PageSpan",
    "ParseLimits",
    "ParsedDocument",
    "Section",
    "is_heavy",
    "parse_document",
]

VERSION = 2
"""Grows whenever the same bytes would give another stored text or other sections."""
