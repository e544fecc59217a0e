"""Keeps the books: in memory at once, in the store a moment later and all together.

Nothing of it waits for the store. A batch that could not be written, or of which nobody knows
whether it was, is written again under the same name, and counts once.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

from pannier.rag.v1 import rag_service_pb2
from services.common.clock import Clock
from services.common.metrics import Metrics
from services.rag.budgets import Budgets
from services.rag.core.budget import period_of
from services.rag.core.errors import StoreUnavailable
from services.rag.core.profile import profile_of
from services.rag.core.query_record import LoggedQuery
from services.rag.core.usage import Amounts, UsageKey, UsageSums, in_order
from services.rag.stream_convert import to_profile
from services.rag.usage_port import Batch, ProfiledQuery, Retention, UsageStore

__all__ = ["BookLimits", "Books", "profiled"]

_logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0
_BUDGET_INTERVAL_SECONDS = 2.0
_SWEEP_INTERVAL_SECONDS = 600.0
_CLOSING_SECONDS = 5.0
_BATCH_COUNT = 1000
# What each takes is a few hundred bytes.
_MOST_KEYS = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BookLimits:
    """Bounds of the books.

    Attributes:
        waiting_count: Most queries that wait to be written; those beyond are dropped.
        recent_count: Queries that are kept in memory.
        slow_seconds: From which duration on a query is logged as slow.
        retention: How long the store keeps things.
    """

    waiting_count: int
    recent_count: int
    slow_seconds: float
    retention: Retention


@dataclass(slots=True)
class _Frozen:
    """What is being written."""

    batch_id: str
    queries: list[LoggedQuery]
    usage: dict[UsageKey, Amounts]


class Books:
    """What is known of queries and of what was used.

    Args:
        store: Keeps it.
        budgets: Learn of what is spent.
        clock: Times rounds.
        metrics: Receives what is dropped.
        limits: Bounds.
    """

    def __init__(
        self,
        store: UsageStore,
        *,
        budgets: Budgets,
        clock: Clock,
        metrics: Metrics,
        limits: BookLimits,
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._clock = clock
        self._metrics = metrics
        self._limits = limits
        self._waiting: deque[LoggedQuery] = deque()
        self._sums = UsageSums(_MOST_KEYS)
        self._recent: OrderedDict[tuple[str, str], LoggedQuery] = OrderedDict()
        self._frozen: _Frozen | None = None
        self._writing = asyncio.Lock()

    def add_query(self, query: LoggedQuery) -> None:
        """Notes what became of a query."""
        record = query.record
        self._recent[record.tenant_id, record.query_id] = query
        if len(self._recent) > self._limits.recent_count:
            self._recent.popitem(last=False)
        if len(self._waiting) < self._limits.waiting_count:
            self._waiting.append(query)
        else:
            self._metrics.count("rag_query_log_dropped_total", "full")
        if record.duration_seconds >= self._limits.slow_seconds:
            self._tell_slow(query)

    def add_usage(self, key: UsageKey, amounts: Amounts) -> None:
        """Notes what was used."""
        self._sums.add(key, amounts)
        self._budgets.spend(key.tenant_id, amounts)

    def find_recent(self, tenant_id: str, query_id: str) -> LoggedQuery | None:
        """Returns a query that is in memory; None where it is not."""
        return self._recent.get((tenant_id, query_id))

    def recent(self, tenant_id: str) -> Iterator[LoggedQuery]:
        """Yields the queries of a tenant that are in memory, the latest first."""
        return (query for (owner, _), query in reversed(self._recent.items()) if owner == tenant_id)

    async def flush(self) -> bool:
        """Writes all that was noted before; returns whether that was possible."""
        async with self._writing:
            return await self._flush()

    async def refresh_budgets(self) -> None:
        """Writes, and reads what tenants may spend and have.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        async with self._writing:
            if not await self._flush():
                raise StoreUnavailable("the books could not be written")
            period = period_of(self._clock.now())
            known = await self._store.load_budgets(period)
            self._budgets.replace(period, known, self._sums.by_tenant())

    async def run(self) -> None:
        """Writes from time to time, and reads budgets; never returns."""
        budgets_due = sweep_due = self._clock.monotonic()
        while True:
            try:
                now = self._clock.monotonic()
                if now >= budgets_due:
                    await self.refresh_budgets()
                    budgets_due = now + _BUDGET_INTERVAL_SECONDS
                else:
                    await self.flush()
                if now >= sweep_due:
                    await self._store.sweep(self._limits.retention)
                    sweep_due = now + _SWEEP_INTERVAL_SECONDS
            except StoreUnavailable as error:
                _logger.info("books not up to date", extra={"cause": error.message})
            await self._clock.sleep(_INTERVAL_SECONDS)

    async def close(self) -> None:
        """Writes what is left, if the store takes it soon."""
        written = False
        try:
            async with asyncio.timeout(_CLOSING_SECONDS):
                written = await self.flush()
        except TimeoutError:
            pass
        if not written:
            lost = len(self._waiting) + (len(self._frozen.queries) if self._frozen else 0)
            self._metrics.count("rag_query_log_dropped_total", "shutdown", amount=lost)
            _logger.warning("books not written to their end", extra={"query_count": lost})

    async def _flush(self) -> bool:
        rounds = 1 + len(self._waiting) // _BATCH_COUNT
        while rounds:
            is_retry = self._frozen is not None
            frozen = self._freeze()
            if frozen is None:
                return True
            try:
                await self._store.apply(await asyncio.to_thread(_batch, frozen))
            except StoreUnavailable:
                return False
            except Exception:
                # It would fail in the same way each time, and nothing after it be written.
                _logger.exception("books not written", extra={"batch_id": frozen.batch_id})
                self._reject(frozen)
                continue
            self._frozen = None
            rounds -= not is_retry
        return True

    def _freeze(self) -> _Frozen | None:
        if self._frozen is None and (self._waiting or len(self._sums)):
            count = min(len(self._waiting), _BATCH_COUNT)
            queries = [self._waiting.popleft() for _ in range(count)]
            self._frozen = _Frozen(str(uuid4()), queries, dict(self._sums.take()))
        return self._frozen

    def _reject(self, frozen: _Frozen) -> None:
        """Gives up the queries of a batch; where there are none, all of it."""
        self._metrics.count("rag_query_log_dropped_total", "rejected", amount=len(frozen.queries))
        if frozen.queries:
            frozen.queries = []
        else:
            self._frozen = None

    def _tell_slow(self, query: LoggedQuery) -> None:
        record = query.record
        _logger.warning(
            "slow query",
            extra={
                "query_id": record.query_id,
                "tenant_id": record.tenant_id,
                "mode": record.mode,
                "outcome": record.outcome,
                "duration_seconds": round(record.duration_seconds, 4),
                "stages": ", ".join(
                    f"{each.name} {each.duration_seconds:.3f}" for each in query.stages
                ),
            },
        )


def profiled(query: LoggedQuery) -> ProfiledQuery:
    """Sums up where the time of a query went."""
    if query.told_profile:
        bottleneck = rag_service_pb2.Profile.FromString(query.told_profile).bottleneck
        return ProfiledQuery(query.record, bottleneck, query.told_profile)
    profile = profile_of(
        query.stages,
        total_seconds=query.record.duration_seconds,
        first_text_seconds=query.record.first_text_seconds,
    )
    return ProfiledQuery(query.record, profile.bottleneck, to_profile(profile).SerializeToString())


def _batch(frozen: _Frozen) -> Batch:
    return Batch(
        frozen.batch_id,
        tuple(profiled(each) for each in frozen.queries),
        in_order(frozen.usage),
    )
