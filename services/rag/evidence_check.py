"""Whether what an answer was made from is still stored as it was then."""

import asyncio
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager, nullcontext
from hashlib import blake2b

from services.common.deadline import remaining_seconds
from services.rag.core.answer import Answer, AnswerOrigin, EarlierQuestion
from services.rag.core.options import CachePolicy
from services.rag.core.stored_evidence import EvidenceNote, StoredEvidence
from services.rag.early import BegunEarly
from services.rag.semantic_port import SemanticMatch, SemanticPartition
from services.rag.store_port import DocumentStore
from services.rag.store_wait import waiting_for_store
from services.rag.task import AnswerTask

__all__ = ["EvidenceCheck", "EvidenceMemory", "earlier_of", "question_key"]

_MOST_ANSWERS = 10_000
_KEY_BYTES = 16


def question_key(task: AnswerTask, partition: SemanticPartition) -> bytes:
    """Names what is asked, and by whom, for what is remembered of it.

    Args:
        task: The question.
        partition: Where answers to it are kept.
    """
    digest = blake2b(repr((task.tenant_id, partition)).encode(), digest_size=_KEY_BYTES)
    digest.update(task.question.text.encode("utf-8", "replace"))
    return digest.digest()


def earlier_of(match: SemanticMatch) -> EarlierQuestion:
    """Names the question that a match is the answer to."""
    return EarlierQuestion(
        text=match.query, similarity=match.similarity, age_seconds=match.age_seconds
    )


class EvidenceMemory:
    """What the answers given last were made from, by `question_key`."""

    def __init__(self) -> None:
        self._notes: OrderedDict[bytes, EvidenceNote] = OrderedDict()

    def recall(self, key: bytes) -> EvidenceNote | None:
        """Returns what is known of the answer that was given; None where there was none."""
        return self._notes.get(key)

    def note(self, key: bytes, note: EvidenceNote | None) -> None:
        """Remembers an answer that is given again; None to forget it."""
        self._notes.pop(key, None)
        if note is not None:
            self._notes[key] = note
            if len(self._notes) > _MOST_ANSWERS:
                self._notes.popitem(last=False)


class EvidenceCheck:
    """Gives kept answers to one question again, if what they were made from is still stored.

    Args:
        store: Knows what is stored.
        task: The question.

    Attributes:
        noted: What to remember of the answer that was given; None where none was.
    """

    def __init__(self, store: DocumentStore, task: AnswerTask) -> None:
        self.noted: EvidenceNote | None = None
        self._store = store
        self._task = task
        self._expected: EvidenceNote | None = None
        self._looking: BegunEarly[StoredEvidence | None] | None = None

    def begun(self, expected: EvidenceNote | None) -> AbstractAsyncContextManager[object]:
        """Looks at the store already while the cache is asked, in the block.

        Args:
            expected: The answer that is likely to be found; None where that is not known.
        """
        if expected is None or self._task.question.cache_policy is not CachePolicy.USE:
            return nullcontext()
        self._expected = expected
        self._looking = BegunEarly(self._look(expected))
        return self._looking

    async def restore(
        self, match: SemanticMatch, origin: AnswerOrigin
    ) -> tuple[Answer | None, int]:
        """Makes the answer of a match, if all it was made from is stored as it was then.

        Args:
            match: What the cache found.
            origin: How the answer comes about.

        Returns:
            The answer, or None; and how many of its passages are stored.

        Raises:
            ServiceError: The store cannot say, or not in a quarter of the time left.
        """
        kept, question = match.answer, self._task.question
        evidence = await self._evidence(match)
        if evidence is None:
            self.noted = self._expected
            as_kept = kept.restore_as_kept(question, origin, earlier_of(match))
            return as_kept, len(kept.passages)
        answer = kept.restore(question, origin, evidence.passages, earlier_of(match))
        if answer is not None:
            self.noted = EvidenceNote(
                match.entry_id,
                kept.chunk_ids,
                evidence.state if kept.shows(evidence.passages) else None,
                evidence.expires_at,
            )
        return answer, len(evidence.passages)

    async def _evidence(self, match: SemanticMatch) -> StoredEvidence | None:
        """Returns what is stored of a match's passages; None where all is as the match shows it."""
        chunk_ids = match.answer.chunk_ids
        expected = self._expected
        looking = self._looking.task if self._looking is not None else None
        if looking is not None and expected is not None and expected.chunk_ids == chunk_ids:
            found = await looking
            if found is not None or expected.entry_id == match.entry_id:
                return found
        async with waiting_for_store(remaining_seconds()):
            return await self._load(chunk_ids)

    async def _look(self, expected: EvidenceNote) -> StoredEvidence | None:
        """Returns what is stored of some passages; None where that is as it was noted."""
        # The cache, which takes longer, is sent its request first.
        await asyncio.sleep(0)
        async with waiting_for_store(remaining_seconds()):
            if expected.state is not None:
                state = await self._store.get_collection_state(
                    self._task.tenant_id, self._task.question.collection
                )
                if expected.holds_at(state):
                    return None
            return await self._load(expected.chunk_ids)

    async def _load(self, chunk_ids: tuple[int, ...]) -> StoredEvidence:
        retrieval = self._task.question.retrieval
        return await self._store.load_evidence(
            self._task.tenant_id,
            chunk_ids,
            # Labels may have changed since, and the cache not have been told.
            filter=retrieval.filter,
            access=retrieval.access,
        )
