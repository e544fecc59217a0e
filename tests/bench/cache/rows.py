"""What cases report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

__all__ = ["Row", "milliseconds", "of_tuned_host", "table"]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        case: What was measured.
        figure: What was found, with its unit.
        goal: What was wanted; empty for a figure that only informs.
        met: Whether it was met; None where there is no goal.
    """

    case: str
    figure: str
    goal: str = ""
    met: bool | None = None


def milliseconds(times_seconds: Sequence[float]) -> tuple[float, float]:
    """Returns median and 99th percentile in milliseconds."""
    cuts = quantiles(times_seconds, n=100, method="inclusive")
    return cuts[49] * 1000, cuts[98] * 1000


def of_tuned_host(rows: Sequence[Row]) -> list[Row]:
    """Says of rows that they are of a tuned host (`tests.bench.tuned`)."""
    return [replace(row, case=f"{row.case}, tuned host") for row in rows]


def table(rows: Sequence[Row]) -> str:
    """Writes rows one below the other."""
    words = {True: "met", False: "MISSED", None: ""}
    width = max(len(row.case) for row in rows)
    return "\n".join(
        f"{row.case:<{width}}  {row.figure:<58}  {row.goal:<34}  {words[row.met]}".rstrip()
        for row in rows
    )
