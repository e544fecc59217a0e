"""What is kept of an answer comes back as it was, or not at all."""

from dataclasses import replace

import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from services.rag.answer_convert import reusable_of, to_answer_message
from services.rag.core.answer import Answer, AnswerOrigin, EarlierQuestion
from services.rag.core.conversation import TokenUsage
from services.rag.core.options import Mode, Question
from services.rag.core.passages import FusedChunk, Passage, RankedPassage
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
