"""Between finished answers and the message that carries them.

What is kept in the cache is the message that a caller gets, without what belongs to one call alone.
"""

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.citations import Citation
from services.rag.core.conversation import TokenUsage
from services.rag.core.model import FusedChunk, PassageOrigin, RankedPassage
from services.rag.core.options import Mode
from services.rag.core.reuse import ReusableAnswer, StoredPassage

__all__ = [
    "TO_MODES",
    "reusable_of",
    "to_answer_message",
    "to_citation",
    "to_duration",
    "to_passages",
]

TO_MODES = {mode: pb.QueryMode.Value(f"QUERY_MODE_{mode.name}") for mode in Mode}

_ORIGINS = {
    AnswerOrigin.GENERATED: pb.ANSWER_ORIGIN_GENERATED,
    AnswerOrigin.CACHED: pb.ANSWER_ORIGIN_CACHED,
    AnswerOrigin.CACHED_SIMILAR: pb.ANSWER_ORIGIN_CACHED_SIMILAR,
    AnswerOrigin.EXTRACTIVE: pb.ANSWER_ORIGIN_EXTRACTIVE,
    AnswerOrigin.NO_MATCH: pb.ANSWER_ORIGIN_NO_MATCH,
    AnswerOrigin.REFUSED: pb.ANSWER_ORIGIN_REFUSED,
}
_PASSAGE_ORIGINS = {
    origin: pb.PassageOrigin.Value(f"PASSAGE_ORIGIN_{origin.name}") for origin in PassageOrigin
}
_FINISH_REASONS = {
    "stop": generation_pb2.FINISH_REASON_STOP,
    "length": generation_pb2.FINISH_REASON_LENGTH,
    "": generation_pb2.FINISH_REASON_UNSPECIFIED,
}
_FINISH_REASON_NAMES = {number: name for name, number in _FINISH_REASONS.items()}


def to_answer_message(answer: Answer, warnings: Sequence[str]) -> pb.QueryResponse:
    """Writes a finished answer, without what belongs to one call alone."""
    response = pb.QueryResponse(
        answer=answer.text,
        citations=[to_citation(each, answer.passages) for each in answer.citations],
        passages=to_passages(answer.passages),
        origin=_ORIGINS[answer.origin],
        warnings=warnings,
        mode=TO_MODES[answer.mode],
        model=answer.model,
        finish_reason=_FINISH_REASONS[answer.finish_reason],
        usage=generation_pb2.TokenUsage(
            prompt_token_count=answer.usage.prompt_token_count,
            completion_token_count=answer.usage.completion_token_count,
        ),
    )
    if answer.earlier is not None:
        response.cached.query = answer.earlier.text
        response.cached.similarity = answer.earlier.similarity
        response.cached.age.CopyFrom(to_duration(answer.earlier.age_seconds))
    return response


def to_passages(passages: tuple[RankedPassage, ...]) -> list[pb.Passage]:
    """Writes passages with their markers."""
    return [
        pb.Passage(
            marker=marker,
            document_id=each.passage.document_id,
            title=each.passage.title,
            source_uri=each.passage.source_uri,
            heading_path=each.passage.heading_path,
            text=each.passage.text,
            char_start=each.passage.char_start,
            char_end=each.passage.char_end,
            score=pb.PassageScore(
                fused_score=each.ranking.score,
                vector_rank=each.ranking.vector_rank,
                vector_similarity=each.ranking.vector_score,
                keyword_rank=each.ranking.keyword_rank,
                keyword_score=each.ranking.keyword_score,
                rerank_score=each.ranking.rerank_score,
            ),
            passage_id=str(each.passage.chunk_id),
            page_start=each.passage.page_start,
            page_end=each.passage.page_end,
            origin=_PASSAGE_ORIGINS[each.passage.origin],
            injection_suspected=each.passage.injection_suspected,
        )
        for marker, each in enumerate(passages, 1)
    ]


def to_citation(citation: Citation, passages: tuple[RankedPassage, ...]) -> pb.Citation:
    """Writes a citation with the facts of its document."""
    passage = passages[citation.marker - 1].passage
    return pb.Citation(
        marker=citation.marker,
        document_id=passage.document_id,
        title=passage.title,
        source_uri=passage.source_uri,
        char_start=citation.quote_char_start,
        char_end=citation.quote_char_end,
        quote=citation.quote,
        answer_char_start=citation.answer_char_start,
        answer_char_end=citation.answer_char_end,
        support_ratio=citation.support,
    )


def reusable_of(message: pb.QueryResponse) -> ReusableAnswer | None:
    """Reads an answer as it was kept; None where that is not one that can be given again."""
    passages = [_stored_passage(each) for each in message.passages]
    usable = tuple(each for each in passages if each is not None)
    citations = tuple(_citation(each) for each in message.citations)
    if (
        not message.answer
        or len(usable) < len(passages)
        or any(not 0 <= each.passage_index < len(usable) for each in citations)
    ):
        return None
    return ReusableAnswer(
        text=message.answer,
        citations=citations,
        passages=usable,
        warnings=tuple(message.warnings),
        model=message.model,
        finish_reason=_FINISH_REASON_NAMES.get(message.finish_reason, ""),
        usage=TokenUsage(message.usage.prompt_token_count, message.usage.completion_token_count),
    )


def to_duration(seconds: float) -> Duration:
    """Writes a duration."""
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _stored_passage(message: pb.Passage) -> StoredPassage | None:
    if not message.passage_id.isdecimal():
        return None
    score = message.score
    ranking = FusedChunk(
        chunk_id=int(message.passage_id),
        score=score.fused_score,
        vector_rank=score.vector_rank if score.HasField("vector_rank") else None,
        vector_score=score.vector_similarity if score.HasField("vector_similarity") else None,
        keyword_rank=score.keyword_rank if score.HasField("keyword_rank") else None,
        keyword_score=score.keyword_score if score.HasField("keyword_score") else None,
    )
    return StoredPassage(message.text, ranking)


def _citation(message: pb.Citation) -> Citation:
    return Citation(
        marker=message.marker,
        passage_index=message.marker - 1,
        answer_char_start=message.answer_char_start,
        answer_char_end=message.answer_char_end,
        quote_char_start=message.char_start,
        quote_char_end=message.char_end,
        quote=message.quote,
        support=message.support_ratio,
    )
