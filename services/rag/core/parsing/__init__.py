"""From received bytes to text with structure."""

from services.rag.core.parsing.document import parse_document
from services.rag.core.parsing.parsed import Block, BlockKind, ParsedDocument, Section

__all__ = ["VERSION", "Block", "BlockKind", "ParsedDocument", "Section", "parse_document"]

VERSION = 1
"""Grows whenever the same bytes would give another stored text or other sections."""
