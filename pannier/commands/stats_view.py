"""What all services' statistics have in common: lines, things to know, tables."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pannier.commands.output import Output

__all__ = ["Grid", "StatsView"]


class Grid(NamedTuple):
    """A table.

    Attributes:
        columns: Headings; those that begin with `>` are of numbers.
        rows: Cells.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsView:
    """How the statistics of a service are asked for and shown.

    Attributes:
        service: `balancer`, `cache` or `rag`.
        make_stub: Makes the stub of its gRPC service.
        request: Asks for its statistics once.
        make_watch_request: Makes what asks for them at intervals of so many seconds; None where
            the service does not report again and again.
        lines: Writes the totals.
        notices: Writes what a user should know beside the figures.
        grids: Makes the tables.
        activity: Counts what the service is busy with.
        activity_name: What that is, in the plural.
    """

    service: str
    make_stub: Callable[[Any], Any]
    request: Any
    make_watch_request: Callable[[float], Any] | None = None
    lines: Callable[[Any], Iterable[str]]
    notices: Callable[[Any], Iterable[str]]
    grids: Callable[[Any], Iterable[Grid]]
    activity: Callable[[Any], int] = lambda _: 0
    activity_name: str = ""

    def tables(self, stats: Any) -> Iterator[Grid]:
        """Makes the tables that have rows."""
        yield from (grid for grid in self.grids(stats) if grid.rows)

    def show(self, output: Output, stats: Any) -> None:
        """Shows all of it, one thing below the other."""
        for line in self.lines(stats):
            output.line(line)
        for notice in self.notices(stats):
            output.notice(notice)
        for index, grid in enumerate(self.tables(stats)):
            if index:
                output.line()
            output.table(*grid)
