import pydoc
import textwrap

from services.rag.core.parsing import BlockKind, ParsedDocument, parse_document


def parse(source: str) -> ParsedDocument:
    return parse_document(source.encode(), file_name="notes.txt")


def paths(document: ParsedDocument) -> list[tuple[str, ...]]:
    return [section.heading_path for section in document.sections]


def test_underlined_lines_are_headings_by_their_rule() -> None:
    document = parse("Title\n=====\n\nIntro\n\nPart\n----\n\ntext\n\nDetail\n~~~~~~\nmore\n")
    assert document.title == "Title"
    assert paths(document) == [(), ("Part",), ("Part", "Detail")]


def test_capitals_at_the_left_edge_are_headings() -> None:
    document = parse(
        "NAME\n    tool - does things\n\nSEE ALSO\n    other(1)\n\nShouting is NOT ONE\n"
    )
    assert paths(document) == [("NAME",), ("SEE ALSO",)]


def test_capitals_inside_a_paragraph_are_no_heading() -> None:
    assert paths(parse("The answer is\nNO\nand stays no.\n\nWE\nmean it.")) == [()]


def test_paragraphs_and_list_items_are_blocks() -> None:
    document = parse("One\nparagraph.\n\n- first\n  goes on\n- second\n\nLast.")
    found = [
        (block.kind, document.text[block.char_start : block.char_end])
        for block in document.sections[0].blocks
    ]
    assert found == [
        (BlockKind.PARAGRAPH, "One\nparagraph."),
        (BlockKind.ITEM, "- first\n  goes on"),
        (BlockKind.ITEM, "- second"),
        (BlockKind.PARAGRAPH, "Last."),
    ]


def test_text_rendered_by_pydoc_has_sections_per_class_method_and_function() -> None:
    document = parse(pydoc.plain(pydoc.render_doc(textwrap)))
    assert document.title == "textwrap"
    found = paths(document)
    assert ("NAME",) in found
    assert ("CLASSES", "TextWrapper") in found
    assert ("CLASSES", "TextWrapper", "TextWrapper.fill") in found
    assert ("FUNCTIONS", "dedent") in found
    assert ("DATA",) in found
    dedent = document.sections[found.index(("FUNCTIONS", "dedent"))]
    text = document.text[dedent.blocks[0].char_start : dedent.blocks[-1].char_end]
    assert text.startswith("    dedent(text)\n        Remove any common leading whitespace")


def test_a_title_given_by_the_sender_wins() -> None:
    assert parse_document(b"Title\n=====\n", file_name="a.txt", title="Mine").title == "Mine"
