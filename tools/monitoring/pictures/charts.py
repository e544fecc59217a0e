"""Pictures over time and of shares: lines, heatmaps, pies."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tools.monitoring.pictures.answers import Answers, Series
from tools.monitoring.pictures.values import (
    COLOURS,
    INK,
    override_of,
    series_name,
    shown_value,
)

__all__ = ["PALETTE", "Content", "content_of", "heatmap", "lines", "pie"]

PALETTE: Final = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#96d98d",
    "#ffee52", "#c0d8ff", "#ffb357", "#ff7383", "#ca95e5", "#37872d", "#e0b400", "#3274d9",
)  # fmt: skip
_GRID: Final = "#2c3235"
_ORANGES: Final = LinearSegmentedColormap.from_list("oranges", ["#181b1f", "#a33b06", "#fdbe85"])
_LEGEND_LINE: Final = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a panel has to show.

    Attributes:
        series: letter of the query, name and series, of all queries.
        width: pixels there are.
        height: pixels there are.
    """

    series: Sequence[tuple[str, str, Series]]
    width: float
    height: float


def content_of(
    panel: Mapping[str, Any], answers: Answers, *, width: float, height: float
) -> Content:
    """What of the answers belongs to a panel.

    Args:
        panel: The panel.
        answers: What the dashboard's queries were answered.
        width: Pixels there are.
        height: Pixels there are.
    """
    found = [
        (target["refId"], series_name(target.get("legendFormat", ""), each.labels), each)
        for target in panel["targets"]
        for each in answers.get((panel["id"], target["refId"]), ())
    ]
    return Content(series=found, width=width, height=height)


