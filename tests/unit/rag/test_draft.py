from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.draft import Draft, extract_answer
from services.rag.core.model import FusedChunk, Passage, RankedPassage

STORED = "Intro.\n\nThe cat sat on the mat. Dogs bark at night.\n\nParsers read text."


def ranked(start, end, number):
    return RankedPassage(
        Passage(
            chunk_id=number,
            collection="docs",
            document_id="d",
            title="T",
            source_uri="",
            media_type="text/plain",
            metadata={},
            ordinal=number,
            char_start=start,
            char_end=end,
            text=STORED[start:end],
            heading_path=(),
            header="T",
            token_estimate=10,
        ),
        FusedChunk(chunk_id=number, score=1.0),
    )


PASSAGES = [ranked(8, 52, 1), ranked(54, len(STORED), 2)]
ANSWER = "The cat sat on the mat [1]. Parsers read text [2]. Unknown [7]."


def test_citations_quote_the_stored_text():
    draft = Draft(PASSAGES)
    citations = [*draft.append(ANSWER), *draft.finish()]
    assert [each.marker for each in citations] == [1, 2]
    for each in citations:
        assert each.quote == STORED[each.quote_char_start : each.quote_char_end]
    assert citations == draft.citations
    assert draft.unknown_marker_count == 1


@given(st.lists(st.integers(0, len(ANSWER)), max_size=8))
def test_however_the_answer_comes_its_citations_are_the_same(cuts):
    whole, parts = Draft(PASSAGES), Draft(PASSAGES)
    whole.append(ANSWER)
    whole.finish()
    edges = [0, *sorted(cuts), len(ANSWER)]
    for start, end in pairwise(edges):
        parts.append(ANSWER[start:end])
    parts.finish()
    assert parts.text == ANSWER
    assert parts.citations == whole.citations


def test_a_draft_without_passages_cites_nothing():
    draft = Draft(())
    assert [*draft.append("Text [1]."), *draft.finish()] == []
    assert (draft.text, draft.unknown_marker_count) == ("Text [1].", 0)


def test_an_extractive_answer_repeats_its_sources_word_for_word():
    text, citations = extract_answer("Where did the cat sit?", PASSAGES)
    assert "The cat sat on the mat" in text
    assert citations
    for each in citations:
        assert each.quote == STORED[each.quote_char_start : each.quote_char_end]
        sentence = text[each.answer_char_start : each.answer_char_end]
        assert sentence == f"{' '.join(each.quote.split())} [{each.marker}]"


def test_an_extractive_answer_without_a_match_says_so():
    text, citations = extract_answer("Quantum chromodynamics?", PASSAGES)
    assert "None of the sentences" in text
    assert citations == ()
