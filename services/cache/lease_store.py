"""The lease protocol as the shared store plays it: one script call per step."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from services.cache.core.failures import (
    COUNTED_LIMIT,
    COUNTED_SECONDS,
    MAXIMUM_MESSAGE_LENGTH,
    PROTECTION_SECONDS,
    Failure,
    FailureKind,
    KnownFailure,
    remembered_seconds,
)
from services.cache.core.fills import LiveText, Piece
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.leases import Lease
from services.cache.core.store_clock import StoreClock
from services.cache.lease_scripts import APPEND, EXTEND, FILL, RELEASE, TAKE
from services.cache.ports import StoreFailure, Write
from services.cache.shared_level import SharedLevel
from services.common.clock import Clock

__all__ = [
    "DONE_CHANNEL",
    "MARK_BYTES",
    "STREAM_GRACE_SECONDS",
    "Answer",
    "Fill",
    "Held",
    "LeaseStore",
    "NoLease",
    "StoredValue",
    "Unread",
    "decode_failure",
]

DONE_CHANNEL = b"pannier:2:done"

STREAM_GRACE_SECONDS = 30.0
"""How long a stream outlives its lease, and its fill."""

MARK_BYTES = 16
"""A stored value is told from all others by its last bytes, which are its signature."""

_LAYER = Layer.INFERENCE
_STREAM_ENTRIES = 8192
# After the end of a fill only those read its stream who are reading it already.
_STREAM_END_SECONDS = 5.0
_KINDS = {kind.value: kind for kind in FailureKind}


@dataclass(frozen=True, slots=True)
class StoredValue:
    """There is a value.

    Attributes:
        data: Its frame.
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody has the lease.

    Attributes:
        token: The lease's token.
        seconds: How long it still lasts.
    """

    token: str
    seconds: float


@dataclass(frozen=True, slots=True)
class NoLease:
    """The store would not take the lease, for want of memory for example."""


Answer = StoredValue | KnownFailure | Held | Lease | NoLease
"""What comes of asking for a value or else for the lease to compute it."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Which stored values do not count.

    Attributes:
        mark: Last bytes of a value that the caller has seen and cannot use; empty for none.
        left_ms: Values with no more milliseconds left than this do not count; None for all do.
    """

    mark: bytes = b""
    left_ms: int | None = None

    def arguments(self) -> tuple[bytes, bytes | int]:
        """Returns the arguments of the script."""
        if self.left_ms is not None:
            return b"fresher", self.left_ms
        return (b"other", self.mark) if self.mark else (b"any", b"")


class Fill(Enum):
    """What came of handing a value over."""

    KEPT = 1
    REFUSED = 0
    LOST = -1


class LeaseStore:
    """Runs the scripts.

    Args:
        shared: The shared level.
        store_clock: Is told the store's time.
        clock: Time.
        origin: Marks the notices of this process.
    """

    def __init__(
        self,
        shared: SharedLevel,
        *,
        store_clock: StoreClock,
        clock: Clock,
        origin: bytes,
    ) -> None:
        self._shared = shared
        self._store_clock = store_clock
        self._clock = clock
        self._origin = origin

    async def take(
        self,
        key: EntryKey,
        nonce: str,
        *,
        seconds: float,
        unread: Unread,
        restored: Held | None = None,
    ) -> Answer:
        """Asks for a value, or else for the lease to compute it.

        Args:
            key: The value's keys.
            nonce: What the lease's token is to end with.
            seconds: How long the lease is to last.
            unread: Which values do not count.
            restored: A lease that is held although the store may have forgotten it: given anew
                where there is none.

        Raises:
            StoreFailure: The store is away; whether it has given the lease is not known.
        """
        sent_at = self._clock.monotonic()
        reply = await self._shared.run(
            _LAYER,
            TAKE,
            [key.value, key.lease, key.failures],
            [
                nonce.encode(),
                _ms(seconds),
                *unread.arguments(),
                restored.token.encode() if restored is not None else b"",
                _ms(restored.seconds) if restored is not None else 0,
            ],
        )
        kind, now_us, data, left_ms = _reply(reply)
        self._store_clock.note(now_us // 1000, sent_at=sent_at, received_at=self._clock.monotonic())
        match kind:
            case b"value":
                return StoredValue(data)
            case b"failure":
                return KnownFailure(decode_failure(data[1:]), left_ms / 1000)
            case b"held":
                return Held(data.decode(errors="replace"), left_ms / 1000)
            case b"lease":
                return Lease(token=data.decode(), seconds=seconds)
            case _:
                return NoLease()

    async def fill(self, key: EntryKey, token: str, write: Write) -> Fill:
        """Stores a value and ends its lease.

        Raises:
            StoreFailure: The store is away; whether it has the value is not known.
        """
        reply = await self._shared.run(
            _LAYER,
            FILL,
            [key.value, key.lease, key.failures, key.stream],
            [
                token.encode(),
                write.data,
                write.ttl_ms,
                _ms(_STREAM_END_SECONDS),
                DONE_CHANNEL,
                self._notice(key, token),
            ],
        )
        return Fill(reply)

    async def release(self, key: EntryKey, token: str, failure: Failure | None) -> float | None:
        """Ends a lease without a value.

        Args:
            key: What was to be computed.
            token: The lease's token; of one that is not known, `-` and its nonce.
            failure: Why there is none; None where it merely is not needed.

        Returns:
            How long the failure is remembered, seconds; None where the lease is not held.

        Raises:
            StoreFailure: The store is away.
        """
        reply = await self._shared.run(
            _LAYER,
            RELEASE,
            [key.lease, key.failures, key.stream],
            [
                token.encode(),
                _ms(_STREAM_END_SECONDS),
                DONE_CHANNEL,
                self._notice(key, token),
                _encode_failure(failure) if failure is not None else b"",
                _ms(remembered_seconds(failure.kind)) if failure is not None else 0,
                _ms(COUNTED_SECONDS),
                COUNTED_LIMIT,
                _ms(PROTECTION_SECONDS),
            ],
        )
        remembered_ms = _integer(reply)
        return None if remembered_ms < 0 else remembered_ms / 1000

    async def extend(self, key: EntryKey, token: str, seconds: float, *, restore: bool) -> bool:
        """Prolongs a lease.

        Args:
            key: What is being computed.
            token: The lease's token.
            seconds: How long it is to last from now.
            restore: Whether to give it anew where the store has none.

        Returns:
            Whether it is held.

        Raises:
            StoreFailure: The store is away.
        """
        reply = await self._shared.run(
            _LAYER, EXTEND, [key.lease, key.value], [token.encode(), _ms(seconds), int(restore)]
        )
        return reply == 1

    async def append(
        self, key: EntryKey, text: LiveText, number: int, pieces: Sequence[Piece], *, seconds: float
    ) -> bool:
        """Appends to the stream that other replicas follow.

        Args:
            key: What is being computed.
            text: What they are pieces of.
            number: How many entries have been appended before; with 0 the stream is made anew.
            pieces: What to append.
            seconds: How long the lease lasts.

        Returns:
            Whether the lease is held.

        Raises:
            StoreFailure: The store is away; whether it has the entries is not known.
        """
        arguments: list[bytes | int] = [
            text.token.encode(),
            _ms(seconds + STREAM_GRACE_SECONDS),
            _STREAM_ENTRIES,
            text.created_ms,
            " ".join(text.tags).encode(),
            number,
        ]
        for piece in pieces:
            arguments += [piece.part.value.encode(), piece.text.encode()]
        reply = await self._shared.run(_LAYER, APPEND, [key.lease, key.stream], arguments)
        return reply == 1

    def _notice(self, key: EntryKey, token: str) -> bytes:
        return b" ".join((self._origin, token.encode(), key.value))


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _integer(reply: object) -> int:
    if not isinstance(reply, int):
        raise StoreFailure("unexpected reply")
    return reply


def _reply(reply: object) -> tuple[bytes, int, bytes, int]:
    """Reads a reply of TAKE, the last parts of which may be missing."""
    if not isinstance(reply, list) or len(reply) not in range(2, 5):
        raise StoreFailure("unexpected reply")
    kind, now_us, data, left_ms = (*reply, b"", 0)[:4] if len(reply) == 2 else (*reply, 0)[:4]
    return kind, int(now_us), data, left_ms


def _encode_failure(failure: Failure) -> bytes:
    return (failure.kind.value + failure.message[:MAXIMUM_MESSAGE_LENGTH]).encode()


def decode_failure(data: bytes) -> Failure:
    """Reads a failure; nothing stands for a lease that was given back without a reason."""
    text = data.decode(errors="replace")
    kind = _KINDS.get(text[:1], FailureKind.UNSPECIFIED)
    return Failure(kind, text[1 : 1 + MAXIMUM_MESSAGE_LENGTH])
