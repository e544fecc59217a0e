"""Whether what an answer was made from is still stored as it was then."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import blake2b

from services.common.deadline import remaining_seconds
from services.rag.core.options import CachePolicy
from services.rag.core.passages import Passage
from services.rag.early import begun_early
from services.rag.semantic_port import SemanticPartition
from services.rag.store_port import DocumentStore
from services.rag.store_wait import waiting_for_store
from services.rag.task import AnswerTask

__all__ = ["EvidenceCheck", "EvidenceMemory", "question_key"]

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


class EvidenceMemory:
    """What the answers given last were made from, by `question_key`."""

    def __init__(self) -> None:
        self._chunk_ids: OrderedDict[bytes, tuple[int, ...]] = OrderedDict()

    def recall(self, key: bytes) -> tuple[int, ...]:
        """Returns the passages that an answer given again was made from; empty if not known."""
        return self._chunk_ids.get(key, ())

    def note(self, key: bytes, chunk_ids: tuple[int, ...]) -> None:
        """Remembers what an answer that is given again was made from; empty to forget it."""
        self._chunk_ids.pop(key, None)
        if chunk_ids:
            self._chunk_ids[key] = chunk_ids
            if len(self._chunk_ids) > _MOST_ANSWERS:
                self._chunk_ids.popitem(last=False)


class EvidenceCheck:
    """Looks for the passages that answers to one question were made from.

    Args:
        store: Knows what is stored.
        task: The question.
    """

    def __init__(self, store: DocumentStore, task: AnswerTask) -> None:
        self._store = store
        self._task = task
        self._awaited_ids: tuple[int, ...] = ()
        self._awaited: asyncio.Task[Mapping[int, Passage]] | None = None

    @asynccontextmanager
    async def begun(self, chunk_ids: tuple[int, ...]) -> AsyncIterator[None]:
        """Looks for passages already while the cache is asked, in the block.

        Args:
            chunk_ids: Those that are likely to be wanted; empty where that is not known.
        """
        if not chunk_ids or self._task.question.cache_policy is not CachePolicy.USE:
            yield
            return
        self._awaited_ids = chunk_ids
        async with begun_early(self._load(chunk_ids)) as looking:
            self._awaited = looking
            try:
                yield
            finally:
                self._awaited = None

    async def find(self, chunk_ids: tuple[int, ...]) -> Mapping[int, Passage]:
        """Returns those of some passages that are stored now, and that the caller may see.

        Args:
            chunk_ids: The passages.

        Raises:
            ServiceError: The store cannot say, or not in a quarter of the time left.
        """
        if self._awaited is not None and self._awaited_ids == chunk_ids:
            return await self._awaited
        return await self._load(chunk_ids)

    async def _load(self, chunk_ids: tuple[int, ...]) -> Mapping[int, Passage]:
        retrieval = self._task.question.retrieval
        async with waiting_for_store(remaining_seconds()):
            return await self._store.load_passages(
                self._task.tenant_id,
                chunk_ids,
                # Labels may have changed since, and the cache not have been told.
                filter=retrieval.filter,
                access=retrieval.access,
            )
