"""Between finished answers and the message that carries them.

What is kept in the cache is the message that a caller gets, without what belongs to one call alone.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, is_
from typing import Any

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import quality_pb2, tool_pb2
from pannier.rag.v1 import rag_service_pb2 as pb
from services.rag.core.answer import Answer, AnswerOrigin
from services.rag.core.citations import Citation
from services.rag.core.conversation import TokenUsage
from services.rag.core.options import Mode
from services.rag.core.passages import FusedChunk, Passage, PassageOrigin, RankedPassage
from services.rag.core.quality import Quality
from services.rag.core.retrieved import Band, Confidence
from services.rag.core.reuse import ReusableAnswer
from services.rag.core.tools import ToolExecution, ToolOutcome
from services.rag.core.verification import SentenceSupport, SupportStatus
from services.rag.times_convert import to_duration

__all__ = [
    "TO_MODES",
    "drop_texts",
    "reusable_of",
    "to_answer_message",
    "to_citation",
    "to_confidence",
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
_BANDS = {band: quality_pb2.ConfidenceBand.Value(f"CONFIDENCE_BAND_{band.name}") for band in Band}
_STATUSES = {
    status: quality_pb2.SupportStatus.Value(f"SUPPORT_STATUS_{status.name}")
    for status in SupportStatus
}
_TOOL_OUTCOMES = {
    outcome: tool_pb2.ToolOutcome.Value(f"TOOL_OUTCOME_{outcome.name}") for outcome in ToolOutcome
}
_STATUS_OF = {number: status for status, number in _STATUSES.items()}
_FINISH_REASONS = {
    "stop": generation_pb2.FINISH_REASON_STOP,
    "length": generation_pb2.FINISH_REASON_LENGTH,
    "": generation_pb2.FINISH_REASON_UNSPECIFIED,
}
_FINISH_REASON_NAMES = {number: name for name, number in _FINISH_REASONS.items()}

# Answers that are asked for again and again; together they take a few MiB at most.
_MOST_WRITTEN = 128
_MOST_WRITTEN_BYTES = 32_768

# What an answer has of itself, however it came about.
_parts = attrgetter(
    "passages",
    "text",
    "citations",
    "model",
    "finish_reason",
    "usage",
    "sentences",
    "quality",
    "rewritten_query",
    "expansions",
)


@dataclass(frozen=True, slots=True)
class _Written:
    """Answers that are given again, and their messages, so that each is written once.

    An answer is known by its parts being the very same objects, which cost nothing to compare.
    """

    messages: OrderedDict[int, tuple[tuple[Any, ...], pb.QueryResponse]] = field(
        default_factory=OrderedDict
    )

    def message_of(self, answer: Answer) -> pb.QueryResponse:
        """Returns the message of an answer's parts, for the caller to change."""
        # Kept with its parts, none of which can be another object of the same id meanwhile.
        key, parts = id(answer.passages), _parts(answer)
        known = self.messages.get(key)
        if known is None or not all(map(is_, known[0], parts)):
            known = parts, _to_parts(answer)
            self._keep(key, known)
        response = pb.QueryResponse()
        response.CopyFrom(known[1])
        return response

    def _keep(self, key: int, written: tuple[tuple[Any, ...], pb.QueryResponse]) -> None:
        self.messages.pop(key, None)
        if written[1].ByteSize() <= _MOST_WRITTEN_BYTES:
            self.messages[key] = written
            if len(self.messages) > _MOST_WRITTEN:
                self.messages.popitem(last=False)


_written = _Written()


def to_answer_message(answer: Answer, warnings: Sequence[str]) -> pb.QueryResponse:
    """Writes a finished answer, without what belongs to one call alone."""
    again = answer.origin.is_given_again
    response = _written.message_of(answer) if again else _to_parts(answer)
    response.origin = _ORIGINS[answer.origin]
    response.mode = TO_MODES[answer.mode]
    response.warnings.extend(warnings)
    if answer.confidence is not None:
        response.confidence.CopyFrom(to_confidence(answer.confidence))
    response.tool_executions.extend(_to_execution(each) for each in answer.tool_executions)
    if answer.earlier is not None:
        response.cached.query = answer.earlier.text
        response.cached.similarity = answer.earlier.similarity
        response.cached.age.CopyFrom(to_duration(answer.earlier.age_seconds))
    return response


