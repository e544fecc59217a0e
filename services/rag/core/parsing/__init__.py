"""From received bytes to text with structure."""

from services.rag.core.parsing.document import parse_document
from services.rag.core.parsing.parsed import Block, BlockKind, ParsedDocument, Section

__all__ = ["Block", "BlockKind", "ParsedDocument", "Section", "parse_document"]
