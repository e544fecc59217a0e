"""An answer is given again only where it would come out the same."""

from dataclasses import replace

import pytest

from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.conversation import Sampling, TokenUsage
from services.rag.core.filters import ANYONE, Access, DocumentFilter
from services.rag.core.fusion import FusionMethod
from services.rag.core.options import (
    AnswerPolicy,
    Mode,
    OutputFormat,
    Question,
    RetrievalOptions,
    Turn,
    WebPolicy,
)
from services.rag.core.passages import FusedChunk, Passage, PassageOrigin, RankedPassage
from services.rag.core.profile import DegradationReason
from services.rag.core.quality import Quality
from services.rag.core.reuse import (
    ReusableAnswer,
    Verdict,
    access_fingerprint,
    configuration_fingerprint,
    evidence_of,
    is_worth_keeping,
    judge_answers,
    judge_evidence,
    says_the_same,
    with_degradations,
)
from tests.kit.citations import cite_answer

QUESTION = Question(collection="docs", text="How long does it take?")
TEXTS = ("It takes 5 days.", "Nobody knows why.", "It is blue.")


def passage(number, text, **fields):
    given_fields = {
        "chunk_id": number,
        "collection": "docs",
        "document_id": f"doc{number}",
        "title": "Title",
        "source_uri": "",
        "media_type": "text/plain",
        "metadata": {},
        "ordinal": 0,
        "char_start": 0,
        "char_end": len(text),
        "text": text,
        "heading_path": (),
        "header": "Title",
        "token_estimate": 5,
    }
    return Passage(**{**given_fields, **fields})


PASSAGES = {number: passage(number, text) for number, text in enumerate(TEXTS, 11)}


def quality(score):
    return Quality(
        score=score,
        retrieval_confidence=0.7,
        groundedness=1.0,
        citation_precision=1.0,
        citation_coverage=1.0,
    )


def answer(text="It takes 5 days [1]. It is blue [3].", **fields):
    citations, _ = cite_answer(text, list(PASSAGES.values()))
    ranked = tuple(
        RankedPassage(each, FusedChunk(chunk_id=each.chunk_id, score=0.5))
        for each in PASSAGES.values()
    )
    given_fields = {
        "text": text,
        "citations": citations,
        "passages": ranked,
        "origin": AnswerOrigin.GENERATED,
        "mode": Mode.RAG,
        "model": "talker:latest",
        "finish_reason": "stop",
        "usage": TokenUsage(100, 10),
        "quality": quality(0.9),
    }
    return Answer(**{**given_fields, **fields})


def kept(made):
    return ReusableAnswer(
        text=made.text,
        citations=made.citations,
        passages=made.passages,
        warnings=(),
        model=made.model,
        finish_reason=made.finish_reason,
        usage=made.usage,
        sentences=made.sentences,
        quality=made.quality,
    )


def test_what_was_joined_is_recognized_by_another_of_its_parts():
    def ranked(number, **fields):
        return RankedPassage(
            passage(number, "text", **fields), FusedChunk(chunk_id=number, score=1.0)
        )

    joined = RankedPassage(
        passage(21, "x" * 90, document_id="one", char_start=10, char_end=100),
        FusedChunk(chunk_id=21, score=1.0),
    )
    other = RankedPassage(
        passage(30, "y" * 9, document_id="two", char_end=9), FusedChunk(chunk_id=30, score=1.0)
    )
    made = replace(kept(answer()), passages=(joined, other))
    found = [
        ranked(22, document_id="one", char_start=60, char_end=160),
        ranked(30, document_id="two", char_end=9),
        ranked(23, document_id="one", char_start=100, char_end=160),
        ranked(24, document_id="three", char_start=10, char_end=100),
    ]
    assert made.recognized(found) == (21, 30, 23, 24)


def test_an_answer_comes_back_as_it_was_made():
    made = answer()
    restored = kept(made).restore(QUESTION, AnswerOrigin.CACHED, PASSAGES)
    assert restored == replace(made, origin=AnswerOrigin.CACHED)


@pytest.mark.parametrize("chunk_id", PASSAGES)
def test_an_answer_falls_with_any_of_its_passages(chunk_id):
    current = {number: each for number, each in PASSAGES.items() if number != chunk_id}
    assert kept(answer()).restore(QUESTION, AnswerOrigin.CACHED, current) is None


