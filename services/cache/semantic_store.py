"""The questions of all replicas, in the shared store: one script call per step."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from services.cache.core import frames
from services.cache.core.frames import Frame, FrameRejected
from services.cache.core.layers import LAYER_RULES, Layer
from services.cache.core.semantic.entries import (
    VERSION_BYTES,
    MalformedEntry,
    SemanticEntry,
    decode_entry,
    encode_entry,
)
from services.cache.core.semantic.index import FloatVector
from services.cache.core.semantic.names import CHANNEL, PartitionName
from services.cache.core.store_clock import StoreClock
from services.cache.ports import Script, StoreFailure
from services.cache.semantic_scripts import CATCH_UP, PUT, REMOVE
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = [
    "Changes",
    "OtherDimension",
    "Place",
    "Record",
    "SemanticStore",
    "Version",
    "WrongEntries",
]

_logger = logging.getLogger(__name__)

_LAYER = Layer.SEMANTIC
_LONGEST_LIFE_MS = int(LAYER_RULES[_LAYER].ttl_seconds * 1000)
_WRONG_LIMIT = 10_000
_CHANGE_LIMIT = 128
_REMOVAL_LIMIT = 500
# A partition outlives its last entry by this, so that replicas see what became of it.
_GRACE_MS = 60_000
_DESCRIPTION = b"#"

Record = tuple[SemanticEntry, FloatVector]
"""An entry and its vector."""

Version = tuple[str, bytes]
"""Digest of an entry's normal form, and its version."""


class OtherDimension(Exception):
    """The vectors of the partition have another number of components.

    Args:
        dimension: How many they have.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__(f"the vectors of the partition have {dimension} components")
        self.dimension = dimension


@dataclass(frozen=True, slots=True)
class Place:
    """How far a partition has come in the shared store.

    Attributes:
        generation: Tells it from one that was lost before; empty where there is none.
        number: Number of its last change.
    """

    generation: bytes
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What has become of a partition.

    Attributes:
        place: How far it has come.
        read_to: Number that `records` reach to; None where some changes can no longer be read.
        records: What stands now where something has changed, by digest of the normal form: None
            where nothing does that could be read.
        lag_seconds: Time since the first of the changes.
        rejected_count: Entries that failed their check.
    """

    place: Place
    read_to: int | None
    records: dict[str, Record | None]
    lag_seconds: float
    rejected_count: int


