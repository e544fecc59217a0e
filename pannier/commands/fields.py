"""Fields of messages as people read them."""

import time
from typing import Any

from pannier.commands.formatting import format_seconds

__all__ = ["shorten_digest", "show_duration", "show_enum", "show_until"]

_MINUTE_SECONDS = 60
_DIGEST_CHARACTERS = 12


def show_duration(message: Any, name: str) -> str:
    """Writes a duration; `-` where there is none."""
    if not message.HasField(name):
        return "-"
    return format_seconds(getattr(message, name).ToNanoseconds() / 1e9)


def show_enum(enum: Any, number: int) -> str:
    """Writes an enum's value without its prefix; newer ones by number."""
    known = enum.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        return str(number)
    prefix = enum.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name).removeprefix(prefix).lower().replace("_", " ")


def show_until(message: Any, name: str) -> str:
    """Writes how far off a time is, by the clock here; `-` where there is none."""
    if not message.HasField(name):
        return "-"
    seconds = getattr(message, name).ToNanoseconds() / 1e9 - time.time()
    if seconds <= 0:
        return "now"
    return f"in {seconds:.0f} s" if seconds < _MINUTE_SECONDS else f"in {format_seconds(seconds)}"


def shorten_digest(digest: str) -> str:
    """Writes as much of a digest as Ollama shows; `-` where there is none."""
    return digest[:_DIGEST_CHARACTERS] or "-"
