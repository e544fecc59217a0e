"""What a replica holds, what it has seen the others hold, and what it may therefore take.

While the store answers, the store decides. A replica that the store does not answer keeps to the
slots it owns, and takes the first of them only after a while: until then the store may still have
lent it to another, who learns of the trouble later or never. The store in turn lends no slot of a
replica that has not been heard of for somewhat less than that. So neither needs to know how the
other is, and three things remain:

* Another replica may hold a slot that this one owns. What was seen so counts for one lease.
* A store that has lost replicas, or everything, does not know what they hold. It is settling for a
  while: it gives nobody a slot of another.
* A newcomer to such a store does not know whose slots are whose, and gets nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from services.balancer.core.shares import Resource, slot_owners

__all__ = ["Change", "Holding", "Occupant", "Phase", "ShareLedger", "Snapshot"]


class Phase(Enum):
    """How a replica stands to the others."""

    APART = "apart"
    """The store is out of reach: own slots, taken at once."""
    JOINING = "joining"
    """Telling the store what is held: nothing is taken."""
    SETTLING = "settling"
    """The store may not know everything: own slots, taken from the store."""
    SHARED = "shared"
    """All slots, taken from the store."""


class Occupant(NamedTuple):
    """Who holds a slot.

    Attributes:
        slot: Number of the slot, from 0.
        replica_id: The replica.
        note: The model that is being loaded; empty for slots of requests.
    """

    slot: int
    replica_id: str
    note: str


class Holding(NamedTuple):
    """A slot that this replica holds.

    Attributes:
        resource: Of what.
        slot: Number of the slot, from 0.
        note: The model that is being loaded; empty for slots of requests.
    """

    resource: Resource
    slot: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that the store knows.

    Attributes:
        version: Counts the changes in the store.
        replica_ids: The replicas, sorted.
        occupants: Who holds what.
    """

    version: int
    replica_ids: tuple[str, ...]
    occupants: Mapping[Resource, tuple[Occupant, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change in the store.

    Attributes:
        version: Its number.
        resource: What has changed hands; None where replicas have come or gone.
        occupants: Who holds it now.
    """

    version: int
    resource: Resource | None
    occupants: tuple[Occupant, ...] = ()


class ShareLedger:
    """The account of one replica.

    Args:
        replica_id: The replica.
        now: Monotonic seconds.
        lease_seconds: How long the store keeps what a replica holds that is not heard of.
        silence_seconds: Time from the last answer until the store lends no own slots any more.
        patience_seconds: Time from the last answer until own slots are taken without the store.
    """

    def __init__(
        self,
        replica_id: str,
        *,
        now: float,
        lease_seconds: float,
        silence_seconds: float,
        patience_seconds: float,
    ) -> None:
        self.replica_id = replica_id
        self.phase = Phase.APART
        self.version = 0
        self._lease_seconds = lease_seconds
        self._patience_seconds = patience_seconds
        # Leaves time to hear of what was lent last.
        self._delivery_seconds = patience_seconds - silence_seconds
        self._held: dict[str, Holding] = {}
        self._tokens: dict[Resource, dict[int, str]] = {}
        self._others: dict[Resource, tuple[Occupant, ...]] = {}
        self._present: tuple[str, ...] = (replica_id,)
        self._silent: frozenset[str] = frozenset()
        # Among whom the slots are divided; nobody else is known yet.
        self._sharers: tuple[str, ...] = (replica_id,)
        self._borrowed: dict[tuple[Resource, int], float] = {}
        self._heard_at = self._lost_at = now
        # Whatever others hold that are not known has come to its end, or is not renewed.
        self._owns_from = now + lease_seconds
        self._has_met_others = False
        self._next_token = 0

    @property
    def replica_count(self) -> int:
        """How many replicas share the fleet, as last seen."""
        known = self._present if self.phase is Phase.SHARED else self._sharers
        return len(known or self._present)

    @property
    def holdings(self) -> list[Holding]:
        """What this replica holds."""
        return list(self._held.values())

    def others(self, resource: Resource, now: float) -> tuple[Occupant, ...]:
        """Returns which other replicas hold slots, as last seen; nothing that is too old."""
        if self.phase is Phase.APART and now >= self._lost_at + self._lease_seconds:
            return ()
        return self._others.get(resource, ())

    def usable(self, resource: Resource, slots: int, now: float) -> int:
        """Returns how many slots could be held at once, those that are held included."""
        others = self.others(resource, now)
        if self.phase is Phase.JOINING:
            return len(self._tokens.get(resource, ()))
        if self.phase is Phase.SHARED and not self._silent:
            return max(0, slots - len(others))
        taken = {occupant.slot for occupant in others} if self.phase is not Phase.APART else ()
        free = [slot for slot, _ in self.candidates(resource, slots, now) if slot not in taken]
        return len(self._tokens.get(resource, ())) + len(free)

    def candidates(self, resource: Resource, slots: int, now: float) -> list[tuple[int, str]]:
        """Returns the slots that may be taken if nobody holds them, with owners, own ones first."""
        shared = self.phase is Phase.SHARED
        sharers = self._present if shared else self._sharers
        if now < self._owns_from or not sharers:
            return []
        held = self._tokens.get(resource, {})
        own, foreign = [], []
        for slot, owner in enumerate(slot_owners(resource, slots, sharers)):
            if slot in held or self._borrowed.get((resource, slot), now) > now:
                continue
            if owner == self.replica_id:
                own.append((slot, owner))
            elif shared and owner not in self._silent:
                foreign.append((slot, owner))
        return own + foreign

    def take_own(self, resource: Resource, slots: int, note: str, now: float) -> str | None:
        """Takes an own slot while apart; returns its token, or None where there is none."""
        if self.phase is not Phase.APART:
            return None
        free = self.candidates(resource, slots, now)
        return self.add(Holding(resource, free[0][0], note)) if free else None

    def add(self, holding: Holding) -> str:
        """Enters a slot that this replica holds; returns its token."""
        self._next_token += 1
        token = f"{self.replica_id}-{self._next_token}"
        self._held[token] = holding
        self._tokens.setdefault(holding.resource, {})[holding.slot] = token
        return token

    def remove(self, token: str) -> Holding | None:
        """Strikes a slot out; returns it, or None where the token is not known (any more)."""
        holding = self._held.pop(token, None)
        if holding is not None:
            tokens = self._tokens[holding.resource]
            del tokens[holding.slot]
            if not tokens:
                del self._tokens[holding.resource]
        return holding

    def apply(self, change: Change) -> bool:
        """Notes a change; returns whether what others hold is different now.

        A change that has been missed is made up for by the next snapshot, which is asked for as
        long as the version is behind. So is who has come or gone.
        """
        if change.version <= self.version or change.resource is None:
            return False
        if change.version == self.version + 1:
            self.version = change.version
        return self.see(change.resource, change.occupants)

    def see(self, resource: Resource, occupants: Iterable[Occupant]) -> bool:
        """Notes who holds something; returns whether that is different now."""
        before = self._others.get(resource, ())
        others = tuple(each for each in occupants if each.replica_id != self.replica_id)
        if others:
            self._others[resource] = others
        else:
            self._others.pop(resource, None)
        if self.phase is Phase.APART:
            # Sent before the store went away, read after.
            self._note_borrowed(resource, others)
        return others != before

    def observe(self, snapshot: Snapshot) -> bool:
        """Notes all that the store knows; returns whether others are, or hold, something else."""
        if snapshot.version < self.version:
            return False
        self.version = snapshot.version
        changed = self._present != snapshot.replica_ids
        self._present = snapshot.replica_ids
        for resource in self._others.keys() - snapshot.occupants.keys():
            changed |= self.see(resource, ())
        for resource, occupants in snapshot.occupants.items():
            changed |= self.see(resource, occupants)
        return changed

    def hear(self, now: float, silent: frozenset[str]) -> bool:
        """Notes that the store has answered; returns whether others may use more or less now.

        Args:
            now: Monotonic seconds.
            silent: Replicas that the store has not heard of for a while.
        """
        self._heard_at = now
        changed = silent != self._silent
        self._silent = silent
        return changed

    def has_been_away(self, now: float) -> bool:
        """Tells whether the store has been silent for so long that own slots may be in use."""
        return now >= self._heard_at + self._patience_seconds

    def lose(self, now: float) -> None:
        """Notes that the store has not answered, or has forgotten this replica.

        Args:
            now: Monotonic seconds.
        """
        if self.phase is Phase.SHARED or not self._has_met_others:
            self._sharers = tuple(sorted({*self._present, self.replica_id}))
        self.phase = Phase.APART
        self._lost_at = now
        if self._has_met_others:
            heard_of_all_at = max(
                self._heard_at + self._patience_seconds, now + self._delivery_seconds
            )
        else:
            heard_of_all_at = now + self._lease_seconds
        self._owns_from = heard_of_all_at
        self._borrowed = {key: until for key, until in self._borrowed.items() if until > now}
        for resource, occupants in self._others.items():
            self._note_borrowed(resource, occupants)

    def join(self) -> None:
        """Notes that the store is about to be told what is held."""
        self.phase = Phase.JOINING

    def stay_apart(self) -> None:
        """Notes that the store could not be told."""
        self.phase = Phase.APART

    def joined(self, snapshot: Snapshot, *, settling: bool) -> None:
        """Notes that the store has been told what is held, and what it answered."""
        if not self._has_met_others:
            # Who else there is will be known when the store has settled.
            self._sharers = ()
        self.version = 0
        self.phase = Phase.SETTLING
        self.observe(snapshot)
        self.settle(settling=settling)

    def settle(self, *, settling: bool) -> bool:
        """Notes whether the store is settling; returns whether that has changed."""
        phase = Phase.SETTLING if settling else Phase.SHARED
        if phase is self.phase:
            return False
        if settling and self.phase is Phase.SHARED:
            self._sharers = self._present
        self.phase = phase
        if phase is Phase.SHARED:
            self._has_met_others = True
            self._owns_from = 0.0
            self._borrowed.clear()
        return True

    def _note_borrowed(self, resource: Resource, occupants: Iterable[Occupant]) -> None:
        for occupant in occupants:
            key = (resource, occupant.slot)
            self._borrowed[key] = max(
                self._borrowed.get(key, 0.0), self._lost_at + self._lease_seconds
            )
