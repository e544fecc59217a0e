"""Searches the web: asks a provider, reads the best pages at once, and ranks their passages."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.identity import current_identity
from services.common.metrics import Metrics
from services.rag.core.chunking import DEFAULT_SIZES, ChunkSizes
from services.rag.core.documents import Vector
from services.rag.core.parsing import is_heavy
from services.rag.core.passages import Passage, RankedPassage, ScoredChunk
from services.rag.core.timed_cache import TimedCache
from services.rag.core.web_errors import WebSearchUnavailable
from services.rag.core.web_page import (
    WebPage,
    passages_of,
    preselect,
    rank_passages,
    read_page,
)
from services.rag.embed import EmbeddingSource
from services.rag.models import ModelCatalogue
from services.rag.parse_port import DocumentWorker
from services.rag.recorder import OpenStage, Recorder
from services.rag.web_port import PageFetcher, PageOutcome, PageRefused, SearchHit, SearchProvider

__all__ = ["PagedWeb", "WebLimits"]

_logger = logging.getLogger(__name__)

_HIT_BYTES = 2_000
_TOLERANCE_SECONDS = 0.01
# Shares of the time: for the provider, and for all before the ranking.
_PROVIDER_SHARE_RATIO = 0.5
_READING_SHARE_RATIO = 0.8
# Less is not worth a call that embeds.
_LEAST_EMBEDDING_SECONDS = 0.2
_EMBEDDED_COUNT = 32
_LONGEST_EMBEDDED = 2_000
_LONGEST_QUERY = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class WebLimits:
    """Bounds of one search.

    Attributes:
        page_count: Pages that are read.
        retention_seconds: How long hits and pages are kept.
        retention_bytes: Most memory for them.
    """

    page_count: int
    retention_seconds: float
    retention_bytes: int


class PagedWeb:
    """Finds passages of the web; a `WebSearch`.

    Args:
        provider: Knows pages.
        fetcher: Fetches them.
        worker: Reads large ones.
        embeddings: Vectors, for ranking by meaning.
        catalogue: Models of the fleet.
        clock: Measures.
        metrics: Receives what came of searches and pages.
        limits: Bounds.
        sizes: How large passages are.
    """

    def __init__(
        self,
        *,
        provider: SearchProvider,
        fetcher: PageFetcher,
        worker: DocumentWorker,
        embeddings: EmbeddingSource,
        catalogue: ModelCatalogue,
        clock: Clock,
        metrics: Metrics,
        limits: WebLimits,
        sizes: ChunkSizes = DEFAULT_SIZES,
    ) -> None:
        self._provider = provider
        self._fetcher = fetcher
        self._worker = worker
        self._embeddings = embeddings
        self._catalogue = catalogue
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._sizes = sizes
        half = limits.retention_bytes // 2
        self._hits: TimedCache[tuple[str, str], tuple[SearchHit, ...]] = TimedCache(
            retention_seconds=limits.retention_seconds, limit_bytes=half
        )
        self._pages: TimedCache[str, WebPage] = TimedCache(
            retention_seconds=limits.retention_seconds, limit_bytes=half
        )

    async def search(
        self, question: str, recorder: Recorder, *, limit: int, time_limit_seconds: float
    ) -> tuple[RankedPassage, ...]:
        """Returns passages of the web, best first.

        Args:
            question: The question.
            recorder: Receives the stages.
            limit: Most passages.
            time_limit_seconds: Longest time to take.

        Raises:
            WebSearchUnavailable: The provider cannot be asked, or none of the pages can be read.
        """
        ends_at = self._clock.monotonic() + time_limit_seconds
        try:
            passages = await self._search(
                question, recorder, limit=limit, ends_at=ends_at, seconds=time_limit_seconds
            )
        except asyncio.CancelledError:
            if self._clock.monotonic() >= ends_at - _TOLERANCE_SECONDS:
                # By a caller who gives it no more time than it was told to take.
                self._count("error")
            raise
        except Exception:
            self._count("error")
            raise
        self._count("success" if passages else "empty")
        return passages

    def _count(self, outcome: str) -> None:
        """Counts a search by what came of it."""
        self._metrics.count("rag_web_searches_total", outcome)
        self._metrics.count("rag_retriever_calls_total", "web", outcome)
        result = "error" if outcome == "error" else "success"
        self._metrics.count("rag_agent_invocations_total", "web_searcher", result)

    async def _search(
        self, question: str, recorder: Recorder, *, limit: int, ends_at: float, seconds: float
    ) -> tuple[RankedPassage, ...]:
        with recorder.stage("web_find") as stage:
            hits = await self._find(question, seconds * _PROVIDER_SHARE_RATIO, stage)
            stage.item_count = len(hits)
        if not hits:
            return ()
        reading_ends_at = ends_at - seconds * (1 - _READING_SHARE_RATIO)
        with recorder.stage("web_read") as stage:
            pages, failures = await self._read_all(
                hits[: self._limits.page_count], reading_ends_at - self._clock.monotonic()
            )
            stage.item_count = len(pages)
        if not pages:
            told = ", ".join(f"{count} {outcome.value}" for outcome, count in failures.items())
            raise WebSearchUnavailable(f"none of the pages found could be read ({told})")
        with recorder.stage("web_rank") as stage:
            passages = passages_of(pages)
            by_words = await asyncio.to_thread(preselect, question, passages, _EMBEDDED_COUNT)
            vector, vectors = await self._embed(question, passages, by_words, ends_at)
            ranked = await asyncio.to_thread(
                lambda: rank_passages(
                    passages, by_words, question_vector=vector, vectors=vectors, limit=limit
                )
            )
            stage.item_count = len(ranked)
        return ranked

    async def _find(
        self, question: str, limit_seconds: float, stage: OpenStage
    ) -> tuple[SearchHit, ...]:
        query = " ".join(question.split())[:_LONGEST_QUERY]
        key = (current_identity.get().tenant_id, query.casefold())
        known = self._hits.get(key, now=self._clock.monotonic())
        stage.cache_outcome = "miss" if known is None else "hit_local"
        if known is not None:
            return known
        hits = await self._provider.find(
            query, count=self._limits.page_count, time_limit_seconds=max(limit_seconds, 0.001)
        )
        hits = hits[: 2 * self._limits.page_count]
        size = _HIT_BYTES * (len(hits) + 1)
        self._hits.put(key, hits, size_bytes=size, now=self._clock.monotonic())
        return hits

    async def _read_all(
        self, hits: Sequence[SearchHit], limit_seconds: float
    ) -> tuple[list[WebPage], Counter[PageOutcome]]:
        """Reads pages at the same time; what is not there in time is done without."""
        limit_seconds = max(limit_seconds, 0.0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._read(each, limit_seconds)) for each in hits]
        outcomes = [task.result() for task in tasks]
        pages: dict[str, WebPage] = {}
        failures: Counter[PageOutcome] = Counter()
        for each in outcomes:
            if isinstance(each, WebPage):
                # Several addresses may lead to one page.
                pages.setdefault(each.url, each)
            else:
                failures[each] += 1
        return list(pages.values()), failures

    async def _read(self, hit: SearchHit, limit_seconds: float) -> WebPage | PageOutcome:
        known = self._pages.get(hit.url, now=self._clock.monotonic())
        if known is not None:
            self._metrics.count("rag_web_pages_total", PageOutcome.CACHED.value)
            return known
        result: WebPage | PageOutcome
        try:
            async with asyncio.timeout(limit_seconds):
                result = await self._fetch(hit)
        except TimeoutError:
            result = PageOutcome.TIMED_OUT
        except PageRefused as error:
            result = error.outcome
        except ServiceError:
            result = PageOutcome.UNREADABLE
        except Exception:
            # Whatever a stranger's page does to its reader, the answer does without it.
            _logger.exception("page cannot be read")
            result = PageOutcome.UNREADABLE
        if isinstance(result, WebPage):
            size = result.size_bytes
            self._pages.put(hit.url, result, size_bytes=size, now=self._clock.monotonic())
        outcome = PageOutcome.READ if isinstance(result, WebPage) else result
        self._metrics.count("rag_web_pages_total", outcome.value)
        return result

    async def _fetch(self, hit: SearchHit) -> WebPage:
        page = await self._fetcher.fetch(hit.url)
        return await self._worker.run(
            read_page,
            page.content,
            page.url,
            page.media_type,
            page.charset,
            hit.title,
            self._sizes,
            heavy=is_heavy(page.content),
        )

    async def _embed(
        self,
        question: str,
        passages: dict[int, Passage],
        by_words: Sequence[ScoredChunk],
        ends_at: float,
    ) -> tuple[Vector | None, dict[int, Vector]]:
        """Returns vectors of the question and of the most promising passages, if there is time."""
        left = ends_at - self._clock.monotonic()
        chosen = [each.chunk_id for each in by_words] or list(passages)[:_EMBEDDED_COUNT]
        if left < _LEAST_EMBEDDING_SECONDS:
            return None, {}
        texts = [_text(passages[key])[:_LONGEST_EMBEDDED] for key in chosen]
        try:
            async with asyncio.timeout(left):
                model = await self._catalogue.embedding_model()
                found = await self._embeddings.embed(
                    model, [question, *texts], time_limit_seconds=left, bypass_cache=True
                )
        except (ServiceError, TimeoutError):
            # By words alone, then.
            return None, {}
        return found.vectors[0], dict(zip(chosen, found.vectors[1:], strict=True))


def _text(passage: Passage) -> str:
    return f"{passage.header}\n{passage.text}" if passage.header else passage.text
