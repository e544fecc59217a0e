"""Whose slot is whose when the replicas cannot ask each other."""

from hypothesis import given
from hypothesis import strategies as st

from services.balancer.core.shares import (
    Reservations,
    Resource,
    SoleReplica,
    slot_owners,
)

_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
_replicas = st.sets(st.text("0123456789abcdef", min_size=1, max_size=16), min_size=1, max_size=8)
_slots = st.integers(0, 24)


@given(backend=_names, model=_names, slots=_slots, replicas=_replicas)
def test_each_slot_has_exactly_one_owner(backend, model, slots, replicas) -> None:
    owners = slot_owners(Resource(backend, model), slots, tuple(sorted(replicas)))
    assert len(owners) == slots
    assert set(owners) <= replicas


@given(slots=_slots, replicas=_replicas, dead=_replicas)
def test_replicas_agree_whether_or_not_they_know_that_others_are_dead(
    slots, replicas, dead
) -> None:
    resource = Resource("backend:1", "model")
    known = slot_owners(resource, slots, tuple(sorted(replicas)))
    outdated = slot_owners(resource, slots, tuple(sorted(replicas | dead)))
    for owner, owner_of_old in zip(known, outdated, strict=True):
        assert owner_of_old == owner or owner_of_old not in replicas


def test_slots_are_spread_over_replicas_and_differently_for_each_model() -> None:
    ids = tuple(f"{number:016x}" for number in range(3))
    owners = [slot_owners(Resource("backend:1", f"model {n}"), 1, ids)[0] for n in range(300)]
    assert all(60 < owners.count(each) < 140 for each in ids)


async def test_a_sole_replica_is_never_refused() -> None:
    sole: Reservations = SoleReplica()
    sole.watch(lambda: None)
    assert not sole.shared
    assert sole.immediate
    assert not sole.divided
    assert sole.replica_count == 1
    tokens = [
        sole.try_take("backend:1", "model", 1),
        await sole.take("backend:1", "model", 1),
        await sole.take_load("backend:1", "model"),
    ]
    assert None not in tokens
    for token in tokens:
        sole.release(token or "")
    assert sole.usable_slots("backend:1", "model", 3) == 3
    assert sole.held_by_others("backend:1", "model") == 0
    assert sole.may_load("backend:1")
    assert sole.is_loading_elsewhere("backend:1") is None
