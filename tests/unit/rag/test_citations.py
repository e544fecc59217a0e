# ruff: noqa: RUF001 (full-width marks are what is tested)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core import citations, evidence
from services.rag.core.citations import Citation, CitationTracker, find_markers
from services.rag.core.passages import Passage
from tests.kit.citations import cite_answer

STORED = "Preface. " * 3 + (
    "The timeout is thirty seconds. The limit is ten requests.\n\n"
    "Retries happen twice. A retry waits one second."
)


def passage(start: int, end: int) -> Passage:
    return Passage(
        chunk_id=start,
        collection="c",
        document_id="d",
        title="T",
        source_uri="",
        media_type="text/plain",
        metadata={},
        ordinal=0,
        char_start=start,
        char_end=end,
        text=STORED[start:end],
        heading_path=(),
        header="T",
        token_estimate=1,
    )


PASSAGES = [passage(27, 84), passage(86, len(STORED))]


def cited(answer: str) -> list[tuple[int, str, str]]:
    found, _ = cite_answer(answer, PASSAGES)
    return [
        (each.marker, answer[each.answer_char_start : each.answer_char_end], each.quote)
        for each in found
    ]


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("So [1].", [1]),
        ("So [1, 2] and [2][3].", [1, 2, 3]),
        ("So 【1】 and ［2，3］.", [1, 2, 3]),
        ("An array `a[1]` and [2].", [2]),
        ("```\nx[1]\n```", []),
        ("[one] [] [1234] [x1] (1)", []),
    ],
)
def test_markers_are_found_outside_code(text: str, markers: list[int]) -> None:
    assert find_markers(text) == markers


def test_each_marker_quotes_the_supporting_sentence_of_its_passage() -> None:
    answer = "The limit is ten requests [1]. It waits a second before a retry. [2] That is all."
    assert cited(answer) == [
        (1, "The limit is ten requests [1].", "The limit is ten requests."),
        (2, "It waits a second before a retry. [2]", "A retry waits one second."),
    ]


def test_quotes_are_placed_in_the_stored_text() -> None:
    found, _ = cite_answer("Timeout thirty seconds [1]. Retries twice [2].", PASSAGES)
    assert len(found) == 2
    for each in found:
        assert STORED[each.quote_char_start : each.quote_char_end] == each.quote


def test_unknown_markers_are_dropped_and_counted() -> None:
    found, unknown = cite_answer("Ten requests [1][7]. Nothing [0].", PASSAGES)
    assert ([each.marker for each in found], unknown) == ([1], 2)


def test_a_marker_is_cited_once_per_sentence() -> None:
    assert len(cited("Ten [1] requests [1].")) == 1


def test_markers_on_their_own_line_cite_the_sentence_before() -> None:
    answer = "The limit is ten requests.\n\n[1]"
    assert cited(answer) == [(1, answer, "The limit is ten requests.")]


def test_a_sentence_without_support_is_cited_with_support_zero() -> None:
    found, _ = cite_answer("Penguins swim [2].", PASSAGES)
    assert [each.support for each in found] == [0.0]


def test_citations_come_while_the_answer_is_still_being_written() -> None:
    tracker = CitationTracker(PASSAGES)
    assert tracker.feed("The limit is ten requests [1].") == []
    early = tracker.feed(" Next comes a longer sentence that says nothing of importance")
    assert [each.marker for each in early] == [1]
    assert tracker.finish() == []


FRAGMENTS = st.sampled_from(
    [
        "The limit is ten requests", "A retry waits one second", " [1]", "[2]", "[1, 2]", " [9]",
        ". ", ".", "! ", "\n", "\n\n", "- ", "1. ", "```\n", "`a[1]`", "| x [1] | y |\n", "| z",
        "e.g. ", "etc. ", "今日は。", "【1】", "  ", " |  ", "> ", "[", "]", "# ", "T", "---", "\t",
    ]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=25).map("".join), st.data())
def test_citations_do_not_depend_on_how_the_answer_arrives(
    answer: str, data: st.DataObject
) -> None:
    expected, unknown = cite_answer(answer, PASSAGES)
    tracker = CitationTracker(PASSAGES)
    found: list[Citation] = []
    position = 0
    while position < len(answer):
        step = data.draw(st.integers(1, 12))
        found += tracker.feed(answer[position : position + step])
        position += step
    found += tracker.finish()
    assert tuple(found) == expected
    assert tracker.unknown_marker_count == unknown


@given(st.lists(FRAGMENTS, max_size=25).map("".join))
def test_every_quote_is_exactly_the_stored_text(answer: str) -> None:
    found, _ = cite_answer(answer, PASSAGES)
    for each in found:
        cited_passage = PASSAGES[each.passage_index]
        assert cited_passage.char_start <= each.quote_char_start
        assert each.quote_char_start < each.quote_char_end <= cited_passage.char_end
        assert STORED[each.quote_char_start : each.quote_char_end] == each.quote
        assert 0 <= each.answer_char_start < each.answer_char_end <= len(answer)


def test_markers_repeated_on_lines_of_their_own_do_not_make_the_statement_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    statements: set[str] = set()
    analyse = evidence.analyse_query

    def recording(text: str) -> tuple[str, ...]:
        statements.add(text)
        return analyse(text)

    monkeypatch.setattr(evidence, "analyse_query", recording)
    answer = "The limit is ten requests.\n" + "[1].\n" * 500
    assert len(cited(answer)) == 500
    assert max(map(len, statements)) < 50


def test_a_long_answer_in_small_pieces_is_judged_sentence_by_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examined: list[int] = []
    find = citations.find_markers

    def counting(text: str) -> list[int]:
        examined.append(len(text))
        return find(text)

    monkeypatch.setattr(citations, "find_markers", counting)
    answer = "The limit is ten requests [1]. A retry waits a second [2]. " * 200
    tracker = CitationTracker(PASSAGES)
    early = [
        each for start in range(0, len(answer), 3) for each in tracker.feed(answer[start:][:3])
    ]
    assert len(early) >= 399
    assert len(early) + len(tracker.finish()) == 400
    assert sum(examined) <= len(answer)
