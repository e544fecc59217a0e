"""What a replica may take, from what it has seen the others hold."""

import pytest

from services.balancer.core.share_ledger import (
    Change,
    Holding,
    Occupant,
    Phase,
    ShareLedger,
    Snapshot,
)
from services.balancer.core.shares import Resource, slot_owners

LEASE, SILENCE, PATIENCE = 2.0, 0.35, 0.5
SLOTS = 12
IDS = ("a", "b", "c")
RESOURCE = Resource("backend:1", "model")
OWNERS = slot_owners(RESOURCE, SLOTS, IDS)
OWN = [slot for slot, owner in enumerate(OWNERS) if owner == "a"]
OF_B = [slot for slot, owner in enumerate(OWNERS) if owner == "b"]


def snapshot(*occupants: Occupant, version: int = 1, ids: tuple[str, ...] = IDS) -> Snapshot:
    held = {RESOURCE: occupants} if occupants else {}
    return Snapshot(version=version, replica_ids=ids, occupants=held)


def held_by(replica_id: str, *slots: int) -> tuple[Occupant, ...]:
    return tuple(Occupant(slot, replica_id, "") for slot in slots)


def new_ledger(replica_id: str = "a") -> ShareLedger:
    return ShareLedger(
        replica_id,
        now=0.0,
        lease_seconds=LEASE,
        silence_seconds=SILENCE,
        patience_seconds=PATIENCE,
    )


@pytest.fixture
def ledger() -> ShareLedger:
    """One of three replicas that share, with nothing held, that has heard of the store at 9.9 s."""
    ledger = new_ledger()
    meet(ledger, snapshot(), settling=False)
    ledger.hear(9.9, frozenset())
    return ledger


def meet(ledger: ShareLedger, known: Snapshot, *, settling: bool) -> None:
    ledger.join()
    ledger.joined(known, settling=settling)


def candidates(ledger: ShareLedger, now: float) -> list[int]:
    return [slot for slot, _ in ledger.candidates(RESOURCE, SLOTS, now)]


def take_all(ledger: ShareLedger, now: float) -> set[int]:
    while ledger.take_own(RESOURCE, SLOTS, "", now):
        pass
    return {holding.slot for holding in ledger.holdings}


def test_the_example_gives_each_replica_slots() -> None:
    assert len(OWN) >= 2
    assert len(OF_B) >= 2
    assert len(OWN) + len(OF_B) < SLOTS


def test_while_shared_all_slots_that_others_do_not_hold_can_be_used(ledger) -> None:
    assert ledger.phase is Phase.SHARED
    assert ledger.replica_count == 3
    ledger.observe(snapshot(*held_by("b", 0, 1), *held_by("a", 2), version=2))
    assert ledger.usable(RESOURCE, SLOTS, 1.0) == SLOTS - 2
    assert len(ledger.others(RESOURCE, 1.0)) == 2


def test_while_shared_nothing_is_taken_without_the_store(ledger) -> None:
    assert ledger.take_own(RESOURCE, SLOTS, "", 1.0) is None


def test_while_shared_slots_of_silent_replicas_are_left_alone(ledger) -> None:
    assert ledger.hear(10.0, frozenset("b"))
    assert not ledger.hear(10.1, frozenset("b"))
    assert not set(candidates(ledger, 10.1)) & set(OF_B)
    assert ledger.usable(RESOURCE, SLOTS, 10.1) == SLOTS - len(OF_B)
    # What it holds is not counted twice.
    ledger.see(RESOURCE, held_by("b", OF_B[0]))
    assert ledger.usable(RESOURCE, SLOTS, 10.1) == SLOTS - len(OF_B)
    ledger.add(Holding(RESOURCE, OWN[0], ""))
    assert ledger.usable(RESOURCE, SLOTS, 10.1) == SLOTS - len(OF_B)
    assert ledger.hear(10.2, frozenset())
    assert ledger.usable(RESOURCE, SLOTS, 10.2) == SLOTS - 1


def test_while_shared_own_slots_are_preferred(ledger) -> None:
    assert candidates(ledger, 10.0)[: len(OWN)] == OWN
    assert sorted(candidates(ledger, 10.0)) == list(range(SLOTS))


