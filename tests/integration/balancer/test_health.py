"""Which backends take requests, and how that changes."""

import asyncio

import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from tests.kit.generations import generation, read, read_all, unrelated
from tests.kit.ports import free_port
from tests.kit.rpc import error_of
from tests.kit.standin import EMBEDDING_MODEL, Standin

TEXT = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"])


async def test_the_first_round_of_checks_is_over_when_the_service_answers(
    run_balancer, warm_standins
):
    async with warm_standins(2) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        health = await balancer.health()
    assert health.healthy_backend_count == 2
    for each, standin in zip(
        health.backends, sorted(standins, key=lambda each: each.backend_id), strict=True
    ):
        assert each.backend_id == standin.backend_id
        assert each.endpoint == standin.url
        assert each.state == pb.BACKEND_STATE_HEALTHY
        assert each.HasField("check_time")
        assert each.check_duration.ToMilliseconds() < 2000
        assert each.version == "0.33.0"
        assert each.last_failure == ""


async def test_a_silent_backend_delays_the_start_by_the_limit_at_most(
    run_balancer, warm_standins, scripted
):
    async with warm_standins(1) as (standin,):
        hanging = await scripted()
        hanging.replies["/api/version"] = lambda request: asyncio.Event().wait()
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        balancer = await run_balancer(standin.url, hanging.url, health_limit_seconds=0.3)
        assert loop.time() - began_at < 1.5
        health = await balancer.health()
    states = {each.backend_id: each for each in health.backends}
    assert states[standin.backend_id].state == pb.BACKEND_STATE_HEALTHY
    assert states[hanging.backend_id].state == pb.BACKEND_STATE_UNHEALTHY
    assert "silent" in states[hanging.backend_id].last_failure


async def test_a_refused_connection_takes_a_backend_out_at_once_and_costs_no_request(
    run_balancer, warm_standins
):
    async with warm_standins(2) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        await standins[0].stop()
        for _ in range(4):
            response = await balancer.stub.Embed(TEXT)
            assert response.backend_id == standins[1].backend_id
        stats = await balancer.stats()
    assert stats.fleet.failure_count == 0
    assert stats.fleet.retry_count == 1
    assert stats.fleet.healthy_backend_count == 1


async def test_a_backend_that_comes_back_is_found_within_seconds_and_starts_slowly(
    run_balancer, warm_standins
):
    async with warm_standins(2) as (lost, other):
        balancer = await run_balancer(lost.url, other.url)
        await lost.stop()
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        assert [error for _, error in await read_all(*calls)] == [None, None]
        assert not (await balancer.backend(lost.backend_id)).healthy
        await lost.start()
        await balancer.until(lambda stats: stats.fleet.healthy_backend_count == 2)
        stats = await balancer.backend(lost.backend_id)
        assert stats.state == pb.BACKEND_STATE_RETURNING
        assert stats.ejection_count == 1
        question = pb.ExplainRequest(generate=generation())
        decision = (await balancer.stub.Explain(question)).decision
        risks = {each.backend_id: each.risk_seconds for each in decision.candidates}
        assert 4.0 < risks[lost.backend_id] - risks[other.backend_id] <= 5.0
        assert decision.backend_id == other.backend_id
        # Dearer, but no worse: where the other is gone it serves.
        await other.stop()
        events, error = await read(balancer.stub.Generate(generation()))
    assert error is None
    assert events[0].started.backend_id == lost.backend_id


@pytest.mark.slow
async def test_three_failures_in_a_row_take_a_backend_out_and_a_canary_brings_it_back(
    run_balancer, warm_standins
):
    async with warm_standins(1) as (standin,):
        await standin.order_fault(fail_next=3)
        balancer = await run_balancer(standin.url)
        loop = asyncio.get_running_loop()
        for expected in (True, True, False):
            began_at = loop.time()
            await error_of(balancer.stub.Embed(TEXT))
            assert (await balancer.backend(standin.backend_id)).healthy is expected
        before = len(await standin.requests("/api/embed"))
        await balancer.until(lambda stats: stats.fleet.healthy_backend_count == 1, 20.0)
        # Not before its time, and not without having shown that it can.
        assert loop.time() - began_at > 7.0
        assert len(await standin.requests("/api/embed")) == before + 1
        stats = await balancer.backend(standin.backend_id)
    assert stats.state == pb.BACKEND_STATE_RETURNING
    labels = {"backend": standin.backend_id, "outcome": "success"}
    assert balancer.value("balancer_canaries_total", **labels) == 1


async def test_a_single_backend_that_is_out_is_tried_all_the_same_and_a_success_brings_it_back(
    run_balancer, warm_standins
):
    async with warm_standins(1) as (standin,):
        await standin.order_fault(fail_next=3)
        balancer = await run_balancer(standin.url)
        for expected in (True, True, False):
            await error_of(balancer.stub.Embed(TEXT))
            assert (await balancer.backend(standin.backend_id)).healthy is expected
        await balancer.stub.Embed(TEXT)
        assert (await balancer.backend(standin.backend_id)).healthy


async def fail_all(balancer, standins):
    """Has all backends fail until all of them are out."""
    for standin in standins:
        await standin.order_fault(status=500)
    async with asyncio.timeout(20):
        while (await balancer.stats()).fleet.healthy_backend_count:
            await error_of(balancer.stub.Embed(TEXT))


