"""What goes to a model as data, and reading what small models make of a wish for JSON.

However it is told, a model may put its JSON into a code block, talk before or after it, think aloud
first, or stop in the middle.
"""

import json
import re
from hashlib import blake2b

from services.rag.core.injection import clean

__all__ = ["fenced", "json_values", "plain_line", "string_pieces"]

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_OPENING = re.compile(r"[{\[]")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?')
_ITEM = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,2}[.)])[ \t]+(\S.*)$", re.MULTILINE)
_LINE_MARK = re.compile(r"^(?:[-*\u2022]|\d{1,2}[.)])\s+")
_QUOTES = "\"'`\u201c\u201d\u201e\u00ab\u00bb"
# Where a model has run away there is nothing of use behind this.
_MOST_CHARACTERS = 20_000
_MOST_OPENINGS = 50


def fenced(text: str) -> tuple[str, str]:
    """Puts a text between two lines that it cannot contain.

    The line is made from the text, so that the same text always makes the same prompt, which can
    then be found in a cache.

    Returns:
        The line, and the text between two of it.
    """
    visible = clean(text).strip()
    fence = f"==={blake2b(visible.encode(), digest_size=8).hexdigest()}==="
    return fence, f"{fence}\n{visible}\n{fence}"


def json_values(output: str) -> list[object]:
    """Returns the objects and lists in an output, whatever stands around them."""
    text = _visible(output)
    decoder = json.JSONDecoder()
    found: list[object] = []
    position = 0
    for _ in range(_MOST_OPENINGS):
        opening = _OPENING.search(text, position)
        if opening is None:
            break
        try:
            value, position = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            position = opening.end()
        else:
            found.append(value)
    return found


def string_pieces(output: str) -> list[str]:
    """Returns the complete strings of JSON that broke off, or else the items of a list."""
    text = _visible(output)
    if '"' in text and _OPENING.search(text):
        return [_unescaped(each) for each, colon in _STRING.findall(text) if not colon]
    return _ITEM.findall(text)


def plain_line(text: str) -> str:
    """Returns a text in one line, without list marks, quotes around it and invisible characters."""
    line = _LINE_MARK.sub("", " ".join(clean(text).split()))
    inner = line[1:-1]
    quoted = len(line) > 1 and line[0] in _QUOTES and line[-1] in _QUOTES
    return inner.strip() if quoted and not any(each in inner for each in _QUOTES) else line


def _visible(output: str) -> str:
    return _THOUGHTS.sub("", output[:_MOST_CHARACTERS])


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
