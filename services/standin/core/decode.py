"""Requests as Go's encoding/json reads them: names without case, unknown ignored, typed.

The error texts are those a client of the real server sees.
"""

import json
import re
from typing import Any, Never

_KINDS = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_GO_TYPES = {bool: "bool", str: "string", list: "[]interface {}", dict: "map[string]interface {}"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_EXPECTATIONS = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Invalid control character", "in string literal"),
    ("Invalid \\", "in string escape code"),
)


class DecodeError(ValueError):
    """A request body that is not what the endpoint takes; its text is the reply's."""


def _refuse_constant(_: str) -> Never:
    raise DecodeError("invalid character 'N' looking for beginning of value")


def decode_object(body: bytes, struct: str) -> dict[str, Any]:
    """Read a request's JSON object; what follows it is ignored.

    Args:
        body: The request body.
        struct: The Go type's name for the error texts, such as `GenerateRequest`.

    Returns:
        The fields by lower-case name; of duplicates the last.

    Raises:
        DecodeError: The body is empty, malformed or no object.
    """
    text = body.decode("utf-8", errors="replace").lstrip(" \t\r\n")
    if not text:
        raise DecodeError("missing request body")
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    try:
        value, _ = decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        raise DecodeError(_syntax_text(text, error)) from error
    if not isinstance(value, dict):
        raise DecodeError(
            f"json: cannot unmarshal {_kind(value)} into Go value of type api.{struct}"
        )
    return {name.lower(): field for name, field in value.items()}


def _syntax_text(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos :].strip()
    if not rest or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    for message, expectation in _EXPECTATIONS:
        if error.msg.startswith(message):
            return f"invalid character '{rest[0]}' {expectation}"
    return f"invalid character '{rest[0]}' looking for beginning of value"


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "null")


class Fields:
    """Typed access to a decoded object.

    Args:
        values: Fields by lower-case name.
        struct: The Go type's name for the error texts.
    """

    def __init__(self, values: dict[str, Any], struct: str) -> None:
        self._values = values
        self._struct = struct

    def text(self, name: str, default: str = "") -> str:
        """A string; null and absent give the default. Unpaired surrogates become U+FFFD."""
        value = self._typed(name, str)
        return default if value is None else clean_text(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """A boolean; null and absent give the default."""
        value = self._typed(name, bool)
        return default if value is None else bool(value)

    def items(self, name: str) -> list[Any]:
        """A list; null and absent give an empty one."""
        return self._typed(name, list) or []

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; null and absent give an empty one."""
        return self._typed(name, dict) or {}

    def number(self, name: str) -> int | None:
        """An integer, or None where null or absent."""
        value = self._values.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self._mismatch(name, value, "int")

    def raw(self, name: str) -> Any:
        """The field as it came; None where null or absent."""
        return self._values.get(name)

    def _typed(self, name: str, wanted: type) -> Any:
        value = self._values.get(name)
        if value is None or isinstance(value, wanted):
            return value
        raise self._mismatch(name, value, _GO_TYPES[wanted])

    def _mismatch(self, name: str, value: Any, go_type: str) -> DecodeError:
        return DecodeError(
            f"json: cannot unmarshal {_kind(value)} into Go struct field "
            f"{self._struct}.{name} of type {go_type}"
        )


def clean_text(text: str) -> str:
    """Replace unpaired surrogates, which no UTF-8 text can hold, as Go does."""
    return _SURROGATE.sub("\ufffd", text)
