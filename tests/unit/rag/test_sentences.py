# ruff: noqa: RUF001 (full-width marks are what is tested)

from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core import sentences
from services.rag.core.sentences import Sentence, SentenceCutter, segment_sentences

FRAGMENTS = st.sampled_from(
    [
        "The cat sat. ", "Did it? ", "e.g. ", "Dr. Who ", "3.14 ", "[1]", " [2, 3]", ".", "a",
        "- item\n", "1. step ", "```\n", "x = 1. Y\n", "| a | b |\n", "今日は。", "# Head\n",
        "\n", "\n\n", "  ", "…", "😀 ",
    ]
)  # fmt: skip
# What a decision may have to wait for.
SLOW_FRAGMENTS = st.sampled_from(
    [
        "The cat sat", "etc.", "J. ", "e.g. ", "U.S.", ". ", ".", "!?", "。", "』", "\n", "\n\n",
        " ", " " * 41, "\t", "\r\n", "\x0b", "." * 50, "[1]" * 15, "[", "]", "【1】",
        " [ 1  ,  2  ;  3  ,  4  、 5 , 6 ]", "- ", "a. ", "12) ", "# ", ">>> ", "> ", ">" * 45,
        "|", "| a [1] |\n", "---", "```", "```\n", "> ```", "~~~", "`", "word " * 12, "\n    ",
        "x" * 60, "a", "T", "1", "*",
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


@pytest.mark.parametrize("name", ["heapq.nlargest", "adler32(data)", "iPhone"])
def test_a_sentence_ends_after_its_marker_whatever_the_next_begins_with(name: str) -> None:
    assert cut(f"It merges them [1]. {name} is another [2, 3]. Done.") == [
        "It merges them [1].",
        f"{name} is another [2, 3].",
        "Done.",
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


@given(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join)))
def test_sentences_cover_all_visible_text_in_order_without_overlap(text: str) -> None:
    position = 0
    for start, end in segment_sentences(text):
        assert position <= start < end
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()


def arriving(text: str, steps: list[int]) -> list[Sentence]:
    """Returns the sentences of a text that arrives in pieces of these lengths, over and over."""
    cutter = SentenceCutter()
    found: list[Sentence] = []
    position = index = 0
    while position < len(text):
        step = steps[index % len(steps)]
        found += cutter.feed(text[position : position + step])
        position += step
        index += 1
    return found + cutter.finish()


@given(
    st.one_of(st.text(), st.lists(st.one_of(FRAGMENTS, SLOW_FRAGMENTS)).map("".join)),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_sentences_do_not_depend_on_how_the_text_arrives(text: str, steps: list[int]) -> None:
    found = arriving(text, steps)
    assert [sentence.span for sentence in found] == segment_sentences(text)
    assert [sentence.text for sentence in found] == cut(text)


@pytest.mark.parametrize(
    "text",
    [
        "One. [ 11  ,  22  ;  33  ,  44  ,  55  ,  66 ] Two.",
        "These words make a line so long that it may be wrapped\n| one is long. Two | three |\nEnd",
        "One\n" + "\x0b" * 20 + "goes on",
        "These words make a line so long that it may be wrapped\n" + ">" * 50 + " on. Two",
        "> ```\nx = 1. Y\n> ```\nTwo",
        "``` python. Y is a language\n```\nTwo",
    ],
)
def test_what_shows_late_does_not_depend_on_how_the_text_arrives(text: str) -> None:
    assert [sentence.text for sentence in arriving(text, [1])] == cut(text)


def test_a_sentence_is_given_out_once_nothing_can_change_it() -> None:
    cutter = SentenceCutter()
    assert cutter.feed("One is so. [1]") == []
    assert [sentence.text for sentence in cutter.feed(" T")] == ["One is so. [1]"]
    assert cutter.feed("wo, etc.") == []
    assert cutter.feed(" and so on。") == []
    assert [sentence.text for sentence in cutter.feed("x")] == ["Two, etc. and so on。"]


def test_a_code_fence_is_given_out_with_its_last_line_however_long_it_is() -> None:
    fence = "```py\n" + "x = 1. Y\n" * 1000 + "```"
    cutter = SentenceCutter()
    assert cutter.feed(fence) == []
    assert [sentence.text for sentence in cutter.feed("\n")] == [fence]


class CountingBuffer(StringIO):
    """Counts the characters that are taken out of it."""

    read_count = 0

    def read(self, size: int | None = -1) -> str:
        text = super().read(size)
        CountingBuffer.read_count += len(text)
        return text


@pytest.mark.parametrize(
    "part",
    [
        "It says a thing about the cat [1]. ",
        "word ",
        "Wrapped,\nit goes on\n",
        "- item\n",
        "a.b e.g. c ",
        ".",
        "。",
        " ",
        "\n",
        "> ",
        "| a. b ",
        "[1]",
        "x. \n",
    ],
)
@pytest.mark.parametrize("start", ["", "```\n", "So. ", "One\n"])
@pytest.mark.parametrize("step", [1, 4])
def test_the_work_is_linear_in_the_length_of_the_text(
    part: str, start: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentences, "StringIO", CountingBuffer)

    def examined_count(length: int) -> int:
        CountingBuffer.read_count = 0
        arriving((start + part * length)[:length], [step])
        return CountingBuffer.read_count

    # Each look at the end of the text takes in the context of an end mark, too.
    assert 0 < examined_count(8000) <= 8000 * (10 + 40 / step)
    assert examined_count(8000) <= 2.2 * examined_count(4000)
