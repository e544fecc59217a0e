"""For whom a model is loaded: those whose traces are to show it."""

import asyncio

import pytest
from opentelemetry.trace import SpanContext

from services.balancer.core.plan import plan
from services.balancer.core.snapshot import Residency
from services.balancer.tickets import Ticket, callers_of
from tests.kit.fleets import NOW, a_backend, a_demand, a_fleet, a_model, ties


@pytest.fixture
def snapshot():
    """One backend at work for another second, and one that has the model on disk only."""
    busy = a_backend("busy", {"chat": a_model(busy_until=(NOW + 1,))})
    cold = a_backend("cold", {"chat": a_model(residency=Residency.INSTALLED)})
    return a_fleet(busy, cold)


def called_for(snapshot, demands):
    """Returns whose calls a plan loads a model for, by number."""

    async def tickets():
        loop = asyncio.get_running_loop()
        return {
            each.id: Ticket(
                demand=each,
                granted=loop.create_future(),
                queued_at=NOW,
                span_context=SpanContext(1, each.id + 1, is_remote=False),
            )
            for each in demands
        }

    waiting = asyncio.run(tickets())
    made = plan(snapshot, demands, ties(snapshot), quick=False)
    (order,) = made.loads
    return [each.span_id - 1 for each in callers_of(order, made, waiting)]


def test_a_load_is_for_those_who_wait_for_it(snapshot):
    eager, *rest = [a_demand(each, output_token_count=2000.0) for each in range(3)]
    assert called_for(snapshot, [eager, *rest]) == [1]


def test_a_further_copy_is_for_all_who_wait_for_others(snapshot):
    assert called_for(snapshot, [a_demand(each) for each in range(3)]) == [0, 1, 2]
