"""The questions in memory, in step with those of the other replicas.

A partition is loaded when it is first used, and then follows its changes: at once where another
replica says that there are some, before it is used where nothing was heard for 5 s, and in the
background while it is in use, so that callers do not wait for that.
"""

import asyncio
import logging
import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from services.cache.core.layers import Layer
from services.cache.core.semantic.entries import SemanticEntry
from services.cache.core.semantic.index import FloatVector
from services.cache.core.semantic.names import PartitionName
from services.cache.core.semantic.partition import ENTRY_OVERHEAD_BYTES, Partition
from services.cache.core.store_clock import StoreClock
from services.cache.follower import Follower, Knowledge
from services.cache.ports import StoreFailure
from services.cache.recorder import Recorder
from services.cache.semantic_store import (
    Changes,
    Place,
    Record,
    SemanticStore,
    Version,
    WrongEntries,
)
from services.common.clock import Clock

__all__ = ["SemanticFeed"]

_logger = logging.getLogger(__name__)

_REFRESH_SECONDS = 2.0
_REFRESH_AGE_SECONDS = 3.0
_IN_USE_SECONDS = 60.0
_SWEEP_SECONDS = 60.0
_LOAD_LIMIT = 3
_OWN_LIMIT = 64
_PARTITION_LIMIT = 1000
_COMPONENT_BYTES = 4
_GROWTH_RATIO = 1.5


@dataclass(slots=True)
class _Held:
    """A partition in memory.

    Attributes:
        name: Its name.
        follower: Keeps it in step.
        partition: Its entries; another object after each load.
        used_at: When it was last asked for, seconds on the monotonic clock.
        putting_count: Entries that are being stored here at the moment.
        announced: How far it had come by the last notice that came meanwhile.
        swept_at: When expired entries were last removed.
        leaving: Entries of no more use that are still in the store.
        own: Versions of the entries that were stored here last.
    """

    name: PartitionName
    follower: Follower
    partition: Partition = field(default_factory=Partition)
    used_at: float = -math.inf
    putting_count: int = 0
    announced: Place | None = None
    swept_at: float = -math.inf
    leaving: list[Version] = field(default_factory=list)
    own: deque[bytes] = field(default_factory=partial(deque, maxlen=_OWN_LIMIT))

    @property
    def place(self) -> Place:
        """How far it is known."""
        return Place(self.partition.generation, self.partition.sequence)


