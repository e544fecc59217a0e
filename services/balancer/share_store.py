"""The store in which the replicas of the balancer meet, as they need it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.balancer.core.share_ledger import Change, Holding, Occupant, Snapshot
from services.balancer.core.shares import Resource

__all__ = ["Answer", "Attempt", "ReservationStore", "SharingPolicy", "StoreLost"]


class StoreLost(Exception):
    """The store has not answered in time, or has refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingPolicy:
    """The times of the conversation with the store.

    Attributes:
        lease_seconds: How long the store keeps what a replica holds that is not heard of.
        beat_seconds: Longest time between two calls.
        silence_seconds: How long after the last answer that a replica has confirmed the store lends
            no slot of this replica to others: some beats.
        patience_seconds: How long after the last answer a replica takes slots that it owns by
            itself. What was lent before the silence must be known by then.
        settle_seconds: How long a store that has lost replicas gives nobody a slot of another,
            counted from the last one that has come back. All must come back within that time.
        retry_seconds: Time between two attempts to reach a store that is away.
    """

    lease_seconds: float = 2.0
    beat_seconds: float = 0.1
    silence_seconds: float = 0.35
    patience_seconds: float = 0.5
    settle_seconds: float = 1.0
    retry_seconds: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A wish for a slot.

    Attributes:
        resource: Of what.
        slots: How many there are.
        candidates: The slots that will do, with their owners, the best first.
        note: The model that is to be loaded; empty for slots of requests.
    """

    resource: Resource
    slots: int
    candidates: Sequence[tuple[int, str]]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the store answers.

    Attributes:
        settling: Whether it gives nobody a slot of another, as it may not know everything.
        silent: Replicas whose slots it lends to nobody, as they may be using them by themselves.
        granted: The slot that each attempt got, in their order; None where it got none.
        occupants: Who holds the resource of each attempt now.
        snapshot: All it knows; None where nothing has changed since the version asked for.
    """

    settling: bool
    silent: frozenset[str] = frozenset()
    granted: tuple[int | None, ...] = ()
    occupants: tuple[tuple[Occupant, ...], ...] = ()
    snapshot: Snapshot | None = None


class ReservationStore(Protocol):
    """Where the replicas meet. Every method raises `StoreLost`, within a bounded time.

    A session is the time between two registrations of a replica. Calls of an older session, which
    may reach the store late, have no effect.
    """

    async def check(self) -> None:
        """Finds out whether the store answers."""
        ...

    async def register(
        self, session: int, holdings: Sequence[Holding], *, away: bool
    ) -> Answer | None:
        """Tells the store all that this replica holds, in place of what it knows.

        Args:
            session: Number of the session that begins.
            holdings: What is held.
            away: Whether this replica has been out of reach for so long that there may be slots in
                use that the store does not know of.

        Returns:
            The answer, always with a snapshot, or None where a later session has begun.
        """
        ...

    async def exchange(
        self,
        session: int,
        released: Sequence[Holding],
        attempts: Sequence[Attempt],
        *,
        seen_version: int | None,
    ) -> Answer | None:
        """Gives slots back, then takes others, and renews the lease.

        Args:
            session: Number of the session.
            released: What is no longer held.
            attempts: What is wished for.
            seen_version: Version that this replica knows; None for no snapshot.

        Returns:
            The answer, or None where the store does not know the session (any more).
        """
        ...

    async def leave(self, session: int) -> None:
        """Takes this replica and all that it holds out of the store."""
        ...

    def changes(self) -> AsyncGenerator[Change, None]:
        """Yields the changes in the store as they happen."""
        ...

    async def close(self) -> None:
        """Ends all connections."""
        ...
