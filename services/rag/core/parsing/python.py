"""Python source, through its syntax tree."""

import ast
from collections.abc import Iterator, Sequence
from itertools import accumulate

from services.rag.core.parsing.parsed import BlockKind, Draft, Mark
from services.rag.core.parsing.plain import parse_plain

__all__ = ["parse_python"]

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def parse_python(text: str, *, module_name: str) -> Draft:
    """Finds the classes and functions of a module; a file that does not parse is plain text.

    Args:
        text: The source.
        module_name: The title.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Draft(text, module_name, parse_plain(text).marks)
    return Draft(text, module_name, list(_Outline(text).marks(tree.body)))


class _Outline:
    """Turns statements into marks.

    Args:
        text: The source that the statements were parsed from.
    """

    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._starts = [0, *accumulate(len(line) + 1 for line in self._lines)]

    def marks(self, body: Sequence[ast.stmt], prefix: str = "", level: int = 1) -> Iterator[Mark]:
        """Yields a mark for every definition, and for the statements between definitions."""
        inside_definition = False
        for statement in body:
            start = self._starts[self._first_line(statement)]
            if isinstance(statement, _Definition):
                name = f"{prefix}{statement.name}"
                yield Mark(start, BlockKind.VERBATIM, name, level)
                if isinstance(statement, ast.ClassDef):
                    yield from self.marks(statement.body, f"{name}.", level + 1)
                inside_definition = True
            elif inside_definition:
                yield Mark(start, BlockKind.VERBATIM, "", level)
                inside_definition = False
            else:
                yield Mark(start, _kind(statement))

    def _first_line(self, statement: ast.stmt) -> int:
        """Returns the index of the first line, with decorators and the comment right above."""
        line = statement.lineno - 1
        if isinstance(statement, _Definition) and statement.decorator_list:
            line = min(line, *(each.lineno - 1 for each in statement.decorator_list))
        while line > 0 and self._lines[line - 1].lstrip().startswith("#"):
            line -= 1
        return line


def _kind(statement: ast.stmt) -> BlockKind:
    is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return BlockKind.PARAGRAPH if is_docstring else BlockKind.VERBATIM
