"""What this process knows of invalidations, kept in step with the shared store.

Checks are answered from memory. What is known of a tenant is read when it is first needed, then
every five seconds while the tenant is in use; after a notice or a gap between notices at once. So
no replica answers with an invalidated value for longer than that.

With the store away, a tenant of which nothing is known is begun with an empty page: nothing older
than that moment counts. After a minute without any news nothing known is relied on, except where
a value can never change. A store that comes back with older notes is found out by whoever reads
them next, for all replicas (see `epoch_scripts`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from services.cache.background import Background
from services.cache.core.epochs import EpochTable
from services.cache.core.model import Scope
from services.cache.core.store_clock import StoreClock
from services.cache.epoch_store import Change, EpochStore
from services.cache.ports import StoreFailure
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = ["Bump", "Epochs"]

_TICK_SECONDS = 1.0
# With the tick, every table in use is read anew within five seconds.
_REREAD_SECONDS = 4.0
_IN_USE_SECONDS = 300.0
# Who finds a table older than this has it read anew before relying on it.
_FRESH_SECONDS = 6.0
_TRUST_SECONDS = 60.0
_TENANT_LIMIT = 1_000
_PARALLEL_READS = 16
# What is not read anew on recovery is forgotten, and read when it is needed.
_RECOVERY_LIMIT = 200
# Kept back from the caller's deadline, so that a late store shows as a miss and not as an error.
_DEADLINE_MARGIN_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Bump:
    """What an invalidation came to.

    Attributes:
        epoch_ms: Its time by the store's clock, milliseconds since the Unix epoch.
        previous_ms: For each field the time of the invalidation before; 0 where none is known.
    """

    epoch_ms: int
    previous_ms: tuple[int, ...]


@dataclass(slots=True)
class _Known:
    """What is known of a tenant.

    Attributes:
        table: Its notes.
        read_at: When they were read, seconds on the monotonic clock; None where they never were.
        used_at: When they were last asked for.
    """

    table: EpochTable
    read_at: float | None
    used_at: float


class Epochs:
    """The invalidations of the tenants in use.

    Args:
        shared: Where they are noted.
        store_clock: Is told the store's time.
        clock: Time.
        remaining_seconds: What is left of the running call's deadline; None where there is none.
        clock_tolerance_ms: How far the clocks of the store's servers may differ, where there are
            several: an answer's lease may be dated by another one than its invalidation.
        tenant_limit: Most tenants to keep in memory; of more, those unused for longest are read
            again when they are needed.
    """

    def __init__(
        self,
        shared: SharedLevel,
        *,
        store_clock: StoreClock,
        clock: Clock,
        remaining_seconds: Callable[[], float | None],
        clock_tolerance_ms: int = 0,
        tenant_limit: int = _TENANT_LIMIT,
    ) -> None:
        self._store = EpochStore(
            shared,
            store_clock=store_clock,
            clock=clock,
            clock_tolerance_ms=clock_tolerance_ms,
        )
        self._store_clock = store_clock
        self._clock = clock
        self._remaining_seconds = remaining_seconds
        self._tenant_limit = tenant_limit
        self._tenants: OrderedDict[str, _Known] = OrderedDict()
        # Of no caller's own: one that goes away must not leave the others without an answer.
        self._loads = Background()
        self._loading: dict[str, asyncio.Task[bool]] = {}
        # What each was marked with last, so that a reply that was on its way is not taken for news.
        self._outdated: dict[str, object] = {}
        self._woken = asyncio.Event()

    def is_valid(self, scope: Scope, created_ms: int, tags: Iterable[str]) -> bool:
        """Returns whether a value counts; none does of a tenant that is not known.

        Args:
            scope: What the value belongs to.
            created_ms: When its computation began, by the store's clock.
            tags: What it depends on.
        """
        known = self._tenants.get(scope.tenant_id)
        return known is not None and known.table.is_valid(scope, created_ms, tags)

    def trusted(self, now: float) -> bool:
        """Returns whether values that can change may be given on the strength of what is known.

        Args:
            now: Seconds on the monotonic clock.
        """
        return now - self._store.contact_at <= _TRUST_SECONDS

    def grown_at(self, tenant_id: str, collection: str) -> int:
        """Returns when a collection last grew, milliseconds by the store's clock; 0 if never."""
        known = self._tenants.get(tenant_id)
        return 0 if known is None else known.table.grown_ms(collection)

    def threshold(self, tenant_id: str, namespace: str) -> float | None:
        """Returns the least similarity that was set for a namespace; None where none was."""
        known = self._tenants.get(tenant_id)
        return None if known is None else known.table.threshold(namespace)

    def thresholds(self, tenant_id: str) -> dict[str, float]:
        """Returns the least similarities that were set, by namespace."""
        known = self._tenants.get(tenant_id)
        return {} if known is None else known.table.thresholds

    def invalidated_at(self, tenant_id: str, field: str) -> int:
        """Returns when a field was last invalidated, by the store's clock; 0 if never known."""
        known = self._tenants.get(tenant_id)
        return 0 if known is None else known.table.invalidated_ms(field)

    async def ready(self, tenant_id: str) -> bool:
        """Makes sure that something is known of a tenant; before anything else is asked of it.

        Takes no time where it is known well enough, and else one round trip.

        Args:
            tenant_id: The tenant.

        Returns:
            Whether it is up to date; if not, the store need not be asked for values either.
        """
        now = self._clock.monotonic()
        known = self._tenants.get(tenant_id)
        if known is not None:
            known.used_at = now
            self._tenants.move_to_end(tenant_id)
            if self._is_fresh(tenant_id, known, now):
                return True
        if await self._load_once(tenant_id):
            return True
        self._make_do(tenant_id)
        return False

    async def refresh(self, tenant_id: str) -> None:
        """Reads a tenant anew.

        Raises:
            StoreFailure: The store is away or too slow.
        """
        await self._load(tenant_id)

    async def bump(self, tenant_id: str, fields: Sequence[str]) -> Bump:
        """Notes an invalidation, for all replicas; it holds when this returns.

        Args:
            tenant_id: Whose values.
            fields: What it applies to, at least one; see `core.tags`.

        Raises:
            StoreFailure: The store is away, too slow or refuses; whether it was noted is not known.
        """
        bump = self._store.bump(tenant_id, fields, self._version(tenant_id))
        change = await self._changed(tenant_id, bump)
        self._apply(tenant_id, change.before, change.version, fields)
        return Bump(change.version, tuple(int(each) for each in change.previous))

    async def set_threshold(
        self, tenant_id: str, namespace: str, threshold: float | None
    ) -> float | None:
        """Sets the least similarity that counts in a namespace, for all replicas.

        Args:
            tenant_id: Whose namespace.
            namespace: The namespace; empty for that of values that name none.
            threshold: The similarity, [0, 1]; None to set none any more.

        Returns:
            What was set before; None where nothing was.

        Raises:
            StoreFailure: The store is away, too slow or refuses; whether it was set is not known.
        """
        setting = self._store.set_threshold(
            tenant_id, namespace, threshold, self._version(tenant_id)
        )
        change = await self._changed(tenant_id, setting)
        known = self._tenants.get(tenant_id)
        if known is not None and known.table.version == change.before:
            known.table.note_threshold(namespace, threshold, change.version)
        else:
            self._mark_outdated(tenant_id)
        (previous,) = change.previous
        return float(previous) if previous else None

    def on_notice(self, payload: bytes) -> None:
        """Takes a notice of the channel `pannier:2:inv`."""
        tenant, before, version, *fields = payload.decode().split("\n")
        if tenant in self._tenants or tenant in self._loading:
            self._apply(tenant, int(before), int(version), fields)

    def on_gap(self) -> None:
        """Has everything read anew, since notices may have been missed."""
        for tenant_id in self._tenants:
            self._mark_outdated(tenant_id)

    async def recover(self) -> None:
        """Reads anew what is in use, and forgets the rest, before the store is used again.

        Raises:
            StoreFailure: The store is away again.
        """
        in_use = self._in_use()
        for tenant_id in set(self._tenants).difference(in_use[:_RECOVERY_LIMIT]):
            self._forget(tenant_id)
        await self._load_all(in_use[:_RECOVERY_LIMIT])

    async def run(self) -> None:
        """Keeps what is known up to date; never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reread_on_notice())
            group.create_task(self._reread_regularly())

    async def _reread_on_notice(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            in_use = self._in_use()
            # What nobody uses is read when it is needed again.
            for tenant_id in set(self._outdated).difference(in_use):
                self._forget(tenant_id)
            await self._reread([each for each in in_use if each in self._outdated])

    async def _reread_regularly(self) -> None:
        while True:
            await self._clock.sleep(_TICK_SECONDS)
            due_before = self._clock.monotonic() - _REREAD_SECONDS
            await self._reread(
                [
                    tenant_id
                    for tenant_id in self._in_use()
                    if (read_at := self._tenants[tenant_id].read_at) is None
                    or read_at <= due_before
                    or tenant_id in self._outdated
                ]
            )

    async def _reread(self, tenant_ids: Sequence[str]) -> None:
        try:
            await self._load_all(tenant_ids)
        except StoreFailure:
            # Whoever asks for one of them tries again, and so does the next round.
            return

    async def _load_all(self, tenant_ids: Sequence[str]) -> None:
        pending = iter(tenant_ids)
        while batch := list(islice(pending, _PARALLEL_READS)):
            failed = False
            try:
                async with asyncio.TaskGroup() as group:
                    for tenant_id in batch:
                        group.create_task(self._load(tenant_id))
            except* StoreFailure:
                failed = True
            if failed:
                raise StoreFailure("went away")

    def _is_fresh(self, tenant_id: str, known: _Known, now: float) -> bool:
        recent = known.read_at is not None and now - known.read_at <= _FRESH_SECONDS
        return recent and tenant_id not in self._outdated

    def _in_use(self) -> list[str]:
        """Returns the tenants that were asked for of late, the last one first."""
        since = self._clock.monotonic() - _IN_USE_SECONDS
        return [
            tenant_id
            for tenant_id, known in reversed(self._tenants.items())
            if known.used_at >= since
        ]

    async def _load_once(self, tenant_id: str) -> bool:
        """Loads a tenant, for all who want it at the same time; returns whether that worked."""
        running = self._loading.get(tenant_id)
        if running is None:
            running = self._loading[tenant_id] = self._loads.start(self._try_loading(tenant_id))
        return await self._wait_for(running)

    async def _try_loading(self, tenant_id: str) -> bool:
        try:
            await self._load(tenant_id)
        except StoreFailure:
            return False
        finally:
            del self._loading[tenant_id]
        return True

    async def _wait_for(self, outcome: asyncio.Task[bool]) -> bool:
        remaining = self._remaining_seconds()
        limit = None if remaining is None else max(0.0, remaining - _DEADLINE_MARGIN_SECONDS)
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(outcome)
        except TimeoutError:
            return False

    async def _load(self, tenant_id: str) -> None:
        version = self._version(tenant_id)
        mark = self._outdated.get(tenant_id)
        self._take(tenant_id, version, await self._store.read(tenant_id, version))
        if self._outdated.get(tenant_id) is mark:
            self._outdated.pop(tenant_id, None)

    def _take(self, tenant_id: str, asked_with: int, table: EpochTable | None) -> None:
        """Takes over what was read by one who knew a version; None for what is still the same."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant_id)
        if table is None and (known is None or known.table.version < asked_with):
            raise StoreFailure("forgotten meanwhile")
        if known is not None and (
            table is None or known.table.version > table.version >= asked_with
        ):
            # The same, or notices have overtaken the reply.
            known.read_at = now
            return
        assert table is not None  # noqa: S101 - for the type checker
        if known is not None and known.read_at is not None:
            table.absorb(known.table)
        self._keep(tenant_id, table, now)

    def _version(self, tenant_id: str) -> int:
        known = self._tenants.get(tenant_id)
        return 0 if known is None else known.table.version

    def _keep(self, tenant_id: str, table: EpochTable, read_at: float | None) -> None:
        known = self._tenants.get(tenant_id)
        used_at = self._clock.monotonic() if known is None else known.used_at
        self._tenants[tenant_id] = _Known(table, read_at, used_at)
        if len(self._tenants) > self._tenant_limit:
            self._forget(next(iter(self._tenants)))

    def _make_do(self, tenant_id: str) -> None:
        """Decides what to go by where the store cannot be asked."""
        now = self._clock.monotonic()
        known = self._tenants.get(tenant_id)
        if known is not None:
            known_since = self._store.contact_at if known.read_at is None else known.read_at
            # Where the store is away altogether, `trusted` says which layers may go on.
            if now - known_since <= _TRUST_SECONDS or not self.trusted(now):
                return
        self._keep(tenant_id, EpochTable(flushed_ms=self._store_clock.now_ms(now) - 1), None)

    async def _changed(self, tenant_id: str, change: Awaitable[Change]) -> Change:
        try:
            return await change
        except StoreFailure:
            # It may have been done all the same.
            self._mark_outdated(tenant_id)
            raise

    def _apply(self, tenant_id: str, before: int, version: int, fields: Sequence[str]) -> None:
        known = self._tenants.get(tenant_id)
        if known is not None and known.table.version >= version and known.read_at is not None:
            return
        if known is not None and known.table.version == before and known.read_at is not None:
            known.table.note(fields, version, version)
        else:
            self._mark_outdated(tenant_id)

    def _forget(self, tenant_id: str) -> None:
        self._tenants.pop(tenant_id, None)
        self._outdated.pop(tenant_id, None)

    def _mark_outdated(self, tenant_id: str) -> None:
        self._outdated[tenant_id] = object()
        self._woken.set()
