"""Embed over gRPC, against stand-ins and scripted backends."""

import asyncio
import json
import math
import random

import numpy as np
import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.embedding_backends import EmbeddingBackend
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, eventually, running_standins


def request_for(count, model=EMBEDDING_MODEL):
    return pb.EmbedRequest(model=model, texts=[f"text number {index}" for index in range(count)])


def matrix(response):
    return np.stack([np.frombuffer(each.float32_le, "<f4") for each in response.vectors])


async def test_vectors_are_of_unit_length_and_say_who_made_them(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        response = await balancer.stub.Embed(request_for(3, model="All-MiniLM"))
    assert [each.dimension for each in response.vectors] == [384] * 3
    assert np.allclose(np.linalg.norm(matrix(response), axis=1), 1.0, atol=1e-4)
    assert response.model == EMBEDDING_MODEL
    assert len(response.model_digest) == 64
    assert response.backend_id == standin.backend_id
    assert response.attempt_count == 1
    assert response.usage.prompt_token_count > 0


async def test_few_texts_go_to_one_backend_in_one_call(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    balancer = await run_balancer(*(backend.url for backend in backends))
    response = await balancer.stub.Embed(request_for(8, model="m"))
    assert [*backends[0].calls, *backends[1].calls] == [
        [f"text number {number}" for number in range(8)]
    ]
    assert np.array_equal(matrix(response), np.eye(600, dtype=np.float32)[:8])


async def test_a_large_request_is_spread_and_keeps_its_order(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(4)]
    dice = random.Random(1)

    async def some_time(texts):
        await asyncio.sleep(dice.uniform(0, 0.03))

    for backend in backends:
        backend.before = some_time
    balancer = await run_balancer(*(backend.url for backend in backends))
    response = await balancer.stub.Embed(request_for(500, model="m"))
    assert np.array_equal(matrix(response), np.eye(600, dtype=np.float32)[:500])
    assert response.usage.prompt_token_count == sum(
        len(f"text number {number}") // 4 for number in range(500)
    )
    assert sum(len(backend.texts) for backend in backends) == 500
    assert all(len(backend.calls) >= 2 for backend in backends)
    assert {len(call) for backend in backends for call in backend.calls} == {31, 32}
    assert max(backend.highest_active_count for backend in backends) == 1
    assert list(response.backend_ids) == sorted(backend.backend_id for backend in backends)
    stats = await balancer.stats()
    assert stats.fleet.request_count == 1
    assert stats.fleet.retry_count == 0


async def test_a_fast_backend_takes_more_pieces_than_a_slow_one(run_balancer, scripted):
    fast, slow = [EmbeddingBackend(await scripted()) for _ in range(2)]
    fast.text_seconds, slow.text_seconds = 0.001, 0.01
    balancer = await run_balancer(fast.url, slow.url)
    await balancer.stub.Embed(request_for(128, model="m"))
    await balancer.stub.Embed(request_for(256, model="m"))
    assert len(fast.texts) > 2 * len(slow.texts) > 0


async def test_a_text_that_occurs_often_is_computed_once(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    balancer = await run_balancer(backend.url)
    numbers = [3, 1, 3, 2, 1, 3]
    response = await balancer.stub.Embed(
        pb.EmbedRequest(model="m", texts=[f"text number {number}" for number in numbers])
    )
    assert backend.calls == [["text number 3", "text number 1", "text number 2"]]
    assert np.argmax(matrix(response), axis=1).tolist() == numbers
    assert response.duplicate_text_count == 3


async def test_no_call_has_more_than_32_000_characters(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    balancer = await run_balancer(backend.url)
    texts = [f"{'x' * length} {number}" for number, length in enumerate([20_000] * 3 + [90_000])]
    response = await balancer.stub.Embed(pb.EmbedRequest(model="m", texts=texts))
    assert sorted(len(call) for call in backend.calls) == [1, 1, 1, 1]
    assert np.argmax(matrix(response), axis=1).tolist() == [0, 1, 2, 3]


async def test_pieces_go_to_backends_with_one_and_the_same_digest(run_balancer, scripted):
    digests = [letter * 64 for letter in "aba"]
    backends = [EmbeddingBackend(await scripted(), digest=digest) for digest in digests]
    balancer = await run_balancer(*(backend.url for backend in backends))
    for wanted in (None, digests[1]):
        for backend in backends:
            backend.calls.clear()
        request = request_for(128, model="m")
        if wanted:
            request.routing.model_digest = wanted
        response = await balancer.stub.Embed(request)
        used = {digest for backend, digest in zip(backends, digests, strict=True) if backend.calls}
        assert used == {response.model_digest} == {wanted or digests[0]}


@pytest.mark.parametrize("fault", [500, 503])
async def test_a_failed_piece_is_made_good_elsewhere(run_balancer, scripted, fault):
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    refused = asyncio.Event()

    async def wait(texts):
        await refused.wait()

    async def refuse(request):
        refused.set()
        return web.json_response({"error": "no"}, status=fault)

    servers = {backend.backend_id: backend for backend in backends}
    first = await scripted()
    broken = EmbeddingBackend(first)
    first.replies["/api/embed"] = refuse
    for backend in backends:
        backend.before = wait
    balancer = await run_balancer(broken.url, *(backend.url for backend in backends))
    response = await balancer.stub.Embed(request_for(80, model="m"))
    stats = await balancer.stats()
    assert np.array_equal(matrix(response), np.eye(600, dtype=np.float32)[:80])
    assert set(response.backend_ids) <= servers.keys()
    assert response.attempt_count == 2
    assert stats.fleet.failure_count == 0
    assert stats.fleet.retry_count > 0


@pytest.mark.parametrize(
    "embeddings",
    [
        [[1.0, 0.0]],
        [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],
        [[1.0, 0.0], [0.0, 0.0]],
        [[1.0, 0.0], [1.0]],
        [[1.0, 0.0], [None, 1.0]],
        [[1.0, 0.0], [math.nan, 1.0]],
        [],
        None,
    ],
)
async def test_unusable_vectors_are_a_failure_of_the_backend(run_balancer, scripted, embeddings):
    server, honest = await scripted(), EmbeddingBackend(await scripted())
    lying = EmbeddingBackend(server)
    body = json.dumps({"embeddings": embeddings}).encode()
    server.replies["/api/embed"] = lambda request: web.Response(body=body)
    balancer = await run_balancer(lying.url, honest.url)
    for _ in range(2):
        response = await balancer.stub.Embed(request_for(2, model="m"))
        assert response.backend_id == honest.backend_id
    failure_count = (await balancer.backend(lying.backend_id)).failure_count
    assert failure_count >= 1
    assert balancer.value("balancer_retries_total", reason="broken_reply") == failure_count


async def test_vectors_of_another_dimension_than_most_are_refused(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    lying, *honest = backends
    honest_are_done = asyncio.Event()

    async def wait(texts):
        await honest_are_done.wait()

    lying.before, lying.vectors = wait, lambda texts: [[1.0, 0.0]] * len(texts)
    balancer = await run_balancer(*(backend.url for backend in backends))
    call = balancer.stub.Embed(request_for(96, model="m"))
    await eventually(lambda: lying.calls and sum(len(each.texts) for each in honest) >= 80)
    honest_are_done.set()
    response = await call
    assert np.array_equal(matrix(response), np.eye(600, dtype=np.float32)[:96])
    assert response.attempt_count == 2
    assert (await balancer.backend(lying.backend_id)).failure_count == 1


async def test_a_backend_that_lies_first_is_found_out_in_the_end(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(3)]
    lying, *honest = backends
    lying.vectors = lambda texts: [[1.0, 0.0]] * len(texts)
    lie_is_told = asyncio.Event()

    async def wait(texts):
        await lie_is_told.wait()

    for backend in honest:
        backend.before = wait
    balancer = await run_balancer(*(backend.url for backend in backends))
    call = balancer.stub.Embed(request_for(96, model="m"))
    await eventually(lambda: len(lying.calls) >= 2)
    lie_is_told.set()
    assert np.array_equal(matrix(await call), np.eye(600, dtype=np.float32)[:96])
    for backend in honest:
        assert (await balancer.backend(backend.backend_id)).failure_count == 0


async def test_no_caller_gets_the_odd_reply_of_a_backend_that_lies_now_and_then(
    run_balancer, scripted
):
    lying, honest = [EmbeddingBackend(await scripted()) for _ in range(2)]
    told_the_truth = lying.vectors
    lying.vectors = lambda texts: (
        told_the_truth(texts) if len(lying.calls) % 3 else [[1.0, 0.0]] * len(texts)
    )
    balancer = await run_balancer(lying.url, honest.url)
    for number in range(1, 21):
        response = await balancer.stub.Embed(request_for(1, model="m"))
        assert response.vectors[0].dimension == 600, number
    lie_count = len(lying.calls) // 3
    assert lie_count >= 1
    assert (await balancer.backend(lying.backend_id)).failure_count == lie_count
    assert (await balancer.backend(honest.backend_id)).failure_count == 0


async def test_vectors_are_brought_to_unit_length(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    backend.vectors = lambda texts: [[3.0, 4.0]]
    balancer = await run_balancer(backend.url)
    response = await balancer.stub.Embed(request_for(1, model="m"))
    assert matrix(response)[0].tolist() == pytest.approx([0.6, 0.8])


async def test_a_model_that_cannot_embed_is_refused(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        error = await error_of(balancer.stub.Embed(request_for(1, model=CHAT_MODEL)))
        assert await standin.requests("/api/embed") == []
    assert error.error_reason == "MODEL_CAPABILITY_MISSING"
    assert error.metadata["capability"] == "embedding"


async def test_a_caller_that_goes_away_ends_all_pieces(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]

    async def hang(texts):
        await asyncio.Event().wait()

    for backend in backends:
        backend.before = hang
    balancer = await run_balancer(*(backend.url for backend in backends))
    call = balancer.stub.Embed(request_for(128, model="m"))
    await eventually(lambda: all(backend.active_count for backend in backends))
    call.cancel()
    await eventually(lambda: all(backend.abandoned_count == 1 for backend in backends))
    stats = await balancer.stats()
    assert [len(backend.calls) for backend in backends] == [1, 1]
    assert stats.fleet.cancelled_count == 1
    assert stats.fleet.failure_count == 0
    assert stats.fleet.in_flight_count == 0
    assert [each.in_flight_count for each in stats.backends] == [0, 0]
    assert [each.in_flight_text_count for each in stats.backends] == [0, 0]


async def test_an_embedding_makes_a_span_with_its_size_and_without_its_text(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        await balancer.stub.Embed(request_for(2))
        await eventually(lambda: len(balancer.spans.named("/Embed")) == 1)
    (span,) = balancer.spans.named(f"embeddings {EMBEDDING_MODEL}")
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.attributes["gen_ai.embeddings.dimension.count"] == 384
    assert span.attributes["gen_ai.usage.input_tokens"] > 0
    assert span.attributes["app.balancer.policy"] == "only_candidate"
    assert span.attributes["app.balancer.decision"]
    assert "text number" not in str(dict(span.attributes))
