"""Embed over gRPC, against stand-ins and scripted backends."""

import asyncio

import numpy as np
import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
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


async def test_up_to_32_texts_go_to_one_backend_in_one_call(run_balancer, scripted):
    servers = [await scripted() for _ in range(2)]
    for server in servers:
        server.embeds()
    balancer = await run_balancer(*(server.url for server in servers))
    await balancer.stub.Embed(request_for(32, model="m"))
    (body,) = [body for server in servers for body in server.bodies]
    assert len(body["input"]) == 32
    assert body["truncate"] is True
    assert body["model"] == "m:latest"


async def test_a_large_request_is_spread_in_even_pieces_and_keeps_its_order(run_balancer, scripted):
    servers = [await scripted() for _ in range(4)]
    for server in servers:
        server.embeds()
    balancer = await run_balancer(*(server.url for server in servers))
    response = await balancer.stub.Embed(request_for(500, model="m"))
    assert np.array_equal(matrix(response), np.eye(600, dtype=np.float32)[:500])
    assert response.usage.prompt_token_count == 500
    sizes = [[len(body["input"]) for body in server.bodies] for server in servers]
    assert sum(map(sum, sizes)) == 500
    assert {size for each in sizes for size in each} <= {31, 32}
    assert [len(each) for each in sizes] == [4, 4, 4, 4]
    stats = await balancer.stats()
    assert stats.fleet.request_count == 1
    assert stats.fleet.retry_count == 0


async def test_pieces_go_to_backends_with_one_and_the_same_digest(run_balancer, scripted):
    servers = [await scripted() for _ in range(3)]
    for server, digest in zip(servers, ("a", "b", "a"), strict=True):
        server.embeds(digest=digest * 64)
    balancer = await run_balancer(*(server.url for server in servers))
    for _ in range(3):
        response = await balancer.stub.Embed(request_for(128, model="m"))
        used = {
            digest for server, digest in zip(servers, ("a", "b", "a"), strict=True) if server.bodies
        }
        assert used == {response.model_digest[0]}
        for server in servers:
            server.bodies.clear()


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}])
async def test_a_failed_piece_is_made_good_elsewhere(run_balancer, fault):
    async with running_standins(3) as standins:
        await standins[0].order_fault(**fault)
        balancer = await run_balancer(*(standin.url for standin in standins))
        response = await balancer.stub.Embed(request_for(80))
        alone = await balancer.stub.Embed(request_for(80))
        stats = await balancer.stats()
    assert len(response.vectors) == 80
    assert np.allclose(matrix(response), matrix(alone), atol=1e-5)
    assert response.attempt_count == 2
    assert stats.fleet.failure_count == 0
    assert stats.fleet.retry_count > 0


@pytest.mark.parametrize(
    "embeddings",
    [
        [[1.0, 0.0]],
        [[1.0, 0.0], [0.0, 0.0]],
        [[1.0, 0.0], [1.0]],
        [[1.0, 0.0], [None, 1.0]],
        [],
        None,
    ],
)
async def test_unusable_vectors_are_a_failure_of_the_backend(run_balancer, scripted, embeddings):
    bad, good = await scripted(), await scripted()
    good.embeds()
    bad.has("m:latest")
    bad.replies["/api/embed"] = lambda request: web.json_response({"embeddings": embeddings})
    balancer = await run_balancer(bad.url, good.url)
    for _ in range(2):
        response = await balancer.stub.Embed(request_for(2, model="m"))
        assert response.backend_id == good.backend_id
    failure_count = (await balancer.backend(bad.backend_id)).failure_count
    assert failure_count >= 1
    assert balancer.value("balancer_retries_total", reason="broken_reply") == failure_count


async def test_vectors_of_another_dimension_than_the_other_pieces_are_refused(
    run_balancer, scripted
):
    servers = [await scripted() for _ in range(3)]
    for server in servers:
        server.embeds()
    others_are_done = asyncio.Event()

    async def short(request):
        await others_are_done.wait()
        body = await request.json()
        return web.json_response({"embeddings": [[1.0, 0.0]] * len(body["input"])})

    servers[0].replies["/api/embed"] = short
    balancer = await run_balancer(*(server.url for server in servers))
    call = balancer.stub.Embed(request_for(96, model="m"))
    async with asyncio.timeout(5):
        while [
            (each.request_count, each.in_flight_count) for each in (await balancer.stats()).backends
        ].count((1, 0)) < 2:
            await asyncio.sleep(0.01)
    others_are_done.set()
    response = await call
    assert np.array_equal(matrix(response), np.eye(600, dtype=np.float32)[:96])
    assert response.attempt_count == 2


async def test_vectors_are_brought_to_unit_length(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    server.replies["/api/embed"] = lambda request: web.json_response({"embeddings": [[3.0, 4.0]]})
    balancer = await run_balancer(server.url)
    response = await balancer.stub.Embed(request_for(1, model="m"))
    assert matrix(response)[0].tolist() == pytest.approx([0.6, 0.8])


async def test_a_model_that_cannot_embed_is_refused(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        error = await error_of(balancer.stub.Embed(request_for(1, model=CHAT_MODEL)))
        assert await standin.requests("/api/embed") == []
    assert error.error_reason == "MODEL_CAPABILITY_MISSING"
    assert error.metadata["capability"] == "embedding"


async def test_a_large_request_fails_with_one_plain_error(run_balancer):
    async with running_standins(2) as standins:
        for standin in standins:
            await standin.order_fault(status=400, message="invalid input")
        balancer = await run_balancer(*(standin.url for standin in standins))
        error = await error_of(balancer.stub.Embed(request_for(200)))
        stats = await balancer.stats()
    assert error.status_code is StatusCode.INVALID_ARGUMENT
    assert error.error_reason == "BACKEND_REJECTED_REQUEST"
    assert stats.fleet.failure_count == 1
    assert stats.fleet.in_flight_count == 0
    assert [each.in_flight_text_count for each in stats.backends] == [0, 0]


async def test_a_caller_that_goes_away_ends_all_pieces(run_balancer):
    async with running_standins(2) as standins:
        for standin in standins:
            await standin.order_fault(hang=True)
        balancer = await run_balancer(*(standin.url for standin in standins))
        call = balancer.stub.Embed(request_for(128))
        async with asyncio.timeout(5):
            while (
                sum(each.in_flight_text_count for each in (await balancer.stats()).backends) < 128
            ):
                await asyncio.sleep(0.01)
        call.cancel()
        await eventually(
            lambda: all(
                balancer.value("balancer_backend_inflight", backend=each.backend_id) == 0
                for each in standins
            )
        )
        for standin in standins:
            async with asyncio.timeout(5):
                while "active" in [
                    entry["outcome"] for entry in await standin.requests("/api/embed")
                ]:
                    await asyncio.sleep(0.01)
        stats = await balancer.stats()
    assert stats.fleet.cancelled_count == 1
    assert stats.fleet.failure_count == 0
    assert stats.fleet.in_flight_count == 0


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
    assert span.attributes["app.balancer.load_score"] > 0
    assert "text number" not in str(dict(span.attributes))
