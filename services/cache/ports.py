"""What the cache service needs of the outside."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "Notice",
    "Script",
    "SharedStore",
    "StoreFailure",
    "StoreRefusal",
    "StoreTimeout",
    "StreamEntry",
    "Write",
]


class StoreFailure(Exception):
    """The shared store did not do what it was asked.

    Args:
        cause: What happened, in a few words without addresses or secrets.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class StoreRefusal(StoreFailure):
    """The shared store answered, and refused: it is read-only, full, loading its data."""


class StoreTimeout(StoreFailure):
    """The shared store did not answer in time."""


@dataclass(frozen=True, slots=True)
class Write:
    """A value for the shared store.

    Attributes:
        key: Where it belongs.
        data: What is stored.
        ttl_ms: How long it is kept, milliseconds, at least 1.
    """

    key: bytes
    data: bytes
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Script:
    """A program that the store runs as one step.

    Attributes:
        name: What it is called in spans and metrics.
        source: Lua, with core commands of Redis 6.2 only.
    """

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An entry of a stream.

    Attributes:
        entry_id: Its place; later entries have greater ones.
        fields: What it holds.
    """

    entry_id: bytes
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that all replicas listening at the time are sent; it may get lost.

    Attributes:
        channel: Where it was sent.
        payload: What was sent.
    """

    channel: bytes
    payload: bytes


class SharedStore(Protocol):
    """Keeps bytes for all replicas, in numbered databases."""

    async def read(
        self, database: int, keys: Sequence[bytes], *, timeout_seconds: float
    ) -> list[bytes | None]:
        """Reads values in one round trip.

        Args:
            database: Number of the database.
            keys: At least one.
            timeout_seconds: How long the caller waits at most.

        Returns:
            One entry per key, in order; None where there is none.

        Raises:
            StoreFailure: The store is away, too slow or refuses.
        """
        ...

    async def write(
        self, database: int, writes: Sequence[Write], *, timeout_seconds: float
    ) -> list[bool]:
        """Writes values in one round trip.

        Returns:
            One entry per value, in order: whether it was taken.

        Raises:
            StoreFailure: The store is away or too slow; what it has taken is not known.
        """
        ...

    async def run(
        self,
        database: int,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[bytes | int],
        *,
        timeout_seconds: float,
    ) -> object:
        """Runs a script.

        Args:
            database: Number of the database.
            script: What to run.
            keys: All keys it touches, at least one; all of one hash slot.
            arguments: What else it is told.
            timeout_seconds: How long the caller waits at most.

        Returns:
            What the script returns: bytes, an integer, None, or a list of these.

        Raises:
            StoreFailure: The store is away, too slow or refuses; whether it ran is not known.
        """
        ...

    async def read_map(
        self, database: int, key: bytes, *, timeout_seconds: float
    ) -> dict[bytes, bytes]:
        """Reads a whole hash, in pieces that hold up nobody else for long.

        Args:
            database: Number of the database.
            key: The hash; empty where there is none.
            timeout_seconds: How long to wait for each piece at most.

        Raises:
            StoreFailure: The store is away or too slow.
        """
        ...

    async def read_stream(
        self, database: int, key: bytes, after_id: bytes, *, wait_seconds: float, limit: int
    ) -> list[StreamEntry]:
        """Reads what was appended to a stream, and waits for it where there is nothing yet.

        Takes a connection of its own while it waits, so that nobody else is kept waiting.

        Args:
            database: Number of the database.
            key: The stream; one that does not exist is waited for.
            after_id: The last entry known; `b"0"` for all.
            wait_seconds: How long to wait, 0 for not at all.
            limit: Most entries to return.

        Raises:
            StoreFailure: The store is away or too slow.
        """
        ...

    def listen(
        self, channels: Sequence[bytes]
    ) -> AbstractAsyncContextManager[AsyncIterator[Notice]]:
        """Subscribes to channels; what is sent after the context has opened is received.

        Raises:
            StoreFailure: The store cannot be reached, or while iterating: the connection was lost.
        """
        ...

    async def check(self, *, timeout_seconds: float) -> None:
        """Makes sure that every database answers.

        Raises:
            StoreFailure: One does not.
        """
        ...
