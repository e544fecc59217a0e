"""Elements nest as deeply as a parser can bear, and no text is lost by that."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.parsing.html_depth import MAX_DEPTH, limit_depth


def test_a_page_at_the_limit_is_left_alone() -> None:
    page = "<div>" * MAX_DEPTH + "text" + "</div>" * MAX_DEPTH
    assert limit_depth(page) is page


def test_what_nests_deeper_loses_its_tags_and_keeps_its_text() -> None:
    page = "<div>" * MAX_DEPTH + "<div>deep</div>" + "</div>" * MAX_DEPTH + "<div>after</div>"
    expected = "<div>" * MAX_DEPTH + "deep" + "</div>" * MAX_DEPTH + "<div>after</div>"
    assert limit_depth(page) == expected


@pytest.mark.parametrize("flat", ["<br>", "<li>", "<p>", "<INPUT type=text>", "<script>"])
def test_elements_that_never_nest_do_not_count(flat: str) -> None:
    page = flat * (3 * MAX_DEPTH) + "<div>text</div>"
    assert limit_depth(page) is page


def test_closing_tags_without_an_opening_one_make_no_room() -> None:
    page = "</div>" * MAX_DEPTH + "<div>" * (MAX_DEPTH + 7)
    assert limit_depth(page).count("<div>") == MAX_DEPTH


@given(st.lists(st.sampled_from(["<div>" * 90, "</div>" * 40, "</div>" * 400, "word "])))
def test_no_page_is_deeper_than_the_limit_and_every_word_stays(parts: list[str]) -> None:
    page = "".join(parts)
    limited = limit_depth(page)
    assert limited.count("word") == page.count("word")
    depth = 0
    for tag in re.findall(r"</?div>", limited):
        depth = max(0, depth - 1) if tag.startswith("</") else depth + 1
        assert depth <= MAX_DEPTH
