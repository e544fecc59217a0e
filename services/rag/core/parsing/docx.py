"""DOCX: the main text of a word processor's file, read as a stream of elements."""

import re
from dataclasses import dataclass
from io import BytesIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring, iterparse

from services.rag.core.document_errors import DocumentUnreadable
from services.rag.core.parsing import media_types
from services.rag.core.parsing.cleaning import clean_text
from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import BlockKind, Draft
from services.rag.core.parsing.writing import BlockWriter
from services.rag.core.parsing.zip_container import Container

__all__ = ["parse_docx"]

_MAIN_PART = "word/document.xml"
_NOTE_PARTS = ("word/footnotes.xml", "word/endnotes.xml")
_STYLE_PART = "word/styles.xml"
_PROPERTY_PART = "docProps/core.xml"
_HEADING_STYLE = re.compile(r"heading ?(\d)\Z", re.IGNORECASE)
_MAX_LEVEL = 6
# The title of the whole document, which is no section of it.
_TITLE_LEVEL = -1
_MAX_STYLE_CHAIN = 10
_OFF = frozenset({"0", "false", "off", "none"})
# What is drawn in their stead by older readers, and would be read twice.
_SKIPPED = frozenset({"Fallback", "del", "moveFrom", "instrText", "delText"})


def parse_docx(content: bytes, *, limits: ParseLimits) -> Draft:
    """Takes the text out of a DOCX: headings, paragraphs, lists, tables and notes, in order.

    Deleted and hidden text is left out.

    Raises:
        DocumentLimitExceeded: It unpacks to too much, or holds too much text.
        DocumentUnreadable: It is damaged or encrypted.
    """
    with Container(content, media_type=media_types.DOCX, limits=limits) as container:
        names = container.names()
        try:
            styles = _styles(container.read(_STYLE_PART)) if _STYLE_PART in names else {}
            title = _title(container.read(_PROPERTY_PART)) if _PROPERTY_PART in names else ""
            walker = _Walker(styles, limits)
            walker.walk(container.read(_MAIN_PART))
            for part in _NOTE_PARTS:
                if part in names:
                    walker.walk(container.read(part))
        except (ParseError, DefusedXmlException, ValueError):
            raise DocumentUnreadable(
                media_types.DOCX, problem="damaged", advice="Save it anew and send it again."
            ) from None
    return walker.draft(title)


@dataclass(frozen=True, slots=True)
class _Style:
    """What paragraphs of a style are.

    Attributes:
        level: Level of the heading, 0 for none.
        is_item: Whether they are items of a list.
    """

    level: int = 0
    is_item: bool = False