class SemanticStore:
    """Reads and changes partitions.

    Args:
        shared: The shared level.
        store_clock: Is told the store's time.
        clock: Time.
        pepper: Secret of signatures.
    """

    def __init__(
        self, shared: SharedLevel, *, store_clock: StoreClock, clock: Clock, pepper: bytes
    ) -> None:
        self._shared = shared
        self._store_clock = store_clock
        self._clock = clock
        self._pepper = pepper

    async def put(
        self, name: PartitionName, entry: SemanticEntry, vector: FloatVector, *, ttl_ms: int
    ) -> Place:
        """Stores an entry in place of the one with the same normal form.

        Args:
            name: Its partition.
            entry: The entry.
            vector: Its vector of length 1.
            ttl_ms: How long it is kept.

        Raises:
            OtherDimension: The partition's vectors have another number of components.
            StoreFailure: The store is away or refuses.
        """
        reply = await self._run(
            PUT,
            name,
            CHANNEL,
            name.partition_id.encode(),
            entry.form.encode(),
            self._encode(name, entry, vector),
            len(vector),
            ttl_ms + _GRACE_MS,
        )
        if reply[1] == 0:
            raise OtherDimension(cast("int", reply[2]))
        return Place(cast("bytes", reply[2]), cast("int", reply[3]))

    async def remove(
        self, name: PartitionName, entries: Sequence[Version], *, quietly: bool = False
    ) -> None:
        """Removes entries where they still are the same.

        Args:
            name: Their partition.
            entries: Digest of the normal form, and version, of each.
            quietly: Whether nobody needs to know, as of those that have expired.

        Raises:
            StoreFailure: The store is away or refuses.
        """
        for start in range(0, len(entries), _REMOVAL_LIMIT):
            arguments: list[bytes] = []
            for form, version in entries[start : start + _REMOVAL_LIMIT]:
                arguments += (form.encode(), version)
            await self._shared.run(
                _LAYER,
                REMOVE,
                [name.entries_key, name.changes_key],
                [CHANNEL, name.partition_id.encode(), b"1" if quietly else b"0", *arguments],
            )

    async def changes(self, name: PartitionName, since: Place) -> Changes:
        """Reads what has changed, some of it where it is much.

        Args:
            name: The partition.
            since: How far it is known.

        Raises:
            StoreFailure: The store is away.
        """
        reply = await self._run(CATCH_UP, name, since.generation, since.number, _CHANGE_LIMIT)
        now_ms, generation, number, read_to, first_ms = reply[:5]
        pairs = cast("list[bytes | None]", reply[5:])
        records: dict[str, Record | None] = {}
        rejected_count = 0
        for form, data in zip(pairs[::2], pairs[1::2], strict=True):
            text = _text(cast("bytes", form))
            if text is None:
                rejected_count += 1
                continue
            records[text] = None if data is None else self._decode(name, text, data)
            rejected_count += data is not None and records[text] is None
        return Changes(
            place=Place(cast("bytes", generation), cast("int", number)),
            read_to=None if read_to == -1 else cast("int", read_to),
            records=records,
            lag_seconds=(cast("int", now_ms) - cast("int", first_ms)) / 1000,
            rejected_count=rejected_count,
        )

    async def read_all(self, name: PartitionName) -> dict[bytes, bytes]:
        """Reads a partition as it stands, for `decode_all`.

        Raises:
            StoreFailure: The store is away.
        """
        return await self._shared.read_map(_LAYER, name.entries_key)

    def decode_all(self, name: PartitionName, data: dict[bytes, bytes]) -> tuple[list[Record], int]:
        """Makes entries of what was read, leaving out what is none; for another thread.

        Returns:
            The entries, and how many failed their check.
        """
        records = [
            None if (text := _text(form)) is None else self._decode(name, text, value)
            for form, value in data.items()
            if not form.startswith(_DESCRIPTION)
        ]
        return [record for record in records if record is not None], records.count(None)

    async def _run(
        self, script: Script, name: PartitionName, *arguments: bytes | int
    ) -> list[object]:
        """Runs a script whose reply begins with the store's time."""
        keys = [name.entries_key, name.changes_key]
        sent_at = self._clock.monotonic()
        reply = cast("list[object]", await self._shared.run(_LAYER, script, keys, arguments))
        self._store_clock.note(
            cast("int", reply[0]), sent_at=sent_at, received_at=self._clock.monotonic()
        )
        return reply

    def _encode(self, name: PartitionName, entry: SemanticEntry, vector: FloatVector) -> bytes:
        frame = Frame(
            layer=_LAYER,
            created_ms=entry.created_ms,
            expires_ms=entry.expires_ms,
            tags=entry.tags,
            payload=encode_entry(entry, vector),
        )
        data = frames.encode(frame, key=name.signed_place(entry.form), pepper=self._pepper)
        # In front, where a script can compare it.
        return entry.version + data

    def _decode(self, name: PartitionName, form: str, data: bytes) -> Record | None:
        try:
            frame = frames.decode(
                data[VERSION_BYTES:],
                layer=_LAYER,
                key=name.signed_place(form),
                pepper=self._pepper,
            )
            record = decode_entry(
                frame.payload,
                scope=name.scope,
                form=form,
                created_ms=frame.created_ms,
                expires_ms=frame.expires_ms,
                tags=frame.tags,
            )
        except (FrameRejected, MalformedEntry, UnicodeDecodeError):
            return None
        return record if record[0].version == data[:VERSION_BYTES] else None


