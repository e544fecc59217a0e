"""Draws a dashboard: its grid of panels, each with its title and its content."""

import io
from collections.abc import Callable, Mapping
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from tools.monitoring.pictures import charts, figures
from tools.monitoring.pictures.answers import Answers
from tools.monitoring.pictures.values import INK

__all__ = ["LARGEST_BYTES", "WIDTH", "draw"]

WIDTH: Final = 1400
"""Width of a picture in pixels."""

LARGEST_BYTES: Final = 250_000
"""A picture is smaller than this; many colours give way to it."""

_COLUMNS: Final = 24
_UNIT: Final = 30
_HEAD: Final = 54
_GAP: Final = 4
_TITLE: Final = 24
_DOTS_PER_INCH: Final = 100
_PAGE: Final = "#111217"
_PANEL: Final = "#181b1f"
_FAINT: Final = "#8e8e99"
# With a palette a file is a third as large; the smaller ones are for crowded pictures.
_PALETTES: Final = (256, 128, 64, 32)

_DRAWINGS: Final[Mapping[str, Callable[[Axes, Mapping[str, Any], charts.Content], None]]] = {
    "timeseries": charts.lines,
    "heatmap": charts.heatmap,
    "piechart": charts.pie,
    "stat": figures.stat,
    "gauge": figures.gauge,
    "bargauge": figures.bars,
    "table": figures.table,
}


def draw(dashboard: Mapping[str, Any], answers: Answers) -> bytes:
    """Draws a dashboard.

    Args:
        dashboard: The dashboard as Grafana reads it.
        answers: What its queries were answered.

    Returns:
        A PNG, `WIDTH` pixels wide.
    """
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in dashboard["panels"])
    height = _HEAD + rows * _UNIT
    figure = Figure(figsize=(WIDTH / _DOTS_PER_INCH, height / _DOTS_PER_INCH), dpi=_DOTS_PER_INCH)
    figure.set_facecolor(_PAGE)
    FigureCanvasAgg(figure)
    _Page(figure, height).fill(dashboard, answers)
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=_DOTS_PER_INCH, facecolor=_PAGE)
    return _smaller(raw)


class _Page:
    """A figure that is measured in pixels from its upper left corner."""

    def __init__(self, figure: Figure, height: int) -> None:
        self._figure = figure
        self._height = height

    def fill(self, dashboard: Mapping[str, Any], answers: Answers) -> None:
        self._text(14, 14, dashboard["title"], size=13, colour="white", weight="bold")
        self._text(14, 36, dashboard["description"], size=8, colour=_FAINT)
        for panel in dashboard["panels"]:
            grid = panel["gridPos"]
            x = grid["x"] * WIDTH / _COLUMNS
            y = _HEAD + grid["y"] * _UNIT
            width, height = grid["w"] * WIDTH / _COLUMNS, grid["h"] * _UNIT
            if panel["type"] == "row":
                self._text(x + 10, y + 8, panel["title"], size=9, colour=INK, weight="bold")
            else:
                self._panel(panel, answers, (x, y, width, height))

    def _panel(
        self, panel: Mapping[str, Any], answers: Answers, place: tuple[float, float, float, float]
    ) -> None:
        x, y, width, height = place
        corner = ((x + _GAP) / WIDTH, 1 - (y + height - _GAP) / self._height)
        box = FancyBboxPatch(
            corner,
            (width - 2 * _GAP) / WIDTH,
            (height - 2 * _GAP) / self._height,
            boxstyle="square,pad=0",
            facecolor=_PANEL,
            edgecolor="#2c3235",
            linewidth=0.8,
            transform=self._figure.transFigure,
            zorder=-1,
        )
        self._figure.add_artist(box)
        self._text(x + 12, y + 9, panel["title"], size=8, colour="white")
        axes = self._figure.add_axes(
            (
                (x + 12) / WIDTH,
                1 - (y + height - 12) / self._height,
                (width - 24) / WIDTH,
                (height - _TITLE - 20) / self._height,
            )
        )
        axes.set_facecolor(_PANEL)
        content = charts.content_of(panel, answers, width=width - 24, height=height - _TITLE - 20)
        drawing = _DRAWINGS.get(panel["type"])
        if drawing is None or any("expr" not in target for target in panel["targets"]):
            figures.note(axes, "asks Tempo, which is not drawn here")
        elif not content.series:
            figures.note(axes, panel["fieldConfig"]["defaults"]["noValue"])
        else:
            drawing(axes, panel, content)

    def _text(
        self, x: float, y: float, text: str, *, size: float, colour: str, weight: str = "normal"
    ) -> None:
        self._figure.text(
            x / WIDTH,
            1 - y / self._height,
            text,
            fontsize=size,
            color=colour,
            weight=weight,
            va="top",
        )


def _smaller(raw: io.BytesIO) -> bytes:
    with Image.open(raw) as image:
        whole = image.convert("RGB")
    for colours in _PALETTES:
        written = io.BytesIO()
        flat = whole.quantize(colors=colours, dither=Image.Dither.NONE)
        flat.save(written, format="PNG", optimize=True)
        if written.tell() < LARGEST_BYTES:
            break
    return written.getvalue()
