"""Writing a text line by line, with marks where blocks start."""

from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import BlockKind, Mark

__all__ = ["BlockWriter"]


class BlockWriter:
    """Collects lines; blocks are set apart by a blank line.

    Args:
        limits: Bounds the text.
    """

    def __init__(self, limits: ParseLimits) -> None:
        self.marks: list[Mark] = []
        self._limits = limits
        self._parts: list[str] = []
        self._length = 0
        self._begun: Mark | None = None

    @property
    def length(self) -> int:
        """Characters written so far."""
        return self._length

    def begin(self, kind: BlockKind, heading: str = "", level: int = 0) -> None:
        """Says what the next line starts; nothing happens until there is one.

        A heading stays until there is a line, or another heading.
        """
        if heading or self._begun is None or not self._begun.heading:
            self._begun = Mark(0, kind, heading, level)

    def line(self, words: str) -> None:
        """Writes a line, which may have line breaks in it.

        Raises:
            DocumentLimitExceeded: The text becomes too long.
        """
        if self._begun is not None:
            if self._parts:
                self._append("\n")
            begun = self._begun
            self.marks.append(Mark(self._length, begun.kind, begun.heading, begun.level))
            self._begun = None
        self._append(f"{words}\n")

    def text(self) -> str:
        """Returns all that was written."""
        return "".join(self._parts)

    def _append(self, data: str) -> None:
        self._parts.append(data)
        self._length += len(data)
        self._limits.check("character_count", self._length)
