"""What is kept of an answer comes back as it was, or not at all."""

from dataclasses import replace

import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from services.rag.answer_convert import _written, drop_texts, reusable_of, to_answer_message
from services.rag.core.answer import Answer, AnswerOrigin, EarlierQuestion
from services.rag.core.conversation import TokenUsage
from services.rag.core.options import Mode, Question
from services.rag.core.passages import FusedChunk, Passage, RankedPassage
from services.rag.core.quality import Quality
from services.rag.core.verification import SentenceSupport, SupportStatus
from tests.kit.citations import cite_answer

QUESTION = Question(collection="docs", text="How long does it take?")
PASSAGES = tuple(
    Passage(
        chunk_id=number,
        collection="docs",
        document_id=f"doc{number}",
        title="Title",
        source_uri="https://example.org",
        media_type="text/plain",
        metadata={"team": "a"},
        ordinal=3,
        char_start=10,
        char_end=10 + len(text),
        text=text,
        heading_path=("One", "Two"),
        header="Title",
        token_estimate=5,
    )
    for number, text in ((2**53 + 1, "It takes 5 days."), (12, "It is blue."))
)
RANKINGS = (
    FusedChunk(chunk_id=2**53 + 1, score=0.9, vector_rank=1, vector_score=0.8),
    FusedChunk(chunk_id=12, score=0.1, keyword_rank=1, keyword_score=3.5),
)
SENTENCE = SentenceSupport(
    answer_char_start=0, answer_char_end=20, status=SupportStatus.SUPPORTED, support=1.0
)
QUALITY = Quality(
    score=0.9,
    retrieval_confidence=0.9,
    groundedness=1.0,
    citation_precision=1.0,
    citation_coverage=1.0,
)
TEXT = "It takes 5 days [1]. It is blue [2]."


@pytest.fixture
def answer():
    return Answer(
        text=TEXT,
        citations=cite_answer(TEXT, PASSAGES)[0],
        passages=tuple(map(RankedPassage, PASSAGES, RANKINGS)),
        origin=AnswerOrigin.GENERATED,
        mode=Mode.RAG,
        model="talker:latest",
        finish_reason="stop",
        usage=TokenUsage(100, 10),
    )


def test_an_answer_survives_being_kept(answer):
    kept = reusable_of(to_answer_message(answer, ["Careful."]), "docs")
    assert kept.warnings == ("Careful.",)
    current = {each.chunk_id: each for each in PASSAGES}
    assert kept.restore(QUESTION, AnswerOrigin.GENERATED, current) == answer


def test_what_belongs_to_one_call_is_not_kept(answer):
    message = to_answer_message(replace(answer, backend_id="host:1"), [])
    assert not message.backend_id
    assert not message.trace_id
    assert not message.HasField("profile")


def test_the_earlier_question_is_shown(answer):
    earlier = EarlierQuestion(text="How long?", similarity=0.97, age_seconds=90.5)
    message = to_answer_message(replace(answer, earlier=earlier), [])
    assert (message.cached.query, message.cached.similarity) == ("How long?", 0.97)
    assert message.cached.age.ToNanoseconds() == 90_500_000_000


def written_anew(answer, warnings):
    """The message of an answer whose parts are known from nowhere."""
    message = to_answer_message(replace(answer, origin=AnswerOrigin.GENERATED), warnings)
    message.origin = pb.ANSWER_ORIGIN_CACHED
    return message


def test_an_answer_that_is_given_again_reads_the_same_each_time(answer):
    again = replace(answer, origin=AnswerOrigin.CACHED)
    expected = written_anew(again, ["Careful."])
    assert to_answer_message(again, ["Careful."]) == expected
    assert to_answer_message(again, ["Careful."]) == expected
    assert list(to_answer_message(again, []).warnings) == []


def test_what_a_call_does_with_its_message_is_not_in_that_of_the_next(answer):
    again = replace(answer, origin=AnswerOrigin.CACHED)
    message = to_answer_message(again, [])
    drop_texts(message.passages)
    message.answer = "Another."
    assert to_answer_message(again, []) == written_anew(again, [])


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "It takes 5 days [1]."},
        {"citations": ()},
        {"model": "other:latest"},
        {"finish_reason": "length"},
        {"usage": TokenUsage(1, 2)},
        {"sentences": (SENTENCE,)},
        {"quality": QUALITY},
        {"rewritten_query": "How long?"},
        {"expansions": ("How many days?",)},
        {"mode": Mode.DEEP},
        {"earlier": EarlierQuestion(text="How long?", similarity=0.97, age_seconds=1.0)},
    ],
)
def test_an_answer_that_differs_in_one_part_is_not_taken_for_the_other(answer, changed):
    again = replace(answer, origin=AnswerOrigin.CACHED)
    first = to_answer_message(again, [])
    other = replace(again, **changed)
    assert to_answer_message(other, []) == written_anew(other, []) != first
    assert to_answer_message(again, []) == first


def test_only_the_last_answers_are_remembered_as_written(answer):
    for number in range(300):
        again = replace(answer, origin=AnswerOrigin.CACHED, passages=(*answer.passages,))
        again = replace(again, passages=tuple(again.passages[:1]) * 2, text=f"Answer {number}.")
        assert to_answer_message(again, []).answer == f"Answer {number}."
    assert len(_written.messages) <= 128


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: message.ClearField("answer"),
        lambda message: message.passages[0].ClearField("passage_id"),
        lambda message: setattr(message.passages[0], "passage_id", "-1"),
        lambda message: message.passages.pop(),
        lambda message: setattr(message.citations[0], "marker", 0),
    ],
)
def test_what_does_not_fit_together_is_not_an_answer(answer, spoil):
    message = pb.QueryResponse()
    message.CopyFrom(to_answer_message(answer, []))
    spoil(message)
    assert reusable_of(message, "docs") is None
