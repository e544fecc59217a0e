"""Rules that hold for whatever is parsed."""

import json
from contextlib import suppress

import pytest
from fpdf import FPDF
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rag.core.document_errors import DocumentRejected
from services.rag.core.parsing import ParsedDocument, parse_document

NAMES = ["a.txt", "a.md", "a.html", "a.py", "a.json", "a.jsonl", "a.csv", "a.tsv", "a.js", "a.rb"]
FRAGMENTS = (
    "word", " ", "\n", "\n\n", "# h", "- i", "{", "}", "[1]", "(", ")", '"', "'", "`", "```", ",",
    ";", "\t", "|", ":", "def f():", "class A {", "int f(a) {", "// c", "/*", "*/", "<p>", "</p>",
    "<b hidden>", "</b>", "<!--", "-->", "<pre>", "\u200b", "\u00e9", "\U0001f600",
    "\\", "=", "---",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def check(document: ParsedDocument) -> None:
    text, position = document.text, 0
    assert document.sections
    for section in document.sections:
        assert section.blocks
        for block in section.blocks:
            assert position <= block.char_start < block.char_end <= len(text)
            assert not text[position : block.char_start].strip()
            assert text[block.char_start : block.char_end].strip()
            position = block.char_end
    assert not text[position:].strip()
    if document.pages:
        assert document.pages[0].char_start == 0
        assert document.pages[-1].char_end == len(text)
    for before, after in zip(document.pages, document.pages[1:], strict=False):
        assert before.char_end == after.char_start
        assert before.number + 1 == after.number


@settings(max_examples=150)
@given(st.sampled_from(NAMES), st.lists(st.sampled_from(FRAGMENTS), max_size=40))
def test_blocks_are_in_order_and_hold_all_that_is_visible(name: str, parts: list[str]) -> None:
    with suppress(DocumentRejected):
        check(parse_document("".join(parts).encode(), file_name=name))


@settings(max_examples=60)
@given(JSON)
def test_json_of_any_shape_is_text_with_blocks(value: object) -> None:
    with suppress(DocumentRejected):
        check(parse_document(json.dumps(value).encode(), file_name="a.json"))


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(st.sampled_from(["word", "- item", "Long\nlines-\nhere", "x."]), max_size=6),
        min_size=1,
        max_size=5,
    )
)
def test_pages_cover_the_text(pages: list[list[str]]) -> None:
    pdf = FPDF()
    for paragraphs in pages:
        pdf.add_page()
        pdf.set_font("Helvetica", size=11)
        for words in paragraphs:
            pdf.multi_cell(0, 6, words, new_x="LMARGIN", new_y="NEXT")
    try:
        document = parse_document(bytes(pdf.output()), file_name="a.pdf")
    except DocumentRejected:
        assert not any(pages)
    else:
        check(document)
        assert len(document.pages) == len(pages)


HOSTILE = {
    "a.json": ["[", '{"a":', '["\\"', '"a",', "[[],", '{"a":1},'],
    "a.csv": [",", '"', '"a,', "a;b,c\n", "x" * 50 + ","],
    "a.js": ["{", "{\n", "'\\", '"`', "`\n", "/*", "//", "function f(", "a b c ", "async static "],
    "a.rb": ["  x\n", "# c\n", "class A\n", "end "],
    "a.md": ["<b hidden>", "<b hidden>x\n\n", '<a "', "<p style='", "````\n~~~\n", "[//]: # x\n"],
    "a.html": ["<p></p>", "<p style='color:red'>", "<div hidden>", "&#8203;", "/*"],
}


@pytest.mark.timeout(15)
@pytest.mark.parametrize(
    ("name", "fragment"), [(name, each) for name, all_ in HOSTILE.items() for each in all_]
)
def test_no_format_takes_more_than_its_size_in_work(name: str, fragment: str) -> None:
    start = "<html><p style='" if fragment == "/*" and name == "a.html" else "x "
    source = start * name.endswith(("html", "md")) + fragment * (120_000 // len(fragment))
    with suppress(DocumentRejected):
        parse_document(source.encode(), file_name=name)
