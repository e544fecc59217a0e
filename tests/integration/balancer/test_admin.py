"""What operators order of models: to load, to unload, to download."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from services.standin.core.profile import ModelSpec
from tests.kit.balancer import ask_ollama, opened_admin
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

NEW = "new:latest"
REMOTE = ModelSpec(name=NEW, size_bytes=1_000_000, remote=True)


def story(model=CHAT_MODEL, token_count=3):
    return pb.GenerateRequest(
        model=model,
        prompt="Say something.",
        sampling={"max_output_token_count": token_count},
    )


async def tell(balancer, request):
    return [event async for event in balancer.stub.Generate(request)]


async def in_memory(standin):
    listed = await ask_ollama(standin.url, "/api/ps")
    return {each["name"] for each in listed["models"]}


async def loads_of(standin):
    return (await standin.totals())["loads"]


async def until(condition, within_seconds=5.0):
    async with asyncio.timeout(within_seconds):
        while not await condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def serve(run_balancer):
    """Starts a balancer before some stand-ins; yields it with an operator's client."""
    async with AsyncExitStack() as stack:

        async def serve(*standins, **fields):
            balancer = await run_balancer(*(each.url for each in standins), **fields)
            admin = await stack.enter_async_context(opened_admin(balancer.grpc_port))
            return balancer, admin

        yield serve


# Loading.


async def test_a_model_is_preloaded_where_the_operator_wants_it(serve):
    async with running_standins(2, load_seconds=0.1) as standins:
        balancer, admin = await serve(*standins)
        for standin in standins:
            request = pb.PreloadModelRequest(model=CHAT_MODEL, backend_id=standin.backend_id)
            response = await admin.PreloadModel(request)
            assert response.backend_id == standin.backend_id
            assert 0.1 <= response.load.ToTimedelta().total_seconds() < 2
            assert await in_memory(standin) == {CHAT_MODEL}
            again = await admin.PreloadModel(request)
            assert again.load.ToTimedelta().total_seconds() == 0
        assert balancer.value("balancer_model_loads_total", cause="operator") == 2
        events = await tell(balancer, story())
        assert events[-1].completed.timings.model_load.ToTimedelta().total_seconds() < 0.05


async def test_without_a_wish_the_model_is_loaded_where_that_costs_least(serve):
    async with (
        running_standins(1, max_loaded_models=1) as (full,),
        running_standins(1) as (empty,),
    ):
        _, admin = await serve(full, empty)
        await admin.PreloadModel(
            pb.PreloadModelRequest(model=EMBEDDING_MODEL, backend_id=full.backend_id)
        )
        await admin.DrainBackend(pb.DrainBackendRequest(backend_id=full.backend_id))
        response = await admin.PreloadModel(pb.PreloadModelRequest(model=CHAT_MODEL))
        assert response.backend_id == empty.backend_id


async def test_a_load_goes_on_when_the_operator_leaves(serve):
    async with running_standins(1, load_seconds=0.4) as (standin,):
        _, admin = await serve(standin)
        call = admin.PreloadModel(pb.PreloadModelRequest(model=CHAT_MODEL))

        async def is_loading():
            return await loads_of(standin) == 1

        await until(is_loading)
        call.cancel()

        async def is_loaded():
            return await in_memory(standin) == {CHAT_MODEL}

        await until(is_loaded)
        assert (await standin.totals())["aborted_loads"] == 0


async def test_several_who_want_the_same_wait_for_one_load(serve):
    async with running_standins(1, load_seconds=0.3) as (standin,):
        balancer, admin = await serve(standin)
        request = pb.PreloadModelRequest(model=CHAT_MODEL)
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(preload(admin, request)) for _ in range(5)]
            telling = group.create_task(tell(balancer, story()))
        assert {call.result().backend_id for call in calls} == {standin.backend_id}
        assert telling.result()[-1].HasField("completed")
        assert await loads_of(standin) == 1


async def preload(admin, request):
    return await admin.PreloadModel(request)


