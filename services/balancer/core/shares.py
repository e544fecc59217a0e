"""Several replicas of the balancer on one fleet: what they ask of each other.

The replicas hold the slots of the fleet in common, so that together they never have more requests
outstanding than a backend has slots. While they cannot reach each other, each slot has one owner
among them, found by rendezvous hashing: every replica comes to the same result by itself, and when
one leaves, only its own slots change hands.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, Protocol

__all__ = ["Reservations", "Resource", "SoleReplica", "load_of", "slot_owners"]


class Resource(NamedTuple):
    """Something of which there is a number of slots.

    Attributes:
        backend_id: Id of the backend.
        model: Key of the model whose requests take the slots; empty for the one slot of whoever
            loads a model into the backend.
    """

    backend_id: str
    model: str


def load_of(backend_id: str) -> Resource:
    """Returns the right to load a model into a backend, of which there is one."""
    return Resource(backend_id, "")


class Reservations(Protocol):
    """What the replicas of the balancer hold together. Only `take` and `take_load` do I/O."""

    @property
    def shared(self) -> bool:
        """Whether there may be other replicas; where not, nothing needs to be taken."""
        ...

    @property
    def replica_count(self) -> int:
        """How many replicas there are as last seen, this one included."""
        ...

    @property
    def divided(self) -> bool:
        """Whether each replica keeps to the slots it owns."""
        ...

    @property
    def immediate(self) -> bool:
        """Whether `try_take` decides, so that `take` never waits."""
        ...

    def watch(self, on_change: Callable[[], None]) -> None:
        """Names the one who is told when other replicas hold something else, or own slots change.

        Args:
            on_change: Called on the event loop; must neither block nor raise.
        """
        ...

    def usable_slots(self, backend_id: str, model: str, slots: int) -> int:
        """Returns how many slots this replica could hold at once now, those it holds included.

        Args:
            backend_id: Id of the backend.
            model: Key of the model.
            slots: How many there are.
        """
        ...

    def held_by_others(self, backend_id: str, model: str) -> int:
        """Returns how many slots other replicas hold, as last seen."""
        ...

    def may_load(self, backend_id: str) -> bool:
        """Tells whether this replica could take the right to load a model into a backend."""
        ...

    def is_loading_elsewhere(self, backend_id: str) -> str | None:
        """Returns the model that another replica is loading into a backend, as last seen."""
        ...

    def try_take(self, backend_id: str, model: str, slots: int) -> str | None:
        """Takes a slot without asking anybody; always None where not `immediate`."""
        ...

    async def take(self, backend_id: str, model: str, slots: int) -> str | None:
        """Takes a slot.

        Args:
            backend_id: Id of the backend.
            model: Key of the model.
            slots: How many there are; nothing is given while the replicas together hold as many.

        Returns:
            A token for `release`, or None where no slot can be had.
        """
        ...

    async def take_load(self, backend_id: str, model: str) -> str | None:
        """Takes the right to load a model into a backend, which one replica has at a time.

        Returns:
            A token for `release`, or None where the right cannot be had.
        """
        ...

    def release(self, token: str) -> None:
        """Gives back what was taken. A token that was given back already is ignored."""
        ...


class SoleReplica:
    """The reservations of a balancer without other replicas: everything is allowed.

    How many slots it holds itself is for the scheduler to count.
    """

    shared = False
    replica_count = 1
    divided = False
    immediate = True

    def watch(self, on_change: Callable[[], None]) -> None:
        """Does nothing: there are no others."""

    def usable_slots(self, backend_id: str, model: str, slots: int) -> int:  # noqa: ARG002
        """Returns all slots."""
        return slots

    def held_by_others(self, backend_id: str, model: str) -> int:  # noqa: ARG002
        """Returns 0."""
        return 0

    def may_load(self, backend_id: str) -> bool:  # noqa: ARG002
        """Returns True."""
        return True

    def is_loading_elsewhere(self, backend_id: str) -> str | None:  # noqa: ARG002
        """Returns None."""
        return None

    def try_take(self, backend_id: str, model: str, slots: int) -> str | None:  # noqa: ARG002
        """Returns a token."""
        return ""

    async def take(self, backend_id: str, model: str, slots: int) -> str | None:  # noqa: ARG002
        """Returns a token."""
        return ""

    async def take_load(self, backend_id: str, model: str) -> str | None:  # noqa: ARG002
        """Returns a token."""
        return ""

    def release(self, token: str) -> None:
        """Does nothing."""


@lru_cache(maxsize=4096)
def slot_owners(resource: Resource, slots: int, replica_ids: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the owner of each slot by rendezvous hashing (highest random weight).

    Args:
        resource: Of what.
        slots: How many slots there are.
        replica_ids: All replicas, sorted, at least one.
    """

    def owner(slot: int) -> str:
        return max(replica_ids, key=lambda replica_id: _weight(resource, slot, replica_id))

    return tuple(owner(slot) for slot in range(slots))


def _weight(resource: Resource, slot: int, replica_id: str) -> bytes:
    text = f"{resource.backend_id}\n{resource.model}\n{slot}\n{replica_id}"
    return blake2b(text.encode(), digest_size=8).digest()
