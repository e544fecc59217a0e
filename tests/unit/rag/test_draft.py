from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.core.draft import Draft, extract_answer
from services.rag.core.guard import Guard, links_of
from services.rag.core.passages import FusedChunk, PageSpan, Passage, RankedPassage
from services.rag.core.verification import SupportStatus

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
    draft.append(ANSWER)
    draft.finish()
    citations = draft.judge()
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
    whole.judge()
    edges = [0, *sorted(cuts), len(ANSWER)]
    for start, end in pairwise(edges):
        parts.append(ANSWER[start:end])
        if parts.may_judge:
            parts.judge()
    parts.finish()
    parts.judge()
    assert parts.text == ANSWER
    assert parts.citations == whole.citations
    assert parts.sentences == whole.sentences


def test_a_draft_without_passages_cites_nothing():
    draft = Draft(())
    draft.append("Text [1].")
    draft.finish()
    assert draft.judge() == []
    assert (draft.text, draft.unknown_marker_count) == ("Text [1].", 0)


def test_a_citation_that_the_model_left_out_is_added():
    draft = Draft(PASSAGES)
    draft.append("The cat sat on the mat. Nobody has ever seen a unicorn fly.")
    draft.finish()
    (added,) = draft.judge()
    first, second = draft.sentences
    assert (added.marker, first.marker, first.citation_added) == (1, 1, True)
    assert draft.text[added.answer_char_start : added.answer_char_end] == "The cat sat on the mat."
    assert (first.status, second.status) == (SupportStatus.SUPPORTED, SupportStatus.UNSUPPORTED)
    assert not second.citation_added
    checked = draft.checked_citations()
    assert (checked.citation_count, checked.supported_count, checked.cited_claim_count) == (1, 1, 1)


def test_markers_on_a_line_of_their_own_belong_to_the_sentence_before():
    draft = Draft(PASSAGES)
    draft.append("Nothing is said of the moon at all.\n\n[2]\n")
    draft.finish()
    draft.judge()
    (sentence,) = draft.sentences
    assert sentence.status is SupportStatus.UNSUPPORTED
    assert draft.checked_citations().citation_count == 1


def test_a_citation_of_the_wrong_passage_does_not_count_as_supported():
    draft = Draft(PASSAGES)
    draft.append("The cat sat on the mat [2].")
    draft.finish()
    draft.judge()
    assert draft.checked_citations().supported_count == 0


def test_meaning_can_make_up_for_words_but_not_for_numbers():
    passages = [ranked(8, 52, 1)]
    draft = Draft(passages)
    draft.append("A feline rested upon a rug [1]. The cat sat on 3 mats [1].")
    draft.finish()
    draft.judge()
    checks = draft.meaning_checks()
    assert [each.sentence_index for each in checks] == [0, 1]
    assert [each.status for each in draft.sentences] == [
        SupportStatus.UNSUPPORTED,
        SupportStatus.NUMBER_MISMATCH,
    ]
    draft.judge_meaning({0: 0.9, 1: 0.95})
    first, second = draft.sentences
    assert (first.status, second.status) == (SupportStatus.PARTIAL, SupportStatus.NUMBER_MISMATCH)
    assert first.support == pytest.approx(0.55 * 0.9)
    assert second.unfounded == ("3",)


def test_json_is_checked_as_a_whole_and_cites_what_it_lists():
    draft = Draft(PASSAGES, is_json=True)
    draft.append('{"animal": "The cat sat on the mat",')
    assert not draft.may_judge
    draft.append(' "sources": [1, 9]}')
    draft.finish()
    (citation,) = draft.judge()
    assert citation.marker == 1
    assert (citation.answer_char_start, citation.answer_char_end) == (0, len(draft.text))
    assert [each.status for each in draft.sentences] == [SupportStatus.SUPPORTED]


def test_what_a_guard_holds_back_is_said_by_the_model_but_not_shown():
    draft = Draft(PASSAGES, guard=Guard((), links_of("see https://example.org/a")))
    shown = draft.append("Look at https://exam") + draft.append("ple.org/b now.") + draft.finish()
    assert shown == draft.text == "Look at (link removed) now."
    assert draft.raw == "Look at https://example.org/b now."


def test_a_quote_has_the_pages_of_its_own_chunks():
    spans = (PageSpan(8, 32, 3, 3), PageSpan(33, 52, 4, 5))
    joined = replace(PASSAGES[0].passage, page_start=3, page_end=5, page_spans=spans)
    passages = [RankedPassage(joined, PASSAGES[0].ranking), PASSAGES[1]]
    draft = Draft(passages)
    draft.append("The cat sat on the mat [1]. Dogs bark at night.")
    draft.finish()
    cited, added = draft.judge()
    assert (cited.page_start, cited.page_end) == (3, 3)
    assert (added.page_start, added.page_end) == (4, 5)
    _, (extract,) = extract_answer("When do dogs bark?", passages)
    assert (extract.quote, extract.page_start, extract.page_end) == ("Dogs bark at night.", 4, 5)


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
