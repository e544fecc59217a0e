"""The vectors of a document's chunks, however they can be had.

Stored ones come first, then those being made for another document, then new ones; what nothing can
embed now is left for later.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from opentelemetry.trace import SpanContext, get_current_span

from services.common.clock import Clock
from services.common.errors import ServiceError, StatusCode
from services.rag.core.documents import Chunk, Vector
from services.rag.embed import EmbeddingSource
from services.rag.models import model_identity
from services.rag.ports import ModelFacts
from services.rag.store_port import DocumentStore

__all__ = ["ChunkVectors", "EmbeddingLimits", "VectorTarget", "VectorsFound", "is_outage"]

_LOOKUP_SIZE = 1000
# The fleet's queue is full: documents wait for it, but not for ever.
_MOST_REFUSALS = 20
_LONGEST_PAUSE_SECONDS = 5.0
# After an outage, documents are stored without asking again for so long.
_REST_SECONDS = 2.0

_OUTAGES = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED}
)

Report = Callable[[int], Awaitable[None]]
"""Told how many chunks have their vector."""


def is_outage(error: ServiceError) -> bool:
    """Returns whether a failure to embed is nobody's fault and will pass."""
    return error.status_code in _OUTAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingLimits:
    """Sizes of the work.

    Attributes:
        batch_size: Texts of one call that embeds.
        concurrency: Calls that embed at the same time, over all documents.
        time_limit_seconds: Longest time of one call.
    """

    batch_size: int
    concurrency: int
    time_limit_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorTarget:
    """Where vectors belong, and what makes them."""

    tenant_id: str
    collection: str
    model: ModelFacts


@dataclass(slots=True)
class VectorsFound:
    """Vectors of the chunks of one document.

    Attributes:
        vectors: By text digest; absent where they have still to be made.
        computed_count: Vectors that were computed now.
    """

    vectors: dict[str, Vector] = field(default_factory=dict)
    computed_count: int = 0


@dataclass(slots=True)
class _Batch:
    """Texts that are being embedded, and whose vectors are not stored yet."""

    ended: asyncio.Event = field(default_factory=asyncio.Event)
    vectors: dict[str, Vector] = field(default_factory=dict)
    span_context: SpanContext = field(default_factory=lambda: get_current_span().get_span_context())


_Key = tuple[VectorTarget, str]


class _Shared:
    """What all documents under way share."""

    def __init__(
        self,
        *,
        store: DocumentStore,
        embeddings: EmbeddingSource,
        clock: Clock,
        limits: EmbeddingLimits,
    ) -> None:
        self.store = store
        self.limits = limits
        self.slots = asyncio.Semaphore(limits.concurrency)
        self.batches: dict[_Key, _Batch] = {}
        self._embeddings = embeddings
        self._clock = clock
        self._rests_until = clock.monotonic()

    @property
    def resting(self) -> bool:
        """Whether there was an outage just now."""
        return self._clock.monotonic() < self._rests_until

    async def embed(
        self, model: ModelFacts, texts: Sequence[str]
    ) -> tuple[tuple[Vector, ...], int]:
        """Embeds one batch; where the fleet's queue is full, waits as it says and tries again.

        Returns:
            The vectors, and how many of them were computed now.
        """
        refusal_count = 0
        while True:
            try:
                made = await self._embeddings.embed(
                    model, texts, time_limit_seconds=self.limits.time_limit_seconds, urgent=False
                )
            except ServiceError as error:
                refusal_count += 1
                full = error.status_code is StatusCode.RESOURCE_EXHAUSTED
                if full and refusal_count < _MOST_REFUSALS:
                    delay = error.retry_delay_seconds or 1.0
                    await self._clock.sleep(min(delay, _LONGEST_PAUSE_SECONDS))
                    continue
                if is_outage(error):
                    self._rests_until = self._clock.monotonic() + _REST_SECONDS
                raise
            return made.vectors, made.computed_count


