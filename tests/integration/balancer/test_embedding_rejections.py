"""A text that no backend takes is found, and fails only who has sent it."""

import asyncio
import math

import numpy as np
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from tests.kit.embedding_backends import EmbeddingBackend
from tests.kit.rpc import error_of
from tests.kit.standin import eventually


def request_for(*numbers):
    return pb.EmbedRequest(model="m", texts=[f"text number {number}" for number in numbers])


def numbers_of(response):
    return [int(np.argmax(np.frombuffer(each.float32_le, "<f4"))) for each in response.vectors]


@pytest.mark.parametrize("bad", [0, 123, 250, 499])
async def test_the_error_names_the_text_at_fault_among_500(run_balancer, scripted, bad):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    for backend in backends:
        backend.refused = frozenset({f"text number {bad}"})
    balancer = await run_balancer(*(backend.url for backend in backends))
    error = await error_of(balancer.stub.Embed(request_for(*range(500))))
    assert error.status_code is StatusCode.INVALID_ARGUMENT
    assert error.error_reason == "BACKEND_REJECTED_REQUEST"
    assert error.metadata["text_index"] == str(bad)
    assert error.metadata["backend_message"] == "input cannot be embedded"
    assert f"texts[{bad}]" in error.message
    # The pieces, once at most, and the search in one of them.
    assert sum(len(backend.calls) for backend in backends) <= 16 + math.log2(32) + 1
    stats = await balancer.stats()
    assert stats.fleet.failure_count == 1
    assert stats.fleet.in_flight_count == 0
    assert not any(each.failure_count for each in stats.backends)


async def test_a_text_that_comes_alone_needs_no_search(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    backend.refused = frozenset({"text number 5"})
    balancer = await run_balancer(backend.url)
    error = await error_of(balancer.stub.Embed(request_for(5, 5)))
    assert error.metadata["text_index"] == "0"
    assert len(backend.calls) == 1


async def test_texts_that_are_too_many_at_once_are_embedded_in_smaller_calls(
    run_balancer, scripted
):
    backend = EmbeddingBackend(await scripted())
    backend.most_texts = 4
    balancer = await run_balancer(backend.url)
    response = await balancer.stub.Embed(request_for(*range(30)))
    assert numbers_of(response) == list(range(30))
    assert (await balancer.stats()).fleet.failure_count == 0


@pytest.mark.parametrize("bad", [{3}, {8}, {1, 6}])
async def test_of_several_callers_only_the_one_with_the_bad_text_fails(run_balancer, scripted, bad):
    backend = EmbeddingBackend(await scripted())
    backend.refused = frozenset(f"text number {number}" for number in bad)
    may_go = asyncio.Event()

    async def wait(texts):
        await may_go.wait()

    backend.before = wait
    balancer = await run_balancer(backend.url)
    first = balancer.stub.Embed(request_for(0))
    await eventually(lambda: backend.active_count == 1)
    calls = {
        number: balancer.stub.Embed(request_for(100 + number, number)) for number in range(1, 9)
    }
    async with asyncio.timeout(5):
        while (await balancer.stats()).fleet.in_flight_count < 9:
            await asyncio.sleep(0.01)
    may_go.set()
    await first
    for number, call in calls.items():
        if number in bad:
            error = await error_of(call)
            assert error.error_reason == "BACKEND_REJECTED_REQUEST"
            assert error.metadata["text_index"] == "1"
        else:
            assert numbers_of(await call) == [100 + number, number]
    assert len(backend.calls[1]) == 16
    # Twice the depth for each that is at fault, and the search between its two texts.
    assert len(backend.calls) - 2 <= len(bad) * (2 * math.log2(8) + 2)
    stats = await balancer.stats()
    assert stats.fleet.failure_count == len(bad)
    assert stats.fleet.in_flight_count == 0


async def test_a_request_that_is_refused_whatever_its_texts_fails_once(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    for backend in backends:
        backend.most_texts = 0
    balancer = await run_balancer(*(backend.url for backend in backends))
    error = await error_of(balancer.stub.Embed(request_for(*range(200))))
    assert error.error_reason == "BACKEND_REJECTED_REQUEST"
    assert error.metadata["text_index"].isdigit()
    assert sum(len(backend.calls) for backend in backends) <= 2 * 7 + 6
    stats = await balancer.stats()
    assert stats.fleet.failure_count == 1
    assert stats.fleet.in_flight_count == 0
    assert [each.in_flight_text_count for each in stats.backends] == [0, 0]