@pytest.mark.parametrize("change", [{"text": "It takes 6 days."}, {"collection": "other"}])
def test_an_answer_falls_where_a_passage_is_another(change):
    current = {**PASSAGES, 11: replace(PASSAGES[11], **change)}
    assert kept(answer()).restore(QUESTION, AnswerOrigin.CACHED, current) is None


def test_evidence_names_each_cited_passage_once():
    evidence = evidence_of(answer("It is blue [3]. It takes 5 days [1]. Yes [3]."))
    assert [(each.document_id, each.passage_id) for each in evidence] == [
        ("doc11", "11"),
        ("doc13", "13"),
    ]
    assert len({each.content_digest for each in evidence}) == 2


@pytest.mark.parametrize(
    "made",
    [
        answer(origin=AnswerOrigin.EXTRACTIVE),
        answer(origin=AnswerOrigin.NO_MATCH),
        answer(origin=AnswerOrigin.CACHED_SIMILAR),
        answer(finish_reason="length"),
        answer(finish_reason=""),
        answer("It takes 5 days."),
        answer("The sources do not say how long it takes [1]."),
        answer("The provided documents don\u2019t contain that [1]."),
        answer("I don't know, but it is blue [3]."),
        answer("There is no information on this in the sources [1]."),
        answer("This cannot be determined from what is given [1]."),
        answer(quality=quality(0.79)),
        answer(quality=None),
        answer(
            passages=tuple(
                RankedPassage(
                    replace(each, origin=PassageOrigin.WEB),
                    FusedChunk(chunk_id=each.chunk_id, score=0.5),
                )
                for each in PASSAGES.values()
            )
        ),
    ],
)
def test_what_is_no_good_answer_is_not_kept(made):
    assert not is_worth_keeping(made, reasons=())


@pytest.mark.parametrize(
    "made",
    [
        answer(),
        answer(origin=AnswerOrigin.CACHED),
        answer("Do not press it; it takes 5 days [1]."),
        answer("The text is blue and it does not matter [3]."),
    ],
)
def test_what_is_a_good_answer_is_kept_unless_it_is_a_lesser_one(made):
    assert is_worth_keeping(made, reasons=())
    assert is_worth_keeping(made, reasons={DegradationReason.CACHE_UNAVAILABLE})
    assert not is_worth_keeping(made, reasons={DegradationReason.RERANK_UNAVAILABLE})


def test_an_answer_given_again_is_worth_less_after_a_degradation():
    assert with_degradations(answer(), ()) == answer()
    lowered = with_degradations(answer(), {DegradationReason.SERVED_STALE})
    assert lowered.quality.score == 0.5


def test_where_the_store_is_away_an_answer_comes_back_as_it_was_kept():
    restored = kept(answer()).restore_as_kept(QUESTION, AnswerOrigin.CACHED)
    assert restored == replace(answer(), origin=AnswerOrigin.CACHED)


@pytest.mark.parametrize(
    ("changed", "as_kept"),
    [
        ({}, True),
        ({"metadata": {"year": "1999"}}, True),
        ({"title": "New"}, False),
        ({"source_uri": "file:///new"}, False),
        ({"heading_path": ("New",)}, False),
    ],
)
def test_an_answer_shows_what_is_stored_unless_that_would_look_otherwise(changed, as_kept):
    current = {**PASSAGES, 11: replace(PASSAGES[11], **changed)}
    assert kept(answer()).shows(current) == as_kept


def test_a_passage_that_was_joined_comes_back_joined():
    joined = replace(PASSAGES[11], text="Before. It takes 5 days.", char_end=24)
    made = answer()
    passages = (
        RankedPassage(joined, FusedChunk(chunk_id=11, score=0.5)),
        *kept(made).passages[1:],
    )
    restored = replace(kept(made), passages=passages).restore(
        QUESTION, AnswerOrigin.CACHED, PASSAGES
    )
    assert restored.passages[0].passage == joined