async def test_a_load_that_fails_is_said_and_may_be_ordered_again_at_once(serve):
    async with running_standins(1) as (standin,):
        _, admin = await serve(standin)
        await standin.order_fault(load_fails=True, message="out of memory", count=2)
        request = pb.PreloadModelRequest(model=EMBEDDING_MODEL)
        for _ in range(2):
            async with asyncio.timeout(3):
                error = await error_of(admin.PreloadModel(request))
            assert (error.error_reason, error.status_code) == (
                "MODEL_LOAD_FAILED",
                StatusCode.UNAVAILABLE,
            )
            assert error.metadata["backend_id"] == standin.backend_id
            assert "out of memory" in error.metadata["cause"]
        assert (await admin.PreloadModel(request)).backend_id == standin.backend_id


async def test_nothing_is_loaded_where_no_request_would_go(serve):
    async with running_standins(1) as (standin,):
        _, admin = await serve(standin)
        await admin.DrainBackend(pb.DrainBackendRequest(backend_id=standin.backend_id))
        request = pb.PreloadModelRequest(model=CHAT_MODEL, backend_id=standin.backend_id)
        error = await error_of(admin.PreloadModel(request))
        assert error.error_reason == "MODEL_LOAD_FAILED"
        assert "takes no requests" in error.metadata["cause"]


async def test_a_load_does_not_end_a_request_under_way(serve):
    async with running_standins(1, max_loaded_models=1, tokens_per_second=60.0) as (standin,):
        balancer, admin = await serve(standin, models_per_backend=1)
        await tell(balancer, story())
        telling = asyncio.create_task(tell(balancer, story(token_count=50)))

        async def is_telling():
            return (await balancer.stats()).backends[0].in_flight_count == 1

        await until(is_telling)
        response = await admin.PreloadModel(pb.PreloadModelRequest(model=EMBEDDING_MODEL))
        async with asyncio.timeout(5):
            assert (await telling)[-1].HasField("completed")
        assert response.load.ToTimedelta().total_seconds() > 0.2
        assert await in_memory(standin) == {EMBEDDING_MODEL}


# Unloading.


async def test_an_idle_model_is_gone_when_the_answer_comes(serve):
    async with running_standins(2) as standins:
        balancer, admin = await serve(*standins)
        for standin in standins:
            await admin.PreloadModel(
                pb.PreloadModelRequest(model=CHAT_MODEL, backend_id=standin.backend_id)
            )
        response = await admin.UnloadModel(
            pb.UnloadModelRequest(model=CHAT_MODEL, backend_id=standins[0].backend_id)
        )
        assert list(response.backend_ids) == [standins[0].backend_id]
        assert await in_memory(standins[0]) == set()
        response = await admin.UnloadModel(pb.UnloadModelRequest(model=CHAT_MODEL))
        assert list(response.backend_ids) == [standins[1].backend_id]
        assert list(response.busy_backend_ids) == []
        assert await in_memory(standins[1]) == set()
        assert not (await balancer.backend(standins[0].backend_id)).models


async def test_a_busy_model_goes_when_its_last_request_has_ended(serve):
    async with running_standins(1, tokens_per_second=100.0) as (standin,):
        balancer, admin = await serve(standin)
        call = balancer.stub.Generate(story(token_count=60))
        events = aiter(call)
        await anext(events)
        response = await admin.UnloadModel(pb.UnloadModelRequest(model=CHAT_MODEL))
        assert list(response.backend_ids) == []
        assert list(response.busy_backend_ids) == [standin.backend_id]
        assert await in_memory(standin) == {CHAT_MODEL}
        rest = [event async for event in events]
        assert rest[-1].HasField("completed")

        async def is_gone():
            return await in_memory(standin) == set()

        await until(is_gone)
        # Whoever comes then has it loaded again.
        assert (await tell(balancer, story()))[-1].HasField("completed")
        assert await loads_of(standin) == 2


async def test_what_is_not_loaded_is_nowhere_to_be_unloaded(serve):
    async with running_standins(1) as (standin,):
        _, admin = await serve(standin)
        response = await admin.UnloadModel(pb.UnloadModelRequest(model=CHAT_MODEL))
        assert response == pb.UnloadModelResponse()


# Downloading.


async def pull(admin, **fields):
    return [each async for each in admin.PullModel(pb.PullModelRequest(model=NEW, **fields))]