@dataclass(slots=True)
class _Untold:
    """What the store has to be told of a partition.

    Attributes:
        name: The partition.
        entries: Ends of the entries' lives by entry, milliseconds since the Unix epoch; the
            latest report last.
        is_faulty: Whether a mistake in telling it was logged.
    """

    name: PartitionName
    entries: dict[Version, int] = field(default_factory=dict)
    is_faulty: bool = False


class WrongEntries:
    """Entries judged wrong that may still be in the store: until it was told, or they are over.

    Kept apart from the partitions in memory, which may be dropped and read again at any time.
    At most 10,000 are kept; beyond that, the earliest of the tenant with the most is forgotten.

    Args:
        store: Is told of them.
        store_clock: The store's time.
        clock: Time.
    """

    def __init__(self, store: SemanticStore, *, store_clock: StoreClock, clock: Clock) -> None:
        self._store = store
        self._store_clock = store_clock
        self._clock = clock
        self._untold: dict[str, _Untold] = {}
        self._count = 0

    def add(self, name: PartitionName, version: Version, expires_ms: int | None) -> None:
        """Notes an entry.

        Args:
            name: Its partition.
            version: The entry.
            expires_ms: When it ends to be valid, milliseconds since the Unix epoch; None where
                that is not known.
        """
        untold = self._untold.setdefault(name.partition_id, _Untold(name))
        if version not in untold.entries:
            self._count += 1
        longest_ms = self._now_ms() + _LONGEST_LIFE_MS
        untold.entries[version] = longest_ms if expires_ms is None else expires_ms
        if self._count > _WRONG_LIMIT:
            self._forget_one()

    def of(self, name: PartitionName) -> frozenset[Version]:
        """Returns those of a partition."""
        untold = self._untold.get(name.partition_id)
        return frozenset() if untold is None else frozenset(untold.entries)

    def includes(self, name: PartitionName, version: Version) -> bool:
        """Returns whether an entry is one of them."""
        untold = self._untold.get(name.partition_id)
        return untold is not None and version in untold.entries

    async def tell(self, name: PartitionName) -> bool:
        """Removes those of a partition from the store.

        Returns:
            Whether that could be done.
        """
        untold = self._untold.get(name.partition_id)
        if untold is None:
            return True
        told = list(untold.entries)
        try:
            await self._store.remove(name, told)
        except StoreFailure:
            return False
        except Exception:
            if not untold.is_faulty:
                untold.is_faulty = True
                _logger.exception("the shared store was not told of wrong entries")
            return False
        self._settle(untold, told)
        return True

    async def tell_all(self) -> None:
        """Removes from the store what can be removed, and forgets what is over."""
        now_ms = self._now_ms()
        for untold in list(self._untold.values()):
            over = [key for key, expires_ms in untold.entries.items() if expires_ms <= now_ms]
            self._settle(untold, over)
            await self.tell(untold.name)

    def _now_ms(self) -> int:
        return self._store_clock.now_ms(self._clock.monotonic())

    def _settle(self, untold: _Untold, versions: Sequence[Version]) -> None:
        for version in versions:
            if untold.entries.pop(version, None) is not None:
                self._count -= 1
        if not untold.entries and self._untold.get(untold.name.partition_id) is untold:
            del self._untold[untold.name.partition_id]

    def _forget_one(self) -> None:
        """Forgets the earliest of the tenant with the most, so that none crowds out another."""
        counts: Counter[str] = Counter()
        for untold in self._untold.values():
            counts[untold.name.scope.tenant_id] += len(untold.entries)
        ((tenant_id, _),) = counts.most_common(1)
        of_tenant = (
            each for each in self._untold.values() if each.name.scope.tenant_id == tenant_id
        )
        untold = next(of_tenant)
        self._settle(untold, [next(iter(untold.entries))])


def _text(form: bytes) -> str | None:
    """Returns an entry's name; None where it is none of ours."""
    try:
        return form.decode()
    except UnicodeDecodeError:
        return None