async def test_with_no_healthy_backend_requests_go_round_in_turn(run_balancer, warm_standins):
    async with warm_standins(3) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        await fail_all(balancer, standins)
        assert (await balancer.stats()).fleet.round_robin_fallback
        for standin in standins:
            await standin.clear_faults()
        # They work again, but no check has seen it yet.
        served = [(await balancer.stub.Embed(TEXT)).backend_id]
        assert balancer.value("balancer_routing_decisions_total", policy="round_robin_fallback")
        # The success brought that one back.
        stats = await balancer.stats()
        healthy = [each.backend_id for each in stats.backends if each.healthy]
    assert healthy == served
    assert not stats.fleet.round_robin_fallback


async def test_at_most_half_of_the_fleet_is_kept_out_without_proof(run_balancer, warm_standins):
    async with warm_standins(4) as standins:
        balancer = await run_balancer(*(standin.url for standin in standins))
        await fail_all(balancer, standins)
        sound = standins[3]
        await sound.clear_faults()
        async with asyncio.timeout(10):
            while not (await balancer.backend(sound.backend_id)).healthy:
                await read(balancer.stub.Generate(generation()))
        question = pb.ExplainRequest(generate=generation())
        decision = (await balancer.stub.Explain(question)).decision
    excluded = [
        each.backend_id
        for each in decision.candidates
        if each.exclusion == pb.EXCLUSION_REASON_UNHEALTHY
    ]
    # Three are out, yet the fourth is not left alone with the work of all.
    assert len(excluded) == 2
    assert sound.backend_id not in excluded
    assert decision.backend_id == sound.backend_id


async def test_a_fleet_never_reached_is_unavailable_not_without_the_model(run_balancer):
    ports = [free_port(), free_port()]
    balancer = await run_balancer(*(f"http://127.0.0.1:{port}" for port in ports))
    error = await error_of(balancer.stub.Embed(TEXT))
    assert error.status_code is StatusCode.UNAVAILABLE
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    assert error.metadata["attempt_count"] == "2"
    models = await balancer.stub.ListModels(pb.ListModelsRequest())
    assert list(models.models) == []


async def test_a_fleet_that_appears_after_the_start_is_found(run_balancer):
    standin = Standin()
    standin.port = free_port()
    balancer = await run_balancer(standin.url)
    assert (await balancer.stats()).fleet.healthy_backend_count == 0
    await standin.start()
    try:
        await balancer.until(lambda stats: stats.fleet.healthy_backend_count == 1)
        await balancer.stub.Embed(TEXT)
    finally:
        await standin.stop()


async def test_check_now_sees_what_the_last_check_could_not(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        await standin.stop()
        assert (await balancer.health()).healthy_backend_count == 1
        health = await balancer.health(check_now=True)
    assert health.healthy_backend_count == 0
    assert health.backends[0].consecutive_failure_count >= 1
    assert health.backends[0].last_failure


@pytest.mark.parametrize("path", ["/api/ps", "/api/tags"])
async def test_a_backend_that_is_slow_to_list_its_models_stays_in(run_balancer, scripted, path):
    server = await scripted()
    server.has("m:latest")
    balancer = await run_balancer(server.url, health_limit_seconds=0.2)
    server.replies[path] = lambda request: asyncio.Event().wait()
    health = await balancer.health(check_now=True)
    assert health.backends[0].state == pb.BACKEND_STATE_HEALTHY
    models = await balancer.stub.ListModels(pb.ListModelsRequest())
    assert [each.name for each in models.models] == ["m:latest"]


async def test_checks_follow_the_interval_and_see_new_models(run_balancer, scripted):
    server = await scripted()
    balancer = await run_balancer(server.url, health_interval_seconds=0.05)
    server.has("late:latest")
    async with asyncio.timeout(5):
        while not (await balancer.stub.ListModels(pb.ListModelsRequest())).models:
            await asyncio.sleep(0.02)
    labels = {"backend": server.backend_id, "outcome": "success"}
    assert balancer.value("balancer_health_checks_total", **labels) >= 2


async def test_requests_cause_no_checks(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        for _ in range(20):
            await balancer.stub.Embed(TEXT)
            await balancer.stats()
        assert len(await standin.requests("/api/version")) == 1


async def test_capabilities_of_old_servers_are_asked_for_once_per_digest(run_balancer, scripted):
    servers = [await scripted(), await scripted()]
    for server in servers:
        server.has("m:latest", capabilities=None)
        server.replies["/api/show"] = lambda request: web.json_response(
            {
                "capabilities": ["embedding"],
                "model_info": {"general.architecture": "bert", "bert.embedding_length": 384},
            }
        )
    balancer = await run_balancer(*(server.url for server in servers), health_interval_seconds=0.05)
    async with asyncio.timeout(5):
        while True:
            (model,) = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
            if model.capabilities:
                break
            await asyncio.sleep(0.02)
    assert list(model.capabilities) == [pb.MODEL_CAPABILITY_EMBEDDING]
    assert model.embedding_dimension == 384
    checked = len([each for each in servers[0].requests if each.path == "/api/version"])
    async with asyncio.timeout(5):
        while (
            len([each for each in servers[0].requests if each.path == "/api/version"]) < checked + 3
        ):
            await asyncio.sleep(0.02)
    shows = [each for server in servers for each in server.requests if each.path == "/api/show"]
    assert 1 <= len(shows) <= 2
    error = await error_of(balancer.stub.Generate(pb.GenerateRequest(model="m", prompt="p")).read())
    assert error.error_reason == "MODEL_CAPABILITY_MISSING"
