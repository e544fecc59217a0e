"""The alert rules with all their durations divided, so that hours pass in minutes.

Ranges, offsets, `for` and `keep_firing_for` are shorter; everything else is as in
deploy/prometheus/rules, thresholds included.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

__all__ = ["LEAST_RANGE_SECONDS", "compressed_expression", "compressed_rules", "seconds_of"]

LEAST_RANGE_SECONDS = 4.0
"""No range is shorter: a rate needs two samples, and one may be late."""

_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+)(ms|[smhdw])")
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdw]))+")
# Texts and comments are passed over as they are; the rest of PromQL is tokens that none of this
# is a part of.
_TOKEN = re.compile(
    r"""
    (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`|\#[^\n]*)
    |(?P<range>\[(?P<window>[^\]]*)\])
    |\boffset\s+(?P<sign>-?)\s*(?P<offset>(?:\d+(?:ms|[smhdw]))+)
    |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def compressed_rules(text: str, factor: float) -> str:
    """Returns a file of rules with all durations divided.

    Args:
        text: The file.
        factor: By how much.

    Raises:
        ValueError: A duration cannot be read.
    """
    document: Any = yaml.safe_load(text)
    for group in document["groups"]:
        for rule in group["rules"]:
            rule["expr"] = compressed_expression(rule["expr"], factor)
            for name in ("for", "keep_firing_for"):
                if name in rule:
                    rule[name] = _written(seconds_of(rule[name]) / factor)
    compressed: str = yaml.safe_dump(document, sort_keys=False)
    return compressed


def compressed_expression(expression: str, factor: float) -> str:
    """Returns a query with its ranges and offsets divided, the former to no less than
    `LEAST_RANGE_SECONDS`.

    Raises:
        ValueError: A duration cannot be read.
    """
    return "".join(_pieces(expression, factor))


def _pieces(expression: str, factor: float) -> Iterator[str]:
    for token in _TOKEN.finditer(expression):
        if token["range"] is not None:
            lengths = [each.strip() for each in token["window"].split(":")]
            divided = [
                _written(max(LEAST_RANGE_SECONDS, seconds_of(each) / factor)) if each else ""
                for each in lengths
            ]
            yield f"[{':'.join(divided)}]"
        elif token["offset"] is not None:
            yield f"offset {token['sign']}{_written(seconds_of(token['offset']) / factor)}"
        else:
            yield token[0]


def seconds_of(duration: str) -> float:
    """Reads a duration of Prometheus, such as `5m` or `1h30m`.

    Raises:
        ValueError: It is none.
    """
    if not _DURATION.fullmatch(duration):
        raise ValueError(f"{duration!r} is no duration")
    parts = _PART.findall(duration)
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _written(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
