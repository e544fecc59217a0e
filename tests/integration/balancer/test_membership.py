"""Backends that come, are drained, resume and go while the service runs."""

import asyncio
import contextlib

import grpc
import pytest
from prometheus_client import generate_latest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from services.standin.core.profile import ModelSpec
from tests.kit.balancer import ask_ollama, opened_admin
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

TALKER = "talker:latest"
# It says as many words as it may.
MODELS = (ModelSpec(name=TALKER, size_bytes=1000),)
TEXT = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"])


def story(token_count=3, **fields):
    return pb.GenerateRequest(
        model=TALKER,
        prompt="Say something.",
        sampling={"max_output_token_count": token_count},
        **fields,
    )


async def tell(balancer, request):
    """Returns all events of a generation."""
    return [event async for event in balancer.stub.Generate(request)]


class Begun:
    """A generation that has had its first event."""

    def __init__(self, call, events, started):
        self.call = call
        self.events = events
        self.started = started

    async def rest(self):
        return [event async for event in self.events]


async def begin(balancer, request):
    call = balancer.stub.Generate(request)
    events = aiter(call)
    return Begun(call, events, (await anext(events)).started)


async def at_work(standin, path="/api/generate"):
    """Waits until a request is under way."""
    async with asyncio.timeout(5):
        while not any(each["outcome"] == "active" for each in await standin.requests(path)):
            await asyncio.sleep(0.01)


def metrics_of(balancer, backend_id):
    """Returns what the metrics page says of a backend."""
    shown = generate_latest(balancer.runtime.metrics.registry).decode()
    return [line for line in shown.splitlines() if f'backend="{backend_id}"' in line]


@pytest.fixture
async def pair(run_balancer):
    """A balancer with two backends, the first of which has the models loaded."""
    async with running_standins(2, models=MODELS, tokens_per_second=100.0) as (first, second):
        balancer = await run_balancer(first.url)
        await tell(balancer, story())
        async with opened_admin(balancer.grpc_port) as admin:
            await admin.AddBackend(pb.AddBackendRequest(endpoint=second.url))
            yield balancer, admin, first, second


# Coming.


async def test_a_backend_that_is_added_serves_at_once_and_adding_it_again_changes_nothing(
    run_balancer,
):
    async with running_standins(2) as (first, second):
        balancer = await run_balancer(first.url)
        async with opened_admin(balancer.grpc_port) as admin:
            request = pb.AddBackendRequest(endpoint=second.url + "/")
            health = (await admin.AddBackend(request)).backend
            assert (health.backend_id, health.endpoint) == (second.backend_id, second.url)
            assert health.state == pb.BACKEND_STATE_HEALTHY
            assert health.version == "0.33.0"
            await admin.DrainBackend(pb.DrainBackendRequest(backend_id=first.backend_id))
            assert (await balancer.stub.Embed(TEXT)).backend_id == second.backend_id
            again = (await admin.AddBackend(request)).backend
            assert again.HasField("average_response_time")
            # Not even that it is drained.
            again = (await admin.AddBackend(pb.AddBackendRequest(endpoint=first.url))).backend
            assert again.state == pb.BACKEND_STATE_DRAINED
        assert len((await balancer.stats()).backends) == 2


async def test_a_backend_that_does_not_answer_is_taken_in_and_serves_when_it_does(run_balancer):
    async with running_standins(2) as (first, second):
        await second.stop()
        balancer = await run_balancer(first.url)
        async with opened_admin(balancer.grpc_port) as admin:
            health = (await admin.AddBackend(pb.AddBackendRequest(endpoint=second.url))).backend
            assert health.state == pb.BACKEND_STATE_UNHEALTHY
            assert "failed" in health.last_failure
            await second.start()
            async with asyncio.timeout(10):
                while (await balancer.health()).healthy_backend_count < 2:
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "address", ["", "host", "http://host", "ftp://host:1", "http://host:1/path", "http://u@h:1"]
)
async def test_what_is_no_address_is_refused(run_balancer, address):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        async with opened_admin(balancer.grpc_port) as admin:
            error = await error_of(admin.AddBackend(pb.AddBackendRequest(endpoint=address)))
    assert error.error_reason == "INVALID_FIELD"
    assert error.metadata["field"] == "endpoint"


