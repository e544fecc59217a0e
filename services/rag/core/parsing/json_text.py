"""JSON and JSON Lines, as lines that a reader can follow.

Every value stands on a line of its own behind its path, such as `server.port: 8080`. An object in
an array is a record: a block of its own, headed by its path, with paths below it. The keys at the
top are headings.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice

from services.rag.core.document_errors import DocumentLimitExceeded
from services.rag.core.parsing.cleaning import clean_text
from services.rag.core.parsing.limits import ParseLimits
from services.rag.core.parsing.parsed import BlockKind, Draft, shorten_heading
from services.rag.core.parsing.writing import BlockWriter

__all__ = ["is_json", "is_json_lines", "parse_json", "parse_json_lines"]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{},]', re.S)
_PROBED_LINES = 20
_MAX_INLINE_CHARACTERS = 200
_MAX_NAMED_WARNINGS = 3
_TITLE_KEYS = ("title", "name")


def is_json(text: str) -> bool:
    """Returns whether a text is one JSON object or array."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        # Parsing says so with figures.
        return True
    return True


def is_json_lines(text: str) -> bool:
    """Returns whether a text starts with lines of one JSON object or array each, or most are."""
    lines = [line for _, line in islice(_lines(text), _PROBED_LINES)]
    if len(lines) < 2 or not is_json(lines[0]):
        return False
    return 2 * sum(map(is_json, lines)) > len(lines)


def parse_json(text: str, *, limits: ParseLimits) -> Draft:
    """Writes a JSON document as lines of paths and values.

    Raises:
        DocumentLimitExceeded: It nests too deeply or holds too many values.
        ValueError: It is no JSON.
    """
    _check_size(text, limits)
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(text, limits) from None
    writer = _Writer(limits)
    if isinstance(value, dict):
        writer.write_top(value)
    else:
        writer.write_array(value, "", 1)
    return writer.draft(_title(value))


def parse_json_lines(text: str, *, limits: ParseLimits) -> Draft:
    """Writes each line as a record; a line that is no JSON stays as it is.

    Raises:
        DocumentLimitExceeded: A line nests too deeply, or they hold too many values.
    """
    _check_size(text, limits)
    writer = _Writer(limits)
    broken: list[int] = []
    for number, line in _lines(text):
        try:
            value = json.loads(line)
        except RecursionError:
            raise _too_deep(line, limits) from None
        except ValueError:
            broken.append(number)
            writer.write_record(line, "", 1)
        else:
            writer.write_record(value, "", 1)
    named = ", ".join(map(str, broken[:_MAX_NAMED_WARNINGS]))
    warning = f"{len(broken)} lines are no JSON and were kept as they are, the first: {named}."
    return writer.draft("", (warning,) if broken else ())


class _Writer:
    """Writes values with their paths.

    Args:
        limits: Bounds on depth and on the text.
    """

    def __init__(self, limits: ParseLimits) -> None:
        self._limits = limits
        self._writer = BlockWriter(limits)

    def draft(self, title: str, warnings: tuple[str, ...] = ()) -> Draft:
        """Returns what was written."""
        return Draft(self._writer.text(), title, self._writer.marks, warnings=warnings)

    def write_top(self, value: dict[str, object]) -> None:
        """Writes the outermost object: its plain values first, then a section for each key."""
        nested = [key for key, each in value.items() if _is_nested(each)]
        self._writer.begin(BlockKind.VERBATIM)
        for key, each in value.items():
            if not _is_nested(each):
                self._write_line(_name(key), each)
        for key in nested:
            self._writer.begin(BlockKind.VERBATIM, _name(key), 1)
            self._write(value[key], _name(key), 2)

    def write_array(self, values: list[object], path: str, depth: int) -> None:
        """Writes an array with each object or array in it as a record."""
        self._limits.check("nesting_depth", depth)
        for index, each in enumerate(values):
            if _is_nested(each):
                self.write_record(each, f"{path}[{index}]", depth + 1)
            else:
                self._write_line(f"{path}[{index}]", each)

    def write_record(self, value: object, path: str, depth: int) -> None:
        """Writes a value as a block of its own."""
        self._writer.begin(BlockKind.VERBATIM)
        if path and isinstance(value, dict):
            self._writer.line(path)
            path = ""
        self._write(value, path, depth)
        self._writer.begin(BlockKind.VERBATIM)

    def _write(self, value: object, path: str, depth: int) -> None:
        self._limits.check("nesting_depth", depth)
        if isinstance(value, dict) and value:
            for key, each in value.items():
                name = f"{path}.{_name(key)}" if path else _name(key)
                self._write(each, name, depth + 1)
        elif isinstance(value, list) and _is_nested(value):
            self.write_array(value, path, depth)
        else:
            self._write_line(path, value)

    def _write_line(self, path: str, value: object) -> None:
        words = _words(value)
        self._writer.line(f"{path}: {words}" if path else words)


def _is_nested(value: object) -> bool:
    """Returns whether a value needs lines of its own."""
    if isinstance(value, dict):
        return bool(value)
    if not isinstance(value, list):
        return False
    if any(isinstance(each, dict | list) for each in value):
        return True
    return sum(len(str(each)) + 2 for each in value) > _MAX_INLINE_CHARACTERS


def _words(value: object) -> str:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return ", ".join(_words(each) for each in value) or "[]"
    if isinstance(value, dict):
        return "{}"
    return json.dumps(value)


def _name(key: str) -> str:
    return shorten_heading(clean_text(key)) or '""'


def _title(value: object) -> str:
    if isinstance(value, dict):
        for key in _TITLE_KEYS:
            if isinstance(found := value.get(key), str):
                return found
    return ""


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start, number = 0, 1
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end].strip()
        if line:
            yield number, line
        start, number = end + 1, number + 1


def _check_size(text: str, limits: ParseLimits) -> None:
    # An upper bound that is cheap to have; the exact count only where it matters.
    if sum(map(text.count, ",[{")) > limits.value_count:
        count = sum(1 for token in _TOKEN.finditer(text) if token[0] in ",[{")
        limits.check("value_count", count)


def _too_deep(text: str, limits: ParseLimits) -> DocumentLimitExceeded:
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        deepest = max(deepest, depth)
    return DocumentLimitExceeded(
        "nesting_depth", allowed=limits.nesting_depth, actual=max(deepest, depth)
    )
