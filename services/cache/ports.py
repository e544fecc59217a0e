"""What the cache service needs of the outside."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SharedStore", "StoreFailure", "StoreTimeout", "Write"]


class StoreFailure(Exception):
    """The shared store did not do what it was asked.

    Args:
        cause: What happened, in a few words without addresses or secrets.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


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

    async def check(self, *, timeout_seconds: float) -> None:
        """Makes sure that every database answers.

        Raises:
            StoreFailure: One does not.
        """
        ...
