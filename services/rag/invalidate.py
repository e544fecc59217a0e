"""Tells the cache of changed documents, until it has acknowledged every change.

A change is noted in the database together with what changes, so it outlives this process and a
cache that is away. Several replicas may tell of the same change; twice does no harm.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from opentelemetry.trace import Link, SpanContext, Tracer, get_current_span

from services.common.clock import Clock
from services.common.errors import ServiceError
from services.common.identity import Identity, current_identity
from services.common.metrics import Metrics
from services.common.tracing import TENANT
from services.rag.cache_port import CachePort
from services.rag.core.invalidation import PendingInvalidation
from services.rag.store_port import DocumentStore

__all__ = ["InvalidationDelivery"]

_logger = logging.getLogger(__name__)

_BATCH_SIZE = 1000
_SELECTORS_PER_CALL = 64
# How soon notes are seen that other processes have left behind.
_INTERVAL_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.25
# For so long after a round changes come together for the next, unless somebody waits to be told.
_REST_SECONDS = 0.05
# How long a caller waits to be told that the cache knows.
_TOLD_SECONDS = 0.5
# Of calls that made changes, so many are linked to what tells of these.
_MOST_CAUSES = 32


class InvalidationDelivery:
    """Delivers notes of changes.

    Args:
        store: Has the notes.
        cache: Is told.
        clock: Waits between one attempt and the next.
        metrics: Receives how many are delivered and how many wait.
        tracer: Makes a span for the changes of a tenant, linked to the calls that made changes.
    """

    def __init__(
        self,
        store: DocumentStore,
        cache: CachePort,
        *,
        clock: Clock,
        metrics: Metrics,
        tracer: Tracer,
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer
        # By span id, with whose call it is; those that no round has looked after yet.
        self._causes: dict[int, tuple[str, SpanContext]] = {}
        self._noted = asyncio.Event()
        self._awaited = asyncio.Event()
        self._failing = False
        self._begun_count = 0
        self._finished_count = 0
        self._finished = asyncio.Condition()
        metrics.set_gauge("rag_invalidations_pending", 0)

    def wake(self) -> None:
        """Says that there is something new to deliver."""
        cause = get_current_span().get_span_context()
        if cause.is_valid and len(self._causes) < _MOST_CAUSES:
            self._causes[cause.span_id] = (current_identity.get().tenant_id, cause)
        self._noted.set()

    async def told(self) -> bool:
        """Waits a moment for the cache to know of what is noted now; returns whether it does."""
        number = self._begun_count + 1
        self._awaited.set()
        self.wake()
        if self._failing:
            return False
        try:
            async with asyncio.timeout(_TOLD_SECONDS), self._finished:
                await self._finished.wait_for(lambda: self._finished_count >= number)
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Delivers again and again; never returns."""
        pause = _INTERVAL_SECONDS
        while True:
            try:
                await self._deliver_round()
            except ServiceError as error:
                failing = self._failing
                pause = min(2 * pause, _INTERVAL_SECONDS) if failing else _FIRST_PAUSE_SECONDS
                if not failing:
                    _logger.warning("changes wait for the cache", extra={"cause": error.message})
                self._failing = True
                # What is new meanwhile has to wait like the rest.
                await self._clock.sleep(pause)
            except Exception:
                # Later changes must be told of, whatever is wrong with these.
                _logger.exception("telling the cache failed")
                self._failing = True
                await self._clock.sleep(_INTERVAL_SECONDS)
            else:
                self._failing = False
                await _wait(self._awaited, _REST_SECONDS)
                await _wait(self._noted, _INTERVAL_SECONDS)
                self._noted.clear()

    async def _deliver_round(self) -> None:
        self._begun_count += 1
        self._awaited.clear()
        number = self._begun_count
        await self._deliver_all()
        async with self._finished:
            self._finished_count = number
            self._finished.notify_all()

    async def _deliver_all(self) -> None:
        """Delivers what there is.

        Raises:
            ServiceError: Some of it could not be delivered; the changes of other tenants were.
        """
        failed: dict[str, ServiceError] = {}
        causes: dict[int, tuple[str, SpanContext]] = {}
        try:
            await self._deliver_each(causes, failed)
        except BaseException:
            self._causes |= causes
            raise
        if failed:
            self._causes |= {number: each for number, each in causes.items() if each[0] in failed}
            raise next(iter(failed.values()))

    async def _deliver_each(
        self, causes: dict[int, tuple[str, SpanContext]], failed: dict[str, ServiceError]
    ) -> None:
        """Delivers tenant by tenant.

        Args:
            causes: Receives the calls that have woken this.
            failed: Receives the tenants whose changes the cache did not take.
        """
        while True:
            # What they have noted is read next; what has noted nothing takes no room for ever.
            causes |= self._causes
            self._causes = {}
            notes = await self._store.list_invalidations(
                limit=_BATCH_SIZE, except_tenants=tuple(failed)
            )
            if not notes:
                break
            self._metrics.set_gauge("rag_invalidations_pending", len(notes))
            by_tenant: defaultdict[str, list[PendingInvalidation]] = defaultdict(list)
            for note in notes:
                by_tenant[note.tenant_id].append(note)
            for tenant_id, its_notes in by_tenant.items():
                try:
                    links = [Link(cause) for owner, cause in causes.values() if owner == tenant_id]
                    await self._deliver_traced(tenant_id, its_notes, links)
                except ServiceError as error:
                    failed[tenant_id] = error
            if len(notes) < _BATCH_SIZE:
                # That was all; what is noted meanwhile wakes another round.
                break
        waiting = await self._store.list_invalidations(limit=_BATCH_SIZE) if failed else ()
        self._metrics.set_gauge("rag_invalidations_pending", len(waiting))

    async def _deliver_traced(
        self, tenant_id: str, notes: Sequence[PendingInvalidation], links: list[Link]
    ) -> None:
        """Delivers the notes of one tenant in a trace that is linked to what they come of."""
        with self._tracer.start_as_current_span(
            "invalidate",
            attributes={TENANT: tenant_id, "app.invalidation.notes": len(notes)},
            links=links,
        ):
            await self._deliver(tenant_id, notes)

    async def _deliver(self, tenant_id: str, notes: Sequence[PendingInvalidation]) -> None:
        """Delivers the notes of one tenant, each change once."""
        current_identity.set(Identity(tenant_id))
        changes = list(dict.fromkeys(note.invalidation for note in notes))
        for start in range(0, len(changes), _SELECTORS_PER_CALL):
            told = set(changes[start : start + _SELECTORS_PER_CALL])
            await self._cache.invalidate(tuple(told))
            numbers = [note.number for note in notes if note.invalidation in told]
            await self._store.drop_invalidations(numbers)
            self._metrics.count("rag_invalidations_delivered_total", amount=len(numbers))


async def _wait(event: asyncio.Event, most_seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(most_seconds):
            await event.wait()
