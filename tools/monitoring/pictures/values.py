"""How values read: with their units, in their colours, under their names."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["COLOURS", "INK", "colour_at", "override_of", "series_name", "shown_value"]

INK: Final = "#ccccdc"
COLOURS: Final[Mapping[str, str]] = {
    "green": "#73bf69",
    "yellow": "#fade2a",
    "red": "#f2495c",
    "blue": "#5794f2",
}
"""Names of colours in dashboards to what Grafana's dark theme makes of them."""

_TIMES: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))
_BINARY: Final = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_DECIMAL: Final = ((1e9, "Bil"), (1e6, "Mil"), (1e3, "K"))


def shown_value(value: float, unit: str, decimals: int | None = None) -> str:
    """A value as a reader sees it.

    Args:
        value: The value.
        unit: Grafana's id of its unit.
        decimals: Digits after the point; as many as are of use if None.
    """
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{value * 100:.{1 if decimals is None else decimals}f} %"
    if unit in ("s", "dtdurations"):
        factor, name = next((each for each in _TIMES if abs(value) >= each[0]), (1e-6, "µs"))
        return "0 s" if value == 0 else f"{_short(value / factor, decimals)} {name}"
    if unit == "bytes":
        scale, name = next((each for each in _BINARY if abs(value) >= each[0]), (1, "B"))
        return f"{_short(value / scale, decimals)} {name}"
    factor, name = next((each for each in _DECIMAL if abs(value) >= each[0]), (1.0, ""))
    text = _short(value / factor, decimals) + (f" {name}" if name else "")
    return {"reqps": f"{text} req/s", "ops": f"{text} ops/s"}.get(unit, text)


def series_name(legend: str, labels: Mapping[str, str]) -> str:
    """The name of a series.

    Args:
        legend: What stands in the query, with labels in double braces.
        labels: The labels of the series.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)


def colour_at(value: float, thresholds: Mapping[str, Any]) -> str:
    """The colour of a value by the limits of its panel."""
    colour = COLOURS["green"]
    for step in thresholds["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = COLOURS[step["color"]]
    return colour


def override_of(panel: Mapping[str, Any], matcher: str, option: str) -> dict[str, Any]:
    """The settings that a panel has for one query or one column of its own."""
    return {
        each["id"]: each["value"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"] == {"id": matcher, "options": option}
        for each in override["properties"]
    }


def _short(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
