"""Between kept conversations and the messages that tell of them."""

from collections.abc import Mapping

from pannier.rag.v1 import conversation_pb2 as pb
from pannier.rag.v1 import rag_service_pb2
from services.rag.core.dialogue import CitedSpan, Conversation, KeptTurn, OpenConversation
from services.rag.core.passages import TextSpan
from services.rag.times_convert import to_timestamp

__all__ = ["cited_spans", "span_of", "to_conversation", "to_conversation_started", "to_turn"]


def to_conversation(conversation: Conversation, *, with_summary: bool) -> pb.Conversation:
    """Writes a conversation without its turns."""
    return pb.Conversation(
        conversation_id=conversation.conversation_id,
        title=conversation.title,
        turn_count=conversation.turn_count,
        create_time=to_timestamp(conversation.created_at),
        update_time=to_timestamp(conversation.updated_at),
        summary=conversation.summary if with_summary else "",
    )


def to_conversation_started(opened: OpenConversation) -> pb.ConversationStarted:
    """Writes which conversation a question belongs to."""
    return pb.ConversationStarted(
        conversation_id=opened.conversation.conversation_id,
        is_new=opened.is_new,
        turn_number=opened.conversation.turn_count + 1,
    )


def to_turn(kept: KeptTurn, quotes: Mapping[TextSpan, str]) -> pb.KeptTurn:
    """Writes a turn.

    Args:
        kept: The turn.
        quotes: What its citations quote, as far as the caller may read it.
    """
    turn = kept.turn
    return pb.KeptTurn(
        number=kept.number,
        question=turn.question,
        answer=turn.answer,
        interrupted=turn.interrupted,
        citations=[
            pb.KeptCitation(
                marker=each.marker,
                document_id=each.document_id,
                title=each.title,
                source_uri=each.source_uri,
                char_start=each.char_start,
                char_end=each.char_end,
                answer_char_start=each.answer_char_start,
                answer_char_end=each.answer_char_end,
                quote=quotes.get(span_of(each), ""),
            )
            for each in turn.citations
        ],
        create_time=to_timestamp(kept.created_at),
        query_id=turn.query_id,
        model=turn.model,
        collection=turn.collection,
    )


def span_of(citation: CitedSpan) -> TextSpan:
    """Returns where the quote of a citation stands."""
    return TextSpan(citation.chunk_id, citation.char_start, citation.char_end)


def cited_spans(response: rag_service_pb2.QueryResponse) -> tuple[CitedSpan, ...]:
    """Reads where the documents say what an answer cites, without what they say."""
    chunk_ids = {
        each.marker: int(each.passage_id)
        for each in response.passages
        if each.passage_id.isdecimal()
    }
    return tuple(
        CitedSpan(
            marker=each.marker,
            document_id=each.document_id,
            title=each.title,
            source_uri=each.source_uri,
            chunk_id=chunk_ids.get(each.marker, 0),
            char_start=each.char_start,
            char_end=each.char_end,
            answer_char_start=each.answer_char_start,
            answer_char_end=each.answer_char_end,
        )
        for each in response.citations
    )
