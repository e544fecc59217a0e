"""Whatever goes wrong, every request ends once and nothing is left counted as under way."""

import asyncio
import random

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
            first_token_limit_seconds=2.0,
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
        entries = [entry for standin in standins for entry in await standin.requests()]
        page = {
            (sample.labels["backend"], sample.labels["operation"], sample.labels["outcome"]):
                sample.value
            for family in balancer.runtime.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "balancer_requests_total"
        }  # fmt: skip
    assert len(outcomes) == 200
    assert set(outcomes) <= REASONS | {"complete", "cancelled"}
    assert outcomes.count("complete") > 40
    for each in stats.backends:
        assert (each.in_flight_count, each.in_flight_text_count) == (0, 0)
        # Each attempt ended in exactly one way.
        ended = sum(value for (backend, _, _), value in page.items() if backend == each.backend_id)
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
    assert not [entry for entry in entries if entry["outcome"] == "active" and entry["model"]]
    attempts = [
        span
        for span in balancer.spans.exporter.get_finished_spans()
        if "app.backend" in span.attributes
    ]
    assert len(attempts) == sum(each.request_count for each in stats.backends)
