import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core import evidence
from services.rag.core.evidence import EvidenceIndex
from services.rag.core.sentences import Span

RE = """re - Regular expressions.

compile(pattern, flags=0)
    Compile a regular expression pattern, returning a Pattern object.

escape(pattern)
    Escape special characters in a string.

purge()
    Clear the regular expression cache.
"""
SUBPROCESS = (
    "The run function starts a process. It waits for the process to end. "
    "A timeout stops the process after some seconds. Output is captured on request."
)


def quoted(index: EvidenceIndex, texts: list[str], statement: str, passage: int) -> str:
    found = index.best_span(statement, passage)
    return texts[passage][found.char_start : found.char_end]


def test_the_best_span_is_the_sentence_with_the_telling_words() -> None:
    texts = [RE, SUBPROCESS]
    index = EvidenceIndex(texts)
    assert quoted(index, texts, "You can clear the expression cache.", 0) == (
        "Clear the regular expression cache."
    )
    assert quoted(index, texts, "It is stopped after a timeout in seconds", 1) == (
        "A timeout stops the process after some seconds."
    )


def test_two_neighbours_are_quoted_where_both_are_needed() -> None:
    texts = [SUBPROCESS]
    found = quoted(EvidenceIndex(texts), texts, "A timeout in seconds, and captured output.", 0)
    assert found == "A timeout stops the process after some seconds. Output is captured on request."


def test_without_anything_in_common_the_first_sentence_has_no_support() -> None:
    found = EvidenceIndex([SUBPROCESS]).best_span("Penguins live in Antarctica.", 0)
    assert (found.char_start, found.support) == (0, 0.0)


def test_support_is_the_share_of_telling_terms_that_the_passage_holds() -> None:
    index = EvidenceIndex([RE, SUBPROCESS])
    assert index.support("The run function starts a process.", 1) == 1.0
    assert index.support("The run function starts a process.", 0) == 0.0
    assert 0.2 < index.support("A timeout stops penguins.", 1) < 0.9


def test_selection_gives_a_signature_together_with_its_description() -> None:
    (found,) = EvidenceIndex([RE]).select("How do I escape special characters?", 1)
    assert RE[found.char_start : found.char_end] == (
        "escape(pattern)\n    Escape special characters in a string."
    )


def test_selection_prefers_better_ranked_passages_and_repeats_nothing() -> None:
    index = EvidenceIndex([SUBPROCESS, SUBPROCESS])
    found = index.select("Which timeout stops the process?", 5)
    assert found[0].passage_index == 0
    starts = [each.char_start for each in found]
    assert len(starts) == len(set(starts))


def test_selection_finds_nothing_where_no_word_matches() -> None:
    assert EvidenceIndex([RE, SUBPROCESS]).select("penguins in Antarctica", 3) == ()


def test_only_the_best_passages_and_the_cited_one_are_analysed_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    analysed: list[str] = []
    segment = evidence.segment_sentences

    def recording(text: str) -> list[Span]:
        analysed.append(text)
        return segment(text)

    monkeypatch.setattr(evidence, "segment_sentences", recording)
    texts = [f"The host {number} starts. It waits for process {number}." for number in range(50)]
    index = EvidenceIndex(texts)
    assert analysed == []
    index.analyse_next()
    assert analysed == texts[:1]
    for _ in range(2):
        index.best_span("Process 40 is waited for.", 40)
        index.best_span("Process 3 is waited for.", 3)
    assert len(analysed) == len(set(analysed)) <= 17
    index.analyse_next()
    assert len(analysed) <= 17


def test_work_done_ahead_changes_no_result() -> None:
    ahead = EvidenceIndex([RE, SUBPROCESS])
    for _ in range(3):
        ahead.analyse_next()
    statement = "A timeout stops a penguin."
    assert ahead.best_span(statement, 1) == EvidenceIndex([RE, SUBPROCESS]).best_span(statement, 1)


TEXTS = st.text(alphabet="abc .\n|>#-!。é", min_size=1).filter(str.strip)


@given(st.lists(TEXTS, min_size=1, max_size=3), st.text(alphabet="abc ."), st.integers(1, 4))
def test_excerpts_lie_inside_their_passage(texts: list[str], words: str, count: int) -> None:
    index = EvidenceIndex(texts)
    found = [index.best_span(words, passage) for passage in range(len(texts))]
    selected = index.select(words, count)
    assert len(selected) <= count
    for excerpt in [*found, *selected]:
        text = texts[excerpt.passage_index]
        assert 0 <= excerpt.char_start < excerpt.char_end <= len(text)
        assert text[excerpt.char_start : excerpt.char_end].strip()
        assert 0 <= excerpt.support <= 1
