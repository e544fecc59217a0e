"""Conditions under which a run counts as failed: `p95>2s`, `errors>1%`, `mode.rag.p99>=500ms`."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pannier.load.tally import Figures, Tally

__all__ = ["BadThreshold", "Threshold", "parse_threshold"]

_WRITTEN = re.compile(
    r"(?:(?P<scope>mode|tenant)\.(?P<name>[^<>=\s]+)\.)?(?P<measure>[a-z_][a-z_0-9]*)"
    r"\s*(?P<operator>>=|<=|>|<)\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|%|/s)?",
    re.ASCII,
)
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0}
_QUANTILE = re.compile(r"(?:(first_text|late)_)?(p50|p90|p95|p99|max|mean)")
_RATIOS = {"errors": "error_ratio", "cached": "cached_ratio", "degraded": "degraded_ratio"}
_RATIOS |= {"refused": "refused_ratio"}
_RATES = {"rate": "answered"}


class BadThreshold(ValueError):
    """A condition that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A condition under which a run counts as failed.

    Attributes:
        text: As it was written.
        scope: `mode`, `tenant`, or empty for all questions.
        name: Which mode or tenant.
        measure: What is compared.
        operator: `>`, `>=`, `<` or `<=`.
        limit: With what: seconds, a ratio or a rate per second.
    """

    text: str
    scope: str
    name: str
    measure: str
    operator: str
    limit: float

    def problem(self, tally: Tally, *, answering_seconds: float) -> str | None:
        """Returns why a run has failed by this condition; None where it has not.

        A figure that there is none of has failed, too: a run without a single answer is not fast.

        Args:
            tally: What became of the questions.
            answering_seconds: How long it took until the last answer.
        """
        figures = self._figures(tally)
        value = None if figures is None else _measure(figures, self.measure, answering_seconds)
        if value is None:
            return f"{self.text}: there is no figure"
        if _OPERATORS[self.operator](value, self.limit):
            return f"{self.text}: it is {value:.4g}"
        return None

    def _figures(self, tally: Tally) -> Figures | None:
        if not self.scope:
            return tally.total
        return (tally.modes if self.scope == "mode" else tally.tenants).get(self.name)


def parse_threshold(text: str) -> Threshold:
    """Reads a condition.

    Raises:
        BadThreshold: It cannot be read, or its unit does not go with what it measures.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        raise BadThreshold(f"{text!r} is no condition; write for example p95>2s or errors>1%")
    measure, unit, number = written["measure"], written["unit"], float(written["number"])
    if measure in _RATIOS:
        if unit not in (None, "%"):
            raise BadThreshold(f"{text!r}: {measure} is a share; write 1% or 0.01")
        limit = number / 100 if unit else number
    elif measure in _RATES:
        if unit not in (None, "/s"):
            raise BadThreshold(f"{text!r}: {measure} is per second; write 10/s")
        limit = number
    elif _QUANTILE.fullmatch(measure):
        if unit not in _SECONDS:
            raise BadThreshold(f"{text!r}: {measure} is a time; write 500ms, 2s or 1m")
        limit = number * _SECONDS[unit]
    else:
        times = "p50, p90, p95, p99, max, mean, first_text_p95, late_p99 and so on"
        known = ", ".join((*_RATIOS, *_RATES))
        raise BadThreshold(f"{text!r}: there is no {measure}; there are {times}, {known}")
    return Threshold(
        text=text.strip(),
        scope=written["scope"] or "",
        name=written["name"] or "",
        measure=measure,
        operator=written["operator"],
        limit=limit,
    )


def _measure(figures: Figures, measure: str, answering_seconds: float) -> float | None:
    if measure in _RATIOS:
        ratio: float | None = getattr(figures, _RATIOS[measure])
        return ratio
    if measure in _RATES:
        return (
            getattr(figures, _RATES[measure]) / answering_seconds if answering_seconds > 0 else None
        )
    quantile = _QUANTILE.fullmatch(measure)
    if quantile is None:
        raise ValueError(f"there is no {measure}")
    times = getattr(figures, quantile[1] or "whole")
    if quantile[2] == "mean":
        mean: float | None = times.mean_seconds
        return mean
    share = 1.0 if quantile[2] == "max" else int(quantile[2][1:]) / 100
    value: float | None = times.quantile(share)
    return value