@pytest.mark.parametrize(
    ("cited", "found", "verdict"),
    [
        ({1}, [1, 2, 3], Verdict.RIGHT),
        ({1}, [2, 3, 1], Verdict.RIGHT),
        ({1}, [2, 3, 4, 1], Verdict.WRONG),
        ({1}, [], Verdict.WRONG),
        ({1, 2}, [1, 3, 4, 5, 2], Verdict.UNDECIDED),
        ({1, 2, 3}, [1, 4, 2], Verdict.RIGHT),
        ({1, 2, 3}, [1, 4, 5], Verdict.UNDECIDED),
        (set(), [1, 2], Verdict.UNDECIDED),
    ],
)
def test_evidence_has_to_be_among_the_best_that_is_found(cited, found, verdict):
    assert judge_evidence(cited, found) is verdict


@pytest.mark.parametrize(
    "change",
    [
        {"collection": "other"},
        {"mode": Mode.DIRECT},
        {"retrieval": RetrievalOptions(passage_count=5)},
        {"retrieval": RetrievalOptions(candidate_count=50)},
        {"retrieval": RetrievalOptions(fusion=FusionMethod.RECIPROCAL_RANK)},
        {"retrieval": RetrievalOptions(vector_weight_ratio=0.6)},
        {"retrieval": RetrievalOptions(filter=DocumentFilter(any_tags=("a",)))},
        {"retrieval": RetrievalOptions(filter=DocumentFilter(metadata_in={"k": ("v",)}))},
        {"retrieval": RetrievalOptions(access=Access.of("ada"))},
        {"answer_policy": AnswerPolicy.ALLOW_MODEL_KNOWLEDGE},
        {"web": WebPolicy.ALWAYS},
        {"output_format": OutputFormat()},
        {"output_format": OutputFormat('{"type": "object"}')},
        {"history": (Turn("What is it?", "A machine."),)},
    ],
)
def test_another_way_of_answering_has_another_fingerprint(change):
    sampling = Sampling(temperature=0.0)
    first = configuration_fingerprint(QUESTION, sampling)
    assert configuration_fingerprint(replace(QUESTION, **change), sampling) != first


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"seed": 1},
        {"top_k": 5},
        {"max_output_token_count": 9},
        {"stop_sequences": (".",)},
    ],
)
def test_another_choice_of_tokens_has_another_fingerprint(change):
    first = configuration_fingerprint(QUESTION, Sampling())
    assert configuration_fingerprint(QUESTION, replace(Sampling(), **change)) != first


def test_the_question_and_its_model_are_not_part_of_the_fingerprint():
    other = replace(QUESTION, text="Something else?", model="another")
    assert configuration_fingerprint(other, Sampling()) == configuration_fingerprint(
        QUESTION, Sampling()
    )
    assert access_fingerprint("docs", ANYONE) != access_fingerprint("other", ANYONE)
    assert access_fingerprint("docs", ANYONE) != access_fingerprint("docs", Access.of("ada"))
    assert access_fingerprint("docs", Access(None)) != access_fingerprint("docs", ANYONE)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("It takes 5 days [1].", "it takes  5 days", True),
        ("It takes 5 days [1].", "It takes [2] 5 days!", True),
        ("It takes 5 days.", "It takes 6 days.", False),
        ("caf\u00e9", "cafe\u0301", True),
    ],
)
def test_answers_are_the_same_but_for_their_dress(first, second, same):
    assert says_the_same(first, second) is same


@pytest.mark.parametrize(
    ("first", "second", "similarity", "verdict"),
    [
        (("5 days [1].", {1}), ("It is 5 days [1].", {1}), 0.95, Verdict.RIGHT),
        (("5 days [1].", {1}), ("It is 5 days [1].", {1}), 0.85, Verdict.UNDECIDED),
        (("5 days [1].", {1}), ("6 days [1].", {1}), 0.99, Verdict.WRONG),
        (("5 days [1].", {1}), ("Some days [1].", {1}), 0.99, Verdict.UNDECIDED),
        (("5 days [1].", {1}), ("It is 5 days [2].", {2}), 0.99, Verdict.WRONG),
        (("5 days [1].", {1}), ("It is 5 days [1][2].", {1, 2}), 0.99, Verdict.UNDECIDED),
        (("None.", set()), ("None at all.", set()), 0.99, Verdict.WRONG),
    ],
)
def test_answers_in_other_words_agree_on_evidence_numbers_and_meaning(
    first, second, similarity, verdict
):
    assert judge_answers(first, second, similarity=similarity) is verdict
