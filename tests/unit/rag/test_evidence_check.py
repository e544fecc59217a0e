"""An answer is given without its passages only where it is the one that was noted."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from services.rag.core.answer import AnswerOrigin
from services.rag.core.errors import StoreUnavailable
from services.rag.core.filters import Access
from services.rag.core.options import CachePolicy, Question, RetrievalOptions
from services.rag.core.stored_evidence import CollectionState, EvidenceNote, StoredEvidence
from services.rag.evidence_check import EvidenceCheck, EvidenceMemory, question_key
from services.rag.semantic_port import SemanticPartition

NOW = datetime(2026, 5, 1, tzinfo=UTC)
STATE = CollectionState(version=7, transaction_number=700, server_started_at=NOW, read_at=NOW)
NOTE = EvidenceNote("entry", (1, 2), STATE)
PARTITION = SemanticPartition(
    embedding_model_digest="a" * 64,
    model_digest="b" * 64,
    access_fingerprint="everyone",
    configuration_fingerprint="plain",
    namespace="docs",
)


class Store:
    """Says what it is told to, and notes what it is asked."""

    def __init__(self, state=STATE):
        self.state = state
        self.asked = []

    async def get_collection_state(self, _tenant_id, _name):
        self.asked.append("state")
        if isinstance(self.state, Exception):
            raise self.state
        return self.state

    async def load_evidence(self, _tenant_id, chunk_ids, *, filter, access):
        self.asked.append(("passages", chunk_ids, access))
        return StoredEvidence(dict.fromkeys(chunk_ids), self.state)


class Kept:
    """An answer as the cache has it."""

    def __init__(self, chunk_ids):
        self.chunk_ids = self.passages = chunk_ids

    def restore_as_kept(self, _question, _origin, _earlier):
        return "as kept"

    def restore(self, _question, _origin, current, _earlier):
        return "restored" if len(current) == len(self.chunk_ids) else None

    def shows(self, _current):
        return True


def task(text="Why?", tenant_id="acme", **options):
    retrieval = RetrievalOptions(access=Access.of("ann"))
    question = Question(collection="docs", text=text, retrieval=retrieval, **options)
    return SimpleNamespace(tenant_id=tenant_id, question=question)


def match(entry_id="entry", chunk_ids=(1, 2)):
    return SimpleNamespace(
        entry_id=entry_id, answer=Kept(chunk_ids), query="Why?", similarity=1.0, age_seconds=2.0
    )


async def given(store, note, found, **options):
    """What is given where one answer is expected and another may be found."""
    check = EvidenceCheck(store, task(**options))
    async with check.begun(note):
        answer, _ = await check.restore(found, AnswerOrigin.CACHED)
    return answer, check.noted


async def test_the_answer_that_was_noted_needs_no_passages():
    store = Store()
    assert await given(store, NOTE, match()) == ("as kept", NOTE)
    assert store.asked == ["state"]


@pytest.mark.parametrize(
    "found", [match(entry_id="another"), match(chunk_ids=(1,)), match("another", (3,))]
)
async def test_passages_of_another_answer_are_looked_for(found):
    store = Store()
    answer, noted = await given(store, NOTE, found)
    assert answer == "restored"
    assert store.asked[-1] == ("passages", found.answer.chunk_ids, Access.of("ann"))
    assert (noted.entry_id, noted.chunk_ids) == (found.entry_id, found.answer.chunk_ids)


@pytest.mark.parametrize("state", [None, replace(STATE, version=8)])
async def test_passages_are_looked_for_once_where_the_collection_has_changed(state):
    store = Store(state)
    assert (await given(store, NOTE, match()))[0] == "restored"
    assert store.asked == ["state", ("passages", (1, 2), Access.of("ann"))]


async def test_what_was_noted_as_shown_otherwise_is_looked_for_at_once():
    store = Store()
    assert (await given(store, replace(NOTE, state=None), match()))[0] == "restored"
    assert store.asked == [("passages", (1, 2), Access.of("ann"))]


@pytest.mark.parametrize("policy", [CachePolicy.BYPASS, CachePolicy.REFRESH])
async def test_nothing_is_begun_where_the_cache_is_not_used(policy):
    store = Store()
    check = EvidenceCheck(store, task(cache_policy=policy))
    async with check.begun(NOTE):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert store.asked == []


async def test_a_store_that_is_away_is_told_to_whoever_asks_and_to_nobody_else():
    store = Store(StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await given(store, NOTE, match())
    async with EvidenceCheck(store, task()).begun(NOTE):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert store.asked == ["state"] * 2


def test_what_is_remembered_is_of_one_question_of_one_caller():
    tasks = [task(), task(text="How?"), task(tenant_id="other")]
    keys = {question_key(each, PARTITION) for each in tasks}
    for name in ("access_fingerprint", "configuration_fingerprint", "namespace"):
        keys.add(question_key(task(), replace(PARTITION, **{name: "x"})))
    assert len(keys) == len(tasks) + 3


def test_what_was_noted_is_forgotten_when_the_answer_is_not_given():
    memory = EvidenceMemory()
    memory.note(b"key", NOTE)
    assert memory.recall(b"key") == NOTE
    memory.note(b"key", None)
    assert memory.recall(b"key") is None
