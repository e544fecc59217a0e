"""Which models are in memory, with which window and for how long: the balancer decides."""

import asyncio
import logging
from random import Random

import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.standin.core.profile import ModelSpec
from tests.kit.balancer import ask_ollama, opened_admin, served_alone
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

CODE, OTHER = "code:latest", "other:latest"
SPEC = ModelSpec(name=CODE, context_tokens=32_768, size_bytes=1000)


def chat(model=CHAT_MODEL, *, window=None, text="Say something.", **fields):
    sampling = {"max_output_token_count": 3}
    if window is not None:
        sampling["context_token_count"] = window
    messages = [{"role": "CHAT_ROLE_USER", "content": text}]
    return pb.ChatRequest(model=model, messages=messages, sampling=sampling, **fields)


async def answer(balancer, request):
    """Returns all events of an answer."""
    return [event async for event in balancer.stub.Chat(request)]


async def loads_of(standin):
    return (await standin.totals())["loads"]


async def in_memory(standin):
    listed = await ask_ollama(standin.url, "/api/ps")
    return {each["name"]: each for each in listed["models"]}


# Windows and keep-alive.


async def test_callers_cannot_cause_more_loads_than_there_are_windows(run_balancer):
    rng = Random(7)
    async with running_standins(2, models=(SPEC,), load_seconds=0.02) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        windows = [rng.choice([None, rng.randint(256, 100_000)]) for _ in range(50)]
        remaining = iter(windows)

        async def caller():
            for window in remaining:
                await answer(balancer, chat(CODE, window=window))

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(caller())
        loads = [await loads_of(each) for each in standins]
        evictions = [(await each.totals())["evictions"] for each in standins]
    # One for the smaller window, one for the larger.
    assert all(count <= 2 for count in loads), loads
    assert sum(loads) >= 1
    assert sum(evictions) <= 2


async def test_who_was_pushed_out_while_another_was_loaded_is_not_pushed_out_again(run_balancer):
    models = (SPEC, ModelSpec(name=OTHER, context_tokens=32_768, size_bytes=1000))
    room = {"load_seconds": 0.5, "max_loaded_models": 1}
    async with running_standins(1, models=models, **room) as (standin,):
        balancer = await run_balancer(standin.url, listing_interval_seconds=0.05)
        for model in (CODE, OTHER):
            # Nobody has said that there is room for one only.
            await answer(balancer, chat(model))
        assert balancer.value("balancer_model_evictions_total") == 0
        await answer(balancer, chat(CODE))
        assert balancer.value("balancer_model_evictions_total") == 1


async def test_a_prompt_longer_than_any_window_causes_one_load(run_balancer):
    async with running_standins(1, models=(SPEC,)) as (standin,):
        balancer = await run_balancer(standin.url)
        for _ in range(3):
            events = await answer(balancer, chat(CODE, text="word " * 30_000))
        assert await loads_of(standin) == 1
        assert (await in_memory(standin))[CODE]["context_length"] == 16_384
    # The caller can see that the prompt was cut.
    assert events[0].started.context_token_count == 16_384
    assert events[-1].completed.usage.prompt_token_count < 16_384


async def test_what_somebody_else_has_loaded_with_an_automatic_window_is_used_as_it_is(
    run_balancer,
):
    async with running_standins(1, models=(SPEC,), context_tokens=6000) as (standin,):
        await ask_ollama(standin.url, "/api/generate", model=CODE, prompt="")
        balancer = await run_balancer(standin.url)
        for _ in range(5):
            await answer(balancer, chat(CODE))
        (listed,) = (await balancer.backend(standin.backend_id)).models
        assert await loads_of(standin) == 1
    assert listed.context_token_count == 6000


async def test_a_model_that_can_do_less_than_the_smallest_window_is_loaded_once(run_balancer):
    small = ModelSpec(name=CODE, context_tokens=1024)
    async with running_standins(1, models=(small,)) as (standin,):
        balancer = await run_balancer(standin.url)
        for window in (None, 8000, 100_000):
            await answer(balancer, chat(CODE, window=window))
        (listed,) = (await balancer.backend(standin.backend_id)).models
        assert await loads_of(standin) == 1
    assert listed.context_token_count == 1024


async def test_chat_models_that_embed_are_not_loaded_anew_for_it(run_balancer, scripted):
    server = await scripted()
    server.embeds("m:latest", capabilities=("completion", "embedding"))
    listed = {"name": "m:latest", "digest": "1" * 64, "size": 7, "context_length": 8192}
    server.replies["/api/ps"] = lambda request: web.json_response({"models": [listed]})
    balancer = await run_balancer(server.url)
    await balancer.stub.Embed(pb.EmbedRequest(model="m", texts=["text 0"]))
    (body,) = server.bodies
    assert body["options"] == {"num_ctx": 8192}


