"""The vectors of a document's chunks, however they can be had.

Stored ones come first, then those being made for another document, then new ones; what nothing can
embed now is left for later.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

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
# Texts that the cache is asked for, and told of, at once: a call takes longer than its texts.
_CLAIM_SIZE = 64
# The fleet's queue is full: documents wait for it, but not for ever.
_MOST_REFUSALS = 20
_LONGEST_PAUSE_SECONDS = 5.0
# After an outage, documents are stored without asking again for so long.
_REST_SECONDS = 2.0

_OUTAGES = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED}
)

T = TypeVar("T")

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
class _Claim:
    """Texts whose vectors are being made, and are not stored yet."""

    digests: list[str] = field(default_factory=list)
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
        self.claims: dict[_Key, _Claim] = {}
        self.embeddings = embeddings
        self._clock = clock
        self._rests_until = clock.monotonic()

    @property
    def resting(self) -> bool:
        """Whether there was an outage just now."""
        return self._clock.monotonic() < self._rests_until

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Embeds one batch; where the fleet's queue is full, waits as it says and tries again."""
        refusal_count = 0
        while True:
            try:
                return await attempt()
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
            found = await self._shared.patiently(
                lambda: self._shared.embeddings.embed(
                    model,
                    batch,
                    time_limit_seconds=self._shared.limits.time_limit_seconds,
                    urgent=False,
                )
            )
            return found.vectors

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
        self._mine: dict[_Key, _Claim] = {}
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
        for key, claim in self._mine.items():
            # Tasks that were cancelled before they began have not ended theirs.
            claim.ended.set()
            if self._shared.claims.get(key) is claim:
                del self._shared.claims[key]

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

    async def _make(self, missing: deque[str]) -> list[tuple[str, _Claim]]:
        """Makes the vectors that nobody else is making; returns the rest with who is."""
        elsewhere: list[tuple[str, _Claim]] = []
        failure: ServiceError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                while missing and not self._shared.resting:
                    claim = self._claim(missing, elsewhere)
                    if claim.digests:
                        await self._begin(group, claim)
        except* ServiceError as errors:
            failure = _first(errors)
        if failure is not None:
            raise failure
        return elsewhere

    def _claim(self, missing: deque[str], elsewhere: list[tuple[str, _Claim]]) -> _Claim:
        claim = _Claim()
        size = max(_CLAIM_SIZE, self._shared.limits.batch_size)
        while missing and len(claim.digests) < size:
            digest = missing.popleft()
            key = (self._target, digest)
            other = self._shared.claims.get(key)
            if other is None:
                self._shared.claims[key] = self._mine[key] = claim
                claim.digests.append(digest)
            else:
                elsewhere.append((digest, other))
        return claim

    async def _begin(self, group: asyncio.TaskGroup, claim: _Claim) -> None:
        """Takes what the cache has of a claim, and begins to embed the rest."""
        shared, model = self._shared, self._target.model
        digests = {self._chunks[digest].embedding_text: digest for digest in claim.digests}
        cached = await shared.embeddings.look_up(model, list(digests))
        await self._note(claim, {digests[text]: each for text, each in cached.vectors.items()})
        texts = [text for text in digests if text not in cached.vectors]
        size = shared.limits.batch_size
        tasks: list[asyncio.Task[Mapping[str, Vector]]] = []
        for start in range(0, len(texts), size):
            if shared.resting:
                break
            # Slots go to who asks first. A document asks for one at a time, so that others wait
            # for its next batch and not for all of them.
            await shared.slots.acquire()
            batch = texts[start : start + size]
            task = group.create_task(self._embed(claim, batch, digests))
            task.add_done_callback(lambda _: shared.slots.release())
            tasks.append(task)
        group.create_task(self._end(claim, tasks, keep=cached.keeps))

    async def _embed(
        self, claim: _Claim, texts: Sequence[str], digests: Mapping[str, str]
    ) -> Mapping[str, Vector]:
        """Embeds a batch; returns nothing where nothing embeds now.

        Raises:
            ServiceError: One of the texts cannot be embedded.
        """
        shared = self._shared
        try:
            vectors = await shared.patiently(
                lambda: shared.embeddings.compute(
                    self._target.model,
                    texts,
                    time_limit_seconds=shared.limits.time_limit_seconds,
                    urgent=False,
                )
            )
        except ServiceError as error:
            if not is_outage(error):
                raise
            return {}
        self.found.computed_count += len(vectors)
        await self._note(claim, {digests[text]: each for text, each in vectors.items()})
        return vectors

    async def _end(
        self, claim: _Claim, tasks: Sequence[asyncio.Task[Mapping[str, Vector]]], *, keep: bool
    ) -> None:
        """Waits for the batches of a claim, and tells the cache and those who wait for them."""
        made: dict[str, Vector] = {}
        for task in tasks:
            made |= await task
        for digest in claim.digests:
            if digest not in claim.vectors:
                self._shared.claims.pop((self._target, digest), None)
        claim.ended.set()
        if made and keep:
            await self._shared.embeddings.keep(self._target.model, made)

    async def _collect(self, elsewhere: Sequence[tuple[str, _Claim]]) -> list[str]:
        """Takes what others have embedded; returns what they could not."""
        left: list[str] = []
        others = {id(claim): claim.span_context for _, claim in elsewhere}
        for span_context in others.values():
            get_current_span().add_link(span_context)
        for digest, claim in elsewhere:
            await claim.ended.wait()
            if digest in claim.vectors:
                self._add({digest: claim.vectors[digest]})
            else:
                left.append(digest)
        if elsewhere:
            await self._report(self._embedded_count)
        return left

    async def _note(self, claim: _Claim, vectors: Mapping[str, Vector]) -> None:
        if vectors:
            claim.vectors |= vectors
            self._add(vectors)
            await self._report(self._embedded_count)

    def _add(self, vectors: Mapping[str, Vector]) -> None:
        self.found.vectors.update(vectors)
        self._embedded_count += sum(self._occurrences[digest] for digest in vectors)


def _first(group: ExceptionGroup[ServiceError]) -> ServiceError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
