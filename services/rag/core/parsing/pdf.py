"""PDF, page by page, through pypdf."""

import logging
from collections.abc import Iterator, Sequence
from io import BytesIO

from pypdf import PageObject, PasswordType, PdfReader
from pypdf.errors import PyPdfError
from pypdf.generic import Destination

from services.rag.core.document_errors import DocumentUnreadable
from services.rag.core.parsing import media_types
from services.rag.core.parsing.cleaning import clean_text
from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import Draft
from services.rag.core.parsing.pdf_layout import Line, OutlineEntry, lay_out

__all__ = ["parse_pdf"]

# What pypdf finds wrong with files is told in our warnings.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)

# pypdf meets broken files with whatever its code runs into.
_BROKEN = (
    PyPdfError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
_MAX_NAMED_PAGES = 5
_MAX_KEPT_OBJECTS = 20_000
_MAX_OUTLINE_ENTRIES = 5_000
_MAX_OUTLINE_LEVEL = 6
_SEND_TEXT = "Send the text itself."


def parse_pdf(content: bytes, *, limits: ParseLimits) -> Draft:
    """Takes the text out of a PDF, with its pages.

    A page that cannot be read is left empty and named in a warning.

    Raises:
        DocumentLimitExceeded: It has too many pages or too much text.
        DocumentUnreadable: It is encrypted, damaged, or holds no text at all.
    """
    try:
        reader = PdfReader(BytesIO(content))
        if reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED:
            raise _unreadable("encrypted", "Remove the password and send it again.")
        page_count = len(reader.pages)
    except NotImplementedError:
        raise _unreadable("unknown encryption", "Send it without encryption.") from None
    except _BROKEN:
        raise _unreadable("damaged", "Save it anew and send it again.") from None
    limits.check("page_count", page_count)
    pages: list[Sequence[Line]] = []
    failed: list[int] = []
    character_count = 0
    for number, page in enumerate(_pages(reader, page_count), start=1):
        lines = None if page is None else _read_page(page)
        if lines is None:
            failed.append(number)
        pages.append(lines or ())
        character_count += sum(len(line.text) + 1 for line in pages[-1])
        limits.check("character_count", character_count)
    if not any(pages):
        if failed:
            raise _unreadable("no page can be read", "Save it anew and send it again.")
        raise _unreadable(
            "no text layer", "It holds pictures of pages only: recognise the text and send that."
        )
    return lay_out(pages, _outline(reader), title=_title(reader), warnings=_warnings(pages, failed))


def _unreadable(problem: str, advice: str) -> DocumentUnreadable:
    return DocumentUnreadable(media_types.PDF, problem=problem, advice=advice)


def _pages(reader: PdfReader, page_count: int) -> Iterator[PageObject | None]:
    for index in range(page_count):
        try:
            page = reader.pages[index]
        except _BROKEN:
            page = None
        yield page
        if len(reader.resolved_objects) > _MAX_KEPT_OBJECTS:
            # What was unpacked of former pages is not wanted again.
            reader.resolved_objects.clear()


def _read_page(page: PageObject) -> list[Line] | None:
    """Returns the lines of a page with their font sizes; None if it cannot be read."""
    pieces: list[tuple[str, float]] = []

    def collect(
        text: str, matrix: Sequence[float], text_matrix: Sequence[float], _font: object, size: float
    ) -> None:
        if text:
            pieces.append((text, abs(size * text_matrix[3] * matrix[3])))

    try:
        page.extract_text(visitor_text=collect)
    except _BROKEN:
        return None
    lines: list[Line] = []
    words: list[str] = []
    sizes: dict[float, int] = {}

    def end_line() -> None:
        text = clean_text(_mark_hyphen("".join(words))).rstrip()
        main_size = max(sizes, key=lambda each: sizes[each]) if sizes else 0.0
        lines.append(Line(text, main_size))
        words.clear()
        sizes.clear()

    for text, size in pieces:
        first, *others = text.split("\n")
        for index, part in enumerate((first, *others)):
            if index:
                end_line()
            words.append(part)
            if part.strip():
                key = round(size, 1)
                sizes[key] = sizes.get(key, 0) + len(part)
    end_line()
    return lines if any(line.text for line in lines) else []


def _mark_hyphen(line: str) -> str:
    """Makes a soft hyphen at the end of a line a hard one, which is looked at later."""
    stripped = line.rstrip()
    return f"{stripped[:-1]}-" if stripped.endswith("\u00ad") else line


def _outline(reader: PdfReader) -> list[OutlineEntry]:
    entries: list[OutlineEntry] = []

    def collect(items: Sequence[object], level: int) -> None:
        for item in items:
            if len(entries) >= _MAX_OUTLINE_ENTRIES:
                return
            if isinstance(item, list):
                collect(item, min(level + 1, _MAX_OUTLINE_LEVEL))
            elif isinstance(item, Destination):
                index = reader.get_destination_page_number(item)
                title = clean_text(str(item.title or "")).strip()
                if index is not None and index >= 0 and title:
                    entries.append(OutlineEntry(title, level, index))

    try:
        collect(reader.outline, 1)
    except _BROKEN:
        # What was found before the damage is as good as without it.
        return entries
    return entries


def _title(reader: PdfReader) -> str:
    try:
        found = reader.metadata.title if reader.metadata else None
    except _BROKEN:
        return ""
    return clean_text(found).strip() if isinstance(found, str) else ""


def _warnings(pages: Sequence[Sequence[Line]], failed: Sequence[int]) -> tuple[str, ...]:
    warnings: list[str] = []
    empty = [number for number, lines in enumerate(pages, 1) if not lines and number not in failed]
    if failed:
        warnings.append(f"{_numbers(failed)} could not be read. {_SEND_TEXT}")
    if empty:
        warnings.append(f"{_numbers(empty)} without a text layer: empty, or pictures only.")
    return tuple(warnings)


def _numbers(pages: Sequence[int]) -> str:
    named = ", ".join(map(str, pages[:_MAX_NAMED_PAGES]))
    others = f" and {len(pages) - _MAX_NAMED_PAGES} more" if len(pages) > _MAX_NAMED_PAGES else ""
    return f"Page{'s' if len(pages) > 1 else ''} {named}{others}"
