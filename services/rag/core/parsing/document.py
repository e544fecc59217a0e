"""Choosing the parser for a document."""

import re
from pathlib import PurePosixPath

from services.rag.core.document_errors import DocumentEmpty, MediaTypeUnsupported
from services.rag.core.parsing import media_types as types
from services.rag.core.parsing.cleaning import clean_text
from services.rag.core.parsing.decoding import decode_text
from services.rag.core.parsing.detection import detect_container, detect_text
from services.rag.core.parsing.docx import parse_docx
from services.rag.core.parsing.html import parse_html
from services.rag.core.parsing.json_text import parse_json, parse_json_lines
from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.markdown import parse_markdown
from services.rag.core.parsing.parsed import Draft, ParsedDocument, build_sections, shorten_heading
from services.rag.core.parsing.pdf import parse_pdf
from services.rag.core.parsing.plain import parse_plain
from services.rag.core.parsing.python import parse_python
from services.rag.core.parsing.source import parse_source
from services.rag.core.parsing.table import parse_table
from services.rag.core.parsing.zip_container import Container

__all__ = ["is_heavy", "parse_document"]

_DEFAULT_LIMITS = ParseLimits()
# Text of this size is parsed, cut and analysed in about a tenth of a second.
_LIGHT_BYTES = 64 * 1024
# What tells the formats that are zip containers apart.
_ZIP_MEMBERS = (
    ("word/document.xml", types.DOCX),
    ("xl/workbook.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    (
        "ppt/presentation.xml",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("META-INF/container.xml", "application/epub+zip"),
    ("META-INF/MANIFEST.MF", "application/java-archive"),
    ("content.xml", "application/vnd.oasis.opendocument"),
)


def is_heavy(content: bytes) -> bool:
    """Returns whether reading a document may take long or much memory."""
    return len(content) > _LIGHT_BYTES or bool(detect_container(content))


def parse_document(
    content: bytes,
    *,
    file_name: str = "",
    media_type: str = "",
    title: str = "",
    limits: ParseLimits = _DEFAULT_LIMITS,
) -> ParsedDocument:
    """Reads a document.

    The stored text of plain text, Markdown and source code is the decoded text without what is not
    seen of it; that of the other formats is written anew from what they hold.

    Args:
        content: The bytes as received.
        file_name: Name, path or URI of the document; tells its kind where the content does not.
        media_type: What the sender says it is; may be empty.
        title: Overrides the title found in the document.
        limits: Bounds on what it may hold.

    Raises:
        DocumentRejected: One of its subclasses, by what is wrong with the document.
    """
    container = detect_container(content)
    if container:
        kind, draft = _parse_container(content, container, limits)
        warnings: tuple[str, ...] = _contradiction(kind, file_name)
    else:
        text = decode_text(content)
        limits.check("character_count", len(text))
        detected = detect_text(text, file_name=file_name, declared=media_type)
        kind, warnings = detected.media_type, detected.warnings
        parsed = _parse_text(text, kind, file_name, limits)
        if parsed is None:
            kind, parsed = types.PLAIN, parse_plain(text)
            warnings = (*warnings, "The table's quotation marks are broken: read as plain text.")
        draft = parsed
    if not draft.text.strip():
        raise DocumentEmpty
    limits.check("character_count", len(draft.text))
    words = clean_text(title or draft.title)
    chosen = shorten_heading(words) or clean_text(PurePosixPath(file_name).name) or "Untitled"
    return ParsedDocument(
        text=draft.text,
        title=chosen,
        media_type=kind,
        sections=build_sections(draft.text, draft.marks, title=chosen),
        pages=draft.pages,
        warnings=(*warnings, *draft.warnings),
    )


def _parse_container(content: bytes, media_type: str, limits: ParseLimits) -> tuple[str, Draft]:
    if media_type == types.PDF:
        return types.PDF, parse_pdf(content, limits=limits)
    if media_type == types.ZIP:
        with Container(content, media_type=types.ZIP, limits=limits) as container:
            names = container.names()
        media_type = next((kind for member, kind in _ZIP_MEMBERS if member in names), types.ZIP)
    if media_type == types.DOCX:
        return types.DOCX, parse_docx(content, limits=limits)
    raise MediaTypeUnsupported(media_type)


def _parse_text(text: str, kind: str, file_name: str, limits: ParseLimits) -> Draft | None:
    """Returns None where a table turns out to be none."""
    if kind == types.HTML:
        return parse_html(text)
    if kind == types.MARKDOWN:
        return parse_markdown(text)
    if kind == types.PYTHON:
        return parse_python(text, module_name=_stem(file_name))
    if kind in (types.JSON, types.JSON_LINES):
        return _parse_json(text, kind, limits)
    if kind in (types.CSV, types.TSV):
        return parse_table(text, delimiter="\t" if kind == types.TSV else "", limits=limits)
    if types.is_source(kind):
        return parse_source(text, media_type=kind, file_name=PurePosixPath(file_name).name)
    return parse_plain(text)


def _parse_json(text: str, kind: str, limits: ParseLimits) -> Draft:
    if kind == types.JSON:
        try:
            return parse_json(text, limits=limits)
        except ValueError:
            # JSON Lines under the name of JSON.
            return parse_json_lines(text, limits=limits)
    return parse_json_lines(text, limits=limits)


def _contradiction(kind: str, file_name: str) -> tuple[str, ...]:
    named = types.by_file_name(file_name)
    if named and named != kind:
        return (f"The content is {kind}, not {named}, as the name says.",)
    return ()


def _stem(file_name: str) -> str:
    path = PurePosixPath(re.sub(r"[?#].*", "", file_name))
    return path.parent.name if path.stem == "__init__" and path.parent.name else path.stem
