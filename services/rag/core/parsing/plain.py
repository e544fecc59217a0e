"""Plain text: paragraphs, list items, and the headings that plain text uses.

Two customs are recognised. Headings are underlined, or stand in capitals at the left edge, as in
manual pages. Below such a heading, reference text as `pydoc` renders it lists classes and functions
with an indented description each.
"""

import re
from collections.abc import Iterator

from services.rag.core.parsing.parsed import BlockKind, Draft, Mark

__all__ = ["parse_plain"]

_BLANK = re.compile(r"[ \t|]*\Z")
_UNDERLINE = re.compile(r"(?P<rule>([=\-~^\"*+#])\2{2,})[ \t]*\Z")
_RULE_LEVELS = {"=": 1, "-": 2}
_DEEPER_RULE_LEVEL = 3
_CAPITALS = re.compile(r"[A-Z][A-Z0-9]*(?:[ /&,'()-]+[A-Z0-9]+)*[ )]?\Z")
_MAX_CAPITALS_WORDS = 8
_ITEM = re.compile(r"[ \t|]*(?:[-*•]|\d{1,3}[.)])[ \t]+\S")
_MODULE_NAME = re.compile(r"^NAME\n[ \t]+(?P<name>[\w.]+)", re.M)
_CLASS = re.compile(r" {4}class (?P<name>\w+)\b")
_FUNCTION = re.compile(r" {4}(?:async )?(?P<name>\w+)\(")
_METHOD = re.compile(r" {4} \|  (?:async )?(?P<name>\w+)(?:\(| = )")
_MEMBER_RULE = re.compile(r" {4} \|  -{20,}\Z")


def parse_plain(text: str) -> Draft:
    """Finds the paragraphs and headings of a plain text."""
    marks = list(_Outline(text).marks())
    module = _MODULE_NAME.search(text)
    title = marks[0].heading if marks else ""
    return Draft(text, module["name"] if module else title, marks)


class _Outline:
    """Turns lines into marks.

    Args:
        text: The whole text.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._section = ""
        self._class = ""

    def marks(self) -> Iterator[Mark]:
        """Yields a mark for each heading, definition, list item and paragraph."""
        position = 0
        starts_block = True
        for index, line in enumerate(self._lines):
            if _BLANK.match(line):
                starts_block = True
            elif mark := self._heading(index, position) or self._definition(line, position):
                yield mark
                starts_block = mark.kind is BlockKind.HEADING
            elif _ITEM.match(line):
                yield Mark(position, BlockKind.ITEM)
                starts_block = False
            elif starts_block and not _UNDERLINE.match(line):
                yield Mark(position, BlockKind.PARAGRAPH)
                starts_block = False
            position += len(line) + 1

    def _line(self, index: int) -> str:
        return self._lines[index] if 0 <= index < len(self._lines) else ""

    def _heading(self, index: int, position: int) -> Mark | None:
        line, following = self._line(index), self._line(index + 1)
        if _BLANK.match(self._line(index - 1)) is None or line[:1].isspace():
            return None
        underline = _UNDERLINE.match(following)
        if underline and not _UNDERLINE.match(line) and 2 * len(underline["rule"]) >= len(line):
            level = _RULE_LEVELS.get(underline["rule"][0], _DEEPER_RULE_LEVEL)
            return self._open_section(position, line, level)
        in_capitals = _CAPITALS.match(line) and len(line.split()) <= _MAX_CAPITALS_WORDS
        if in_capitals and len(line) > 1 and (following[:1].isspace() or not following.strip()):
            return self._open_section(position, line, 1)
        return None

    def _open_section(self, position: int, heading: str, level: int) -> Mark:
        self._section, self._class = heading.strip(), ""
        return Mark(position, BlockKind.HEADING, self._section, level)

    def _definition(self, line: str, position: int) -> Mark | None:
        if self._section == "CLASSES":
            return self._class_line(line, position)
        function = _FUNCTION.match(line) if self._section == "FUNCTIONS" else None
        return Mark(position, BlockKind.PARAGRAPH, function["name"], 2) if function else None

    def _class_line(self, line: str, position: int) -> Mark | None:
        opening = _CLASS.match(line)
        if opening:
            self._class = opening["name"]
            return Mark(position, BlockKind.PARAGRAPH, self._class, 2)
        if self._class and _MEMBER_RULE.match(line):
            return Mark(position, BlockKind.PARAGRAPH, "", 3)
        method = _METHOD.match(line) if self._class else None
        if method and method["name"] != self._class:
            return Mark(position, BlockKind.PARAGRAPH, f"{self._class}.{method['name']}", 3)
        return None
