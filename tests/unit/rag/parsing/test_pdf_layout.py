"""The lines of pages become one text: running heads out, words whole, headings found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.parsing.parsed import BlockKind, Draft
from services.rag.core.parsing.pdf_layout import Line, OutlineEntry, lay_out

WORDS = ["The pump moves water to the upper tank", "and it stops when the tank is full."]


def body(*texts: str, size: float = 10.0) -> list[Line]:
    return [Line(text, size) for text in texts]


def laid_out(*pages: list[Line], outline: tuple[OutlineEntry, ...] = ()) -> Draft:
    return lay_out(pages, outline, title="")


def headings(draft: Draft) -> list[tuple[str, int, str]]:
    return [
        (each.heading, each.level, draft.text[each.char_start :].partition("\n")[0])
        for each in draft.marks
        if each.kind is BlockKind.HEADING
    ]


def test_lines_that_most_pages_begin_or_end_with_are_left_out() -> None:
    pages = [
        body("Pump manual", f"Line {letter} of the page.", *WORDS, f"Page {number} of 4")
        for number, letter in enumerate("abcd", 1)
    ]
    text = laid_out(*pages).text
    assert "Pump manual" not in text
    assert "of 4" not in text
    assert all(f"Line {letter} of the page." in text for letter in "abcd")


def test_a_line_of_two_pages_is_no_running_head() -> None:
    pages = [body("Pump manual", *WORDS)] * 2 + [body(*WORDS)] * 2
    assert laid_out(*pages).text.count("Pump manual") == 2


def test_pages_of_nothing_but_running_heads_keep_them() -> None:
    assert laid_out(*[body("Label")] * 5).text.count("Label") == 5


def test_a_divided_word_becomes_whole_and_a_compound_keeps_its_hyphen() -> None:
    text = laid_out(
        body("The well-known pump", "is a ma-", "chine that is well-", "known here.")
    ).text
    assert "machine" in text
    assert "well-known here." in text.replace("\n", " ")


def test_large_type_makes_headings_by_its_size() -> None:
    draft = laid_out(
        [Line("Manual", 20), *body(*WORDS), Line("Care", 14), *body(*WORDS), Line("Oil", 14)]
    )
    assert headings(draft) == [("Manual", 1, "Manual"), ("Care", 2, "Care"), ("Oil", 2, "Oil")]
    assert draft.title == "Manual"


def test_a_table_of_contents_is_believed_more_than_large_type() -> None:
    draft = laid_out(
        [Line("Big advertisement", 30), *body(*WORDS), *body("2.1 Care")],
        body("Elsewhere", *WORDS),
        outline=(OutlineEntry("Care", 2, 0), OutlineEntry("Not in these words", 1, 1)),
    )
    assert headings(draft) == [
        ("Care", 2, "2.1 Care"),
        ("Not in these words", 1, "Elsewhere"),
    ]


def test_a_paragraph_may_go_on_over_the_page() -> None:
    draft = laid_out(body(WORDS[0]), body(WORDS[1]), body("A new one begins here."))
    starts = [each.char_start for each in draft.marks if each.kind is BlockKind.PARAGRAPH]
    assert [draft.text[start:].partition("\n")[0] for start in starts] == [
        WORDS[0],
        "A new one begins here.",
    ]


def test_an_item_of_a_list_starts_a_block() -> None:
    draft = laid_out(body("You need", "- a pump", "- a tank"))
    kinds = [each.kind for each in draft.marks]
    assert kinds == [BlockKind.PARAGRAPH, BlockKind.ITEM, BlockKind.ITEM]


@pytest.mark.parametrize("pages", [(), ([],), ([], [])])
def test_pages_without_lines_are_empty_pages(pages: tuple[list[Line], ...]) -> None:
    draft = laid_out(*pages)
    assert draft.text == ""
    assert [(each.char_start, each.char_end) for each in draft.pages] == [(0, 0)] * len(pages)


LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from(["", "Head", "some words of", "an end.", "- item", "di-", "7"]),
        st.sampled_from([10.0, 14.0]),
    )
)


@given(st.lists(LINES, max_size=6))
def test_pages_cover_the_text_and_marks_start_lines(pages: list[list[Line]]) -> None:
    draft = laid_out(*pages)
    assert len(draft.pages) == len(pages)
    for before, after in zip(draft.pages, draft.pages[1:], strict=False):
        assert before.char_end == after.char_start
    if pages:
        assert draft.pages[-1].char_end == len(draft.text)
    for each in draft.marks:
        assert each.char_start == 0 or draft.text[each.char_start - 1] == "\n"
