"""Small requests that wait for the same model travel together."""

import asyncio
import random
from collections import Counter

import numpy as np
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.embedding_backends import EmbeddingBackend
from tests.kit.rpc import error_of
from tests.kit.standin import eventually


class Gate:
    """Lets the calls of a backend through when told to."""

    def __init__(self, *backends):
        self._open = asyncio.Event()
        for backend in backends:
            backend.before = self._pass

    async def _pass(self, texts):
        await self._open.wait()

    def open(self):
        self._open.set()


def embed(balancer, *numbers, tenant="default", priority=None, timeout=None, dimension=None):
    request = pb.EmbedRequest(
        model="m", texts=[f"text number {number}" for number in numbers], dimension=dimension
    )
    if priority is not None:
        request.routing.priority = priority
    return balancer.stub.Embed(
        request, metadata=(("x-pannier-tenant-id", tenant),), timeout=timeout
    )


def numbers_of(response):
    return [int(np.argmax(np.frombuffer(each.float32_le, "<f4"))) for each in response.vectors]


async def waiting_count(balancer):
    stats = await balancer.stats()
    return stats.fleet.in_flight_count - sum(each.in_flight_count for each in stats.backends)


async def until_waiting(balancer, count):
    async with asyncio.timeout(5):
        while await waiting_count(balancer) != count:
            await asyncio.sleep(0.005)


async def occupied(balancer, backend, gate_number=0):
    """Occupies the one slot of a backend; what comes then has to wait."""
    call = embed(balancer, gate_number)
    await eventually(lambda: backend.active_count == 1)
    return call


async def assert_idle(balancer):
    async with asyncio.timeout(5):
        while True:
            stats = await balancer.stats()
            counts = [each.in_flight_count for each in stats.backends]
            if stats.fleet.in_flight_count == 0 and not any(counts):
                break
            await asyncio.sleep(0.01)
    assert not any(each.in_flight_text_count for each in stats.backends)
    await eventually(lambda: not any("_carry" in repr(task) for task in asyncio.all_tasks()))


async def until_cancelled(balancer, count):
    """Waits for the calls that were cancelled, and are counted as they end."""
    async with asyncio.timeout(5):
        while (await balancer.stats()).fleet.cancelled_count < count:
            await asyncio.sleep(0.01)
    assert (await balancer.stats()).fleet.cancelled_count == count


async def test_a_request_that_finds_a_slot_free_goes_alone(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(4)]
    gate = Gate(*backends)
    balancer = await run_balancer(*(backend.url for backend in backends))
    calls = [embed(balancer, number) for number in range(4)]
    await eventually(lambda: all(backend.active_count for backend in backends))
    gate.open()
    assert [numbers_of(await call) for call in calls] == [[number] for number in range(4)]
    assert all(len(backend.calls) == 1 for backend in backends)


