"""Whatever goes wrong, every request ends once and nothing is left counted as under way."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.status import error_from_call
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, running_standins

FAULTS = (
    {"status": 500},
    {"status": 503},
    {"status": 400},
    {"drop_after_tokens": 0},
    {"drop_after_tokens": 4},
    {"error_line_after_tokens": 0},
    {"error_line_after_tokens": 4},
    {"no_done": True},
    {"delay_seconds": 0.05},
    {"hang": True},
)
REASONS = {"ALL_ATTEMPTS_FAILED", "STREAM_INTERRUPTED", "BACKEND_REJECTED_REQUEST"}


async def embed_once(balancer, rng):
    count = rng.choice((1, 4, 40))
    call = balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"] * count))
    if rng.random() < 0.25:
        await asyncio.sleep(rng.uniform(0, 0.03))
        call.cancel()
    response = await call
    assert len(response.vectors) == count


async def generate_once(balancer, rng):
    limit = rng.choice((None, None, None, 0.02))
    cancel_after = rng.choice((None, None, None, 0, 1, 5))
    request = pb.GenerateRequest(
        model=CHAT_MODEL, prompt="Say something.", sampling={"max_output_token_count": 20}
    )
    call = balancer.stub.Generate(request, timeout=limit)
    kinds = []
    if cancel_after == 0:
        call.cancel()
    async for event in call:
        kinds.append(event.WhichOneof("event"))
        if len(kinds) == cancel_after:
            call.cancel()
    assert kinds[0] == "started"
    assert kinds[-1] == "completed"
    assert kinds.count("started") == kinds.count("completed") == 1


async def outcome_of(request):
    try:
        await request
    except asyncio.CancelledError:
        # How a client that cancels its own call learns of it.
        return "cancelled"
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
            return "cancelled"
        return error_from_call(error).error_reason
    return "complete"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_in_flight_counts_return_to_zero_and_every_request_has_one_outcome(
    run_balancer, seed
):
    rng = random.Random(seed)
    async with running_standins(4, num_parallel=4) as standins:
        balancer = await run_balancer(
            *(standin.url for standin in standins),
            first_token_limit_seconds=1.0,
            canary_limit_seconds=0.5,
            health_interval_seconds=0.1,
        )
        remaining = iter(range(200))
        outcomes = []

        async def caller():
            for _ in remaining:
                if rng.random() < 0.3:
                    await rng.choice(standins).order_fault(count=1, **rng.choice(FAULTS))
                use = embed_once if rng.random() < 0.5 else generate_once
                outcomes.append(await outcome_of(use(balancer, rng)))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(caller())
        async with asyncio.timeout(5):
            while (await balancer.stats()).fleet.in_flight_count:
                await asyncio.sleep(0.01)
        stats = await balancer.stats()
        async with asyncio.timeout(5):
            # A canary, which belongs to no trace, may be under way, but nobody's request is.
            while [
                entry
                for standin in standins
                for entry in await standin.requests()
                if entry["outcome"] == "active" and entry["traceparent"]
            ]:
                await asyncio.sleep(0.01)
        page = {
            (sample.labels["backend"], sample.labels["outcome"]): sample.value
            for family in balancer.runtime.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "balancer_requests_total"
        }
    assert len(outcomes) == 200
    assert set(outcomes) <= REASONS | {"complete", "cancelled"}
    assert outcomes.count("complete") > 40
    for each in stats.backends:
        assert (each.in_flight_count, each.in_flight_text_count) == (0, 0)
        # Each attempt ended in exactly one way.
        ended = sum(value for (backend, _), value in page.items() if backend == each.backend_id)
        assert ended == each.request_count
    fleet = stats.fleet
    # A call cancelled before it arrived is not counted at all.
    assert fleet.request_count <= 200
    succeeded = fleet.request_count - fleet.failure_count - fleet.cancelled_count
    assert (
        outcomes.count("complete")
        <= succeeded
        <= outcomes.count("complete") + outcomes.count("cancelled")
    )
    attempts = [
        span
        for span in balancer.spans.exporter.get_finished_spans()
        if "app.balancer.attempt" in span.attributes
    ]
    assert len(attempts) == sum(each.request_count for each in stats.backends)


def open_sockets():
    """Counts the sockets of this process."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(each.readlink()).startswith("socket:")
    return count