async def test_a_model_keeps_the_time_that_the_balancer_gives_it(run_balancer):
    async with running_standins(1, keep_alive_seconds=1.0) as (standin,):
        balancer = await run_balancer(standin.url, keep_alive_seconds=600.0)
        await answer(balancer, chat())
        await balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"]))
        await asyncio.sleep(1.2)
        assert set(await in_memory(standin)) == {CHAT_MODEL, EMBEDDING_MODEL}
        assert await loads_of(standin) == 2


# Loads that fail.


async def test_a_load_that_fails_sends_the_request_elsewhere(run_balancer):
    async with running_standins(2, load_seconds=0.05) as standins:
        await standins[0].order_fault(load_fails=True)
        balancer = await run_balancer(*(each.url for each in standins))
        for _ in range(3):
            events = await answer(balancer, chat())
            assert events[0].started.backend_id == standins[1].backend_id
        assert await loads_of(standins[0]) <= 1


async def test_a_load_that_fails_everywhere_is_no_hot_loop(run_balancer):
    async with running_standins(1) as (standin,):
        await standin.order_fault(load_fails=True, message="out of memory")
        balancer = await run_balancer(standin.url)
        error = await error_of(answer(balancer, chat()))
        assert error.error_reason == "ALL_ATTEMPTS_FAILED"
        assert "out of memory" in error.message
        waiting = asyncio.create_task(answer(balancer, chat()))
        await asyncio.sleep(1.0)
        assert await loads_of(standin) == 1
        waiting.cancel()


async def test_a_long_window_that_does_not_fit_does_not_take_the_model_from_others(run_balancer):
    async with running_standins(1, models=(SPEC,)) as (standin,):
        balancer = await run_balancer(standin.url)
        await answer(balancer, chat(CODE))
        await standin.order_fault(load_fails=True, count=1)
        await answer(balancer, chat(CODE, window=16_000))
        await answer(balancer, chat(CODE))
        health = await balancer.health()
        totals = await standin.totals()
    assert (totals["loads"], totals["failed_loads"]) == (3, 1)
    assert health.healthy_backend_count == 1


async def test_the_service_ends_in_time_while_a_model_is_loaded():
    async with running_standins(1, load_seconds=30.0) as (standin,):
        async with served_alone(standin.url) as (stub, _):
            call = stub.Chat(chat())
            reading = asyncio.create_task(error_of(call.read()))
            async with asyncio.timeout(5):
                while not await loads_of(standin):
                    await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([reading])
            loop = asyncio.get_running_loop()
            ended_at = loop.time()
        assert loop.time() - ended_at < 3.0
        async with asyncio.timeout(5):
            while not (await standin.totals())["aborted_loads"]:
                await asyncio.sleep(0.01)


async def test_a_caller_that_leaves_does_not_end_the_load(run_balancer):
    async with running_standins(1, load_seconds=0.5) as (standin,):
        balancer = await run_balancer(standin.url)
        call = balancer.stub.Chat(chat())
        reading = asyncio.create_task(error_of(call.read()))
        async with asyncio.timeout(5):
            while not await loads_of(standin):
                await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([reading])
        async with asyncio.timeout(5):
            while CHAT_MODEL not in await in_memory(standin):
                await asyncio.sleep(0.02)
        assert await loads_of(standin) == 1


# Variants of a model.


@pytest.fixture
async def drifted():
    """Three servers, the last of which has another variant of a model than the first two."""
    other = ModelSpec(name=CODE, context_tokens=32_768, size_bytes=1000, version="2")
    async with (
        running_standins(2, models=(SPEC,)) as (first, second),
        running_standins(1, models=(other,)) as (third,),
    ):
        yield first, second, third


async def test_the_variant_that_most_backends_have_serves(run_balancer, drifted):
    *same, other = drifted
    balancer = await run_balancer(*(each.url for each in drifted))
    for _ in range(6):
        started = (await answer(balancer, chat(CODE)))[0].started
        assert started.backend_id in {each.backend_id for each in same}
    await same[0].stop()
    await balancer.health(check_now=True)
    # One each is no reason to change.
    started = (await answer(balancer, chat(CODE)))[0].started
    assert started.backend_id == same[1].backend_id
    await same[1].stop()
    await balancer.health(check_now=True)
    started = (await answer(balancer, chat(CODE)))[0].started
    assert started.backend_id == other.backend_id


async def test_a_digest_in_the_request_decides(run_balancer, drifted):
    balancer = await run_balancer(*(each.url for each in drifted))
    listed = await ask_ollama(drifted[2].url, "/api/tags")
    (digest,) = (each["digest"] for each in listed["models"] if each["name"] == CODE)
    started = (await answer(balancer, chat(CODE, routing={"model_digest": digest})))[0].started
    assert (started.backend_id, started.model_digest) == (drifted[2].backend_id, digest)
    error = await error_of(answer(balancer, chat(CODE, routing={"model_digest": "0" * 64})))
    assert error.error_reason == "MODEL_NOT_FOUND"