async def test_requests_that_wait_travel_together_and_get_their_own_vectors(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [embed(balancer, number, number + 100) for number in range(1, 13)]
    await until_waiting(balancer, 12)
    gate.open()
    responses = [await call for call in calls]
    assert [numbers_of(each) for each in responses] == [
        [number, number + 100] for number in range(1, 13)
    ]
    assert [len(call) for call in backend.calls] == [1, 24]
    assert [each.usage.prompt_token_count for each in responses] == [
        # A text of thirteen to fifteen characters has three tokens here.
        6
    ] * 12
    assert {each.attempt_count for each in responses} == {1}
    assert numbers_of(await first) == [0]
    await assert_idle(balancer)


async def test_no_more_than_32_texts_travel_together(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [embed(balancer, number) for number in range(1, 81)]
    await until_waiting(balancer, 80)
    gate.open()
    assert [numbers_of(await call) for call in calls] == [[number] for number in range(1, 81)]
    await first
    assert [len(call) for call in backend.calls] == [1, 32, 32, 16]


async def test_each_of_several_slots_takes_its_share(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(4)]
    gates = [Gate(backend) for backend in backends]
    balancer = await run_balancer(*(backend.url for backend in backends))
    first = [embed(balancer, number) for number in range(4)]
    await eventually(lambda: all(backend.active_count for backend in backends))
    calls = [embed(balancer, number) for number in range(10, 34)]
    await until_waiting(balancer, 24)
    gates[0].open()
    await eventually(lambda: len(backends[0].calls) >= 2)
    assert len(backends[0].calls[1]) == 6
    for gate in gates:
        gate.open()
    assert [numbers_of(await call) for call in calls] == [[number] for number in range(10, 34)]
    for call in first:
        await call


async def test_texts_that_several_requests_wait_for_are_computed_once(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [embed(balancer, 7, number % 2) for number in range(40)]
    await until_waiting(balancer, 40)
    gate.open()
    responses = [await call for call in calls]
    assert [numbers_of(each) for each in responses] == [[7, number % 2] for number in range(40)]
    assert sorted(backend.calls[1]) == ["text number 0", "text number 1", "text number 7"]
    assert len(backend.calls) == 2
    assert sum(each.usage.prompt_token_count for each in responses) == 3 * 3
    await first


async def test_only_like_requests_travel_together(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [
        *(embed(balancer, number) for number in (1, 2)),
        *(embed(balancer, number, dimension=600) for number in (3, 4)),
        *(embed(balancer, number, priority=pb.PRIORITY_BATCH) for number in (5, 6)),
    ]
    await until_waiting(balancer, 6)
    gate.open()
    assert [numbers_of(await call) for call in calls] == [[number] for number in range(1, 7)]
    await first
    assert {frozenset(call) for call in backend.calls[1:]} == {
        frozenset(f"text number {number}" for number in pair) for pair in ((1, 2), (3, 4), (5, 6))
    }


async def test_a_flood_of_one_tenant_does_not_fill_the_batches(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    flood = [embed(balancer, number, tenant="loud") for number in range(1, 101)]
    await until_waiting(balancer, 100)
    quiet = [embed(balancer, number, tenant="quiet") for number in range(200, 216)]
    await until_waiting(balancer, 116)
    gate.open()
    for call in quiet:
        await call
    for call in flood:
        await call
    await first
    shares = Counter(
        "quiet" if int(text.rsplit(" ", 1)[1]) >= 200 else "loud" for text in backend.calls[1]
    )
    # Half of the places, give or take what the slot before has cost.
    assert 15 <= shares["quiet"] <= 16


async def test_a_caller_that_leaves_takes_only_its_own_texts_with_it(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [embed(balancer, number) for number in range(1, 9)]
    await until_waiting(balancer, 8)
    for call in calls[:2]:
        call.cancel()
    await until_waiting(balancer, 6)
    first.cancel()
    # The next call is under way with six callers; two leave, one of them with the place in line.
    await eventually(lambda: len(backend.calls) == 2)
    assert len(backend.calls[1]) == 6
    for call in (calls[2], calls[5]):
        call.cancel()
    await until_cancelled(balancer, 5)
    gate.open()
    for number in (4, 5, 7, 8):
        assert numbers_of(await calls[number - 1]) == [number]
    assert len(backend.calls) == 2
    await eventually(lambda: backend.abandoned_count == 1)
    await assert_idle(balancer)


async def test_a_call_that_nobody_waits_for_is_ended(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [embed(balancer, number) for number in range(1, 5)]
    await until_waiting(balancer, 4)
    first.cancel()
    await eventually(lambda: len(backend.calls) == 2)
    for call in calls:
        call.cancel()
    await eventually(lambda: backend.abandoned_count == 2)
    await assert_idle(balancer)


async def test_a_batch_that_fails_is_made_good_elsewhere(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    gate = Gate(*backends)
    balancer = await run_balancer(*(backend.url for backend in backends))
    first = [embed(balancer, number) for number in range(2)]
    await eventually(lambda: all(backend.active_count for backend in backends))
    calls = [embed(balancer, number) for number in range(2, 12)]
    await until_waiting(balancer, 10)
    backends[0].vectors = lambda texts: [[1.0]] * (len(texts) + 1)
    gate.open()
    assert [numbers_of(await call) for call in calls] == [[number] for number in range(2, 12)]
    for call in first:
        await call
    stats = await balancer.stats()
    assert stats.fleet.failure_count == 0
    assert (await balancer.backend(backends[0].backend_id)).failure_count >= 1


async def test_a_batch_that_fails_after_its_first_caller_has_left_goes_again(
    run_balancer, scripted
):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    calls = [embed(balancer, number) for number in range(1, 5)]
    await until_waiting(balancer, 4)
    first.cancel()
    await eventually(lambda: len(backend.calls) == 2)
    calls[0].cancel()
    await until_waiting(balancer, 2)
    rows = backend.vectors

    def broken_once(texts):
        backend.vectors = rows
        return []

    backend.vectors = broken_once
    gate.open()
    assert [numbers_of(await call) for call in calls[1:]] == [[2], [3], [4]]
    assert len(backend.calls) >= 3


async def test_a_slow_backend_is_given_little_at_a_time(run_balancer, scripted, monkeypatch):
    monkeypatch.setattr("services.balancer.embed_calls._LONGEST_CALL_SECONDS", 0.2)
    backend = EmbeddingBackend(await scripted())
    backend.text_seconds = 0.04
    balancer = await run_balancer(backend.url)
    for _ in range(5):
        await embed(balancer, *range(4))
    backend.calls.clear()
    assert numbers_of(await embed(balancer, *range(100, 124))) == list(range(100, 124))
    # Five of them take a fifth of a second, and the call itself is taken for one more.
    assert all(3 <= len(call) <= 6 for call in backend.calls)


async def test_the_deadline_of_one_does_not_end_the_others(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    gate = Gate(backend)
    balancer = await run_balancer(backend.url)
    first = await occupied(balancer, backend)
    hasty = embed(balancer, 1, timeout=1.0)
    patient = [embed(balancer, number, timeout=30.0) for number in (2, 3)]
    await until_waiting(balancer, 3)
    first.cancel()
    await eventually(lambda: len(backend.calls) == 2)
    assert (await error_of(hasty)).status_code.name == "DEADLINE_EXCEEDED"
    gate.open()
    assert [numbers_of(await call) for call in patient] == [[2], [3]]
    assert len(backend.calls) == 2


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_slot_is_lost_over_200_random_cancels(run_balancer, scripted, seed):
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    for backend in backends:
        backend.text_seconds = 0.002
    balancer = await run_balancer(*(backend.url for backend in backends))
    dice = random.Random(seed)
    cancelled = 0

    async def one(number):
        nonlocal cancelled
        await asyncio.sleep(dice.uniform(0, 0.4))
        count = dice.choice([1, 1, 1, 3, 60])
        call = embed(balancer, *(dice.randrange(600) for _ in range(count)))
        if number % 4:
            await asyncio.sleep(dice.uniform(0, 0.05))
            cancelled += call.cancel()
        else:
            await call

    async with asyncio.TaskGroup() as group:
        for number in range(280):
            group.create_task(one(number))
    assert cancelled > 100
    await assert_idle(balancer)
    await eventually(lambda: not any(backend.active_count for backend in backends))
    assert max(backend.highest_active_count for backend in backends) <= 2
    assert numbers_of(await embed(balancer, *range(200))) == list(range(200))
    assert (await balancer.stats()).fleet.failure_count == 0
