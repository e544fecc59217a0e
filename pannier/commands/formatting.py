"""How values are shown to people."""

import unicodedata

__all__ = ["clean", "format_bytes", "format_ratio", "format_seconds", "shorten"]

_KEPT_CONTROLS = frozenset("\n\t")
# Marks that turn the direction of what follows, so that it reads as something else.
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_STEERING = frozenset({"Cc", "Zl", "Zp"})
_MINUTE_SECONDS = 60


def clean(text: str) -> str:
    """Removes what would steer a terminal: documents and models are not trusted with that."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each
        for each in text
        if each in _KEPT_CONTROLS
        or (unicodedata.category(each) not in _STEERING and each not in _TURNING)
    )


def shorten(text: str, limit: int) -> str:
    """Brings a text onto one line of at most `limit` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def format_seconds(seconds: float) -> str:
    """Writes a duration with three digits or so: `0.42 ms`, `12.3 ms`, `1.25 s`, `2 min 5 s`."""
    if seconds >= _MINUTE_SECONDS:
        minutes, rest = divmod(round(seconds), _MINUTE_SECONDS)
        return f"{minutes} min {rest} s"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1e3
    if milliseconds == 0:
        return "0 ms"
    return f"{milliseconds:.2f} ms" if milliseconds < 10 else f"{milliseconds:.1f} ms"


def format_bytes(count: int) -> str:
    """Writes a size in binary units: `512 B`, `1.5 KiB`, `256 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def format_ratio(ratio: float) -> str:
    """Writes a ratio in [0, 1] as a percentage."""
    return f"{ratio * 100:.1f} %"
