"""First tokens that come only when another request has ended, be it one of another replica."""

import asyncio

from services.balancer.core.shares import SoleReplica
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_model
from tests.kit.virtual_time import run_virtually

CHAT = "chat:latest"
PREDICTED_SECONDS, LIMIT_SECONDS = 0.1, 8.0


class Others(SoleReplica):
    """Other replicas that hold some slots."""

    count = 0

    def held_by_others(self, backend_id, model):
        return self.count


def with_a_model(test, query="?slots=2"):
    async def main():
        server, others = MemoryServer(a_chat_model(CHAT)), Others()
        server.hold(CHAT)
        kit = FleetUnderTest(server, reservations=others, query=query)
        await kit.check()
        suspected = []
        kit.effects.suspect = lambda backend, model: suspected.append(model)
        await test(kit, others, suspected)

    run_virtually(main())


def start(kit, occupancy):
    """Has the first token of a request come now."""
    occupancy.first_token_at = occupancy.progressed_at = kit.clock.monotonic()
    kit.effects.note_start(occupancy, PREDICTED_SECONDS, LIMIT_SECONDS)


async def let_one_wait(kit, seconds):
    """Has a request get its first token when the one before it has ended."""
    first = kit.occupy(CHAT)
    start(kit, first)
    second = kit.occupy(CHAT)
    await asyncio.sleep(seconds)
    kit.fleet.vacate(first)
    start(kit, second)
    kit.fleet.vacate(second)


def test_who_waits_again_and_again_for_the_end_of_another_makes_a_model_suspect():
    async def test(kit, others, suspected):
        for count in range(1, 5):
            assert suspected == []
            await let_one_wait(kit, 1.0)
            assert len(suspected) == (count == 4)
        assert suspected == [kit.state(CHAT)]

    with_a_model(test)


def test_so_does_who_has_waited_for_a_request_of_another_replica():
    async def test(kit, others, suspected):
        others.count = 1
        waiting = kit.occupy(CHAT)
        await asyncio.sleep(5.0)
        others.count = 0
        start(kit, waiting)
        assert suspected == [kit.state(CHAT)]

    with_a_model(test)


def test_a_slow_one_that_has_waited_for_nobody_does_not():
    async def test(kit, others, suspected):
        others.count = 1
        for _ in range(9):
            slow = kit.occupy(CHAT)
            await asyncio.sleep(7.0)
            start(kit, slow)
            kit.fleet.vacate(slow)
        assert suspected == []

    with_a_model(test)


def test_neither_does_a_model_with_one_slot_or_one_that_is_known_to_answer_fewer():
    async def test(kit, others, suspected):
        for _ in range(9):
            await let_one_wait(kit, 5.0)
        assert suspected == []

    async def known(kit, others, suspected):
        kit.state(CHAT).answers_fewer = True
        await test(kit, others, suspected)

    with_a_model(test, query="")
    with_a_model(known)


def test_what_happens_once_in_a_long_while_does_not():
    async def test(kit, others, suspected):
        for _ in range(9):
            await let_one_wait(kit, 1.0)
            await asyncio.sleep(600.0)
        assert suspected == []

    with_a_model(test)
