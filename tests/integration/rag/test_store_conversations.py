"""Conversations in a real PostgreSQL: owners, order, claims, pages, deletion."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from services.rag.adapters.postgres_citations import scrub_documents
from services.rag.adapters.postgres_conversations import PostgresConversationStore
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.core.dialogue import CitedSpan, NewTurn
from services.rag.core.dialogue_errors import ConversationBusy, ConversationNotFound

ACME, ANN = "acme", "ann"
LONG, OVER = 60.0, -1.0


@pytest.fixture
async def pool(database_dsn: str) -> AsyncIterator[PostgresPool]:
    opened = PostgresPool(database_dsn)
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def store(pool: PostgresPool) -> PostgresConversationStore:
    return PostgresConversationStore(pool)


def cited(document_id: str, *, marker: int = 1) -> CitedSpan:
    return CitedSpan(
        marker=marker,
        document_id=document_id,
        title="Guide",
        source_uri="",
        chunk_id=7,
        char_start=0,
        char_end=5,
        answer_char_start=0,
        answer_char_end=9,
    )


async def begin(store, title="What?", *, tenant=ACME, user=ANN):
    return await store.create(tenant, user, title=title, claim_seconds=LONG)


async def claim(store, conversation_id, *, user=ANN, tenant=ACME, seconds=LONG):
    return await store.claim(tenant, user, conversation_id, claim_seconds=seconds, turn_limit=20)


async def filled(store, *answers, user=ANN):
    opened = await begin(store, user=user)
    conversation_id, right = opened.conversation.conversation_id, opened.claim
    for answer in answers:
        turn = NewTurn(question="What?", answer=answer, collection="docs")
        assert await store.add_turn(ACME, conversation_id, right, turn)
        right = (await claim(store, conversation_id, user=user)).claim
    await store.release(ACME, conversation_id, right)
    return conversation_id


async def test_a_turn_is_kept_as_it_was(store):
    opened = await begin(store)
    turn = NewTurn(
        question="What?",
        answer="It is\x00 so [1].",
        interrupted=True,
        query_id="q",
        model="talker",
        collection="docs",
        citations=(cited("a.md"), cited("b.md", marker=2)),
    )
    conversation_id = opened.conversation.conversation_id
    assert await store.add_turn(ACME, conversation_id, opened.claim, turn)
    again = await claim(store, conversation_id)
    assert not again.is_new
    assert again.conversation.turn_count == 1
    (kept,) = again.recent
    assert kept.number == 1
    assert kept.turn.answer == "It is\ufffd so [1]."
    assert kept.turn.citations == turn.citations
    assert (kept.turn.interrupted, kept.turn.query_id, kept.turn.model) == (True, "q", "talker")


async def test_one_at_a_time_adds_a_turn(store):
    opened = await begin(store)
    conversation_id = opened.conversation.conversation_id
    with pytest.raises(ConversationBusy):
        await claim(store, conversation_id)
    await store.add_turn(ACME, conversation_id, opened.claim, NewTurn(question="a", answer="b"))
    assert (await claim(store, conversation_id)).conversation.turn_count == 1


async def test_a_right_that_ran_out_goes_to_the_next_and_counts_no_more(store):
    conversation_id = await filled(store, "first")
    late = await claim(store, conversation_id, seconds=OVER)
    new = await claim(store, conversation_id)
    turn = NewTurn(question="a", answer="b")
    assert not await store.add_turn(ACME, conversation_id, late.claim, turn)
    await store.release(ACME, conversation_id, late.claim)
    with pytest.raises(ConversationBusy):
        await claim(store, conversation_id)
    assert await store.add_turn(ACME, conversation_id, new.claim, turn)


async def test_a_conversation_without_a_turn_is_not_listed_and_forgotten_after_a_while(
    store, database_dsn
):
    opened = await begin(store)
    conversation_id = opened.conversation.conversation_id
    assert not (await store.list_conversations(ACME, ANN, page_size=9, after=None)).conversations
    await store.release(ACME, conversation_id, opened.claim)
    await begin(store)
    assert (await claim(store, conversation_id)).conversation.turn_count == 0
    connection = await asyncpg.connect(database_dsn)
    try:
        await connection.execute(
            "UPDATE rag.conversation SET updated_at = now() - interval '2 hours', claim = NULL"
        )
    finally:
        await connection.close()
    await begin(store)
    with pytest.raises(ConversationNotFound):
        await store.get_conversation(ACME, ANN, conversation_id)


async def test_for_others_a_conversation_is_not_there(store):
    conversation_id = await filled(store, "secret")
    for tenant, user in [(ACME, "bob"), (ACME, ""), ("other", ANN)]:
        with pytest.raises(ConversationNotFound):
            await store.get_conversation(tenant, user, conversation_id)
        with pytest.raises(ConversationNotFound):
            await claim(store, conversation_id, tenant=tenant, user=user)
        with pytest.raises(ConversationNotFound):
            await store.delete_conversation(tenant, user, conversation_id)
        page = await store.list_conversations(tenant, user, page_size=9, after=None)
        assert not page.conversations
    # Ids are checked by the calls above; the wall between tenants holds without them.
    assert not (await store.list_turns("other", conversation_id, page_size=9, after=0)).turns
    assert (await store.get_conversation(ACME, ANN, conversation_id)).turn_count == 1


@pytest.mark.parametrize("conversation_id", ["x", "", "0" * 64, "' OR 1=1"])
async def test_what_is_no_id_is_no_conversation(store, conversation_id):
    with pytest.raises(ConversationNotFound):
        await store.get_conversation(ACME, ANN, conversation_id)


async def test_pages_hold_each_conversation_once_the_latest_first(store):
    ids = [await filled(store, "a") for _ in range(5)]
    opened = await claim(store, ids[1])
    await store.add_turn(ACME, ids[1], opened.claim, NewTurn(question="a", answer="b"))
    found, after = [], None
    while True:
        page = await store.list_conversations(ACME, ANN, page_size=2, after=after)
        found += [each.conversation_id for each in page.conversations]
        after = page.next_after
        if after is None:
            break
    assert found == [ids[1], ids[4], ids[3], ids[2], ids[0]]


async def test_turns_come_in_pages_oldest_first_and_the_last_ones_with_the_right(store):
    conversation_id = await filled(store, *"abcde")
    first = await store.list_turns(ACME, conversation_id, page_size=3, after=0)
    rest = await store.list_turns(ACME, conversation_id, page_size=3, after=first.next_after)
    assert [each.turn.answer for each in (*first.turns, *rest.turns)] == list("abcde")
    assert rest.next_after is None
    opened = await store.claim(ACME, ANN, conversation_id, claim_seconds=LONG, turn_limit=2)
    assert [each.turn.answer for each in opened.recent] == ["d", "e"]


async def test_a_summary_of_more_turns_takes_the_place_of_one_of_fewer_only(store):
    conversation_id = await filled(store, *"abcde")
    for text, count in [("four", 4), ("two", 2), ("five", 5)]:
        await store.put_summary(ACME, conversation_id, text, summarized_turn_count=count)
        conversation = await store.get_conversation(ACME, ANN, conversation_id)
        assert conversation.summary == ("four" if count < 5 else "five")


async def test_deletion_takes_all_turns(store):
    conversation_id = await filled(store, "a", "b")
    assert await store.delete_conversation(ACME, ANN, conversation_id) == 2
    assert not (await store.list_turns(ACME, conversation_id, page_size=9, after=0)).turns
    assert not await store.add_turn(
        ACME, conversation_id, conversation_id, NewTurn(question="a", answer="b")
    )


async def test_citations_of_a_document_are_taken_out_of_its_tenants_turns(store, pool):
    async def scrub(collection, *document_ids):
        async with pool.writing(ACME) as connection:
            return await scrub_documents(connection, ACME, collection, document_ids)

    kept = {}
    for tenant in (ACME, "other"):
        opened = await begin(store, tenant=tenant)
        kept[tenant] = opened.conversation.conversation_id
        turn = NewTurn(
            question="a",
            answer="b [1][2]",
            collection="docs",
            citations=(cited("a.md"), cited("b.md", marker=2)),
        )
        await store.add_turn(tenant, kept[tenant], opened.claim, turn)
    assert await scrub("others", "a.md") == 0
    assert await scrub("docs", "a.md", "z.md") == 1
    assert await scrub("docs", "a.md") == 0
    (turn,) = (await store.list_turns(ACME, kept[ACME], page_size=9, after=0)).turns
    assert turn.turn.answer == "b [1][2]"
    assert [each.document_id for each in turn.turn.citations] == ["b.md"]
    (turn,) = (await store.list_turns("other", kept["other"], page_size=9, after=0)).turns
    assert len(turn.turn.citations) == 2
