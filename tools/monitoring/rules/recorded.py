"""A test for `promtool test rules` of what is recorded: each range has a share of its own."""

import re
from typing import Final

from tools.monitoring import thresholds
from tools.monitoring.rules.emit import Value
from tools.monitoring.rules.model import Group

__all__ = ["recordings_test"]

_PER_MINUTE: Final = 100
_MINUTES: Final = {"m": 1, "h": 60, "d": 1440}
# How many of a hundred are bad between the end of one range and that of the next shorter one.
_BAD: Final = (50, 40, 30, 20, 10, 5, 1)


def recordings_test(group: Group) -> dict[str, Value]:
    """Returns a file of tests.

    Args:
        group: What is recorded over `OBJECTIVE_WINDOWS`.
    """
    windows = [_minutes(window) for window in thresholds.OBJECTIVE_WINDOWS]
    lengths = [long - short for short, long in zip([0, *windows], windows, strict=False)]
    bad = [count * length for count, length in zip(_BAD, lengths, strict=True)]
    shares = [
        sum(bad[: place + 1]) / (_PER_MINUTE * window) for place, window in enumerate(windows)
    ]
    oldest_first = list(zip(reversed(_BAD), reversed(lengths), strict=True))
    good_part = [(_PER_MINUTE - count, length) for count, length in oldest_first]
    whole = [(_PER_MINUTE, windows[-1])]
    duration = "rag_request_duration_seconds"
    series = {
        'rag_requests_total{job="rag",mode="rag",outcome="error"}': oldest_first,
        'rag_requests_total{job="rag",mode="rag",outcome="success"}': good_part,
        'rag_requests_total{job="rag",mode="rag",outcome="cancelled"}': whole,
        'rag_requests_total{job="rag",mode="rag",outcome="refused"}': whole,
        f'{duration}_bucket{{job="rag",mode="rag",cache="miss",le="5.0"}}': good_part,
        f'{duration}_bucket{{job="rag",mode="rag",cache="miss",le="+Inf"}}': whole,
        f'{duration}_count{{job="rag",mode="rag",cache="miss"}}': whole,
    }
    names = [rule.to_rule()["record"] for rule in group.rules]
    return {
        "rule_files": [f"../rules/{group.name}.yaml"],
        "evaluation_interval": "1h",
        "tests": [
            {
                "name": "Each range has the share of its own time",
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": _values(phases)} for name, phases in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f"round({name}, 0.0001)",
                        "eval_time": f"{windows[-1]}m",
                        "exp_samples": [{"labels": '{job="rag"}', "value": round(share, 4)}],
                    }
                    for name, share in zip(names, shares * 2, strict=True)
                ],
            }
        ],
    }


def _values(phases: list[tuple[int, int]]) -> str:
    """Returns a counter's samples: growths for each minute, and for how many minutes."""
    parts = []
    total = 0
    for index, (growth, length) in enumerate(phases):
        first = total if index == 0 else total + growth
        more = length if index == 0 else length - 1
        parts.append(f"{first}+{growth}x{more}")
        total = first + growth * more
    return " ".join(parts)


def _minutes(window: str) -> int:
    match = re.fullmatch(r"(\d+)([mhd])", window)
    if match is None:
        raise ValueError(f"{window} is no range in minutes, hours or days")
    return int(match[1]) * _MINUTES[match[2]]
