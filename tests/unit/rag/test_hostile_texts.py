"""Texts made to be slow: a moment each while the work grows with the size, else minutes."""

import pytest

from services.rag.core.analysis import analyse_document
from services.rag.core.chunking import chunk_document
from services.rag.core.parsing import parse_document

SIZE = 60_000

HOSTILE = {
    "one line of sentences": "A sentence without a line break. 9999999999 and so on ",
    "one word": "x",
    "dots": ".",
    "exclamations": "!\u3002",
    "brackets": "[",
    "opening comments": "<!-- -->",
    "unclosed comments": "<!--",
    "angle brackets": "<",
    "spaces": " ",
    "spaces and bars": "| ",
    "grouped numbers": "1,000,",
    "backticks": "`",
    "fences": "```\n",
    "headings": "# h\n",
    "bracketed heading": "# [",
    "quotations": "> ",
    "list items": "- a\n",
    "nested lists": "- ",
    "rules": "---\n",
    "underlines": "===\n\n",
    "capitals": "NAME ",
    "combining marks": "\u0301",
    "joiners": "\u200d",
    "markers": "[1]",
    "quotes": '"',
    "parentheses": "(",
    "nested tags": "<div><h1>",
    "paragraph tags": "<p>a",
    "abbreviations": "e.g. ",
}


@pytest.mark.timeout(15)
@pytest.mark.parametrize("file_name", ["a.md", "a.txt", "a.html", "a.py"])
@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_takes_more_than_its_size_in_work(name: str, file_name: str) -> None:
    fragment = HOSTILE[name]
    source = f"start {fragment * (SIZE // len(fragment))} end"
    document = parse_document(source.encode(), file_name=file_name)
    for chunk in chunk_document(document):
        analyse_document(chunk.embedding_text)
