"""What HTML hides from its readers, in pages and in the HTML that stands in Markdown."""

import re
from collections.abc import Mapping
from html import unescape

__all__ = ["WHITE", "drop_hidden_markup", "hides", "inline_background", "inline_color"]

_HIDING_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|content-visibility\s*:\s*hidden"
    r"|(?:font-size|opacity|max-height|max-width|zoom)\s*:\s*(?:0+(?:\.0*)?|\.0+)\s*(?:[a-z]+|%)?"
    r"\s*(?:!|;|\Z)"
    r"|color\s*:\s*transparent|(?:text-indent|left|top|margin-left)\s*:\s*-\d{3,}"
    r"|clip-path\s*:\s*inset\(\s*(?:50|100)%|clip\s*:\s*rect\(\s*[01](?:px)?[\s,]+[01](?:px)?[\s,]"
    r"|transform\s*:\s*scale\(\s*0\s*\)",
    re.IGNORECASE,
)
_STYLE_COMMENT = re.compile(r"/\*[^*]*(?:\*(?!/)[^*]*)*(?:\*/)?")
_COLOR = re.compile(r"(?:^|;)\s*color\s*:\s*(?P<color>[^;!]+)", re.IGNORECASE)
_BACKGROUND = re.compile(r"(?:^|;)\s*background(?:-color)?\s*:\s*(?P<color>[^;!]+)", re.IGNORECASE)
_SHORT_HEX = re.compile(r"#([0-9a-f])([0-9a-f])([0-9a-f])\Z")
_RGB = re.compile(
    r"rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})\s*(?:[,/]\s*1(?:\.0+)?\s*)?\)\Z"
)
_NAMED_COLORS = {
    "white": "#ffffff",
    "black": "#000000",
    "red": "#ff0000",
    "green": "#008000",
    "blue": "#0000ff",
    "yellow": "#ffff00",
    "gray": "#808080",
    "grey": "#808080",
    "silver": "#c0c0c0",
    "snow": "#fffafa",
}
# Colours as good as white on white.
_NEARLY_WHITE = re.compile(r"#(?:f[c-f]){3}\Z")
WHITE = "#ffffff"

# In Markdown only what is never text: `List<object>` is often written without backticks.
_DROPPED_WITH_CONTENT = frozenset({"iframe", "noscript", "script", "style", "template", "title"})
_VOID_TAGS = "area base br col embed hr img input link meta param source track wbr"
_VOID = frozenset(_VOID_TAGS.split())
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})")
_ATTRIBUTES = r"(?:[^<>\"']|\"[^\"]*+\"|'[^']*+')*+"
_MARKUP = re.compile(
    r"(?P<comment><!--)"
    r"|(?P<fence>^ {0,3}(?:`{3,}|~{3,})[^\n]*$)"
    r"|(?P<code>`[^`\n]+`)"
    r"|(?P<reference>^ {0,3}\[(?://|comment|hidden|_|\#)\]:[^\n]*$)"
    rf"|<(?P<name>[a-z][a-z0-9-]*)(?P<attributes>(?:[\s/]{_ATTRIBUTES})?)>",
    re.IGNORECASE | re.MULTILINE,
)
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_HIDDEN_WORD = re.compile(r"(?:^|[\s/])hidden(?=[\s/=]|$)", re.IGNORECASE)
_ATTRIBUTE = re.compile(
    r"(?P<name>style|aria-hidden)\s*=\s*(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<bare>[^\s\"']+))",
    re.IGNORECASE,
)


def hides(attributes: Mapping[str, str | None], *, background: str) -> bool:
    """Returns whether an element with these attributes is not seen.

    Args:
        attributes: By their names in lower case.
        background: Colour behind the element where it is known, as `#rrggbb`, else empty.
    """
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    style = attributes.get("style") or ""
    if style and _HIDING_STYLE.search(_STYLE_COMMENT.sub("", style)):
        return True
    color = inline_color(attributes)
    behind = inline_background(attributes) or background
    return bool(color and behind) and _looks_the_same(color, behind)


def inline_color(attributes: Mapping[str, str | None]) -> str:
    """Returns the colour of an element's text as `#rrggbb`; empty where it sets none."""
    found = _COLOR.search(_STYLE_COMMENT.sub("", attributes.get("style") or ""))
    return _color(found["color"] if found else attributes.get("color") or "")


