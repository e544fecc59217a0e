"""Conversations in PostgreSQL."""

import json
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import asyncpg

from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.dialogue import (
    CitedSpan,
    Conversation,
    ConversationPage,
    KeptTurn,
    NewTurn,
    OpenConversation,
    TurnPage,
)
from services.rag.core.dialogue_errors import ConversationBusy, ConversationNotFound

__all__ = ["PostgresConversationStore"]

_CREATE = """
INSERT INTO rag.conversation (tenant_id, user_id, title, claim, claimed_until)
VALUES ($1, $2, $3, gen_random_uuid(), clock_timestamp() + make_interval(secs => $4))
RETURNING *
"""
_CLAIM = """
UPDATE rag.conversation SET claim = gen_random_uuid(),
    claimed_until = clock_timestamp() + make_interval(secs => $4)
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3
    AND (claim IS NULL OR claimed_until < clock_timestamp())
RETURNING *
"""
_GET = """
SELECT * FROM rag.conversation
WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3
"""
_RECENT = """
SELECT * FROM rag.turn
WHERE tenant_id = $1 AND conversation_id = $2 ORDER BY number DESC LIMIT $3
"""
_COUNT_TURN = """
UPDATE rag.conversation SET turn_count = turn_count + 1, claim = NULL, claimed_until = NULL,
    updated_at = clock_timestamp()
WHERE tenant_id = $1 AND conversation_id = $2 AND claim = $3
RETURNING turn_count
"""
_ADD_TURN = """
INSERT INTO rag.turn (tenant_id, conversation_id, number, question, answer, interrupted, query_id,
    model, collection, citations, document_ids)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_RELEASE = """
UPDATE rag.conversation SET claim = NULL, claimed_until = NULL
WHERE tenant_id = $1 AND conversation_id = $2 AND claim = $3
"""
_FORGET_EMPTY = """
DELETE FROM rag.conversation
WHERE tenant_id = $1 AND user_id = $2 AND turn_count = 0
    AND updated_at < clock_timestamp() - make_interval(secs => $3)
    AND (claim IS NULL OR claimed_until < clock_timestamp())
"""
_PUT_SUMMARY = """
UPDATE rag.conversation SET summary = $3, summarized_turn_count = $4
WHERE tenant_id = $1 AND conversation_id = $2 AND summarized_turn_count < $4
"""
_LIST = """
SELECT * FROM rag.conversation
WHERE tenant_id = $1 AND user_id = $2 AND turn_count > 0
    AND ($3::timestamptz IS NULL OR (updated_at, conversation_id) < ($3, $4::uuid))
