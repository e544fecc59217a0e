"""Choosing the parser for a document."""

import re
from pathlib import PurePosixPath

from services.rag.core.errors import DocumentEmpty
from services.rag.core.parsing import decoding
from services.rag.core.parsing.html import parse_html
from services.rag.core.parsing.markdown import parse_markdown
from services.rag.core.parsing.parsed import ParsedDocument, build_sections, shorten_heading
from services.rag.core.parsing.plain import parse_plain
from services.rag.core.parsing.python import parse_python

__all__ = ["parse_document"]


def parse_document(
    content: bytes, *, file_name: str = "", media_type: str = "", title: str = ""
) -> ParsedDocument:
    """Reads a document.

    The stored text of plain text, Markdown and Python is the decoded text itself; that of HTML is
    its visible text.

    Args:
        content: The bytes as received.
        file_name: Name, path or URI of the document; tells its kind where the content does not.
        media_type: What the sender says it is; may be empty.
        title: Overrides the title found in the document.

    Raises:
        DocumentRejected: One of its subclasses, by what is wrong with the bytes.
    """
    source = decoding.decode_text(content)
    kind = decoding.detect_media_type(source, file_name=file_name, declared=media_type)
    if kind == decoding.HTML:
        draft = parse_html(source)
    elif kind == decoding.MARKDOWN:
        draft = parse_markdown(source)
    elif kind == decoding.PYTHON:
        draft = parse_python(source, module_name=_stem(file_name))
    else:
        draft = parse_plain(source)
    if not draft.text.strip():
        raise DocumentEmpty
    chosen = shorten_heading(title or draft.title) or PurePosixPath(file_name).name or "Untitled"
    return ParsedDocument(
        text=draft.text,
        title=chosen,
        media_type=kind,
        sections=build_sections(draft.text, draft.marks, title=chosen),
    )


def _stem(file_name: str) -> str:
    path = PurePosixPath(re.sub(r"[?#].*", "", file_name))
    return path.parent.name if path.stem == "__init__" and path.parent.name else path.stem
