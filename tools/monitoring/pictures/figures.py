"""Pictures of one moment: large figures, gauges, bars, tables."""

from collections.abc import Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle, Wedge

from tools.monitoring.pictures.charts import Content
from tools.monitoring.pictures.values import (
    COLOURS,
    INK,
    colour_at,
    override_of,
    shown_value,
)

__all__ = ["bars", "gauge", "note", "stat", "table"]

_EMPTY: Final = "#2c3235"
_LINE_HEIGHT: Final = 20
_MOST_SIDE_BY_SIDE: Final = 3


def note(axes: Axes, text: str) -> None:
    """Writes into an empty panel why it is empty."""
    axes.axis("off")
    axes.text(
        0.5, 0.5, text, color="#8e8e99", fontsize=9, ha="center", va="center",
        transform=axes.transAxes,
    )  # fmt: skip


def stat(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws large figures: a few side by side, more as a list."""
    axes.axis("off")
    defaults = panel["fieldConfig"]["defaults"]
    mode = panel["options"]["textMode"]
    as_list = len(content.series) > _MOST_SIDE_BY_SIDE
    shown = content.series[: int(content.height // _LINE_HEIGHT) if as_list else None]
    longest = max(len(_state(series.last, defaults)[0]) for _, _, series in shown)
    size = 9.0 if as_list else min(26.0, content.width / len(shown) / max(longest, 5))
    for index, (letter, name, series) in enumerate(shown):
        middle = (index + 0.5) / len(shown)
        own = {**defaults, **override_of(panel, "byFrameRefID", letter)}
        text, colour = _state(series.last, own)
        text = name if mode == "name" else text
        x, y = (0.95, 1 - middle) if as_list else (middle, 0.55)
        axes.text(x, y, text, color=colour, fontsize=size, weight="bold", va="center",
                  ha="right" if as_list else "center", transform=axes.transAxes)  # fmt: skip
        if mode == "value_and_name":
            x, y = (0.05, y) if as_list else (x, 0.55 - (size + 8) / content.height)
            axes.text(x, y, name, color=INK, fontsize=7.5, va="center",
                      ha="left" if as_list else "center", transform=axes.transAxes)  # fmt: skip


def gauge(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws where a figure stands on an arc, with the limits around it."""
    axes.axis("off")
    axes.set_aspect("equal")
    axes.set_xlim(-1.15, 2.4 * len(content.series) - 1.25)
    axes.set_ylim(-0.45, 1.1)
    for index, (_, name, series) in enumerate(content.series):
        size = 17 / len(content.series)
        _arc(axes, panel["fieldConfig"]["defaults"], series.last, at=2.4 * index, size=size)
        if len(content.series) > 1:
            axes.text(2.4 * index, -0.4, name, color=INK, fontsize=8, ha="center", va="center")


def _arc(axes: Axes, defaults: Mapping[str, Any], value: float, *, at: float, size: float) -> None:
    centre = (at, 0)
    share = min(max(value / defaults["max"], 0), 1)
    colour = colour_at(value, defaults["thresholds"])
    axes.add_patch(Wedge(centre, 0.95, 0, 180, width=0.3, color=_EMPTY))
    axes.add_patch(Wedge(centre, 0.95, 180 * (1 - share), 180, width=0.3, color=colour))
    steps = [
        (min((step["value"] or 0) / defaults["max"], 1), COLOURS[step["color"]])
        for step in defaults["thresholds"]["steps"]
    ]
    for (begin, shade), (end, _) in zip(steps, [*steps[1:], (1.0, "")], strict=True):
        axes.add_patch(Wedge(centre, 1.05, 180 * (1 - end), 180 * (1 - begin), width=0.06,
                             color=shade))  # fmt: skip
    text = shown_value(value, defaults["unit"], defaults.get("decimals"))
    axes.text(at, -0.1, text, color=colour, fontsize=size, weight="bold", ha="center",
              va="center")  # fmt: skip


def bars(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws one bar for each series."""
    defaults = panel["fieldConfig"]["defaults"]
    room = max(int(content.height // _LINE_HEIGHT), 1)
    shown = content.series[:room]
    most = defaults.get("max") or max(series.last for _, _, series in shown) or 1
    axes.axis("off")
    axes.set_xlim(0, 1)
    axes.set_ylim(len(shown), 0)
    for index, (_, name, series) in enumerate(shown):
        colour = colour_at(series.last, defaults["thresholds"])
        share = min(max(series.last / most, 0), 1)
        axes.add_patch(Rectangle((0.3, index + 0.2), 0.55, 0.6, color=_EMPTY))
        axes.add_patch(Rectangle((0.3, index + 0.2), 0.55 * share, 0.6, color=colour))
        axes.text(0.29, index + 0.5, name, color=INK, fontsize=7, ha="right", va="center")
        text = shown_value(series.last, defaults["unit"], defaults.get("decimals"))
        axes.text(0.87, index + 0.5, text, color=colour, fontsize=8, va="center")


def table(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws a table with its columns merged, named and ordered as the panel says."""
    options = panel["transformations"][1]["options"]
    named, hidden = options["renameByName"], options["excludeByName"]
    several = len(panel["targets"]) > 1
    rows: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for letter, _, series in content.series:
        row = rows.setdefault(tuple(sorted(series.labels.items())), {})
        row[f"Value #{letter}" if several else "Value"] = series.last
    fields = [name for name in named if not hidden.get(name) and not (several and name == "Value")]
    sort = next((each["displayName"] for each in panel["options"]["sortBy"]), None)
    by = next((name for name, title in named.items() if title == sort), None)
    ordered = sorted(rows.items(), key=lambda row: -row[1].get(by, 0) if by else 0)
    axes.axis("off")
    axes.set_xlim(0, len(fields))
    axes.set_ylim(max(content.height / _LINE_HEIGHT, 2), 0)
    for column, name in enumerate(fields):
        own = override_of(panel, "byName", named[name])
        axes.text(column + 0.03, 0.5, named[name], color="#6e9fff", fontsize=7.5, va="center",
                  weight="bold")  # fmt: skip
        for line, (labels, values) in enumerate(
            ordered[: int(content.height // _LINE_HEIGHT) - 1], start=1
        ):
            text, colour = dict(labels).get(name, own.get("noValue", "")), INK
            if name in values:
                text, colour = _cell(values[name], own)
            axes.text(column + 0.03, line + 0.5, text, color=colour, fontsize=7.5, va="center")
            axes.axhline(line, color=_EMPTY, linewidth=0.6)


def _cell(value: float, own: Mapping[str, Any]) -> tuple[str, str]:
    for mapping in own.get("mappings", ()):
        state = mapping["options"].get(f"{value:g}")
        if state:
            return state["text"], COLOURS[state["color"]]
    colour = colour_at(value, own["thresholds"]) if "thresholds" in own else INK
    return shown_value(value, own["unit"], own.get("decimals")), colour


def _state(value: float, defaults: Mapping[str, Any]) -> tuple[str, str]:
    for mapping in defaults["mappings"]:
        state = mapping["options"].get(f"{value:g}")
        if state:
            return state["text"], COLOURS[state["color"]]
    text = shown_value(value, defaults["unit"], defaults.get("decimals"))
    return text, colour_at(value, defaults["thresholds"])