def test_own_slots_are_taken_when_the_store_has_been_silent_for_long_enough(ledger) -> None:
    ledger.lose(10.0)
    assert not ledger.has_been_away(9.9 + PATIENCE - 0.01)
    assert take_all(ledger, 9.9 + PATIENCE - 0.01) == set()
    assert ledger.has_been_away(9.9 + PATIENCE)
    assert take_all(ledger, 9.9 + PATIENCE) == set(OWN)
    assert ledger.take_own(RESOURCE, SLOTS, "", 100.0) is None


def test_one_that_notices_late_still_waits_for_what_was_sent_to_it(ledger) -> None:
    ledger.lose(60.0)
    assert take_all(ledger, 60.0 + PATIENCE - SILENCE - 0.01) == set()
    assert take_all(ledger, 60.0 + PATIENCE - SILENCE) == set(OWN)


def test_an_own_slot_that_another_holds_counts_for_one_lease(ledger) -> None:
    ledger.observe(snapshot(*held_by("b", OWN[0]), version=2))
    ledger.lose(10.0)
    assert ledger.usable(RESOURCE, SLOTS, 11.9) == len(OWN) - 1
    assert take_all(ledger, 11.9) == set(OWN[1:])
    assert len(ledger.others(RESOURCE, 11.9)) == 1
    assert take_all(ledger, 12.0) == set(OWN)
    assert ledger.others(RESOURCE, 12.0) == ()


def test_what_was_sent_before_the_loss_and_read_after_counts_too(ledger) -> None:
    ledger.lose(10.0)
    ledger.apply(Change(version=2, resource=RESOURCE, occupants=held_by("b", OWN[0])))
    assert take_all(ledger, 11.9) == set(OWN[1:])


def test_a_second_loss_does_not_forget_what_the_first_knew(ledger) -> None:
    ledger.observe(snapshot(*held_by("b", OWN[0]), version=2))
    ledger.lose(10.0)
    meet(ledger, snapshot(ids=("a",), version=3), settling=True)
    assert OWN[0] not in candidates(ledger, 11.0)
    ledger.lose(11.0)
    assert take_all(ledger, 11.9) == set(OWN[1:])
    assert take_all(ledger, 12.0) == set(OWN)


def test_foreign_slots_that_are_held_at_the_loss_stay_held_but_are_not_taken_again(ledger) -> None:
    token = ledger.add(Holding(RESOURCE, OF_B[0], ""))
    ledger.lose(10.0)
    assert ledger.usable(RESOURCE, SLOTS, 10.6) == len(OWN) + 1
    ledger.remove(token)
    assert take_all(ledger, 100.0) == set(OWN)


def test_replicas_that_lose_the_store_together_never_take_the_same_slot() -> None:
    everything: list[int] = []
    for replica_id in IDS:
        ledger = new_ledger(replica_id)
        meet(ledger, snapshot(), settling=False)
        ledger.lose(10.0)
        everything += take_all(ledger, 10.6)
    assert sorted(everything) == list(range(SLOTS))


def test_a_replica_that_comes_back_has_its_own_slots_until_the_store_has_settled(ledger) -> None:
    ledger.lose(10.0)
    ledger.join()
    assert ledger.usable(RESOURCE, SLOTS, 11.0) == 0
    assert ledger.take_own(RESOURCE, SLOTS, "", 11.0) is None
    # The others are not back yet; that makes their slots nobody's.
    ledger.joined(snapshot(ids=("a",)), settling=True)
    assert candidates(ledger, 11.0) == OWN
    assert ledger.usable(RESOURCE, SLOTS, 11.0) == len(OWN)
    assert ledger.replica_count == 3
    ledger.see(RESOURCE, held_by("b", OWN[0]))
    assert ledger.usable(RESOURCE, SLOTS, 11.0) == len(OWN) - 1
    assert ledger.settle(settling=False)
    assert ledger.usable(RESOURCE, SLOTS, 12.0) == SLOTS - 1


def test_one_that_the_store_has_forgotten_takes_own_slots_after_a_while(ledger) -> None:
    ledger.lose(10.0)
    meet(ledger, snapshot(ids=("a",)), settling=True)
    assert candidates(ledger, 10.3) == []
    assert candidates(ledger, 10.4) == OWN
    ledger.settle(settling=False)
    assert ledger.usable(RESOURCE, SLOTS, 10.9) == SLOTS


