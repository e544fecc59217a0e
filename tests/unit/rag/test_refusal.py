"""A model is spared only where the passages clearly do not hold the answer."""

from dataclasses import replace

import pytest

from services.rag.core.passages import FusedChunk, RankedPassage
from services.rag.core.refusal import is_hopeless, refusal_text
from services.rag.core.retrieved import NOTHING_FOUND, Band, Confidence
from tests.kit.candidates import passage

QUESTION = "maximum queue size"
BY_MEANING = Confidence(score=0.1, band=Band.LOW, vector_percentile=0.4)
BY_WORDS = Confidence(score=0.1, band=Band.LOW, keyword_ratio=0.1)


def ranked(text, document_id="doc"):
    found = replace(passage(1, text, document_id=document_id), header="")
    return RankedPassage(found, FusedChunk(chunk_id=1, score=0.1))


@pytest.mark.parametrize("confidence", [BY_MEANING, BY_WORDS, NOTHING_FOUND])
def test_passages_without_a_word_of_the_question_are_hopeless(confidence):
    assert is_hopeless(confidence, QUESTION, [ranked("Bread is baked early.")])
    assert is_hopeless(confidence, QUESTION, [])


@pytest.mark.parametrize(
    "confidence",
    [
        replace(BY_MEANING, score=0.25),
        replace(BY_MEANING, band=Band.MEDIUM),
        replace(BY_MEANING, band=Band.HIGH, score=0.9),
    ],
)
def test_where_the_search_is_surer_a_model_is_asked(confidence):
    assert not is_hopeless(confidence, QUESTION, [ranked("Bread is baked early.")])


def test_a_quarter_of_the_words_is_hopeless_and_more_is_not():
    question = "queue size baker oven"
    assert is_hopeless(BY_MEANING, question, [ranked("The queue is long.")])
    assert not is_hopeless(BY_MEANING, question, [ranked("The queue has a size.")])


def test_words_of_different_passages_count_together():
    question = "queue size baker oven"
    passages = [ranked("The queue is long."), ranked("The oven is hot.")]
    assert not is_hopeless(BY_MEANING, question, passages)


def test_a_heading_counts_as_said():
    found = ranked("It is unlimited.")
    found = replace(found, passage=replace(found.passage, header="Queue size"))
    assert not is_hopeless(BY_MEANING, QUESTION, [found])


def test_with_words_alone_one_word_is_enough_to_ask():
    assert not is_hopeless(BY_WORDS, "queue size baker oven", [ranked("The queue is long.")])


def test_the_three_nearest_documents_are_named_once_each():
    passages = [ranked("text", document_id) for document_id in "aabcd"]
    passages[0] = replace(passages[0], passage=replace(passages[0].passage, title=""))
    text = refusal_text(passages)
    assert text.endswith("Nearest to it: a; Title of a; Title of b.")