class SemanticFeed:
    """Holds the partitions in use.

    Args:
        store: Where they are shared.
        clock: Time.
        store_clock: The store's time.
        recorder: Is told of size and lag.
        memory_limit_bytes: Most memory for all of them; those not used for longest go first.
        tenant_entry_limit: Most entries of a tenant; the oldest go first.
    """

    def __init__(
        self,
        store: SemanticStore,
        *,
        clock: Clock,
        store_clock: StoreClock,
        recorder: Recorder,
        memory_limit_bytes: int,
        tenant_entry_limit: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._store_clock = store_clock
        self._recorder = recorder
        self._memory_limit_bytes = memory_limit_bytes
        self._tenant_entry_limit = tenant_entry_limit
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._wrong = WrongEntries(store, store_clock=store_clock, clock=clock)
        recorder.semantic_limit(memory_limit_bytes)

    def partition(self, name: PartitionName) -> Partition:
        """Returns what is known of a partition at this moment."""
        return self._hold(name).partition

    def is_current(self, name: PartitionName) -> bool:
        """Returns whether a partition is in step, so that nothing need be waited for."""
        return self._hold(name).follower.is_current

    async def ready(self, name: PartitionName, wait_seconds: float) -> Knowledge:
        """Gets a partition in step, from the start where it is not in memory.

        Args:
            name: The partition.
            wait_seconds: How long to wait for that at most.
        """
        return await self._hold(name).follower.ready(wait_seconds)

    async def put(
        self, name: PartitionName, entry: SemanticEntry, vector: FloatVector, *, ttl_ms: int
    ) -> None:
        """Stores an entry for all replicas; see `SemanticStore.put`.

        Raises:
            OtherDimension: The partition's vectors have another number of components.
            StoreFailure: The store is away or refuses; nothing is kept.
        """
        held = self._hold(name)
        held.putting_count += 1
        held.own.append(entry.version)
        try:
            place = await self._store.put(name, entry, vector, ttl_ms=ttl_ms)
            self._take_own(held, (entry, vector), place)
        finally:
            held.putting_count -= 1
            if held.announced is not None:
                self._hear(held, held.announced)
        await self._keep_quota(name.scope.tenant_id)

    async def remove(self, name: PartitionName, form: str, version: bytes) -> bool:
        """Removes an entry that is wrong, here at once and then everywhere.

        Returns:
            Whether the store could be told; it will be as soon as it can.
        """
        partition = self._hold(name).partition
        entry = partition.find(form)
        is_known = entry is not None and entry.version == version
        self._wrong.add(name, (form, version), entry.expires_ms if entry and is_known else None)
        partition.remove(form, version)
        self._changed()
        return await self._wrong.tell(name)

    def forget(self, name: PartitionName, entry: SemanticEntry) -> None:
        """Removes an entry that is of no more use, here at once and from the store by and by."""
        held = self._hold(name)
        if held.partition.remove(*entry.key):
            held.leaving.append(entry.key)
            self._changed()

    def changed_elsewhere(self, partition_id: str, place: Place) -> None:
        """Takes a notice of a change, which may be one made here."""
        held = self._held.get(partition_id)
        if held is None:
            return
        if held.putting_count:
            # The notice of what is being stored here comes before the reply.
            held.announced = place
        else:
            self._hear(held, place)

    def held(self) -> list[SemanticEntry]:
        """Returns the entries in memory at this moment, expired ones included."""
        return [entry for held in self._held.values() for entry in held.partition.entries()]

    def fall_behind(self) -> None:
        """Notes that changes may have been missed."""
        for held in self._held.values():
            held.follower.fall_behind()

    async def run(self) -> None:
        """Keeps partitions in step and tidy; never returns."""
        try:
            while True:
                await self._clock.sleep(_REFRESH_SECONDS)
                await self._wrong.tell_all()
                for held in list(self._held.values()):
                    if self._held.get(held.name.partition_id) is held:
                        await self._refresh(held)
                self._changed()
        finally:
            for held in list(self._held.values()):
                await held.follower.close()

    def _hold(self, name: PartitionName) -> _Held:
        held = self._held.get(name.partition_id)
        if held is None:
            follower = Follower(lambda: self._follow(name), clock=self._clock)
            held = self._held[name.partition_id] = _Held(name, follower)
            if len(self._held) > _PARTITION_LIMIT:
                self._drop_one()
        held.used_at = self._clock.monotonic()
        self._held.move_to_end(name.partition_id)
        return held

    def _take_own(self, held: _Held, record: Record, place: Place) -> None:
        """Takes over what was just stored here, unless something else has to be read before."""
        follows = held.place == Place(place.generation, place.number - 1)
        if follows or (held.place == Place(b"", 0) and place.number == 1):
            self._insert(held, record)
            held.partition.generation = place.generation
            held.partition.sequence = place.number
            self._changed()
        else:
            held.follower.fall_behind()
            held.follower.begin()

    def _hear(self, held: _Held, place: Place) -> None:
        held.announced = None
        if held.place.generation == place.generation and place.number <= held.place.number:
            return
        held.follower.fall_behind()
        if self._in_use(held):
            held.follower.begin()

    def _in_use(self, held: _Held) -> bool:
        return self._clock.monotonic() - held.used_at <= _IN_USE_SECONDS

    async def _refresh(self, held: _Held) -> None:
        try:
            if self._clock.monotonic() - held.swept_at >= _SWEEP_SECONDS:
                await self._sweep(held)
            if self._in_use(held) and held.follower.age_seconds >= _REFRESH_AGE_SECONDS:
                await held.follower.step()
        except Exception:
            _logger.exception("a partition of questions was not brought up to date")

    async def _follow(self, name: PartitionName) -> None:
        """Makes one step: reads what has changed, or everything where that cannot be known."""
        held = self._held.get(name.partition_id)
        load_count = 0
        while held is not None:
            known = held.place
            changes = await self._store.changes(name, known)
            if held.place != known:
                # Something was stored here meanwhile; the reply may be older than that.
                continue
            if not changes.place.generation:
                held.partition = Partition()
                break
            if changes.read_to is None:
                if load_count == _LOAD_LIMIT:
                    raise StoreFailure("changes faster than it can be read")
                load_count += 1
                await self._load(held, changes.place)
                continue
            self._apply(held, changes)
            held.partition.sequence = changes.read_to
            if changes.read_to >= changes.place.number:
                break
        self._changed()

    async def _load(self, held: _Held, place: Place) -> None:
        data = await self._store.read_all(held.name)
        now_ms = self._store_clock.now_ms(self._clock.monotonic())
        records, rejected_count = await asyncio.to_thread(self._store.decode_all, held.name, data)
        if rejected_count:
            self._recorder.rejected(Layer.SEMANTIC, rejected_count)
        partition, useless = await asyncio.to_thread(
            self._build, records, now_ms, self._wrong.of(held.name)
        )
        for version in self._wrong.of(held.name):
            # Some may have been reported while it was built.
            partition.remove(*version)
        partition.generation, partition.sequence = place.generation, place.number
        held.partition = partition
        held.leaving += useless

    def _build(
        self, records: list[Record], now_ms: int, wrong: frozenset[Version]
    ) -> tuple[Partition, list[Version]]:
        """Makes a partition of what was read; runs in another thread.

        Returns:
            The partition, and what is of no more use in the store: it has expired, or is too much.
        """
        partition = Partition()
        records.sort(key=lambda record: record[0].created_ms)
        expired = [entry.key for entry, _ in records if entry.expires_ms <= now_ms]
        left_out = wrong.union(expired)
        fit = [record for record in records if record[0].key not in left_out]
        surplus = max(0, len(fit) - self._tenant_entry_limit)
        useless = expired + [entry.key for entry, _ in fit[:surplus]]
        newest = fit[surplus:]
        if newest:
            dimension = len(newest[0][1])
            newest = newest[-self._room(dimension) :]
            partition.reserve(len(newest), dimension)
            for entry, vector in newest:
                partition.put(entry, vector)
        return partition, useless

    def _apply(self, held: _Held, changes: Changes) -> None:
        # What this replica itself has changed comes along, and is no news.
        if any(_is_news(held, *each) for each in changes.records.items()):
            self._recorder.feed_lag(changes.lag_seconds)
        for form, record in changes.records.items():
            if record is None:
                held.partition.remove(form)
            else:
                self._insert(held, record)
        if changes.rejected_count:
            self._recorder.rejected(Layer.SEMANTIC, changes.rejected_count)

    def _insert(self, held: _Held, record: Record) -> None:
        entry, vector = record
        partition = held.partition
        if self._wrong.includes(held.name, entry.key):
            return
        if len(partition) >= self._room(len(vector)):
            for oldest in partition.oldest(1):
                partition.remove(oldest.form)
        partition.put(entry, vector)

    def _room(self, dimension: int) -> int:
        """Returns how many entries of a partition memory has room for."""
        entry_bytes = _COMPONENT_BYTES * dimension * _GROWTH_RATIO + ENTRY_OVERHEAD_BYTES
        return max(1, int(self._memory_limit_bytes / entry_bytes))

    async def _keep_quota(self, tenant_id: str) -> None:
        """Removes the tenant's oldest entries while there are too many."""
        theirs = [held for held in self._held.values() if held.name.scope.tenant_id == tenant_id]
        excess = sum(len(held.partition) for held in theirs) - self._tenant_entry_limit
        if excess <= 0:
            return
        oldest = [(entry, held) for held in theirs for entry in held.partition.oldest(excess)]
        oldest.sort(key=lambda pair: pair[0].created_ms)
        for entry, held in oldest[:excess]:
            self.forget(held.name, entry)
        for held in theirs:
            await self._dismiss(held, quietly=False)

    async def _sweep(self, held: _Held) -> None:
        held.swept_at = self._clock.monotonic()
        for entry in held.partition.expired(self._store_clock.now_ms(held.swept_at)):
            held.partition.remove(entry.form)
            held.leaving.append(entry.key)
        await self._dismiss(held, quietly=True)
        self._changed()

    async def _dismiss(self, held: _Held, *, quietly: bool) -> None:
        """Removes from the store what has left memory; what it is not told of expires there."""
        leaving, held.leaving = held.leaving, []
        try:
            await self._store.remove(held.name, leaving, quietly=quietly)
        except StoreFailure:
            return

    def _drop_one(self) -> None:
        """Drops the one not used for longest; one that holds nothing, where there is any.

        While the store is away, all that are new hold nothing.
        """
        others = list(islice(self._held.items(), len(self._held) - 1))
        empty = (partition_id for partition_id, held in others if not len(held.partition))
        del self._held[next(empty, others[0][0])]

    def _changed(self) -> None:
        """Keeps memory within its limit and says how much there is."""
        total_bytes = sum(held.partition.size_bytes for held in self._held.values())
        while len(self._held) > 1 and total_bytes > self._memory_limit_bytes:
            _, dropped = self._held.popitem(last=False)
            total_bytes -= dropped.partition.size_bytes
        entry_count = sum(len(held.partition) for held in self._held.values())
        self._recorder.semantic_size(entry_count, len(self._held), total_bytes)


def _is_news(held: _Held, form: str, record: Record | None) -> bool:
    """Tells whether a change is another replica's, and not known yet."""
    known = held.partition.find(form)
    if record is None:
        return known is not None
    version = record[0].version
    return version not in held.own and (known is None or known.version != version)
