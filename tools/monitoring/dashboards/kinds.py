"""The types of panels that the dashboards are made of, each with what suits it.

All take the panel's id, its title, its description and its queries; then the unit of its values,
its width in twenty-fourths of the dashboard, its height in Grafana's grid of 30 pixels, and as
`more` whatever else a `Panel` has.
"""

from typing import Any, Final

from tools.monitoring.dashboards.expressions import occurring, rate
from tools.monitoring.dashboards.panels import (
    Json,
    Limits,
    Panel,
    Query,
    Why,
)

__all__ = [
    "LEGEND",
    "RATIO",
    "bars",
    "events",
    "gauge",
    "heatmap",
    "line_style",
    "lines",
    "on_the_right",
    "override",
    "pie",
    "stat",
]

_LAST: Final[Json] = {"calcs": ["lastNotNull"], "fields": "", "values": False}
LEGEND: Final[Json] = {
    "calcs": [],
    "displayMode": "list",
    "placement": "bottom",
    "showLegend": True,
}
RATIO: Final = "percentunit"


def lines(
    number: int,
    title: str,
    why: Why,
    *queries: Query,
    unit: str,
    width: int = 8,
    height: int = 8,
    limits: Limits | None = None,
    stacked: bool = False,
    small: float | None = None,
    **more: Any,
) -> Panel:
    """Values over time; limits are dashed lines, stacked series make a whole.

    A ratio that is near 0 on a good day could not be read on an axis up to 1. `small` is where
    its axis ends instead; it gives way to larger values.
    """
    limits = limits or Limits()
    is_ratio = unit == RATIO
    return Panel(
        number=number,
        kind="timeseries",
        title=title,
        why=why,
        queries=queries,
        unit=unit,
        width=width,
        height=height,
        limits=limits,
        least=0,
        most=1 if is_ratio and small is None else None,
        soft_most=small,
        custom=line_style(stacked=stacked, dashed=limits.shown),
        options={"legend": LEGEND, "tooltip": {"mode": "multi", "sort": "desc"}},
        **more,
    )


def events(selector: str, by: str, legend: str) -> tuple[Query, Query]:
    """Queries for a counter of many kinds: those that occur in the picture, and all together.

    The second is at 0 where there are none, while whoever counts them is there.
    """
    return Query(occurring(selector, by), legend), Query(rate(selector), "all")


def on_the_right(
    ref_id: str, unit: str, *, most: float | None = None, limits: Limits | None = None
) -> Json:
    """Draws the series of the query with a letter against an axis of their own."""
    properties: Json = {
        "unit": unit,
        "min": 0,
        "custom.axisPlacement": "right",
        "custom.thresholdsStyle": {"mode": "dashed" if limits else "off"},
    }
    if most is not None:
        properties["max"] = most
    if limits is not None:
        properties["thresholds"] = limits.json()
    return override(("byFrameRefID", ref_id), **properties)


def stat(
    number: int,
    title: str,
    why: Why,
    *queries: Query,
    unit: str,
    width: int = 6,
    height: int = 5,
    names: bool = False,
    **more: Any,
) -> Panel:
    """Large figures of this moment; what is gone shows no figure, and not its last one.

    `names` shows the names of series where their values say nothing.
    """
    several = len(queries) > 1 or any("{{" in query.legend for query in queries)
    text_mode = "name" if names else "value_and_name" if several else "value"
    return Panel(
        number=number,
        kind="stat",
        title=title,
        why=why,
        queries=queries,
        unit=unit,
        width=width,
        height=height,
        instant=True,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": _LAST,
            "textMode": text_mode,
            "wideLayout": True,
        },
        **more,
    )


def gauge(
    number: int,
    title: str,
    why: Why,
    *queries: Query,
    unit: str,
    most: float,
    limits: Limits,
    width: int = 6,
    height: int = 7,
    **more: Any,
) -> Panel:
    """Where a figure stands between 0 and the most there is."""
    return Panel(
        number=number,
        kind="gauge",
        title=title,
        why=why,
        queries=queries,
        unit=unit,
        width=width,
        height=height,
        instant=True,
        limits=limits,
        least=0,
        most=most,
        options={
            "orientation": "auto",
            "reduceOptions": _LAST,
            "showThresholdLabels": False,
            "showThresholdMarkers": True,
        },
        **more,
    )


def bars(
    number: int,
    title: str,
    why: Why,
    *queries: Query,
    unit: str,
    width: int = 8,
    height: int = 8,
    **more: Any,
) -> Panel:
    """One bar for each series."""
    return Panel(
        number=number,
        kind="bargauge",
        title=title,
        why=why,
        queries=queries,
        unit=unit,
        width=width,
        height=height,
        instant=True,
        least=0,
        most=1 if unit == RATIO else None,
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "reduceOptions": _LAST,
            "showUnfilled": True,
            "valueMode": "color",
        },
        **more,
    )


def pie(
    number: int,
    title: str,
    why: Why,
    query: Query,
    *,
    unit: str = "short",
    width: int = 8,
    height: int = 8,
    **more: Any,
) -> Panel:
    """Shares of a whole."""
    return Panel(
        number=number,
        kind="piechart",
        title=title,
        why=why,
        queries=(query,),
        unit=unit,
        width=width,
        height=height,
        instant=True,
        options={
            "displayLabels": ["percent"],
            "legend": {
                "displayMode": "table",
                "placement": "right",
                "showLegend": True,
                "values": ["value", "percent"],
            },
            "pieType": "donut",
            "reduceOptions": _LAST,
            "tooltip": {"mode": "single", "sort": "none"},
        },
        **more,
    )


def heatmap(
    number: int,
    title: str,
    why: Why,
    query: Query,
    *,
    unit: str,
    width: int = 12,
    height: int = 8,
    **more: Any,
) -> Panel:
    """How often which values occurred over time, from rates of a histogram by `le`."""
    return Panel(
        number=number,
        kind="heatmap",
        title=title,
        why=why,
        queries=(query,),
        unit=unit,
        width=width,
        height=height,
        format="heatmap",
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": "Oranges",
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
        **more,
    )


def line_style(*, stacked: bool, dashed: bool) -> Json:
    """How a picture over time is drawn."""
    return {
        "axisPlacement": "auto",
        "drawStyle": "line",
        "fillOpacity": 30 if stacked else 8,
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "pointSize": 4,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if dashed else "off"},
    }


def override(matcher: tuple[str, str], **properties: Any) -> Json:
    """Settings of the fields that a matcher of Grafana finds."""
    return {
        "matcher": {"id": matcher[0], "options": matcher[1]},
        "properties": [{"id": name, "value": value} for name, value in properties.items()],
    }
