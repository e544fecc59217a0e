from services.rag.core.parsing import BlockKind, ParsedDocument, parse_document

SOURCE = """\
---
title: "From the front"
tags: [x]
---
# Guide to *things*

Intro on
two lines.

## Use of `run()` and [links](http://x.invalid)

- one
- two
  - nested

```py
# not a heading
x = 1

y = 2
```

| a | b |
|---|---|
| 1 | 2 |

Setext
------

> # quoted
"""


def parse(source: str) -> ParsedDocument:
    return parse_document(source.encode(), file_name="guide.md")


def blocks(document: ParsedDocument, index: int) -> list[tuple[BlockKind, str]]:
    return [
        (block.kind, document.text[block.char_start : block.char_end])
        for block in document.sections[index].blocks
    ]


def test_headings_give_section_paths_without_markup() -> None:
    paths = [section.heading_path for section in parse(SOURCE).sections]
    guide = "Guide to things"
    assert paths == [
        (),
        (guide,),
        (guide, "Use of run() and links"),
        (guide, "Setext"),
    ]


def test_blocks_have_the_kind_and_the_exact_text_of_their_lines() -> None:
    document = parse(SOURCE)
    assert document.text == SOURCE
    assert blocks(document, 2) == [
        (BlockKind.HEADING, "## Use of `run()` and [links](http://x.invalid)"),
        (BlockKind.ITEM, "- one"),
        (BlockKind.ITEM, "- two"),
        (BlockKind.ITEM, "  - nested"),
        (BlockKind.VERBATIM, "```py\n# not a heading\nx = 1\n\ny = 2\n```"),
        (BlockKind.VERBATIM, "| a | b |\n|---|---|\n| 1 | 2 |"),
    ]


def test_the_title_is_that_of_the_front_matter_then_of_the_first_heading_then_the_file() -> None:
    assert parse(SOURCE).title == "From the front"
    assert parse("Intro\n\n# First\n\n# Second\n").title == "First"
    assert parse("Only text").title == "guide.md"


def test_a_heading_that_repeats_the_title_is_left_out_of_paths() -> None:
    assert [section.heading_path for section in parse("# T\n\na\n\n## S\n\nb").sections] == [
        (),
        ("S",),
    ]


def test_deeper_headings_end_with_their_parent() -> None:
    source = "# A\n\n### deep\n\nx\n\n## B\n\ny\n\n# C\n\nz\n"
    paths = [section.heading_path for section in parse(f"Intro\n\n{source}").sections]
    assert paths == [(), (), ("deep",), ("B",), ("C",)]
