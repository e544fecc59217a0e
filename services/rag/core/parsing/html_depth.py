"""Bounding how deeply a page's elements nest.

The work of an HTML parser grows with the square of the depth, so a few hundred kilobytes of opening
tags would keep it busy for minutes. Browsers bound the depth too.
"""

import re
from collections.abc import Iterator

__all__ = ["MAX_DEPTH", "limit_depth"]

MAX_DEPTH = 500

_TAG = re.compile(r"<(?P<slash>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)\b[^<>]*>")
# Elements that never nest in themselves: empty ones, those that end where the next one starts,
# and those whose content is not markup.
_FLAT_TAGS = """
area base br col hr img input link meta param source track wbr
dd dt li option p tbody td tfoot th thead tr
iframe noembed noframes script style textarea title xmp
"""
_FLAT = frozenset(_FLAT_TAGS.split())


def limit_depth(source: str) -> str:
    """Returns a page without the tags that nest deeper than `MAX_DEPTH`; all text stays."""
    parts: list[str] = []
    position = 0
    for tag in _excess_tags(source):
        parts.append(source[position : tag.start()])
        position = tag.end()
    if not parts:
        return source
    parts.append(source[position:])
    return "".join(parts)


def _excess_tags(source: str) -> Iterator[re.Match[str]]:
    depth = excess = 0
    for tag in _TAG.finditer(source):
        if tag["name"].lower() in _FLAT:
            continue
        if tag["slash"]:
            if excess:
                excess -= 1
                yield tag
            else:
                depth = max(0, depth - 1)
        elif depth >= MAX_DEPTH:
            excess += 1
            yield tag
        else:
            depth += 1