async def test_variants_are_shown_and_said_once(run_balancer, drifted, caplog):
    with caplog.at_level(logging.INFO, "services.balancer.drift"):
        balancer = await run_balancer(*(each.url for each in drifted))
        for _ in range(3):
            health = await balancer.health(check_now=True)
    models = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
    assert {each.name: each.drifted for each in models}[CODE]
    shown = {each.backend_id: list(each.drifted_models) for each in health.backends}
    assert shown == {
        drifted[0].backend_id: [],
        drifted[1].backend_id: [],
        drifted[2].backend_id: [CODE],
    }
    (record,) = caplog.records
    assert (record.model, record.backends) == (CODE, drifted[2].backend_id)
    async with opened_admin(balancer.grpc_port) as admin:
        await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=drifted[2].backend_id))
        with caplog.at_level(logging.INFO, "services.balancer.drift"):
            await balancer.health(check_now=True)
    assert caplog.records[-1].message == "backends agree on a model again"


async def test_a_newer_version_is_loaded_although_an_older_one_is_still_there(run_balancer):
    newer = ModelSpec(name=CODE, context_tokens=32_768, size_bytes=1000, version="2", remote=True)
    async with running_standins(1, models=(SPEC, newer)) as (standin,):
        balancer = await run_balancer(standin.url)
        before = (await answer(balancer, chat(CODE)))[0].started.model_digest
        async with opened_admin(balancer.grpc_port) as admin:
            steps = [each async for each in admin.PullModel(pb.PullModelRequest(model=CODE))]
        digest = steps[-1].completed.model_digest
        assert digest not in ("", before)
        (listed,) = (await balancer.backend(standin.backend_id)).models or [None]
        assert listed is None or listed.digest == digest
        started = (await answer(balancer, chat(CODE)))[0].started
        assert started.model_digest == digest
        await answer(balancer, chat(CODE))
        assert await loads_of(standin) == 2


async def test_two_names_of_the_same_weights_do_not_load_each_other_anew(run_balancer):
    async with running_standins(1, models=(SPEC,)) as (standin,):
        await ask_ollama(standin.url, "/api/create", model="mine", **{"from": CODE, "system": "x"})
        balancer = await run_balancer(standin.url)
        for model in (CODE, "mine", CODE, "mine", "mine"):
            started = (await answer(balancer, chat(model)))[0].started
            assert started.model.startswith(model.partition(":")[0])
        stats = await balancer.stats()
        assert await loads_of(standin) == 1
    assert stats.fleet.model_load_count == 2


# Pinned models.


async def test_an_embedding_model_in_use_is_held_for_ever_by_every_backend(run_balancer):
    async with running_standins(2) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        await balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"]))
        async with asyncio.timeout(15):
            while not all([await holds_for_ever(each, EMBEDDING_MODEL) for each in standins]):
                await asyncio.sleep(0.1)
        for each in standins:
            (listed,) = (await balancer.backend(each.backend_id)).models
            assert listed.pinned
            assert not listed.HasField("expire_time")


async def holds_for_ever(standin, name):
    listed = (await in_memory(standin)).get(name)
    return listed is not None and listed["expires_at"] > "2200"


async def test_a_pinned_model_is_loaded_from_the_start(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url, pinned_models=("extractive-standin",))

        async with asyncio.timeout(20):
            while not await holds_for_ever(standin, CHAT_MODEL):
                await asyncio.sleep(0.05)
        assert balancer.value("balancer_model_loads_total", cause="pin") == 1


@pytest.mark.parametrize("loaded_before", [True, False])
async def test_a_backend_that_has_loaded_another_variant_than_it_has_on_disk_has_drifted(
    run_balancer, warm_standins, caplog, loaded_before
):
    async with warm_standins(2, CHAT_MODEL if loaded_before else EMBEDDING_MODEL) as standins:
        liar, other = standins
        await liar.order_fault(path="/api/ps", digest="f" * 64, model=CHAT_MODEL)
        with caplog.at_level(logging.INFO, "services.balancer.drift"):
            balancer = await run_balancer(*(each.url for each in standins))
            async with opened_admin(balancer.grpc_port) as admin:
                for standin in standins:
                    await admin.PreloadModel(
                        pb.PreloadModelRequest(model=CHAT_MODEL, backend_id=standin.backend_id)
                    )
            health = await balancer.health(check_now=True)
            models = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
            shown = {each.backend_id: list(each.drifted_models) for each in health.backends}
            assert shown == {liar.backend_id: [CHAT_MODEL], other.backend_id: []}
            assert [each.name for each in models if each.drifted] == [CHAT_MODEL]
            await liar.clear_faults()
            health = await balancer.health(check_now=True)
    assert not any(each.drifted_models for each in health.backends)
    said = [(each.levelname, each.model) for each in caplog.records]
    assert said == [("WARNING", CHAT_MODEL), ("INFO", CHAT_MODEL)]
    assert caplog.records[0].backends == liar.backend_id
