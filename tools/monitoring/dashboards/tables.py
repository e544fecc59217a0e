"""Panels with rows: tables of Prometheus, and what Tempo finds."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tools.monitoring.dashboards.kinds import LEGEND, RATIO, line_style, override
from tools.monitoring.dashboards.panels import (
    Json,
    Limits,
    Panel,
    Query,
    Search,
    States,
    Why,
    state_mappings,
)

__all__ = ["Column", "service_map", "table", "trace_lines", "traces"]


_VALUE: Final = "Value"


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: what stands above it.
        unit: Grafana's id of the unit of its values.
        limits: colours of its cells.
        mappings: values that mean a state: value to text and colour.
        decimals: digits after the point; Grafana chooses if None.
    """

    title: str
    unit: str = "short"
    limits: Limits | None = None
    mappings: States | None = None
    decimals: int | None = None


def table(
    number: int,
    title: str,
    why: Why,
    *queries: Query,
    labels: Mapping[str, str],
    columns: Sequence[Column],
    width: int = 12,
    height: int = 8,
    sort_by: str | None = None,
    **more: Any,
) -> Panel:
    """A row for each combination of labels, a column for each query, in their order.

    `labels` says what stands above the column of a label, `sort_by` which column's largest value
    comes first. A column without a title is there for its labels only.
    """
    several = len(queries) > 1
    fields = [
        f"Value #{chr(ord('A') + index)}" if several else _VALUE for index in range(len(queries))
    ]
    shown = list(zip(fields, columns, strict=True))
    hidden = {"Time": True, **{name: True for name, column in shown if not column.title}}
    shown = [(name, column) for name, column in shown if column.title]
    titles = {**labels, **{name: column.title for name, column in shown}}
    order = {name: index for index, name in enumerate(titles)}
    if several:
        # Where only one query has an answer Grafana calls its value like that of a single query.
        # Whatever else has rows here, the first has them, too.
        titles[_VALUE], order[_VALUE] = shown[0][1].title, order[shown[0][0]]
    organize = {"excludeByName": hidden, "indexByName": order, "renameByName": titles}
    return Panel(
        number=number,
        kind="table",
        title=title,
        why=why,
        queries=queries,
        unit=shown[0][1].unit if shown else "none",
        width=width,
        height=height,
        instant=True,
        format="table",
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        overrides=[_column_override(column) for _, column in shown],
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": organize},
        ],
        options={
            "cellHeight": "sm",
            "showHeader": True,
            "sortBy": [{"displayName": sort_by, "desc": True}] if sort_by else [],
        },
        **more,
    )


def traces(
    number: int,
    title: str,
    why: Why,
    search: Search,
    *,
    width: int = 24,
    height: int = 8,
    sort_by: str | None = None,
) -> Panel:
    """What a search for traces finds; the first column opens the trace."""
    return Panel(
        number=number,
        kind="table",
        title=title,
        why=why,
        queries=(search,),
        unit="none",
        width=width,
        height=height,
        empty="no such trace",
        custom={"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
        options={
            "cellHeight": "sm",
            "showHeader": True,
            "sortBy": [{"displayName": sort_by, "desc": True}] if sort_by else [],
        },
    )


def trace_lines(
    number: int,
    title: str,
    why: Why,
    *searches: Search,
    unit: str,
    names: Sequence[str] = (),
    width: int = 12,
    height: int = 8,
) -> Panel:
    """Values over time that Tempo computes from spans, by TraceQL that ends in a metric.

    `names` is what the series are called where each search has one only; Tempo names them by
    what they are grouped by.
    """
    return Panel(
        number=number,
        kind="timeseries",
        title=title,
        why=why,
        queries=searches,
        unit=unit,
        width=width,
        height=height,
        least=0,
        overrides=[
            override(("byFrameRefID", chr(ord("A") + index)), displayName=name)
            for index, name in enumerate(names)
        ],
        custom=line_style(stacked=False, dashed=False),
        options={"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def service_map(number: int, title: str, why: Why, *, height: int = 12) -> Panel:
    """Who calls whom, by what Tempo has seen."""
    return Panel(
        number=number,
        kind="nodeGraph",
        title=title,
        why=why,
        queries=(Search("", "map"),),
        unit="none",
        width=24,
        height=height,
    )


def _column_override(column: Column) -> Json:
    # A cell without a value says less than a panel without any.
    properties: Json = {"unit": column.unit, "noValue": "-"}
    if column.decimals is not None:
        properties["decimals"] = column.decimals
    if column.unit == RATIO:
        properties |= {"min": 0, "max": 1}
    if column.limits is not None:
        properties["thresholds"] = column.limits.json()
    if column.mappings is not None:
        properties["mappings"] = state_mappings(column.mappings)
    if column.limits is not None or column.mappings is not None:
        properties["custom.cellOptions"] = {"type": "color-text"}
    return override(("byName", column.title), **properties)
