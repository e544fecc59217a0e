"""The cache is told of changes in traces linked to those who made them, and to no others."""

import asyncio
from dataclasses import dataclass, field

import pytest

from services.common.errors import PeerUnavailable, ServiceError
from services.common.identity import Identity, current_identity
from services.rag.core.invalidation import Invalidation, InvalidationKind, PendingInvalidation
from services.rag.invalidate import InvalidationDelivery
from services.rag.metrics import CATALOGUE
from tests.kit.rpc import make_runtime
from tests.kit.virtual_time import LoopClock, run_virtually


@dataclass
class Notes:
    """Changes that were noted, and the cache, which takes them from all tenants but some."""

    waiting: list[PendingInvalidation] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    fault: ServiceError | None = None

    def add(self, tenant_id):
        number = len(self.waiting)
        change = Invalidation(InvalidationKind.GROWTH, f"c{number}")
        self.waiting.append(PendingInvalidation(number, tenant_id, change))

    async def list_invalidations(self, *, limit, except_tenants=()):
        if self.fault is not None:
            raise self.fault
        return tuple(each for each in self.waiting if each.tenant_id not in except_tenants)[:limit]

    async def drop_invalidations(self, numbers):
        self.waiting = [each for each in self.waiting if each.number not in numbers]

    async def invalidate(self, changes):
        del changes
        if current_identity.get().tenant_id in self.refused:
            raise PeerUnavailable("cache", "away")


class Telling:
    def __init__(self):
        runtime, self.spans = make_runtime("rag", CATALOGUE)
        self.tracer = runtime.tracer_provider.get_tracer("test")
        self.notes = Notes()
        self.delivery = InvalidationDelivery(
            self.notes, self.notes, clock=LoopClock(), metrics=runtime.metrics, tracer=self.tracer
        )

    def change(self, tenant_id, *, count=1, noted=True):
        """Makes a change within a call, which wakes the delivery; returns the call's span."""
        before = current_identity.get()
        current_identity.set(Identity(tenant_id))
        with self.tracer.start_as_current_span("call") as call:
            for _ in range(count):
                if noted:
                    self.notes.add(tenant_id)
                self.delivery.wake()
        current_identity.set(before)
        return call.get_span_context().span_id

    def told(self):
        """Of each time that a tenant's changes were told: the tenant, and the calls linked."""
        return [
            (each.attributes["app.tenant"], {link.context.span_id for link in each.links})
            for each in self.spans.named("invalidate")
        ]


def scenario(body):
    async def run():
        telling = Telling()
        running = asyncio.create_task(telling.delivery.run())
        try:
            await body(telling)
        finally:
            running.cancel()
            await asyncio.wait([running])

    run_virtually(run())


def test_each_tenant_is_told_in_a_trace_linked_to_its_own_calls():
    async def body(telling):
        acme, rival = telling.change("acme"), telling.change("rival")
        await asyncio.sleep(1)
        assert telling.told() == [("acme", {acme}), ("rival", {rival})]

    scenario(body)


def test_calls_that_have_changed_nothing_are_linked_to_nothing():
    async def body(telling):
        for number in range(100):
            telling.change(f"t{number}", noted=False)
        telling.change("acme", noted=False)
        await asyncio.sleep(1)
        call = telling.change("acme")
        await asyncio.sleep(1)
        assert telling.told() == [("acme", {call})]

    scenario(body)


def test_one_call_of_many_changes_leaves_room_for_the_links_of_others():
    async def body(telling):
        many, other = telling.change("acme", count=100), telling.change("acme")
        await asyncio.sleep(1)
        assert telling.told() == [("acme", {many, other})]

    scenario(body)


@pytest.mark.parametrize("whole", [True, False])
def test_what_could_not_be_told_is_linked_to_its_call_once_it_can(whole):
    async def body(telling):
        if whole:
            telling.notes.fault = PeerUnavailable("store", "away")
        else:
            telling.notes.refused = {"acme"}
        call, other = telling.change("acme"), telling.change("rival")
        await asyncio.sleep(1)
        telling.notes.fault, telling.notes.refused = None, set()
        await asyncio.sleep(20)
        assert telling.notes.waiting == []
        assert telling.told()[-1 - whole] == ("acme", {call})
        assert [links for tenant, links in telling.told() if tenant == "rival"] == [{other}]

    scenario(body)


def test_changes_that_follow_each_other_are_told_together():
    async def body(telling):
        calls = []
        for _ in range(10):
            calls.append(telling.change("acme"))
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        told = telling.told()
        assert told[0] == ("acme", set(calls[:1]))
        assert set().union(*(links for _, links in told)) == set(calls)
        assert len(told) <= 5

    scenario(body)


def test_who_waits_to_be_told_waits_for_no_further_changes():
    async def body(telling):
        telling.change("acme")
        await asyncio.sleep(0.001)
        assert len(telling.told()) == 1
        telling.change("acme")
        started = asyncio.get_running_loop().time()
        assert await telling.delivery.told()
        assert asyncio.get_running_loop().time() == started
        assert telling.notes.waiting == []

    scenario(body)