class ChunkVectors:
    """Gets the vectors of chunks; equal texts of a collection are embedded once.

    Args:
        store: Has vectors of other documents.
        embeddings: Makes vectors.
        clock: Waits where the fleet is busy.
        limits: Sizes of the work.
    """

    def __init__(
        self,
        *,
        store: DocumentStore,
        embeddings: EmbeddingSource,
        clock: Clock,
        limits: EmbeddingLimits,
    ) -> None:
        self._shared = _Shared(store=store, embeddings=embeddings, clock=clock, limits=limits)

    @asynccontextmanager
    async def found(
        self, target: VectorTarget, chunks: Sequence[Chunk], report: Report
    ) -> AsyncIterator[VectorsFound]:
        """Yields the vectors of a document's chunks, to be stored inside the context.

        Until then other documents with the same texts take them from here.

        Args:
            target: Where they belong.
            chunks: All chunks of the document.
            report: Told of every step.

        Raises:
            ServiceError: Texts cannot be embedded, now or later.
        """
        work = _Work(self._shared, target, chunks, report)
        try:
            await work.run()
            yield work.found
        finally:
            work.release()

    async def embed(self, model: ModelFacts, texts: Sequence[str]) -> tuple[Vector, ...]:
        """Returns the vectors of texts that are no chunks of a document under way.

        Raises:
            ServiceError: They cannot be embedded.
        """
        size = self._shared.limits.batch_size
        failure: ServiceError | None = None

        async def embed(batch: Sequence[str]) -> tuple[Vector, ...]:
            return (await self._shared.embed(model, batch))[0]

        tasks: list[asyncio.Task[tuple[Vector, ...]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for start in range(0, len(texts), size):
                    await self._shared.slots.acquire()
                    task = group.create_task(embed(texts[start : start + size]))
                    task.add_done_callback(lambda _: self._shared.slots.release())
                    tasks.append(task)
        except* ServiceError as errors:
            failure = _first(errors)
        if failure is not None:
            raise failure
        return tuple(vector for task in tasks for vector in task.result())


class _Work:
    """Getting the vectors of one document."""

    def __init__(
        self, shared: _Shared, target: VectorTarget, chunks: Sequence[Chunk], report: Report
    ) -> None:
        self.found = VectorsFound()
        self._shared = shared
        self._target = target
        self._report = report
        # One chunk for each text, and how many chunks have it.
        self._chunks: dict[str, Chunk] = {}
        self._occurrences: Counter[str] = Counter()
        for chunk in chunks:
            self._chunks.setdefault(chunk.text_digest, chunk)
            self._occurrences[chunk.text_digest] += 1
        self._mine: dict[_Key, _Batch] = {}
        self._embedded_count = 0

    async def run(self) -> None:
        """Finds what can be had."""
        await self._look_up()
        await self._report(self._embedded_count)
        missing = deque(digest for digest in self._chunks if digest not in self.found.vectors)
        while missing and not self._shared.resting:
            elsewhere = await self._make(missing)
            missing = deque(await self._collect(elsewhere))

    def release(self) -> None:
        """Stops offering vectors to other documents: they are stored now, or never will be."""
        for key, batch in self._mine.items():
            # Tasks that were cancelled before they began have not ended theirs.
            batch.ended.set()
            if self._shared.batches.get(key) is batch:
                del self._shared.batches[key]

    async def _look_up(self) -> None:
        digests = list(self._chunks)
        for start in range(0, len(digests), _LOOKUP_SIZE):
            self._add(
                await self._shared.store.find_embeddings(
                    self._target.tenant_id,
                    self._target.collection,
                    digests[start : start + _LOOKUP_SIZE],
                    embedding_model=model_identity(self._target.model),
                )
            )

    async def _make(self, missing: deque[str]) -> list[tuple[str, _Batch]]:
        """Embeds what nobody else is embedding; returns the rest with who is."""
        elsewhere: list[tuple[str, _Batch]] = []
        failure: ServiceError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while missing and not self._shared.resting:
                    # Slots go to who asks first. A document asks for one at a time, so that
                    # others wait for its next batch and not for all of them.
                    await self._shared.slots.acquire()
                    batch, digests = self._claim(missing, elsewhere)
                    if not digests:
                        self._shared.slots.release()
                        break
                    task = group.create_task(self._embed(batch, digests))
                    task.add_done_callback(lambda _: self._shared.slots.release())
        except* ServiceError as errors:
            failure = _first(errors)
        if failure is not None:
            raise failure
        return elsewhere

    def _claim(
        self, missing: deque[str], elsewhere: list[tuple[str, _Batch]]
    ) -> tuple[_Batch, list[str]]:
        batch = _Batch()
        digests: list[str] = []
        while missing and len(digests) < self._shared.limits.batch_size:
            digest = missing.popleft()
            key = (self._target, digest)
            other = self._shared.batches.get(key)
            if other is None:
                self._shared.batches[key] = self._mine[key] = batch
                digests.append(digest)
            else:
                elsewhere.append((digest, other))
        return batch, digests

    async def _embed(self, batch: _Batch, digests: Sequence[str]) -> None:
        texts = [self._chunks[digest].embedding_text for digest in digests]
        try:
            vectors, computed_count = await self._shared.embed(self._target.model, texts)
        except ServiceError as error:
            if not is_outage(error):
                raise
        else:
            batch.vectors = dict(zip(digests, vectors, strict=True))
            self.found.computed_count += computed_count
            self._add(batch.vectors)
            await self._report(self._embedded_count)
        finally:
            if not batch.vectors:
                for digest in digests:
                    self._shared.batches.pop((self._target, digest), None)
            batch.ended.set()

    async def _collect(self, elsewhere: Sequence[tuple[str, _Batch]]) -> list[str]:
        """Takes what others have embedded; returns what they could not."""
        left: list[str] = []
        others = {id(batch): batch.span_context for _, batch in elsewhere}
        for span_context in others.values():
            get_current_span().add_link(span_context)
        for digest, batch in elsewhere:
            await batch.ended.wait()
            if digest in batch.vectors:
                self._add({digest: batch.vectors[digest]})
            else:
                left.append(digest)
        if elsewhere:
            await self._report(self._embedded_count)
        return left

    def _add(self, vectors: Mapping[str, Vector]) -> None:
        self.found.vectors.update(vectors)
        self._embedded_count += sum(self._occurrences[digest] for digest in vectors)


def _first(group: ExceptionGroup[ServiceError]) -> ServiceError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