def test_one_that_was_never_away_keeps_to_its_own_slots_while_others_come_back(ledger) -> None:
    assert ledger.settle(settling=True)
    assert not ledger.settle(settling=True)
    assert candidates(ledger, 1.0) == OWN


def test_a_newcomer_takes_nothing_from_a_store_that_settles() -> None:
    ledger = new_ledger()
    meet(ledger, snapshot(ids=("a",)), settling=True)
    assert ledger.usable(RESOURCE, SLOTS, 0.5) == 0
    ledger.observe(snapshot(version=2))
    ledger.settle(settling=False)
    assert ledger.replica_count == 3
    assert ledger.usable(RESOURCE, SLOTS, 1.0) == SLOTS


def test_a_newcomer_that_loses_a_settling_store_shares_with_those_it_has_seen() -> None:
    ledger = new_ledger()
    meet(ledger, snapshot(), settling=True)
    ledger.lose(1.0)
    assert take_all(ledger, 1.0 + LEASE - 0.01) == set()
    assert take_all(ledger, 1.0 + LEASE) == set(OWN)


def test_a_newcomer_stays_one_until_it_has_seen_a_settled_store() -> None:
    ledger = new_ledger()
    meet(ledger, snapshot(ids=("a",)), settling=True)
    ledger.lose(1.0)
    meet(ledger, snapshot(), settling=True)
    assert candidates(ledger, 100.0) == []
    ledger.lose(101.0)
    assert take_all(ledger, 200.0) == set(OWN)


def test_one_that_has_never_met_the_others_takes_all_after_one_lease() -> None:
    ledger = new_ledger()
    assert ledger.usable(RESOURCE, SLOTS, LEASE - 0.01) == 0
    assert take_all(ledger, LEASE) == set(range(SLOTS))
    meet(ledger, snapshot(ids=("a",)), settling=True)
    assert ledger.candidates(RESOURCE, SLOTS + 1, 10.0) == []


def test_a_token_gives_back_only_what_it_was_given_for(ledger) -> None:
    first = ledger.add(Holding(RESOURCE, 3, ""))
    assert ledger.remove(first) == Holding(RESOURCE, 3, "")
    second = ledger.add(Holding(RESOURCE, 3, ""))
    assert ledger.remove(first) is None
    assert ledger.remove("") is None
    assert ledger.holdings == [Holding(RESOURCE, 3, "")]
    assert ledger.remove(second) is not None
    assert ledger.holdings == []


def test_changes_tell_whether_others_hold_something_else(ledger) -> None:
    assert ledger.apply(Change(version=2, resource=RESOURCE, occupants=held_by("b", 0)))
    assert not ledger.apply(Change(version=2, resource=RESOURCE))
    assert len(ledger.others(RESOURCE, 1.0)) == 1
    mine_too = (*held_by("b", 0), *held_by("a", 1))
    assert not ledger.apply(Change(version=3, resource=RESOURCE, occupants=mine_too))
    assert ledger.apply(Change(version=4, resource=RESOURCE))
    assert ledger.others(RESOURCE, 1.0) == ()
    assert ledger.version == 4


def test_a_missed_change_leaves_the_version_behind_until_the_next_snapshot(ledger) -> None:
    ledger.apply(Change(version=3, resource=RESOURCE, occupants=held_by("b", 0)))
    assert len(ledger.others(RESOURCE, 1.0)) == 1
    assert ledger.version == 1
    assert ledger.observe(snapshot(version=4))
    assert ledger.others(RESOURCE, 1.0) == ()
    assert ledger.version == 4


def test_a_snapshot_older_than_the_changes_is_ignored(ledger) -> None:
    ledger.apply(Change(version=2, resource=RESOURCE, occupants=held_by("b", 0)))
    assert not ledger.observe(snapshot(version=1))
    assert len(ledger.others(RESOURCE, 1.0)) == 1


def test_who_has_come_or_gone_is_asked_for(ledger) -> None:
    assert not ledger.apply(Change(version=2, resource=None))
    assert ledger.version == 1
    assert ledger.observe(snapshot(version=2, ids=("a", "b")))
    assert ledger.replica_count == 2