def tasks_of_ours():
    """Counts the tasks of the balancer and of its gRPC server."""
    return sum(
        "services/balancer" in code.co_filename or "services/common" in code.co_filename
        for task in asyncio.all_tasks()
        if (code := getattr(task.get_coro(), "cr_code", None)) is not None
    )


async def leave_soon(balancer, rng):
    """Asks for something and leaves: before it is sent, in the queue, or in the middle."""
    words = rng.choice((2, 200, 2000))
    limit = rng.choice((None, None, None, 0.03))
    request = pb.GenerateRequest(model=CHAT_MODEL, prompt=f"{rng.random()} " + "a word " * words)
    call = balancer.stub.Generate(request, timeout=limit)
    after = rng.choice(("at once", "a while", "start", "middle"))
    try:
        if after == "a while":
            await asyncio.sleep(rng.uniform(0, 0.05))
        elif after != "at once":
            for _ in range(1 if after == "start" else 4):
                await call.read()
        call.cancel()
        await call.code()
    except (asyncio.CancelledError, grpc.aio.AioRpcError):
        # Its deadline was earlier.
        pass


async def leave(balancer, rng, count):
    """Has so many callers leave, and waits until nothing is under way."""
    remaining = iter(range(count))

    async def caller():
        for _ in remaining:
            await leave_soon(balancer, rng)

    async with asyncio.TaskGroup() as group:
        for _ in range(24):
            group.create_task(caller())
    return await balancer.until(
        lambda stats: (
            stats.fleet.in_flight_count == 0
            and not any(each.zombie_count for backend in stats.backends for each in backend.models)
        ),
        10.0,
    )


async def complete(call):
    kinds = [event.WhichOneof("event") async for event in call]
    assert kinds[-1] == "completed"


@pytest.mark.slow
async def test_a_thousand_callers_who_leave_leave_nothing_behind(run_balancer, warm_standins):
    rng = random.Random(1)
    async with warm_standins(3, CHAT_MODEL, num_parallel=2, tokens_per_second=500.0) as standins:
        balancer = await run_balancer(*(f"{standin.url}?slots=2" for standin in standins))
        # Connections are opened, and kept, for the first few.
        await leave(balancer, rng, 100)
        tasks, sockets = tasks_of_ours(), open_sockets()
        stats = await leave(balancer, rng, 1000)
        fleet = stats.fleet
        assert all(each.waiting_count == 0 for each in fleet.queues)
        assert all(each.in_flight_count == 0 for each in stats.backends)
        assert all(each.failure_count == 0 for each in stats.backends)
        assert fleet.healthy_backend_count == 3
        # Many leave before their call has been sent; more the busier the machine is.
        assert fleet.cancelled_count > 100
        outcomes = ("success", "error", "cancelled", "deadline", "refused")
        counts = {
            each: balancer.value("balancer_outcomes_total", outcome=each) for each in outcomes
        }
        assert sum(counts.values()) == fleet.request_count
        assert counts["cancelled"] == fleet.cancelled_count
        assert counts["error"] == 0
        async with asyncio.timeout(5):
            # At most, connections of all slots and of a check of each backend are kept.
            while tasks_of_ours() > tasks or open_sockets() > sockets + 3 * (2 + 3):
                await asyncio.sleep(0.02)
        for standin in standins:
            entries = await standin.requests("/api/generate")
            assert not [entry for entry in entries if entry["outcome"] == "active"]
        # All slots are still good for something.
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                request = pb.GenerateRequest(model=CHAT_MODEL, prompt=f"{number} to end with.")
                group.create_task(complete(balancer.stub.Generate(request)))