def _to_parts(answer: Answer) -> pb.QueryResponse:
    return pb.QueryResponse(
        answer=answer.text,
        citations=[to_citation(each, answer.passages) for each in answer.citations],
        passages=to_passages(answer.passages),
        model=answer.model,
        finish_reason=_FINISH_REASONS[answer.finish_reason],
        usage=generation_pb2.TokenUsage(
            prompt_token_count=answer.usage.prompt_token_count,
            completion_token_count=answer.usage.completion_token_count,
        ),
        sentences=[_to_sentence(each) for each in answer.sentences],
        quality=None if answer.quality is None else _to_quality(answer.quality),
        rewritten_query=answer.rewritten_query,
        expansions=answer.expansions,
    )


def _to_execution(execution: ToolExecution) -> tool_pb2.ToolExecution:
    return tool_pb2.ToolExecution(
        name=execution.name,
        arguments_json=execution.arguments_json,
        outcome=_TOOL_OUTCOMES[execution.outcome],
        duration=to_duration(execution.duration_seconds),
        summary=execution.summary,
        step=execution.step,
    )


def drop_texts(passages: Iterable[pb.Passage]) -> None:
    """Leaves out what passages say, for callers that have it already."""
    for passage in passages:
        passage.ClearField("text")


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
        page_start=citation.page_start,
        page_end=citation.page_end,
    )


def to_confidence(confidence: Confidence) -> quality_pb2.RetrievalConfidence:
    """Writes how likely the passages found hold the answer."""
    return quality_pb2.RetrievalConfidence(
        score=confidence.score,
        band=_BANDS[confidence.band],
        keyword_ratio=confidence.keyword_ratio,
        coverage_ratio=confidence.coverage_ratio,
        vector_percentile=confidence.vector_percentile,
        agreement_ratio=confidence.agreement_ratio,
        rerank_ratio=confidence.rerank_ratio,
    )


def reusable_of(message: pb.QueryResponse, collection: str) -> ReusableAnswer | None:
    """Reads an answer as it was kept; None where that is not one that can be given again.

    Args:
        message: The answer.
        collection: Whose passages it was made from.
    """
    passages = [_stored_passage(each, collection) for each in message.passages]
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
        sentences=tuple(_sentence(each) for each in message.sentences),
        quality=_quality(message.quality) if message.HasField("quality") else None,
        rewritten_query=message.rewritten_query,
        expansions=tuple(message.expansions),
    )


def _stored_passage(message: pb.Passage, collection: str) -> RankedPassage | None:
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
        rerank_score=score.rerank_score if score.HasField("rerank_score") else None,
    )
    passage = Passage(
        chunk_id=ranking.chunk_id,
        collection=collection,
        document_id=message.document_id,
        title=message.title,
        source_uri=message.source_uri,
        media_type="",
        metadata={},
        ordinal=0,
        char_start=message.char_start,
        char_end=message.char_end,
        text=message.text,
        heading_path=tuple(message.heading_path),
        header=message.title,
        token_estimate=0,
        page_start=message.page_start,
        page_end=message.page_end,
        injection_suspected=message.injection_suspected,
    )
    return RankedPassage(passage, ranking)


def _to_sentence(sentence: SentenceSupport) -> quality_pb2.SentenceSupport:
    return quality_pb2.SentenceSupport(
        answer_char_start=sentence.answer_char_start,
        answer_char_end=sentence.answer_char_end,
        status=_STATUSES[sentence.status],
        support_ratio=sentence.support,
        marker=sentence.marker,
        citation_added=sentence.citation_added,
        unfounded=sentence.unfounded,
    )


def _sentence(message: quality_pb2.SentenceSupport) -> SentenceSupport:
    return SentenceSupport(
        answer_char_start=message.answer_char_start,
        answer_char_end=message.answer_char_end,
        status=_STATUS_OF.get(message.status, SupportStatus.UNSUPPORTED),
        support=message.support_ratio,
        marker=message.marker,
        citation_added=message.citation_added,
        unfounded=tuple(message.unfounded),
    )


def _to_quality(quality: Quality) -> quality_pb2.AnswerQuality:
    return quality_pb2.AnswerQuality(
        score=quality.score,
        retrieval_confidence=quality.retrieval_confidence,
        groundedness=quality.groundedness,
        citation_precision=quality.citation_precision,
        citation_coverage=quality.citation_coverage,
    )


def _quality(message: quality_pb2.AnswerQuality) -> Quality:
    return Quality(
        score=message.score,
        retrieval_confidence=message.retrieval_confidence,
        groundedness=message.groundedness,
        citation_precision=message.citation_precision,
        citation_coverage=message.citation_coverage,
    )


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
        page_start=message.page_start,
        page_end=message.page_end,
    )
