# ruff: noqa: RUF001 (full-width marks are what is tested)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.rag.core.sentences import segment_sentences

FRAGMENTS = st.sampled_from(
    [
        "The cat sat. ", "Did it? ", "e.g. ", "Dr. Who ", "3.14 ", "[1]", " [2, 3]", ".", "a",
        "- item\n", "1. step ", "```\n", "x = 1. Y\n", "| a | b |\n", "今日は。", "# Head\n",
        "\n", "\n\n", "  ", "…", "😀 ",
    ]
)  # fmt: skip


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in segment_sentences(text)]


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith paid $3.50 for it.",
        "See e.g. the manual, i.e. the long one, Fig. 3, vs. the other.",
        "J. R. R. Tolkien wrote it.",
        "It is in os.path, version 3.11.2.",
        'He said "stop."',
        "Wait ... for it.",
        "It works (mostly.)",
    ],
)
def test_full_stops_inside_a_sentence_do_not_end_it(sentence: str) -> None:
    assert cut(f"{sentence} Then more.") == [sentence, "Then more."]


def test_abbreviations_end_a_sentence_before_a_capital_where_they_often_stand_last() -> None:
    assert cut("Bring pens, paper, etc. Then sit.") == ["Bring pens, paper, etc.", "Then sit."]


def test_wide_marks_end_sentences_without_a_space() -> None:
    assert cut("今日は晴れ。「はい。」明日も！End") == [
        "今日は晴れ。",
        "「はい。」",
        "明日も！",
        "End",
    ]


def test_citation_markers_after_the_full_stop_belong_to_the_sentence_before() -> None:
    assert cut("One is so. [1][2] Two is [3]. Three 【4】.") == [
        "One is so. [1][2]",
        "Two is [3].",
        "Three 【4】.",
    ]


def test_list_items_headings_and_table_rows_stand_alone() -> None:
    text = (
        "# Title\nIntro without end\n- one\n- two. More\n  goes on\n1. First. Second\n"
        "| a | b |\n| c | d |\n"
    )
    assert cut(text) == [
        "# Title",
        "Intro without end",
        "- one",
        "- two.",
        "More\n  goes on",
        "1. First.",
        "Second",
        "| a | b |",
        "| c | d |",
    ]


def test_a_wrapped_sentence_is_one() -> None:
    assert cut("It goes on\nand on\nto the end. Next") == [
        "It goes on\nand on\nto the end.",
        "Next",
    ]


def test_a_signature_and_its_indented_description_are_two() -> None:
    assert cut("compile(pattern)\n    Compile it.\n") == ["compile(pattern)", "Compile it."]


def test_a_code_fence_is_never_cut() -> None:
    fence = "```py\nx = 1. Y\n\nprint(x). Z\n```"
    assert cut(f"Look. Here:\n{fence}\nDone.") == ["Look.", "Here:", fence, "Done."]


def test_a_long_line_that_goes_on_further_indented_is_one_sentence() -> None:
    text = (
        "    run(...): Runs a command, waits for it to complete, then returns a\n"
        "              CompletedProcess instance.\n"
        "    Popen(...): More.\n"
    )
    assert [" ".join(sentence.split()) for sentence in cut(text)] == [
        "run(...): Runs a command, waits for it to complete, then returns a "
        "CompletedProcess instance.",
        "Popen(...): More.",
    ]


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join)))
def test_sentences_cover_all_visible_text_in_order_without_overlap(text: str) -> None:
    position = 0
    for start, end in segment_sentences(text):
        assert position <= start < end
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()