async def test_a_65th_backend_is_refused_also_when_several_come_at_once(run_balancer):
    # Nobody listens on these.
    balancer = await run_balancer(*(f"http://127.0.0.1:{port}" for port in range(1, 63)))
    async with opened_admin(balancer.grpc_port) as admin:

        async def add(port):
            request = pb.AddBackendRequest(endpoint=f"http://127.0.0.1:{port}")
            with contextlib.suppress(grpc.aio.AioRpcError):
                await admin.AddBackend(request)

        async with asyncio.TaskGroup() as group:
            for port in (63, 64, 65, 66):
                group.create_task(add(port))
        assert len((await balancer.stats()).backends) == 64
        request = pb.AddBackendRequest(endpoint="http://127.0.0.1:67")
        error = await error_of(admin.AddBackend(request))
        assert error.error_reason == "INVALID_FIELD"
        assert "64" in error.message


# Being drained.


async def test_a_drained_backend_finishes_what_it_has_and_gets_nothing_more(pair):
    balancer, admin, first, second = pair
    generation = await begin(balancer, story(60))
    assert generation.started.backend_id == first.backend_id
    response = await admin.DrainBackend(pb.DrainBackendRequest(backend_id=first.backend_id))
    assert response.in_flight_count == 1
    for _ in range(3):
        assert (await balancer.stub.Embed(TEXT)).backend_id == second.backend_id
    assert (await generation.rest())[-1].HasField("completed")
    (health, _) = sorted(
        (await balancer.health()).backends, key=lambda each: each.backend_id != first.backend_id
    )
    assert health.state == pb.BACKEND_STATE_DRAINED


async def test_the_queue_of_a_backend_that_is_drained_empties_elsewhere(pair):
    balancer, admin, first, second = pair
    generation = await begin(balancer, story(300))
    waiting = [asyncio.create_task(tell(balancer, story())) for _ in range(3)]
    await eventually_waiting(balancer, 1)
    await admin.DrainBackend(pb.DrainBackendRequest(backend_id=first.backend_id))
    for task in waiting:
        events = await task
        assert events[0].started.backend_id == second.backend_id
    generation.call.cancel()


async def eventually_waiting(balancer, count):
    async with asyncio.timeout(5):
        while True:
            queues = (await balancer.stats()).fleet.queues
            if sum(each.waiting_count for each in queues) >= count:
                return
            await asyncio.sleep(0.01)


async def test_a_drained_backend_stays_drained_whatever_happens_to_it(pair):
    balancer, admin, first, second = pair
    await admin.DrainBackend(pb.DrainBackendRequest(backend_id=first.backend_id))

    async def is_drained():
        health = await balancer.health(check_now=True)
        states = {each.backend_id: each.state for each in health.backends}
        return states[first.backend_id] == pb.BACKEND_STATE_DRAINED

    assert await is_drained()
    await first.stop()
    assert await is_drained()
    assert await is_drained()
    await first.start()
    assert await is_drained()
    assert (await balancer.stub.Embed(TEXT)).backend_id == second.backend_id
    health = (
        await admin.ResumeBackend(pb.ResumeBackendRequest(backend_id=first.backend_id))
    ).backend
    assert health.state != pb.BACKEND_STATE_DRAINED
    async with asyncio.timeout(15):
        while (await balancer.health()).healthy_backend_count < 2:
            await asyncio.sleep(0.05)


async def test_a_resumed_backend_serves_again(pair):
    balancer, admin, first, second = pair
    await admin.DrainBackend(pb.DrainBackendRequest(backend_id=first.backend_id))
    await admin.DrainBackend(pb.DrainBackendRequest(backend_id=second.backend_id))
    error = await error_of(tell(balancer, story()))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    assert error.metadata["last_failure"] == "no backend with the model takes requests"
    response = await admin.ResumeBackend(pb.ResumeBackendRequest(backend_id=first.backend_id))
    assert response.backend.state == pb.BACKEND_STATE_HEALTHY
    assert (await tell(balancer, story()))[0].started.backend_id == first.backend_id


