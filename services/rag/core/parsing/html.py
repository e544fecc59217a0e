"""HTML: the text that a reader sees, without navigation and hidden parts."""

from dataclasses import dataclass

from selectolax.lexbor import LexborHTMLParser, LexborNode

from services.rag.core.parsing.cleaning import clean_text
from services.rag.core.parsing.hiding import WHITE, hides, inline_background
from services.rag.core.parsing.html_depth import limit_depth
from services.rag.core.parsing.html_text import TextWriter
from services.rag.core.parsing.parsed import BlockKind, Draft

__all__ = ["parse_html"]

_DROPPED_TAGS = """
audio base button canvas datalist dialog embed footer frame frameset head iframe input link map
math menu meta nav noscript object option param script search select style svg template
textarea title video
"""
_DROPPED = frozenset(_DROPPED_TAGS.split())
_DROPPED_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menu", "dialog"})
_BLOCK_TAGS = """
address article aside blockquote body caption center details div dl fieldset figcaption figure
form header hgroup hr html legend main ol p pre section summary table tbody tfoot thead ul
h1 h2 h3 h4 h5 h6
"""
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CELLS = frozenset({"td", "th"})
_LINES = frozenset({"li", "tr", "dt", "dd"})
_ITEMS = frozenset({"li", "td", "th", "dt", "dd"})
_VERBATIM = frozenset({"pre", "table"})
_MAIN = "main, [role=main]"
_STYLE_SHEETS = "style, link[rel~=stylesheet]"


def parse_html(source: str) -> Draft:
    """Extracts the visible text with its headings, lists, tables and preformatted blocks."""
    tree = LexborHTMLParser(limit_depth(source))
    title_node = tree.css_first("head > title")
    mains = tree.css(_MAIN)
    root = mains[0] if len(mains) == 1 else tree.body
    writer = TextWriter()
    if root is not None:
        # Style sheets are not read: a page that has some may have any background.
        background = "" if tree.css_matches(_STYLE_SHEETS) else WHITE
        _Walker(writer, background).walk(root)
    title = clean_text(_words(title_node)) if title_node else ""
    heading = next((mark.heading for mark in writer.marks if mark.level == 1), "")
    return Draft(writer.text(), title or heading, writer.marks)


@dataclass(frozen=True, slots=True)
class _Leaving:
    node: LexborNode
    background: str


class _Walker:
    """Visits a page in document order and writes what is visible.

    Args:
        writer: Where the text goes.
        background: Colour of the page where it is known, as `#rrggbb`, else empty.
    """

    def __init__(self, writer: TextWriter, background: str) -> None:
        self._writer = writer
        self._background = background
        self._item_depth = 0
        self._heading_depth = 0

    def walk(self, root: LexborNode) -> None:
        """Visits everything below `root`."""
        # An own stack, because pages nest deeper than Python calls may.
        stack: list[LexborNode | _Leaving] = [root]
        while stack:
            item = stack.pop()
            if isinstance(item, _Leaving):
                self._leave(item.node.tag or "")
                self._background = item.background
            elif item.is_text_node:
                self._writer.words(clean_text(item.text_content or ""))
            elif item.is_element_node and not self._is_hidden(item):
                self._enter(item, item.tag or "")
                stack.append(_Leaving(item, self._background))
                self._background = inline_background(item.attributes) or self._background
                stack.extend(reversed(list(item.iter(include_text=True))))

    def _enter(self, node: LexborNode, tag: str) -> None:
        writer = self._writer
        if tag == "br":
            writer.line_break()
        elif tag in _HEADINGS:
            writer.paragraph_break()
            # A heading inside a heading would only repeat its words.
            if not self._heading_depth:
                writer.mark(BlockKind.HEADING, clean_text(_words(node)), _HEADINGS[tag])
        elif tag in _VERBATIM:
            writer.paragraph_break()
            writer.mark(BlockKind.VERBATIM)
            if tag == "pre":
                writer.enter_verbatim()
        elif tag in _LINES:
            writer.line_break()
            if tag == "li":
                writer.mark(BlockKind.ITEM)
                writer.words("- ")
        elif tag in _CELLS and not writer.at_line_start():
            writer.words(" | ")
        elif tag in _BLOCKS and not self._item_depth:
            writer.paragraph_break()
            writer.mark(BlockKind.PARAGRAPH)
        self._item_depth += tag in _ITEMS
        self._heading_depth += tag in _HEADINGS

    def _leave(self, tag: str) -> None:
        self._item_depth -= tag in _ITEMS
        self._heading_depth -= tag in _HEADINGS
        if tag == "pre":
            self._writer.leave_verbatim()
        if tag in _CELLS:
            return
        if tag in _LINES or (tag in _BLOCKS and self._item_depth):
            self._writer.line_break()
        elif tag in _BLOCKS:
            self._writer.paragraph_break()
            self._writer.mark(BlockKind.PARAGRAPH)

    def _is_hidden(self, node: LexborNode) -> bool:
        attributes = node.attributes
        return (
            node.tag in _DROPPED
            or (attributes.get("role") or "") in _DROPPED_ROLES
            or hides(attributes, background=self._background)
        )


def _words(node: LexborNode) -> str:
    return " ".join(node.text(separator="").split())
