"""Markdown, through the line numbers of the CommonMark block parser."""

import re
from collections.abc import Iterator
from itertools import accumulate

from markdown_it import MarkdownIt
from markdown_it.token import Token

from services.rag.core.parsing.hiding import drop_hidden_markup
from services.rag.core.parsing.parsed import BlockKind, Draft, Mark

__all__ = ["parse_markdown"]

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?P<body>.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_FRONT_TITLE = re.compile(r"^title[ \t]*:(?P<title>.*)$", re.M)
_MAX_MARKUP_CHARACTERS = 1000
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_EMPHASIS = re.compile(r"[`*]+|(?<!\w)_+(?=\w)|(?<=\w)_+(?!\w)|<[^>]+>")

_KINDS = {
    "paragraph_open": BlockKind.PARAGRAPH,
    "blockquote_open": BlockKind.PARAGRAPH,
    "html_block": BlockKind.PARAGRAPH,
    "list_item_open": BlockKind.ITEM,
    "fence": BlockKind.VERBATIM,
    "code_block": BlockKind.VERBATIM,
    "table_open": BlockKind.VERBATIM,
}


def parse_markdown(source: str) -> Draft:
    """Finds the blocks and headings of a Markdown document, without what its HTML hides."""
    text = drop_hidden_markup(source)
    front = _FRONT_MATTER.match(text)
    title = _front_title(front["body"] or "") if front else ""
    marks = list(_marks(text, front.end() if front else 0))
    first_heading = next((mark.heading for mark in marks if mark.level == 1), "")
    return Draft(text, title or first_heading, marks)


def _marks(text: str, body_start: int) -> Iterator[Mark]:
    if body_start:
        yield Mark(0, BlockKind.VERBATIM)
        yield Mark(body_start, BlockKind.PARAGRAPH)
    body = text[body_start:]
    starts = list(accumulate((len(line) + 1 for line in body.split("\n")), initial=body_start))
    # Only blocks matter here, and inline parsing takes most of the time.
    tokens = MarkdownIt("commonmark").enable("table").disable("inline").parse(body)
    for index, token in enumerate(tokens):
        if token.map is None:
            continue
        start = starts[token.map[0]]
        if token.type == "heading_open":
            words = _plain_words(tokens[index + 1].content)
            # A heading inside a list or a quotation opens no section.
            yield Mark(start, BlockKind.HEADING, words, _level(token) if token.level == 0 else 0)
        elif token.type in _KINDS:
            yield Mark(start, _KINDS[token.type])


def _level(heading: Token) -> int:
    return int(heading.tag.removeprefix("h"))


def _front_title(body: str) -> str:
    found = _FRONT_TITLE.search(body)
    return found["title"].strip().strip("\"'") if found else ""


def _plain_words(markup: str) -> str:
    return _EMPHASIS.sub("", _LINK.sub(r"\1", markup[:_MAX_MARKUP_CHARACTERS])).strip()