def lines(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws values over time, with limits, a second axis and a legend."""
    defaults = panel["fieldConfig"]["defaults"]
    right: Axes | None = None
    right_settings: Mapping[str, Any] = {}
    handles = []
    below: dict[float, float] = defaultdict(float)
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    for colour, (letter, _, series) in zip(cycle(PALETTE), content.series, strict=False):
        own = override_of(panel, "byFrameRefID", letter)
        target = axes
        if own.get("custom.axisPlacement") == "right":
            if right is None:
                right, right_settings = axes.twinx(), own
            target = right
        times = [at for at, _ in series.points]
        values = [value for _, value in series.points]
        alone = own.get("custom.stacking", {}).get("mode") == "none"
        if stacked and target is axes and not alone:
            floor = [below[at] for at, _ in series.points]
            values = [low + value for low, value in zip(floor, values, strict=True)]
            axes.fill_between(times, floor, values, color=colour, alpha=0.3, linewidth=0)
            below.update({at: value for (at, _), value in zip(series.points, values, strict=True)})
        (line,) = target.plot(times, values, color=colour, linewidth=1)
        handles.append(line)
    _axis(axes, defaults["unit"], defaults.get("min"), defaults.get("max"))
    _soft_top(axes, defaults["custom"].get("axisSoftMax"))
    if defaults["custom"]["thresholdsStyle"]["mode"] != "off":
        low, high = axes.get_ylim()
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and low < step["value"] <= high:
                axes.axhline(
                    step["value"], color=COLOURS[step["color"]], linewidth=0.8, linestyle="--"
                )
    axes.xaxis.set_major_formatter(FuncFormatter(_clock))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _legend(axes, handles, [name for _, name, _ in content.series], content, two=right is not None)
    if right is not None:
        _axis(right, right_settings["unit"], right_settings["min"], right_settings.get("max"))
        right.set_position(axes.get_position())


def heatmap(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws how often which values occurred over time."""
    bounds = sorted((float(series.labels["le"]), series) for _, _, series in content.series)
    times = sorted({at for _, series in bounds for at, _ in series.points})
    below = dict.fromkeys(times, 0.0)
    cells = []
    for _, series in bounds:
        at_most = dict(series.points)
        cells.append([max(at_most.get(at, below[at]) - below[at], 0.0) for at in times])
        below = {at: at_most.get(at, below[at]) for at in times}
    axes.pcolormesh(
        times,
        list(range(len(bounds))),
        cells,
        cmap=_ORANGES,
        norm=PowerNorm(0.5, vmin=0, vmax=max(max(row) for row in cells) or 1),
        shading="nearest",
    )
    unit = panel["fieldConfig"]["defaults"]["unit"]
    each = max(math.ceil(len(bounds) / 8), 1)
    marks = list(range(0, len(bounds), each))
    axes.set_yticks(marks, [_edge(bounds[mark][0], unit) for mark in marks])
    _style(axes)
    axes.grid(visible=False)
    axes.xaxis.set_major_formatter(FuncFormatter(_clock))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _place(axes, content, left=48, bottom=18, right=4)


def pie(axes: Axes, panel: Mapping[str, Any], content: Content) -> None:
    """Draws shares of a whole, with their values beside."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    parts = sorted(
        ((series.last, name) for _, name, series in content.series if series.last > 0), reverse=True
    )
    whole = sum(value for value, _ in parts)
    axes.axis("off")
    if not parts:
        axes.text(0.5, 0.5, "all 0", color=INK, ha="center", va="center", transform=axes.transAxes)
        return
    ring, _ = axes.pie(
        [value for value, _ in parts],
        colors=[colour for colour, _ in zip(cycle(PALETTE), parts, strict=False)],
        startangle=90,
        counterclock=False,
        wedgeprops={"width": 0.45, "edgecolor": "#181b1f"},
    )
    room = max(int(content.height // 15), 1)
    # What the ring leaves, in letters; value and percentage take some of them.
    length = max(int(content.width * 0.55 / 5) - 18, 6)
    names = [
        f"{_cut(name, length)}   {shown_value(value, unit)}   {value / whole:.0%}"
        for value, name in parts[:room]
    ]
    axes.legend(
        ring[:room],
        names,
        loc="center left",
        bbox_to_anchor=(1.02, 0.5),
        fontsize=6.5,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
    )
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_anchor("W")
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, box.width * 0.42, box.height))


def _axis(axes: Axes, unit: str, least: float | None, most: float | None) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown_value(value, unit)))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.01, y=0.1)
    _style(axes)
    if least is not None:
        axes.set_ylim(bottom=least)
    if most is not None:
        # Room for the line at the very top.
        axes.set_ylim(top=most * 1.03)
    low, high = axes.get_ylim()
    if high <= low or (high - low) < 1e-9:
        axes.set_ylim(low, low + 1)


def _soft_top(axes: Axes, top: float | None) -> None:
    if top is not None and axes.get_ylim()[1] < top:
        axes.set_ylim(top=top)


def _style(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=6.5, length=0, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.grid(visible=True, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(
    axes: Axes, handles: Sequence[Any], names: Sequence[str], content: Content, *, two: bool
) -> None:
    per_line = max(int(content.width // 130), 1)
    lines_ = min(math.ceil(len(names) / per_line), 2)
    shown = min(len(names), per_line * lines_)
    texts = [_cut(name, 21) for name in names[:shown]]
    if shown < len(names):
        texts[-1] = f"and {len(names) - shown + 1} more"
    _place(axes, content, left=48, bottom=20 + lines_ * _LEGEND_LINE, right=48 if two else 6)
    axes.legend(
        handles[:shown],
        texts,
        loc="upper left",
        bbox_to_anchor=(-0.02, -16 / max(content.height - 20 - lines_ * _LEGEND_LINE, 1)),
        ncol=per_line,
        fontsize=6.5,
        frameon=False,
        labelcolor=INK,
        handlelength=1,
        columnspacing=1.2,
        borderaxespad=0,
        labelspacing=0.3,
    )


def _place(axes: Axes, content: Content, *, left: float, bottom: float, right: float) -> None:
    box = axes.get_position()
    across, up = box.width / content.width, box.height / content.height
    axes.set_position(
        (
            box.x0 + left * across,
            box.y0 + bottom * up,
            box.width - (left + right) * across,
            box.height - bottom * up,
        )
    )


def _clock(value: float, _: int | None = None) -> str:
    return datetime.fromtimestamp(value, UTC).strftime("%H:%M")


def _edge(value: float, unit: str) -> str:
    return "more" if math.isinf(value) else shown_value(value, unit)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
