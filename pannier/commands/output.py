"""The terminal: results on standard output, what went wrong on standard error."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pannier.client import RemoteError
from pannier.commands.formatting import clean

__all__ = ["Output"]

# Wide enough that tables keep one line per row when they go to a file or another program.
_WIDTH_OUTSIDE_TERMINALS = 160

_ADVICE = {
    "COLLECTION_NOT_FOUND": "`pannier collections` lists those there are.",
    "CONVERSATION_BUSY": "Wait for the answer, or begin another conversation.",
    "DOCUMENT_NOT_FOUND": "`pannier documents` lists those there are.",
    "BACKEND_NOT_FOUND": "`pannier backends` lists those there are.",
    "MODEL_NOT_FOUND": "`pannier models` lists those there are, `pannier models pull` downloads "
    "one.",
    "MODEL_CAPABILITY_MISSING": "`pannier models` shows what each can do.",
    "MODEL_LOAD_FAILED": "`pannier backends` shows what the backends say.",
    "EMBEDDING_MODEL_MISMATCH": "Set PANNIER_RAG_EMBEDDING_MODEL to the collection's model, or "
    "ingest into another collection.",
    "STORE_UNAVAILABLE": "`pannier status` shows whether PostgreSQL and Redis run.",
    "PEER_UNAVAILABLE": "`pannier status` shows which service is away.",
    "DEADLINE_EXCEEDED": "Give it more time with --timeout.",
    "UNIMPLEMENTED": "The service is of another release than this command.",
}


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_OUTSIDE_TERMINALS
    return console


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command writes.

    Attributes:
        console: Results.
        errors: What went wrong, and progress.
    """

    console: Console = field(default_factory=lambda: _console(stderr=False))
    errors: Console = field(default_factory=lambda: _console(stderr=True))

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """Writes text as it is."""
        self.console.print(clean(text), style=style, markup=False, soft_wrap=True)

    def piece(self, text: str) -> None:
        """Writes a part of a line at once."""
        self.console.print(clean(text), end="", markup=False, soft_wrap=True)
        self.console.file.flush()

    def json(self, value: Any) -> None:
        """Writes a value as JSON."""
        self.console.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
        self.console.file.flush()

    def json_line(self, value: Any) -> None:
        """Writes a value as JSON on one line, at once: one of many."""
        self.console.file.write(json.dumps(value, ensure_ascii=False) + "\n")
        self.console.file.flush()

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = ""
    ) -> None:
        """Writes a table.

        Args:
            columns: Headings; those that begin with `>` are of numbers and set to the right.
            rows: Cells.
            title: What stands above it.
        """
        if title:
            self.line(title, style="bold")
        self.console.print(self.grid(columns, rows), markup=False)

    def grid(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """Makes a table of the same arguments as `table`, to be shown by other means."""
        table = Table(
            box=box.SIMPLE_HEAD if self.console.is_terminal else None,
            pad_edge=False,
            header_style="bold" if self.console.is_terminal else "",
        )
        for column in columns:
            justify: Any = "right" if column.startswith(">") else "left"
            table.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
        for row in rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        return table

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Says what is waited for while the context is open, on a terminal."""
        if not self.errors.is_terminal:
            yield
            return
        with self.errors.status(Text(clean(text))):
            yield

    def problem(self, text: str) -> None:
        """Says what went wrong."""
        self.errors.print(clean(text), style="red", markup=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Says what a user should know, beside the result."""
        self.errors.print(clean(text), style="yellow", markup=False, soft_wrap=True)

    def remote_error(self, error: RemoteError) -> None:
        """Says why a service refused a call, and what to do."""
        domain = f" ({error.domain})" if error.domain else ""
        self.problem(f"{error.reason or error.code.name}{domain}: {error.message}")
        for violation in error.field_violations:
            rule = f"{violation.field}: {violation.description}"
            if rule not in error.message:
                self.problem(f"  {rule}")
        if error.retry_delay_seconds is not None:
            self.problem(f"  The same call may succeed in {error.retry_delay_seconds:g} s.")
        if error.request_id:
            self.problem(f"  Request id to report: {error.request_id}")
        advice = _ADVICE.get(error.reason or error.code.name)
        if advice is not None:
            self.problem(f"  {advice}")