def inline_background(attributes: Mapping[str, str | None]) -> str:
    """Returns the colour behind an element's text; empty where it sets none that is plain."""
    found = _BACKGROUND.search(_STYLE_COMMENT.sub("", attributes.get("style") or ""))
    return _color(found["color"] if found else attributes.get("bgcolor") or "")


def _color(words: str) -> str:
    name = words.strip().lower()
    short = _SHORT_HEX.match(name)
    if short:
        return "#" + "".join(2 * digit for digit in short.groups())
    rgb = _RGB.match(name)
    if rgb:
        return "#" + "".join(f"{min(int(each), 255):02x}" for each in rgb.groups())
    return _NAMED_COLORS.get(name, name)


def _looks_the_same(color: str, behind: str) -> bool:
    return color == behind or bool(_NEARLY_WHITE.match(color) and _NEARLY_WHITE.match(behind))


def drop_hidden_markup(text: str) -> str:
    """Returns a Markdown text without comments and hidden HTML elements; code stays as it is.

    An element or comment that is not closed ends with its paragraph.
    """
    if "<" not in text and "]:" not in text:
        return text
    return _MarkdownCleaner(text).clean()


class _MarkdownCleaner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._lower = text.lower() if len(text.lower()) == len(text) else text
        self._last_ends: dict[str, int] = {}

    def clean(self) -> str:
        text, parts, kept, position = self._text, [], 0, 0
        while found := _MARKUP.search(text, position):
            start, position = found.span()
            if found["fence"]:
                position = self._fence_end(found)
                continue
            if found["code"]:
                continue
            end = self._hidden_end(found)
            if end > start:
                parts.append(text[kept:start])
                kept = position = end
        if not parts:
            return text
        return "".join((*parts, text[kept:]))

    def _hidden_end(self, found: re.Match[str]) -> int:
        """Returns where what is hidden ends; its start if it is not hidden."""
        if found["comment"]:
            if self._last_end("-->") < found.end():
                return self._paragraph_end(found.end())
            return self._text.find("-->", found.end()) + len("-->")
        if found["reference"]:
            return found.end()
        name = found["name"].lower()
        if name not in _DROPPED_WITH_CONTENT and not hides(
            _attributes(found["attributes"]), background=WHITE
        ):
            return found.start()
        if name in _VOID or found["attributes"].endswith("/"):
            return found.end()
        return self._element_end(name, found.end())

    def _element_end(self, name: str, position: int) -> int:
        last = self._last_end(f"</{name}")
        if last < position:
            return self._paragraph_end(position)
        tag = re.compile(rf"<(?P<slash>/?){name}(?=[\s/>])", re.IGNORECASE)
        depth = 1
        for found in tag.finditer(self._text, position):
            depth += -1 if found["slash"] else 1
            if not depth:
                return self._tag_end(found.end())
        return self._tag_end(last)

    def _tag_end(self, position: int) -> int:
        return self._text.find(">", position) + 1 or len(self._text)

    def _paragraph_end(self, position: int) -> int:
        end = self._text.find("\n\n", position)
        return len(self._text) if end < 0 else end

    def _last_end(self, ending: str) -> int:
        if ending not in self._last_ends:
            self._last_ends[ending] = self._lower.rfind(ending)
        return self._last_ends[ending]

    def _fence_end(self, opening: re.Match[str]) -> int:
        """Returns where the code ends that a fence opens."""
        fence = _FENCE.match(opening[0])
        if fence is None or (fence["fence"][0] == "`" and "`" in opening[0][fence.end() :]):
            return opening.end()
        mark = re.escape(fence["fence"])
        closing = re.compile(rf"^ {{0,3}}{mark}{re.escape(fence['fence'][0])}*[ \t]*$", re.M)
        found = closing.search(self._text, opening.end())
        return found.end() if found else len(self._text)


def _attributes(source: str) -> dict[str, str | None]:
    attributes: dict[str, str | None] = {
        found["name"].lower(): unescape(found["double"] or found["single"] or found["bare"] or "")
        for found in _ATTRIBUTE.finditer(source)
    }
    if _HIDDEN_WORD.search(_QUOTED.sub("", source)):
        attributes["hidden"] = ""
    return attributes