# Going.


async def test_requests_under_way_end_before_a_backend_goes(pair):
    balancer, admin, first, _ = pair
    generation = await begin(balancer, story(30))
    response = await admin.RemoveBackend(
        pb.RemoveBackendRequest(backend_id=first.backend_id, grace={"seconds": 20})
    )
    assert response.abandoned_count == 0
    assert (await generation.rest())[-1].HasField("completed")
    assert [each.backend_id for each in (await balancer.stats()).backends] != [first.backend_id]
    assert len((await balancer.stats()).backends) == 1


async def test_what_has_no_token_when_the_grace_is_over_fails_over(pair):
    balancer, admin, first, second = pair
    await first.order_fault(delay_seconds=30.0, path="/api/generate", count=1)
    task = asyncio.create_task(tell(balancer, story()))
    await at_work(first)
    response = await admin.RemoveBackend(
        pb.RemoveBackendRequest(backend_id=first.backend_id, grace={"nanos": 100_000_000})
    )
    assert response.abandoned_count == 1
    started = (await task)[0].started
    assert (started.backend_id, started.attempt_count) == (second.backend_id, 2)


async def test_what_has_begun_when_the_grace_is_over_ends_as_interrupted(pair):
    balancer, admin, first, _ = pair
    generation = await begin(balancer, story(1000))
    response = await admin.RemoveBackend(
        pb.RemoveBackendRequest(backend_id=first.backend_id, grace={})
    )
    assert response.abandoned_count == 1
    async with asyncio.timeout(5):
        error = await error_of(generation.rest())
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert (await balancer.stats()).fleet.in_flight_count == 0


async def test_nothing_is_shown_any_more_of_a_backend_that_has_gone(pair):
    balancer, admin, first, _ = pair
    generation = await begin(balancer, story(1000))
    assert metrics_of(balancer, first.backend_id)
    await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=first.backend_id, grace={}))
    assert (await error_of(generation.rest())).error_reason == "STREAM_INTERRUPTED"
    async with asyncio.timeout(5):
        while metrics_of(balancer, first.backend_id):
            await asyncio.sleep(0.05)
    # Nor when whatever watches the fleet has looked at it again.
    await asyncio.sleep(1.2)
    assert not metrics_of(balancer, first.backend_id)
    await admin.AddBackend(pb.AddBackendRequest(endpoint=first.url))
    assert metrics_of(balancer, first.backend_id)


async def test_a_backend_that_goes_while_it_loads_a_model_takes_nothing_with_it(run_balancer):
    async with (
        running_standins(1, models=MODELS, load_seconds=30.0) as (first,),
        running_standins(1, models=MODELS) as (second,),
    ):
        balancer = await run_balancer(first.url)
        task = asyncio.create_task(tell(balancer, story()))
        async with asyncio.timeout(5):
            while not (await first.totals())["loads"]:
                await asyncio.sleep(0.01)
        async with opened_admin(balancer.grpc_port) as admin:
            await admin.AddBackend(pb.AddBackendRequest(endpoint=second.url))
            removal = admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=first.backend_id))
            assert (await removal).abandoned_count == 0
            assert (await task)[0].started.backend_id == second.backend_id
            assert (await first.totals())["aborted_loads"] == 1


async def test_a_backend_that_has_gone_and_come_again_is_looked_after_as_any_other(run_balancer):
    async with running_standins(2) as (first, second):
        balancer = await run_balancer(first.url, second.url)
        async with opened_admin(balancer.grpc_port) as admin:
            for _ in range(3):
                await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=first.backend_id))
                await admin.AddBackend(pb.AddBackendRequest(endpoint=first.url))
        assert (await balancer.health()).healthy_backend_count == 2
        await ask_ollama(first.url, "/api/generate", model=CHAT_MODEL, prompt="")
        # Nobody but the look at its memory, every second or two, can tell.
        async with asyncio.timeout(5):
            while not (await balancer.backend(first.backend_id)).models:
                await asyncio.sleep(0.05)