async def test_a_download_reports_its_progress_on_each_backend_and_the_model_is_usable_at_once(
    serve,
):
    async with running_standins(2, models=(REMOTE,), pull_bytes_per_second=5_000_000.0) as standins:
        balancer, admin = await serve(*standins, health_interval_seconds=600.0)
        steps = await pull(admin)
        for standin in standins:
            own = [each for each in steps if each.backend_id == standin.backend_id]
            assert own[-1].completed.model_digest
            done = [each.progress.completed_bytes for each in own if each.progress.digest]
            assert done == sorted(done)
            assert done[-1] == own[-2 - 3].progress.total_bytes == REMOTE.size_bytes
        assert sum(each.HasField("completed") for each in steps) == 2
        models = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
        (listed,) = (each for each in models if each.name == NEW)
        assert list(listed.backend_ids) == sorted(each.backend_id for each in standins)
        assert (await tell(balancer, story(NEW)))[-1].HasField("completed")


async def test_a_download_to_one_backend_is_not_one_to_all(serve):
    async with running_standins(2, models=(REMOTE,)) as standins:
        balancer, admin = await serve(*standins)
        await pull(admin, backend_id=standins[0].backend_id)
        models = (await balancer.stub.ListModels(pb.ListModelsRequest())).models
        (listed,) = (each for each in models if each.name == NEW)
        assert list(listed.backend_ids) == [standins[0].backend_id]


async def test_one_download_that_fails_does_not_end_the_others(serve):
    async with (
        running_standins(1, models=(REMOTE,), pull_bytes_per_second=2_000_000.0) as (able,),
        running_standins(1) as (unable,),
    ):
        balancer, admin = await serve(able, unable)
        steps = []

        async def pull_all():
            async for each in admin.PullModel(pb.PullModelRequest(model=NEW)):
                steps.append(each)

        error = await error_of(pull_all())
        assert (error.error_reason, error.status_code) == (
            "MODEL_PULL_FAILED",
            StatusCode.FAILED_PRECONDITION,
        )
        assert error.metadata["backend_id"] == unable.backend_id
        assert "file does not exist" in error.metadata["cause"]
        assert [each.backend_id for each in steps if each.HasField("completed")] == [
            able.backend_id
        ]
        assert (await tell(balancer, story(NEW)))[-1].HasField("completed")


async def test_a_download_ends_with_the_call(serve):
    async with running_standins(1, models=(REMOTE,), pull_bytes_per_second=1000.0) as (standin,):
        _, admin = await serve(standin)
        call = admin.PullModel(pb.PullModelRequest(model=NEW))
        await anext(aiter(call))
        call.cancel()

        async def is_over():
            (entry,) = await standin.requests("/api/pull")
            return entry["outcome"] == "cancelled"

        await until(is_over)


async def test_a_download_to_a_backend_that_leaves_meanwhile_fails(serve):
    async with running_standins(1, models=(REMOTE,), pull_bytes_per_second=1000.0) as (standin,):
        _, admin = await serve(standin)
        pulling = asyncio.create_task(error_of(pull(admin)))

        async def has_begun():
            return bool(await standin.requests("/api/pull"))

        await until(has_begun)
        await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=standin.backend_id))
        async with asyncio.timeout(5):
            assert (await pulling).error_reason == "MODEL_PULL_FAILED"


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 1000])
async def test_what_is_no_name_of_a_model_is_refused(serve, name):
    async with running_standins(1) as (standin,):
        _, admin = await serve(standin)

        async def pull_it():
            return [each async for each in admin.PullModel(pb.PullModelRequest(model=name))]

        for call in (
            admin.PreloadModel(pb.PreloadModelRequest(model=name)),
            admin.UnloadModel(pb.UnloadModelRequest(model=name)),
            pull_it(),
        ):
            error = await error_of(call)
            assert error.error_reason == "INVALID_FIELD"
            assert error.metadata["field"] == "model"


async def test_a_model_that_nobody_has_is_answered_with_those_there_are(serve):
    async with running_standins(1) as (standin,):
        _, admin = await serve(standin)
        for call in (
            admin.PreloadModel(pb.PreloadModelRequest(model="nothing")),
            admin.UnloadModel(pb.UnloadModelRequest(model="nothing")),
        ):
            error = await error_of(call)
            assert error.error_reason == "MODEL_NOT_FOUND"
            assert CHAT_MODEL in error.message
