"""Laying out the visible text of a page as lines, with marks where blocks start."""

import re

from services.rag.core.parsing.parsed import BlockKind, Mark

__all__ = ["TextWriter"]

_SPACES = re.compile(r"[ \t\n\r\f]+")


class TextWriter:
    """Collects visible text, with white space as a browser would show it."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self._parts: list[str] = []
        self._length = 0
        # The last two characters written.
        self._tail = ""
        self._space_wanted = False
        self._verbatim_depth = 0

    def text(self) -> str:
        """Returns all that was written."""
        return "".join(self._parts)

    def words(self, data: str) -> None:
        """Writes running text."""
        if self._verbatim_depth:
            self._append(data)
            return
        collapsed = _SPACES.sub(" ", data)
        visible = collapsed.strip(" ")
        if self._space_wanted or collapsed.startswith(" "):
            self._space_wanted = True
        if visible:
            if self._space_wanted and not self.at_line_start():
                self._append(" ")
            self._append(visible)
            self._space_wanted = collapsed.endswith(" ")

    def line_break(self) -> None:
        """Starts a new line, unless one has just begun."""
        self._space_wanted = False
        if not self.at_line_start():
            self._append("\n")

    def paragraph_break(self) -> None:
        """Leaves one blank line."""
        self.line_break()
        if self._parts and self._tail != "\n\n":
            self._append("\n")

    def mark(self, kind: BlockKind, heading: str = "", level: int = 0) -> None:
        """Says that a block starts here, at the start of a line."""
        self.marks.append(Mark(self._length, kind, heading, level))

    def enter_verbatim(self) -> None:
        """Keeps white space as it is from here on."""
        self._verbatim_depth += 1

    def leave_verbatim(self) -> None:
        """Collapses white space again."""
        self._verbatim_depth -= 1

    def _append(self, data: str) -> None:
        if data:
            self._parts.append(data)
            self._length += len(data)
            self._tail = (self._tail + data[-2:])[-2:]

    def at_line_start(self) -> bool:
        """Returns whether the next word would be the first on its line."""
        return not self._parts or self._tail.endswith("\n")
