"""The metadata at the head of a GGUF file: scalars and texts; lists are passed over."""

import struct
from typing import Any

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


class GgufError(ValueError):
    """A file that is no GGUF file, or ends too early."""


def read_metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata.

    Args:
        data: The file, or as much of its beginning as holds the metadata.

    Raises:
        GgufError: It is no GGUF file, or shorter than it says.
    """
    if data[:4] != _MAGIC:
        raise GgufError("invalid file magic")
    try:
        return _Reader(data).metadata()
    except (struct.error, KeyError) as error:
        raise GgufError("unexpected EOF") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = len(_MAGIC)

    def metadata(self) -> dict[str, Any]:
        self._scalar("<I")
        self._scalar("<Q")
        found: dict[str, Any] = {}
        for _ in range(self._scalar("<Q")):
            key = self._string()
            found[key] = self._value(self._scalar("<I"))
        return found

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        entry, count = self._scalar("<I"), self._scalar("<Q")
        if entry in _SCALARS:
            self._at += struct.calcsize(_SCALARS[entry]) * count
        else:
            for _ in range(count):
                self._value(entry)
        return None

    def _string(self) -> str:
        length = self._scalar("<Q")
        if self._at + length > len(self._data):
            raise struct.error
        self._at += length
        return self._data[self._at - length : self._at].decode(errors="replace")

    def _scalar(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self._data, self._at)
        self._at += struct.calcsize(layout)
        return value
