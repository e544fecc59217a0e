"""Writes YAML as a person would: blocks, plain words, and quotes only where they are needed."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Value", "to_yaml"]

Value = str | int | float | bool | Mapping[str, "Value"] | Sequence["Value"]
"""What can be written."""

# Words that YAML takes for something else than text, and what begins or holds its signs.
_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off|y|n)$)[A-Za-z_/][\w ./()-]*(?<! )", re.I)
_DURATION = re.compile(r"\d+[smhd]")
_INDENT = "  "


def to_yaml(value: Mapping[str, Value], *, header: str = "") -> str:
    """Returns a document.

    Args:
        value: What it holds; keys stand in the order given.
        header: A comment before it, without its signs.
    """
    comment = [f"# {line}".rstrip() for line in header.splitlines()]
    return "\n".join([*comment, *_block(value)]) + "\n"


def _block(value: Value) -> Iterator[str]:
    """Yields the lines of a mapping or list that has something in it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            lines = list(_block(item)) if _is_block(item) else [_scalar(item)]
            yield f"- {lines[0]}"
            yield from (_INDENT + line for line in lines[1:])


def _entry(key: str, item: Value) -> Iterator[str]:
    if isinstance(item, str) and "\n" in item:
        yield f"{key} |-"
        yield from (_INDENT + line for line in item.splitlines())
    elif _is_block(item):
        yield key
        yield from (_INDENT + line for line in _block(item))
    else:
        yield f"{key} {_scalar(item)}"


def _is_block(value: Value) -> bool:
    return bool(value) and isinstance(value, Mapping | Sequence) and not isinstance(value, str)


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) or _DURATION.fullmatch(value):
            return value
        if '"' in value:
            return "'" + value.replace("'", "''") + "'"
    # JSON is YAML, empty lists and mappings included.
    return json.dumps(value, ensure_ascii=False)
