"""What is held while a model is loaded, so that no other replica asks for what is about to go."""

import asyncio

import pytest

from services.balancer.backend import ModelState
from services.balancer.claim_loads import claimed, claimed_cure, claimed_slot
from services.balancer.core.models import InstalledModel
from services.balancer.core.shares import SoleReplica
from tests.kit.standin import eventually

NEW = ModelState(installed=InstalledModel(name="new", digest="1" * 64), slot_count=2)
OLD = ModelState(installed=InstalledModel(name="old", digest="2" * 64), slot_count=3)
BACKEND = "h:11434"


class Account(SoleReplica):
    """Reservations of which a test can take some away."""

    shared = True

    def __init__(self, *, divided=False, **by_others):
        self.divided = divided
        self.held = {f"{model}:latest": ["other"] * count for model, count in by_others.items()}

    async def take_load(self, backend_id, model):
        await asyncio.sleep(0)
        return self._take("load", 1)

    async def take(self, backend_id, model, slots):
        await asyncio.sleep(0)
        return self._take(model, slots)

    def _take(self, name, slots):
        held = self.held.setdefault(name, [])
        if len(held) >= slots:
            return None
        held.append("me")
        return f"{name}/{len(held)}"

    def release(self, token):
        self.held[token.partition("/")[0]].remove("me")

    def held_by_others(self, backend_id, model):
        return self.held.get(model, []).count("other")

    def mine(self):
        return {name: held.count("me") for name, held in self.held.items() if "me" in held}


ALL = {"load": 1, "new:latest": 2, "old:latest": 3}


async def test_a_load_holds_the_right_and_every_slot_of_the_models_that_it_touches():
    account = Account()
    async with claimed(account, BACKEND, NEW, [OLD]) as obstacle:
        assert obstacle == ""
        assert account.mine() == ALL


async def test_who_had_to_go_stays_held_until_the_others_know_that_it_is_gone():
    account = Account()
    async with claimed(account, BACKEND, NEW, [OLD]):
        pass
    assert account.mine() == {"old:latest": 3}
    await eventually(lambda: account.mine() == {})


async def test_a_model_in_use_by_another_replica_is_in_the_way_and_everything_is_given_back():
    account = Account(old=1)
    async with claimed(account, BACKEND, NEW, [OLD]) as obstacle:
        assert "sends requests" in obstacle
    await eventually(lambda: account.mine() == {})


async def test_a_load_of_another_replica_is_in_the_way():
    account = Account()
    account.held["load"] = ["other"]
    async with claimed(account, BACKEND, NEW, [OLD]) as obstacle:
        assert "loads there" in obstacle
        assert account.mine() == {}


async def test_who_cannot_ask_the_others_loads_with_the_slots_that_are_his():
    account = Account(divided=True, old=1)
    async with claimed(account, BACKEND, NEW, [OLD]) as obstacle:
        assert obstacle == ""
        assert account.mine() == ALL | {"old:latest": 2}


async def test_everything_is_given_back_where_the_load_is_cancelled():
    account, begun = Account(), asyncio.Event()

    async def load():
        async with claimed(account, BACKEND, NEW, [OLD]):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(load())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    await eventually(lambda: account.mine() == {})


# Requests of the balancer's own.


async def test_a_request_of_the_balancers_own_holds_a_slot_like_any_other():
    account = Account(new=1)
    async with claimed_slot(account, BACKEND, NEW) as free:
        assert free
        assert account.mine() == {"new:latest": 1}
    assert account.mine() == {}


async def test_a_request_of_the_balancers_own_is_told_that_others_have_all_slots():
    account = Account(new=2)
    async with claimed_slot(account, BACKEND, NEW) as free:
        assert not free


async def test_a_cure_holds_the_right_to_load_and_a_slot_and_then_every_slot_there_is():
    account = Account(old=1)
    async with claimed_cure(account, BACKEND, OLD) as claim:
        assert account.mine() == {"load": 1, "old:latest": 1}
        await claim.take_rest()
        assert account.mine() == {"load": 1, "old:latest": 2}
    assert account.mine() == {"old:latest": 2}
    await eventually(lambda: account.mine() == {})


@pytest.mark.parametrize("obstacle", ["load", "old:latest"])
async def test_a_cure_is_left_to_whoever_loads_there_or_has_all_slots(obstacle):
    account = Account()
    account.held[obstacle] = ["other"] * OLD.slot_count
    async with claimed_cure(account, BACKEND, OLD) as claim:
        assert claim is None
    await eventually(lambda: account.mine() == {})


async def test_a_cure_needs_no_slot_where_only_this_replica_has_any():
    account = Account()
    account.held["old:latest"] = ["me"] * OLD.slot_count
    async with claimed_cure(account, BACKEND, OLD) as claim:
        assert claim is not None
        assert account.mine() == {"load": 1, "old:latest": OLD.slot_count}


async def test_who_cannot_ask_the_others_cures_what_is_his():
    account = Account(divided=True, old=3)
    async with claimed_cure(account, BACKEND, OLD) as claim:
        assert claim is not None