class _Paragraph:
    """A paragraph while it is read."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.level = 0
        self.is_item = False
        self.indentation = 0
        self.is_shaded = False

    def text(self) -> str:
        lines = clean_text("".join(self.parts)).split("\n")
        return "\n".join(line for each in lines if (line := each.strip()))


class _Walker:
    """Turns the elements of a part into lines.

    Args:
        styles: What paragraphs of each style are.
        limits: Bounds the text.
    """

    def __init__(self, styles: dict[str, "_Style"], limits: ParseLimits) -> None:
        self._styles = styles
        self._limits = limits
        self._writer = BlockWriter(limits)
        self._paragraphs: list[_Paragraph] = []
        # The rows of the tables that are open, each with the texts of its cells.
        self._rows: list[list[list[str]]] = []
        self._skipped_depth = 0
        self._hidden = False
        self._in_run = False
        self._title = ""

    def draft(self, title: str) -> Draft:
        """Returns what was written."""
        first = next((mark.heading for mark in self._writer.marks if mark.level == 1), "")
        return Draft(self._writer.text(), title or self._title or first, self._writer.marks)

    def walk(self, part: bytes) -> None:
        """Reads a part of the document."""
        open_elements: list[Element] = []
        for event, element in iterparse(BytesIO(part), events=("start", "end")):
            name = _local(element.tag)
            if event == "start":
                open_elements.append(element)
                if name in _SKIPPED:
                    self._skipped_depth += 1
                elif not self._skipped_depth:
                    self._start(name)
                continue
            open_elements.pop()
            if name in _SKIPPED:
                self._skipped_depth -= 1
            elif not self._skipped_depth:
                self._end(name, element)
            # Nothing is kept of what was read, except the properties of runs and paragraphs.
            if not name.endswith("Pr") and open_elements and not _is_property(open_elements):
                open_elements[-1].remove(element)
        self._writer.begin(BlockKind.PARAGRAPH)

    def _start(self, name: str) -> None:
        if name == "p":
            self._paragraphs.append(_Paragraph())
        elif name == "r":
            self._in_run, self._hidden = True, False
        elif name == "tbl":
            if not self._rows:
                self._writer.begin(BlockKind.VERBATIM)
            self._rows.append([])
            self._limits.check("nesting_depth", len(self._rows))
        elif name == "tr" and self._rows:
            self._rows[-1] = []
        elif name == "tc" and self._rows:
            self._rows[-1].append([])

    def _end(self, name: str, element: Element) -> None:
        if name == "p" and self._paragraphs:
            self._end_paragraph(self._paragraphs.pop())
        elif name == "tr" and self._rows:
            self._end_row(self._rows[-1])
        elif name == "tbl" and self._rows:
            self._rows.pop()
            if not self._rows:
                self._writer.begin(BlockKind.PARAGRAPH)
        elif self._paragraphs:
            self._end_inside(name, element, self._paragraphs[-1])

    def _end_inside(self, name: str, element: Element, paragraph: _Paragraph) -> None:
        if name == "pPr":
            self._read_properties(element, paragraph)
        elif name == "rPr" and self._in_run:
            self._hidden = _is_unseen(element, on_white=not paragraph.is_shaded and not self._rows)
        elif name == "r":
            self._in_run = False
        elif not self._hidden:
            if name == "t":
                paragraph.parts.append(element.text or "")
            elif name == "tab" and self._in_run:
                paragraph.parts.append("\t")
            elif name in ("br", "cr"):
                paragraph.parts.append("\n")
            elif name == "noBreakHyphen":
                paragraph.parts.append("-")

    def _read_properties(self, properties: Element, paragraph: _Paragraph) -> None:
        for child in properties:
            name = _local(child.tag)
            value = _value(child)
            if name == "pStyle" and value in self._styles:
                style = self._styles[value]
                paragraph.level, paragraph.is_item = style.level, style.is_item
            elif name == "outlineLvl" and value.isdecimal():
                level = int(value) + 1
                paragraph.level = level if level <= _MAX_LEVEL else paragraph.level
            elif name == "numPr":
                self._read_numbering(child, paragraph)
            elif name == "shd":
                paragraph.is_shaded = True

    def _read_numbering(self, properties: Element, paragraph: _Paragraph) -> None:
        paragraph.is_item = True
        for child in properties:
            value = _value(child)
            if _local(child.tag) == "ilvl" and value.isdecimal():
                paragraph.indentation = min(int(value), _MAX_LEVEL)
            elif _local(child.tag) == "numId" and value == "0":
                paragraph.is_item = False

    def _end_paragraph(self, paragraph: _Paragraph) -> None:
        text = paragraph.text()
        if not text:
            return
        if self._rows:
            if self._rows[-1]:
                self._rows[-1][-1].append(" ".join(text.split()))
        elif paragraph.level == _TITLE_LEVEL:
            self._title = self._title or text
            self._write(BlockKind.HEADING, text)
        elif paragraph.level:
            self._write(BlockKind.HEADING, text, text, paragraph.level)
        elif paragraph.is_item:
            self._write(BlockKind.ITEM, f"{'  ' * paragraph.indentation}- {text}")
        else:
            self._write(BlockKind.PARAGRAPH, text)

    def _write(self, kind: BlockKind, line: str, heading: str = "", level: int = 0) -> None:
        self._writer.begin(kind, heading, level)
        self._writer.line(line)

    def _end_row(self, row: list[list[str]]) -> None:
        cells = [" ".join(cell) for cell in row]
        row.clear()
        if not any(cells):
            return
        line = " | ".join(cells)
        if len(self._rows) == 1:
            self._writer.line(line)
        elif outer := self._rows[-2]:
            outer[-1].append(f"({line})")


def _is_property(open_elements: list[Element]) -> bool:
    return any(_local(element.tag).endswith("Pr") for element in open_elements[-3:])


def _is_unseen(properties: Element, *, on_white: bool) -> bool:
    white = shaded = False
    for child in properties:
        name, value = _local(child.tag), _value(child)
        if name in ("vanish", "webHidden", "specVanish") and value not in _OFF:
            return True
        white = white or (name == "color" and value.upper() == "FFFFFF")
        shaded = shaded or name in ("shd", "highlight")
    return white and on_white and not shaded


def _styles(part: bytes) -> dict[str, _Style]:
    """Returns the styles of headings and lists by their ids, also those based on such."""
    found: dict[str, _Style] = {}
    parents: dict[str, str] = {}
    for style in fromstring(part):
        identity = _attribute(style, "styleId")
        level, is_item = 0, False
        for child in style:
            name, value = _local(child.tag), _value(child)
            if name == "name" and (heading := _HEADING_STYLE.match(value)):
                level = min(max(int(heading[1]), 1), _MAX_LEVEL)
            elif name == "name" and value.lower() == "title":
                level = _TITLE_LEVEL
            elif name == "basedOn":
                parents[identity] = value
            elif name == "pPr":
                is_item = any(_local(each.tag) == "numPr" for each in child)
        if level or is_item:
            # Headings are often numbered; that makes them no list.
            found[identity] = _Style(level, is_item and not level)
    for identity in parents:
        ancestor, steps = identity, 0
        while ancestor not in found and ancestor in parents and steps < _MAX_STYLE_CHAIN:
            ancestor, steps = parents[ancestor], steps + 1
        if ancestor in found:
            found.setdefault(identity, found[ancestor])
    return found


def _title(part: bytes) -> str:
    for child in fromstring(part):
        if _local(child.tag) == "title":
            return clean_text(child.text or "").strip()
    return ""


def _local(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _attribute(element: Element, name: str) -> str:
    return next((value for key, value in element.items() if _local(key) == name), "")


def _value(element: Element) -> str:
    return _attribute(element, "val")