ORDER BY updated_at DESC, conversation_id DESC LIMIT $5
"""
_LIST_TURNS = """
SELECT * FROM rag.turn
WHERE tenant_id = $1 AND conversation_id = $2 AND number > $3 ORDER BY number LIMIT $4
"""
_DELETE = """
DELETE FROM rag.conversation WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3
RETURNING turn_count
"""

# For so long a conversation is there whose first question had no answer.
_EMPTY_SECONDS = 3600.0


class PostgresConversationStore:
    """Keeps conversations.

    One without turns is not listed, and forgotten when its user begins another one later on.

    Args:
        pool: Connections to a migrated database.
    """

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool

    async def create(
        self, tenant_id: str, user_id: str, *, title: str, claim_seconds: float
    ) -> OpenConversation:
        """Makes a conversation, and gives the caller the right to add a turn."""
        async with self._pool.writing(tenant_id) as connection:
            await connection.execute(_FORGET_EMPTY, tenant_id, user_id, _EMPTY_SECONDS)
            rows = await connection.fetch(
                _CREATE, tenant_id, user_id, _storable(title), claim_seconds
            )
        row = rows[0]
        return OpenConversation(
            conversation=_conversation(row), claim=str(row["claim"]), is_new=True, recent=()
        )

    async def claim(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        claim_seconds: float,
        turn_limit: int,
    ) -> OpenConversation:
        """Gives the caller alone the right to add a turn."""
        key = _uuid(conversation_id)
        async with self._pool.writing(tenant_id) as connection:
            row = await connection.fetchrow(_CLAIM, tenant_id, user_id, key, claim_seconds)
            if row is None:
                if await connection.fetchrow(_GET, tenant_id, user_id, key) is None:
                    raise ConversationNotFound(conversation_id)
                raise ConversationBusy(conversation_id)
            recent = await connection.fetch(_RECENT, tenant_id, key, turn_limit)
        return OpenConversation(
            conversation=_conversation(row),
            claim=str(row["claim"]),
            is_new=False,
            recent=tuple(_turn(each) for each in reversed(recent)),
        )

    async def add_turn(
        self, tenant_id: str, conversation_id: str, claim: str, turn: NewTurn
    ) -> bool:
        """Keeps a turn and gives the right back."""
        key = _uuid(conversation_id)
        async with self._pool.writing(tenant_id) as connection:
            number = await connection.fetchval(_COUNT_TURN, tenant_id, key, UUID(claim))
            if number is None:
                return False
            await connection.execute(
                _ADD_TURN,
                tenant_id,
                key,
                number,
                _storable(turn.question),
                _storable(turn.answer),
                turn.interrupted,
                turn.query_id,
                turn.model,
                turn.collection,
                json.dumps([asdict(each) for each in turn.citations]),
                sorted({each.document_id for each in turn.citations}),
            )
        return True

    async def release(self, tenant_id: str, conversation_id: str, claim: str) -> None:
        """Gives the right back without a turn."""
        async with self._pool.writing(tenant_id) as connection:
            await connection.execute(_RELEASE, tenant_id, _uuid(conversation_id), UUID(claim))

    async def put_summary(
        self, tenant_id: str, conversation_id: str, summary: str, *, summarized_turn_count: int
    ) -> None:
        """Keeps what the first turns were about, unless there is a summary of more of them."""
        async with self._pool.writing(tenant_id) as connection:
            await connection.execute(
                _PUT_SUMMARY,
                tenant_id,
                _uuid(conversation_id),
                _storable(summary),
                summarized_turn_count,
            )

    async def list_conversations(
        self, tenant_id: str, user_id: str, *, page_size: int, after: tuple[datetime, str] | None
    ) -> ConversationPage:
        """Returns a user's conversations, the one with the latest turn first."""
        time, key = (after[0], _uuid(after[1])) if after is not None else (None, None)
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(_LIST, tenant_id, user_id, time, key, page_size + 1)
        found = tuple(_conversation(row) for row in rows[:page_size])
        more = len(rows) > page_size
        return ConversationPage(
            found, (found[-1].updated_at, found[-1].conversation_id) if more else None
        )

    async def get_conversation(
        self, tenant_id: str, user_id: str, conversation_id: str
    ) -> Conversation:
        """Returns a conversation."""
        async with self._pool.reading(tenant_id) as connection:
            row = await connection.fetchrow(_GET, tenant_id, user_id, _uuid(conversation_id))
        if row is None:
            raise ConversationNotFound(conversation_id)
        return _conversation(row)

    async def list_turns(
        self, tenant_id: str, conversation_id: str, *, page_size: int, after: int
    ) -> TurnPage:
        """Returns turns by their numbers, those above `after`."""
        async with self._pool.reading(tenant_id) as connection:
            rows = await connection.fetch(
                _LIST_TURNS, tenant_id, _uuid(conversation_id), after, page_size + 1
            )
        turns = tuple(_turn(row) for row in rows[:page_size])
        return TurnPage(turns, turns[-1].number if len(rows) > page_size else None)

    async def delete_conversation(self, tenant_id: str, user_id: str, conversation_id: str) -> int:
        """Deletes a conversation and returns how many turns it had."""
        async with self._pool.writing(tenant_id) as connection:
            count = await connection.fetchval(_DELETE, tenant_id, user_id, _uuid(conversation_id))
        if count is None:
            raise ConversationNotFound(conversation_id)
        return int(count)


def _uuid(conversation_id: str) -> UUID:
    """Reads an id; what is none belongs to no conversation."""
    try:
        return UUID(conversation_id)
    except ValueError:
        raise ConversationNotFound(conversation_id) from None


def _storable(text: str) -> str:
    """Replaces the one character that PostgreSQL cannot store; offsets stay as they are."""
    return text.replace("\0", "\ufffd")


def _conversation(row: asyncpg.Record) -> Conversation:
    return Conversation(
        conversation_id=str(row["conversation_id"]),
        title=row["title"],
        turn_count=row["turn_count"],
        summary=row["summary"],
        summarized_turn_count=row["summarized_turn_count"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _turn(row: asyncpg.Record) -> KeptTurn:
    return KeptTurn(
        number=row["number"],
        turn=NewTurn(
            question=row["question"],
            answer=row["answer"],
            interrupted=row["interrupted"],
            query_id=row["query_id"],
            model=row["model"],
            collection=row["collection"],
            citations=tuple(CitedSpan(**each) for each in json.loads(row["citations"])),
        ),
        created_at=row["created_at"],
    )
