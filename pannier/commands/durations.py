"""Durations on the command line: `60s`, `500ms`, `2m`, `1h`, or a number of seconds."""

import re
from collections.abc import Callable

import typer
from google.protobuf.duration_pb2 import Duration

__all__ = ["duration", "seconds_within"]

_WRITTEN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_within(shortest: float, longest: float) -> Callable[[str], float]:
    """Makes what reads an option's value as seconds.

    Args:
        shortest: Least seconds that are accepted.
        longest: Most seconds that are accepted.

    Returns:
        Reads a value; raises typer.BadParameter where it is no duration or out of range.
    """

    def parse(value: str) -> float:
        written = _WRITTEN.fullmatch(value)
        seconds = float(written[1]) * _UNIT_SECONDS[written[2] or "s"] if written else -1.0
        if not shortest <= seconds <= longest:
            raise typer.BadParameter(
                f"must be from {shortest:g} to {longest:g} seconds, written as 500ms, 60s, 2m or 1h"
            )
        return seconds

    return parse


def duration(seconds: float) -> Duration:
    """Writes seconds as a message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
