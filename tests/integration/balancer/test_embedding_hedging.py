"""A call for vectors that is late is made a second time, within a budget."""

import asyncio
from functools import partial

import numpy as np

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.core import hedging
from services.balancer.core.budgets import RatioBudget
from tests.kit.embedding_backends import EmbeddingBackend
from tests.kit.standin import eventually


def request_for(number, *, priority=pb.PRIORITY_INTERACTIVE):
    return pb.EmbedRequest(
        model="m",
        texts=[f"text number {number}"],
        routing=pb.RoutingOptions(priority=priority),
    )


def number_of(response):
    (vector,) = response.vectors
    return int(np.argmax(np.frombuffer(vector.float32_le, "<f4")))


async def learn(balancer, count=50):
    """Shows the balancer what calls take; so many say what is late, and only from then on."""
    for number in range(count):
        await balancer.stub.Embed(request_for(number % 500))


def hang_on(backends, text):
    """Lets the first call with a text hang, wherever it comes; returns who got it."""
    hanging = []

    def before(backend):
        async def wait(texts):
            if text in texts and not hanging:
                hanging.append(backend)
                await asyncio.Event().wait()

        return wait

    for backend in backends:
        backend.before = before(backend)
    return hanging


def hedges(balancer, earlier=(0, 0, 0)):
    """Returns how many were won, lost and not made; before, a slow machine may have needed some."""
    outcomes = ("won", "lost", "unspent")
    counts = (balancer.value("balancer_hedges_total", outcome=outcome) for outcome in outcomes)
    return tuple(int(count) - old for count, old in zip(counts, earlier, strict=True))


def calls_with(backends, text):
    return sum(text in call for backend in backends for call in backend.calls)


async def test_a_call_that_hangs_is_answered_by_another_backend(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer)
    earlier = hedges(balancer)
    hanging = hang_on(backends, "text number 555")
    began_at = asyncio.get_running_loop().time()
    response = await balancer.stub.Embed(request_for(555))
    seconds = asyncio.get_running_loop().time() - began_at
    assert number_of(response) == 555
    assert response.backend_id != hanging[0].backend_id
    assert response.attempt_count == 1
    # After the floor of 20 ms and long before the first attempt would have been given up.
    assert 0.02 <= seconds < 1.0
    await eventually(lambda: hanging[0].abandoned_count == 1)
    stats = await balancer.stats()
    assert [each.in_flight_count for each in stats.backends] == [0, 0, 0]
    assert stats.fleet.retry_count == stats.fleet.failure_count == 0
    labels = {"backend": hanging[0].backend_id, "outcome": "cancelled"}
    assert balancer.value("balancer_requests_total", **labels)
    assert hedges(balancer, earlier) == (1, 0, 0)


async def test_the_first_answer_wins_and_the_loser_is_cancelled(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer)
    earlier = hedges(balancer)
    came = []
    first_may_go = asyncio.Event()

    def before(backend):
        async def wait(texts):
            came.append(backend)
            await (first_may_go.wait() if len(came) == 1 else asyncio.Event().wait())

        return wait

    for backend in backends:
        backend.before = before(backend)
    call = balancer.stub.Embed(request_for(555))
    await eventually(lambda: len(came) == 2)
    first_may_go.set()
    assert (await call).backend_id == came[0].backend_id
    await eventually(lambda: came[1].abandoned_count == 1)
    assert hedges(balancer, earlier) == (0, 1, 0)
    stats = await balancer.stats()
    assert [each.in_flight_count for each in stats.backends] == [0, 0]


async def test_nothing_is_asked_twice_before_it_is_known_what_is_late(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer, 40)
    for backend in backends:
        backend.call_seconds = 0.2
    await balancer.stub.Embed(request_for(555))
    assert calls_with(backends, "text number 555") == 1


async def test_a_backend_that_is_busy_is_not_asked(run_balancer, scripted, monkeypatch):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer)
    # The second call comes before the first would be asked twice, however late.
    monkeypatch.setattr(hedging, "_SHORTEST_DELAY_SECONDS", 0.3)
    earlier = hedges(balancer)
    for backend in backends:
        backend.call_seconds = 0.6
    calls = [balancer.stub.Embed(request_for(number)) for number in (555, 556)]
    assert [number_of(await call) for call in calls] == [555, 556]
    assert calls_with(backends, "text number 555") == 1
    assert calls_with(backends, "text number 556") == 1
    assert hedges(balancer, earlier)[:2] == (0, 0)


async def test_a_second_attempt_that_fails_costs_nothing(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer)
    earlier = hedges(balancer)
    came = []
    second_came = asyncio.Event()

    def before(backend):
        async def wait(texts):
            came.append(backend)
            if len(came) == 1:
                await second_came.wait()
                await asyncio.sleep(0.05)
            else:
                backend.vectors = lambda texts: []
                second_came.set()

        return wait

    for backend in backends:
        backend.before = before(backend)
    response = await balancer.stub.Embed(request_for(555))
    assert number_of(response) == 555
    assert response.backend_id == came[0].backend_id
    assert len(came) == 2
    assert hedges(balancer, earlier) == (0, 1, 0)
    stats = await balancer.stats()
    assert stats.fleet.retry_count == stats.fleet.failure_count == 0


async def test_no_more_than_one_call_in_twenty_is_made_twice(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer, 100)
    for backend in backends:
        backend.calls.clear()
        backend.call_seconds = 0.05
    for number in range(100, 140):
        await balancer.stub.Embed(request_for(number))
    made = sum(len(backend.calls) for backend in backends)
    # 140 calls have come in the window of the budget, and one is given.
    assert made <= 40 + 0.05 * 140 + 1


async def test_without_budget_a_late_call_is_waited_for(run_balancer, scripted, monkeypatch):
    monkeypatch.setattr("services.balancer.embed_calls._HEDGE_RATIO", 0.0)
    # A machine under load may take longer over this test than a budget remembers.
    long_budget = partial(RatioBudget, window_seconds=600.0)
    monkeypatch.setattr("services.balancer.embed_calls.RatioBudget", long_budget)
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    await learn(balancer)
    earlier = hedges(balancer)
    # One is given beside the budget.
    hanging = hang_on(backends, "text number 555")
    assert number_of(await balancer.stub.Embed(request_for(555))) == 555
    assert calls_with(backends, "text number 555") == 2
    await eventually(lambda: hanging[0].abandoned_count == 1)
    for backend in backends:
        backend.call_seconds = 0.3
    for number in (556, 557):
        assert number_of(await balancer.stub.Embed(request_for(number))) == number
        assert calls_with(backends, f"text number {number}") == 1
    assert hedges(balancer, earlier)[:2] == (1, 0)