async def test_a_removal_that_comes_late_does_not_take_out_a_successor(pair):
    balancer, admin, first, _ = pair
    generation = await begin(balancer, story(1000))
    request = pb.RemoveBackendRequest(backend_id=first.backend_id, grace={"seconds": 30})
    patient = asyncio.create_task(call_of(admin.RemoveBackend(request)))
    async with asyncio.timeout(5):
        while (await balancer.health()).healthy_backend_count == 2:
            await asyncio.sleep(0.01)
    await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=first.backend_id, grace={}))
    await admin.AddBackend(pb.AddBackendRequest(endpoint=first.url))
    assert (await error_of(generation.rest())).error_reason == "STREAM_INTERRUPTED"
    await patient
    assert (await balancer.health()).healthy_backend_count == 2


async def call_of(call):
    return await call


async def test_a_removal_that_is_given_up_leaves_the_backend_drained(pair):
    balancer, admin, first, _ = pair
    generation = await begin(balancer, story(1000))
    removal = admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=first.backend_id))
    async with asyncio.timeout(5):
        while (await balancer.health()).healthy_backend_count == 2:
            await asyncio.sleep(0.01)
    removal.cancel()
    generation.call.cancel()
    response = await admin.ResumeBackend(pb.ResumeBackendRequest(backend_id=first.backend_id))
    assert response.backend.state == pb.BACKEND_STATE_HEALTHY


async def test_a_fleet_may_lose_its_last_backend_and_get_another(run_balancer):
    async with running_standins(1, models=MODELS) as (standin,):
        balancer = await run_balancer(standin.url)
        async with opened_admin(balancer.grpc_port) as admin:
            await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=standin.backend_id))
            assert (await balancer.stats()).fleet.backend_count == 0
            assert not (await balancer.health()).backends
            error = await error_of(tell(balancer, story()))
            assert error.error_reason == "MODEL_NOT_FOUND"
            pulled = [each async for each in admin.PullModel(pb.PullModelRequest(model="m"))]
            assert pulled == []
            await admin.AddBackend(pb.AddBackendRequest(endpoint=standin.url))
            assert (await tell(balancer, story()))[0].started.backend_id == standin.backend_id


async def test_a_grace_out_of_range_is_refused(pair):
    _, admin, first, _ = pair
    for grace in ({"seconds": 3601}, {"seconds": -1}):
        request = pb.RemoveBackendRequest(backend_id=first.backend_id, grace=grace)
        error = await error_of(admin.RemoveBackend(request))
        assert error.error_reason == "INVALID_FIELD"
        assert error.metadata["field"] == "grace"


async def test_an_id_that_nobody_has_is_answered_with_those_there_are(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        async with opened_admin(balancer.grpc_port) as admin:
            nobody = {"backend_id": "nobody:1"}
            model = nobody | {"model": CHAT_MODEL}

            async def pull():
                return [each async for each in admin.PullModel(pb.PullModelRequest(**model))]

            calls = [
                admin.RemoveBackend(pb.RemoveBackendRequest(**nobody)),
                admin.DrainBackend(pb.DrainBackendRequest(**nobody)),
                admin.ResumeBackend(pb.ResumeBackendRequest(**nobody)),
                admin.PreloadModel(pb.PreloadModelRequest(**model)),
                admin.UnloadModel(pb.UnloadModelRequest(**model)),
                pull(),
            ]
            for call in calls:
                error = await error_of(call)
                assert (error.error_reason, error.status_code) == (
                    "BACKEND_NOT_FOUND",
                    StatusCode.NOT_FOUND,
                )
                assert error.metadata["backend_id"] == "nobody:1"
                assert standin.backend_id in error.message
