"""The figures of each backend, asked for once or watched."""

import asyncio

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.standin.core.profile import ModelSpec
from tests.kit.balancer import served_alone
from tests.kit.lateness import measured_lateness
from tests.kit.rpc import error_of
from tests.kit.standin import EMBEDDING_MODEL, running_standins

TALKER = "talker:latest"
MODELS = (ModelSpec(name=TALKER, size_bytes=1000),)
TEXT = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"])


def story(token_count):
    return pb.GenerateRequest(
        model=TALKER,
        prompt="Say something.",
        sampling={"max_output_token_count": token_count},
    )


async def tell(balancer, token_count=5):
    return [event async for event in balancer.stub.Generate(story(token_count))]


async def test_each_backend_shows_what_an_operator_looks_for(run_balancer):
    async with (
        running_standins(1, models=MODELS, tokens_per_second=400.0) as (fast,),
        running_standins(1, models=MODELS, tokens_per_second=40.0) as (slow,),
    ):
        balancer = await run_balancer(fast.url, slow.url)
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(tell(balancer, 20))
        stats, health = await balancer.stats(), await balancer.health()
        backends = {each.backend_id: each for each in stats.backends}
        assert sum(each.request_count for each in stats.backends) == 6
        assert stats.fleet.request_count == 6
        assert stats.fleet.healthy_backend_count == stats.fleet.backend_count == 2
        assert not stats.fleet.round_robin_fallback
        for each in stats.backends:
            assert each.healthy
            assert each.state == pb.BACKEND_STATE_HEALTHY
            assert each.check_time.ToSeconds() > 1e9
            assert each.in_flight_count == 0
        for each in health.backends:
            same = backends[each.backend_id]
            assert each.average_response_time == same.average_response_time
            assert each.check_time == same.check_time
            assert each.load_score_seconds == pytest.approx(same.load_score_seconds, rel=0.1)
        # Lower is preferred.
        scores = {each.backend_id: each.load_score_seconds for each in stats.backends}
        assert 0 < scores[fast.backend_id] < scores[slow.backend_id]
        (model,) = backends[fast.backend_id].models
        assert (model.model, model.residency) == (TALKER, pb.MODEL_RESIDENCY_WARM)
        assert (model.slot_count, model.in_flight_count, model.zombie_count) == (1, 0, 0)
        assert model.context_token_count == 4096
        assert model.decode_tokens_per_second > 100
        assert model.expire_time.ToSeconds() > backends[fast.backend_id].check_time.ToSeconds()


async def test_work_raises_the_score_while_it_lasts(run_balancer):
    async with running_standins(1, models=MODELS, tokens_per_second=50.0) as (standin,):
        balancer = await run_balancer(standin.url)
        await tell(balancer, 30)
        (idle,) = (await balancer.stats()).backends
        call = balancer.stub.Generate(story(500))
        await call.read()
        (busy,) = (await balancer.stats()).backends
        assert busy.in_flight_count == 1
        assert busy.models[0].in_flight_count == 1
        assert busy.load_score_seconds > idle.load_score_seconds + 0.2
        call.cancel()


async def test_a_backend_that_has_failed_says_why_and_when_it_is_tried_again(run_balancer):
    async with running_standins(2) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        await standins[0].stop()
        health = await balancer.health(check_now=True)
        out, well = sorted(
            health.backends, key=lambda each: each.backend_id != standins[0].backend_id
        )
        assert out.state == pb.BACKEND_STATE_UNHEALTHY
        assert "Connect" in out.last_failure
        assert out.consecutive_failure_count >= 1
        assert out.retry_time.ToSeconds() >= out.check_time.ToSeconds()
        assert not well.HasField("retry_time")
        assert well.last_failure == ""
        assert health.healthy_backend_count == 1


async def test_statistics_are_watched_at_once_and_then_at_the_interval(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        call = balancer.stub.WatchStats(pb.WatchStatsRequest(interval={"nanos": 100_000_000}))
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        async with measured_lateness() as lateness:
            first = await call.read()
            assert loop.time() - began_at - lateness.seconds < 0.09
        await balancer.stub.Embed(TEXT)
        counts = [first.stats.fleet.request_count]
        for _ in range(3):
            counts.append((await call.read()).stats.fleet.request_count)
        assert loop.time() - began_at >= 0.25
        call.cancel()
        assert (counts[0], counts[-1]) == (0, 1)


async def test_an_interval_out_of_range_is_refused(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        call = balancer.stub.WatchStats(pb.WatchStatsRequest(interval={"nanos": 1}))
        error = await error_of(call.read())
    assert (error.error_reason, error.metadata["field"]) == ("INVALID_FIELD", "interval")


async def test_those_who_watch_do_not_hold_up_the_end_of_the_service():
    async with running_standins(1) as (standin,):
        async with served_alone(standin.url) as (stub, _):
            call = stub.WatchStats(pb.WatchStatsRequest())
            await call.read()
            watching = asyncio.create_task(error_of(call.read()))
            loop = asyncio.get_running_loop()
            ended_at = loop.time()
        assert loop.time() - ended_at < 3
        assert (await watching).error_reason == "SHUTTING_DOWN"
