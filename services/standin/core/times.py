"""Durations and timestamps as a Go program reads and writes them."""

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

FOREVER_SECONDS = (2**63 - 1) / 1e9
"""The longest duration of Go, about 292 years; stands for a model that is never unloaded."""

_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_UNSUPPORTED = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Read a Go duration such as `300ms`, `10m` or `-1h30m`.

    Returns:
        Seconds; negative for a negative duration.

    Raises:
        ValueError: With Go's text, where `text` is not a duration.
    """
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in {"-", "+"} else text
    if rest == "0":
        return 0.0
    seconds = 0.0
    position = 0
    while match := _TERM.match(rest, position):
        seconds += float(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    if not rest or position != len(rest):
        if re.fullmatch(r"\d+\.?\d*|\.\d+", rest[position:]):
            raise ValueError(f'time: missing unit in duration "{text}"')
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * seconds


def parse_keep_alive(value: Any) -> float:
    """Read a `keep_alive`: a number of seconds or a Go duration; negative means for ever.

    Returns:
        Seconds, 0 to `FOREVER_SECONDS`.

    Raises:
        ValueError: With the server's text, where the value is neither.
    """
    if type(value) in _UNSUPPORTED:
        raise ValueError(f"Unsupported type: '{_UNSUPPORTED[type(value)]}'")
    seconds = parse_duration(value) if isinstance(value, str) else float(value)
    return FOREVER_SECONDS if seconds < 0 else min(seconds, FOREVER_SECONDS)


def nanoseconds(seconds: float) -> int:
    """Convert a duration to the integer nanoseconds of the API."""
    return math.floor(seconds * 1e9)


def format_utc(epoch_seconds: float) -> str:
    """Format an instant as RFC 3339 in UTC, with up to nine digits and no trailing zeros."""
    whole = math.floor(epoch_seconds)
    fraction = f"{math.floor((epoch_seconds - whole) * 1e9):09d}".rstrip("0")
    return f"{_format_second(whole)}.{fraction}Z" if fraction else f"{_format_second(whole)}Z"


@lru_cache(maxsize=4)
def _format_second(epoch_seconds: int) -> str:
    return datetime.fromtimestamp(epoch_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def format_local(epoch_seconds: float) -> str:
    """Format an instant as RFC 3339 in the server's time zone."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=epoch_seconds)
    text = moment.astimezone().isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
