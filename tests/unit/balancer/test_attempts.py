"""The attempts of a request, where backends leave in the worst moment."""

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from opentelemetry import trace

from services.balancer.attempts import Attempts
from services.balancer.core.admission import QueueLimits
from services.balancer.core.budgets import RatioBudget
from services.balancer.core.errors import AllAttemptsFailed
from services.balancer.core.patience import Patience
from services.balancer.core.prefixes import fingerprint
from services.balancer.core.requests import Operation
from services.balancer.core.shares import SoleReplica
from services.balancer.core.snapshot import Residency
from services.balancer.equipment import Equipment
from services.balancer.scheduler import Scheduler
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_demand, a_chat_model
from tests.kit.virtual_time import run_virtually

CHAT = "chat:latest"
PATIENCE = Patience(
    first_token_seconds=300.0,
    first_token_floor_seconds=8.0,
    stall_seconds=60.0,
    stall_floor_seconds=10.0,
    unproven_seconds=60.0,
)


class SlowAccount(SoleReplica):
    """Reservations that take a second to be had, as from a store far away."""

    shared = True
    immediate = False

    def __init__(self):
        self.held = Counter()

    def try_take(self, backend_id, model, slots):
        return None

    async def take(self, backend_id, model, slots):
        await asyncio.sleep(1.0)
        self.held[backend_id] += 1
        return backend_id

    def release(self, token):
        self.held[token] -= 1


class Parts:
    """A fleet whose backends have a chat model in memory, with its queue."""

    def __init__(self, backend_count, reservations):
        servers = [MemoryServer(a_chat_model(CHAT)) for _ in range(backend_count)]
        self.kit = kit = FleetUnderTest(*servers, reservations=reservations)
        self.scheduler = Scheduler(
            kit.fleet,
            reservations,
            clock=kit.clock,
            rng=Random(1),
            metrics=kit.metrics,
            limits=QueueLimits(),
        )
        self.equipment = Equipment(
            fleet=kit.fleet,
            scheduler=self.scheduler,
            servers=kit.servers,
            effects=kit.effects,
            retries=RatioBudget(ratio=0.2, burst=5),
            clock=kit.clock,
            metrics=kit.metrics,
            tracer=trace.get_tracer("test"),
            patience=PATIENCE,
            keep_alive="1800s",
            maximum_attempts=3,
        )

    async def warm_up(self):
        await self.kit.check()
        for backend in self.kit.fleet.backends.values():
            for state in backend.models.values():
                state.residency = Residency.WARM
                state.view = None

    def attempts(self, number=0):
        demand = replace(a_chat_demand(CHAT, self.kit.clock.monotonic()), id=number)
        return Attempts(self.equipment, Operation.CHAT, CHAT, demand, [])

    @property
    def overhead_seconds(self):
        """What the planner thinks a request costs besides its tokens."""
        (view,) = self.kit.fleet.snapshot().backends
        return view.models[CHAT].overhead_seconds

    def value(self, name):
        return self.kit.metrics.registry.get_sample_value(name)

    def remove(self, backend_id):
        self.kit.fleet.remove(backend_id)
        del self.kit.servers[backend_id]


def chosen_of(parts):
    """The backend that a claim under way is for."""
    (backend,) = [each for each in parts.kit.fleet.backends.values() if each.in_flight_count]
    return backend


def run_with(backend_count, test, reservations=None):
    async def main():
        parts = Parts(backend_count, reservations or SlowAccount())
        await parts.warm_up()
        await test(parts)

    run_virtually(main())


def test_who_was_promised_a_slot_of_a_backend_that_has_left_goes_elsewhere():
    async def test(parts):
        account, waiting = parts.kit.reservations, asyncio.create_task(parts.attempts().next())
        await asyncio.sleep(0.5)
        gone = chosen_of(parts)
        parts.remove(gone.id)
        attempt = await waiting
        assert attempt.backend.id != gone.id
        assert attempt.number == 1
        assert gone.in_flight_count == 0
        assert account.held == {gone.id: 0, attempt.backend.id: 1}
        with attempt:
            pass
        assert account.held.total() == 0
        assert parts.kit.fleet.counters.retry_count == 0

    run_with(2, test)


def test_who_was_promised_a_slot_of_the_last_backend_that_leaves_hears_that_there_is_none():
    async def test(parts):
        account, waiting = parts.kit.reservations, asyncio.create_task(parts.attempts().next())
        await asyncio.sleep(0.5)
        gone = chosen_of(parts)
        parts.remove(gone.id)
        with pytest.raises(AllAttemptsFailed, match="taken out of the fleet"):
            await waiting
        assert gone.in_flight_count == 0
        assert account.held.total() == 0

    run_with(1, test)


def test_a_backend_that_leaves_between_promise_and_attempt_is_not_asked():
    async def test(parts):
        held = [parts.kit.occupy(CHAT, index) for index in range(2)]
        waiting = asyncio.create_task(parts.attempts().next())
        await asyncio.sleep(1.0)
        gone = held[0].backend
        parts.kit.fleet.vacate(held[0])
        # The queue is looked at, and the one that waits is yet to run.
        await asyncio.sleep(0)
        assert gone.in_flight_count == 1
        parts.remove(gone.id)
        await asyncio.sleep(1.0)
        parts.kit.fleet.vacate(held[1])
        attempt = await waiting
        assert attempt.backend.id != gone.id
        assert gone.in_flight_count == 0
        with attempt:
            pass

    run_with(2, test, SoleReplica())


def test_a_successor_under_the_same_id_is_another_backend():
    async def test(parts):
        account, waiting = parts.kit.reservations, asyncio.create_task(parts.attempts().next())
        await asyncio.sleep(0.5)
        gone = chosen_of(parts)
        parts.kit.fleet.remove(gone.id)
        parts.kit.fleet.add(gone.endpoint)
        await parts.warm_up()
        attempt = await waiting
        assert attempt.backend is not gone
        assert gone.in_flight_count == 0
        with attempt:
            pass
        assert account.held.total() == 0

    run_with(2, test)


def test_predictions_of_the_first_token_are_scored_from_the_slot_and_from_arrival():
    async def test(parts):
        first = await parts.attempts().next()
        task = asyncio.create_task(parts.attempts(number=1).next())
        # A hundred tokens are read at 12,500 per second and written at 300: it is predicted to
        # have its first token when the other one has gone and it has been read.
        read_seconds = 100 / 12_500 + parts.overhead_seconds
        ends_after_seconds = read_seconds + 100 / 300
        with first:
            await asyncio.sleep(3.0)
            first.note_first_token(fingerprint(()))
        second = await task
        with second:
            await asyncio.sleep(0.5)
            second.note_first_token(fingerprint(()))
        name = "balancer_first_token_prediction_error_seconds"
        assert parts.value(f"{name}_count") == 2
        from_slot = (3.0 - read_seconds) + (0.5 - read_seconds)
        assert parts.value(f"{name}_sum") == pytest.approx(from_slot)
        name = "balancer_arrival_prediction_error_seconds"
        assert parts.value(f"{name}_count") == 2
        of_second = 3.5 - (ends_after_seconds + read_seconds)
        assert parts.value(f"{name}_sum") == pytest.approx(3.0 - read_seconds + of_second)

    run_with(1, test, SoleReplica())
