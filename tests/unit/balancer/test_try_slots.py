"""Whether all slots of a model answer, by a server that has so many."""

import asyncio

import pytest

from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import Completion, FinishReason, TextDelta
from services.balancer.try_slots import answers_at_once
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_model
from tests.kit.virtual_time import run_virtually

CHAT = "chat:latest"
LIMIT_SECONDS = 10.0


class Slots(MemoryServer):
    """A server that answers so many requests at a time; each token takes some time.

    Attributes:
        asked: Tokens asked for, per answer.
        cut: Answers that were not read to their ends after their first token.
    """

    def __init__(self, count, token_seconds=0.01):
        super().__init__(a_chat_model(CHAT))
        self.hold(CHAT)
        self.free = asyncio.Semaphore(count)
        self.token_seconds = token_seconds
        self.asked = []
        self.cut = 0
        self.failure = None

    async def generate(self, request, *, first_token_limit_seconds, **_):
        count = request.sampling.max_output_token_count
        self.asked.append(count)
        if self.failure is not None:
            raise self.failure
        try:
            async with asyncio.timeout(first_token_limit_seconds):
                await self.free.acquire()
        except TimeoutError:
            raise AttemptFailed(FailureKind.TIMEOUT, "silent") from None
        try:
            for number in range(count):
                await asyncio.sleep(self.token_seconds)
                self.cut += number == 0
                yield TextDelta("1 ")
            self.cut -= 1
            yield a_completion(count)
        finally:
            self.free.release()


def a_completion(count):
    return Completion(
        finish_reason=FinishReason.LENGTH,
        prompt_token_count=16,
        output_token_count=count,
        load_seconds=0.0,
        prompt_seconds=0.0,
        output_seconds=0.0,
    )


def with_slots(server_slots, test, **fields):
    async def main():
        server = Slots(server_slots, **fields)
        kit = FleetUnderTest(server, query="?slots=3")
        await kit.check()
        state = kit.state(CHAT)

        async def free_count():
            return state.slot_count - len(state.occupancies)

        async def ask():
            return await answers_at_once(
                server,
                state,
                free_count=free_count,
                limit_seconds=LIMIT_SECONDS,
                clock=kit.clock,
            )

        await test(kit, server, ask)
        assert server.cut == 0

    run_virtually(main())


def occupy(kit, first_token_at=None):
    occupancy = kit.occupy(CHAT)
    occupancy.first_token_at = first_token_at
    return occupancy


@pytest.mark.parametrize("token_seconds", [0.0005, 0.01, 1.0])
def test_a_model_that_has_all_its_slots_shows_it_at_once(token_seconds):
    async def test(kit, server, ask):
        assert await ask()
        assert server.asked == [8, 8, 8]

    with_slots(3, test, token_seconds=token_seconds)


@pytest.mark.parametrize("token_seconds", [0.0005, 0.01, 1.0])
@pytest.mark.parametrize("left", [1, 2])
def test_a_model_that_has_lost_some_does_not_however_fast_the_others_are(left, token_seconds):
    async def test(kit, server, ask):
        assert not await ask()

    with_slots(left, test, token_seconds=token_seconds)


def test_none_is_left_to_answer():
    async def test(kit, server, ask):
        assert not await ask()
        assert server.asked == [8, 8, 8]

    with_slots(0, test)


def test_requests_that_stream_are_left_alone_and_count():
    async def test(kit, server, ask):
        for _ in range(2):
            occupy(kit, kit.clock.monotonic())
        assert await ask()
        assert server.asked == [8]

    with_slots(1, test)


def test_a_request_that_ends_meanwhile_proves_nothing():
    async def test(kit, server, ask):
        occupancy = occupy(kit, kit.clock.monotonic())
        await server.free.acquire()

        def end():
            server.free.release()
            kit.fleet.vacate(occupancy)

        # One of two that are left is in use until then: two new answers overlap only after it.
        asyncio.get_running_loop().call_later(0.02, end)
        assert not await ask()
        assert server.asked[:5] == [8, 8, 8, 8, 8]

    with_slots(2, test)


def test_requests_without_a_token_are_waited_for():
    async def test(kit, server, ask):
        occupancy = occupy(kit)
        asyncio.get_running_loop().call_later(5.0, kit.fleet.vacate, occupancy)
        asking = asyncio.create_task(ask())
        await asyncio.sleep(4.9)
        assert server.asked == []
        assert await asking
        assert server.asked == [8, 8, 8]

    with_slots(3, test)


def test_an_error_is_an_answer_and_none_to_the_question():
    async def test(kit, server, ask):
        server.failure = AttemptFailed(FailureKind.SERVER_ERROR, "died")
        with pytest.raises(AttemptFailed, match="died"):
            await ask()

    with_slots(3, test)
