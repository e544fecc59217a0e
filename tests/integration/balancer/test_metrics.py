"""What `/metrics` says of a balancer is so: each figure is driven by calls over gRPC."""

import asyncio
import random
import time
from collections import Counter

import aiohttp
import grpc
import pytest
from aiohttp import web
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.balancer.metrics import CATALOGUE
from services.common.clock import SystemClock
from services.common.metrics import COMMON_METRICS
from tests.kit.balancer import opened_admin
from tests.kit.generations import chat, generation, read, read_all, unrelated
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, eventually, running_standins

INTERACTIVE = "interactive"
# Shown where a label has had no room, which does not happen here.
NOT_HERE = {"telemetry_label_overflow_total"}
FAULTS = (
    {"status": 500},
    {"status": 503},
    {"status": 400},
    {"drop_after_tokens": 0},
    {"drop_after_tokens": 4},
    {"error_line_after_tokens": 2},
    {"no_done": True},
    {"delay_seconds": 0.03},
)


async def page_of(balancer):
    """Reads `/metrics` as Prometheus does."""
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    url = f"http://127.0.0.1:{balancer.http_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, headers=accept) as reply:
        text = await reply.text()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def values_of(samples, name, **labels):
    return [
        sample.value
        for sample in samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def lists_memory(server, **bytes_by_model):
    models = [
        {"name": f"{name}:latest", "digest": name[0] * 64, "size": 9, "size_vram": count}
        for name, count in bytes_by_model.items()
    ]
    tags = [each | {"capabilities": ["completion"], "details": {}} for each in models]
    server.replies["/api/tags"] = lambda request: web.json_response({"models": tags})
    loaded = [each | {"expires_at": "2319-01-01T00:00:00Z"} for each in models]
    server.replies["/api/ps"] = lambda request: web.json_response({"models": loaded})


async def test_the_depth_of_the_queue_is_right_at_every_moment(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    works = server.hold()
    balancer = await run_balancer(server.url)

    def depth(priority=INTERACTIVE):
        return balancer.value("balancer_queue_depth", priority=priority)

    assert [depth(each) for each in ("system", INTERACTIVE, "batch")] == [0, 0, 0]
    calls = [balancer.stub.Generate(generation(unrelated(0), "m"))]
    readers = [asyncio.create_task(read(calls[0]))]
    first = await works.get()
    batch = generation("b", "m", routing=pb.RoutingOptions(priority=pb.PRIORITY_BATCH))
    calls += [balancer.stub.Generate(generation(unrelated(n), "m")) for n in (1, 2)]
    calls.append(balancer.stub.Generate(batch))
    readers += [asyncio.create_task(read(call)) for call in calls[1:]]
    await eventually(lambda: (depth(), depth("batch")) == (2, 1))
    calls[2].cancel()
    await eventually(lambda: depth() == 1)
    first.end()
    (await works.get()).end()
    (await works.get()).end()
    await asyncio.wait(readers)
    assert (depth(), depth("batch")) == (0, 0)
    waits = balancer.value("balancer_queue_wait_seconds_count", priority=INTERACTIVE)
    # Who left without a slot has not waited for one.
    assert (waits, balancer.value("balancer_queue_wait_seconds_count", priority="batch")) == (2, 1)


async def test_graphics_memory_is_shown_of_models_that_are_there_and_of_no_others(
    run_balancer, scripted
):
    servers = [await scripted() for _ in range(2)]
    for server in servers:
        lists_memory(server, alpha=500, beta=0)
    balancer = await run_balancer(
        *(each.url for each in servers), listing_interval_seconds=0.05, health_interval_seconds=0.2
    )
    name = "balancer_backend_model_vram_bytes"
    first, second = (each.backend_id for each in servers)

    def shown(backend):
        return {
            sample.labels["model"]: sample.value
            for family in balancer.runtime.metrics.registry.collect()
            for sample in family.samples
            if sample.name == name and sample.labels["backend"] == backend
        }

    both = {"alpha:latest": 500, "beta:latest": 0}
    await eventually(lambda: shown(first) == shown(second) == both)
    lists_memory(servers[0], beta=70)
    await eventually(lambda: shown(first) == {"beta:latest": 70})
    assert shown(second) == both
    async with opened_admin(balancer.grpc_port) as admin:
        await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=second, grace={}))
        await eventually(lambda: not shown(second))
        await admin.AddBackend(pb.AddBackendRequest(endpoint=servers[1].url))
        await eventually(lambda: shown(second) == both)


async def test_more_models_than_there_is_room_for_are_added_up(run_balancer, scripted):
    server = await scripted()
    names = [f"{chr(97 + number)}model" for number in range(24)]
    lists_memory(server, **dict.fromkeys(names, 10))
    balancer = await run_balancer(server.url)
    name, backend = "balancer_backend_model_vram_bytes", server.backend_id
    await eventually(lambda: balancer.value(name, backend=backend, model="_other") == 40)
    samples = await page_of(balancer)
    assert len(values_of(samples, name)) == 21
    assert sum(values_of(samples, name)) == 240
    assert values_of(samples, "telemetry_label_overflow_total", label="model") == [4]


async def test_connections_are_counted_and_so_is_the_wait_for_them(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    works = server.hold()
    balancer = await run_balancer(f"{server.url}?slots=3", listing_interval_seconds=60.0)

    async def connections():
        samples = await page_of(balancer)
        return {
            state: values_of(samples, "connection_pool_connections", pool="ollama", state=state)[0]
            for state in ("in_use", "idle")
        }

    async def until(**expected):
        async with asyncio.timeout(20):
            while not expected.items() <= (await connections()).items():
                await asyncio.sleep(0.02)

    # From the check at the start, which asks three things at once.
    await until(in_use=0, idle=3)
    waits = balancer.value("connection_pool_wait_seconds_count", pool="ollama")
    readers = [
        asyncio.create_task(read(balancer.stub.Generate(generation(unrelated(n), "m"))))
        for n in range(2)
    ]
    held = [await works.get() for _ in range(2)]
    await until(in_use=2, idle=1)
    assert balancer.value("connection_pool_wait_seconds_count", pool="ollama") == waits + 2
    assert balancer.value("connection_pool_max_connections", pool="ollama") == 0
    for work in held:
        work.say("x")
        work.end()
    await asyncio.wait(readers)
    await until(in_use=0, idle=3)


async def test_connections_of_a_backend_that_has_gone_are_not_counted(run_balancer, scripted):
    servers = [await scripted() for _ in range(2)]
    for server in servers:
        server.has("m:latest")
    balancer = await run_balancer(*(each.url for each in servers), listing_interval_seconds=60.0)
    idle = {"pool": "ollama", "state": "idle"}
    assert values_of(await page_of(balancer), "connection_pool_connections", **idle) == [6]
    async with opened_admin(balancer.grpc_port) as admin:
        request = pb.RemoveBackendRequest(backend_id=servers[0].backend_id, grace={})
        await admin.RemoveBackend(request)
    assert values_of(await page_of(balancer), "connection_pool_connections", **idle) == [3]


async def test_a_retry_is_counted_when_it_is_made_and_not_when_nobody_is_left(
    run_balancer, scripted
):
    servers = [await scripted() for _ in range(2)]
    for server in servers:
        server.has("m:latest")
        server.replies["/api/generate"] = lambda request: web.json_response(
            {"error": "it failed"}, status=500
        )
    balancer = await run_balancer(*(each.url for each in servers))
    _, error = await read(balancer.stub.Generate(generation("a", "m")))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    attempts = sum(values_of(await page_of(balancer), "balancer_requests_total", outcome="error"))
    assert attempts == 2
    assert balancer.value("balancer_retries_total", reason="server_error") == 1
    assert balancer.value("balancer_outcomes_total", outcome="error") == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_call_that_arrived_has_one_outcome_and_every_attempt_too(
    run_balancer, warm_standins, seed
):
    rng = random.Random(seed)
    async with warm_standins(3, tokens_per_second=400.0) as standins:
        balancer = await run_balancer(
            *(each.url for each in standins),
            queue_limit_interactive=4,
            first_token_limit_seconds=1.0,
            canary_limit_seconds=0.3,
        )

        async def one():
            kind = rng.choice(("chat", "generate", "embed", "invalid", "unknown"))
            limit = rng.choice((None, None, None, 0.001, 0.03))
            match kind:
                case "embed":
                    texts = ["a"] * rng.choice((1, 9))
                    request = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=texts)
                    call = balancer.stub.Embed(request, timeout=limit)
                case "invalid":
                    call = balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL))
                case "unknown":
                    call = balancer.stub.Generate(generation("x", "nobody-has-it"), timeout=limit)
                case "chat":
                    call = balancer.stub.Chat(chat(unrelated(rng.random())), timeout=limit)
                case _:
                    call = balancer.stub.Generate(
                        generation(unrelated(rng.random())), timeout=limit
                    )
            reading = asyncio.create_task(
                error_or_result(call) if kind in ("embed", "invalid") else read_all_of(call)
            )
            if rng.random() < 0.3:
                await asyncio.sleep(rng.uniform(0, 0.03))
                call.cancel()
            await asyncio.wait([reading])

        remaining = iter(range(120))

        async def caller():
            for _ in remaining:
                if rng.random() < 0.3:
                    await rng.choice(standins).order_fault(count=1, **rng.choice(FAULTS))
                await one()

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(caller())
        async with asyncio.timeout(20):
            while any(values_of(await page_of(balancer), "rpc_server_active_calls")):
                await asyncio.sleep(0.02)
        busy = {"pool": "ollama", "state": "in_use"}
        async with asyncio.timeout(20):
            # Now and then, somebody looks what is in memory.
            while any(values_of(await page_of(balancer), "connection_pool_connections", **busy)):
                await asyncio.sleep(0.02)
        stats, samples = await balancer.stats(), await page_of(balancer)
    arrived = Counter()
    for sample in samples:
        if sample.name == "rpc_server_call_duration_seconds_count":
            arrived[sample.labels["rpc_method"].rsplit("/", 1)[1]] += sample.value
    calls = sum(arrived[name] for name in ("Chat", "Generate", "Embed"))
    outcomes = {
        sample.labels["outcome"]: sample.value
        for sample in samples
        if sample.name == "balancer_outcomes_total"
    }
    # Of those that leave, some are gone before they arrive.
    assert sum(outcomes.values()) == calls > 30
    assert outcomes["success"]
    assert outcomes["rejected"]
    assert sum(outcomes.values()) > outcomes["success"] + outcomes["rejected"]
    assert sum(values_of(samples, "balancer_overhead_seconds_count")) == calls
    assert not any(values_of(samples, "balancer_queue_depth"))
    assert not any(values_of(samples, "balancer_backend_inflight"))
    for backend in stats.backends:
        ended = values_of(samples, "balancer_requests_total", backend=backend.backend_id)
        assert sum(ended) == backend.request_count
    assert sum(values_of(samples, "balancer_retries_total")) == stats.fleet.retry_count


async def error_or_result(call):
    try:
        return await call
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return error


async def read_all_of(call):
    try:
        async for _ in call:
            pass
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return error


async def test_the_retry_budget_fills_up_again_while_there_are_no_calls(
    run_balancer, warm_standins, monkeypatch
):
    name = "balancer_retry_budget_ratio"
    async with warm_standins(2) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        assert values_of(await page_of(balancer), name) == [1.0]
        for each in standins:
            await each.order_fault(status=500, count=2)
        await read(balancer.stub.Chat(chat()))
        (left,) = values_of(await page_of(balancer), name)
        assert left < 1.0
        # Beyond what the budget remembers; nobody calls meanwhile.
        monkeypatch.setattr(SystemClock, "monotonic", lambda _clock: time.monotonic() + 11.0)
        assert values_of(await page_of(balancer), name) == [1.0]


async def test_the_overhead_is_a_small_part_of_a_call(run_balancer, warm_standins):
    async with warm_standins(1, tokens_per_second=200.0) as (standin,):
        balancer = await run_balancer(standin.url)
        for _ in range(3):
            await read(balancer.stub.Chat(chat()))
    seconds = balancer.value("balancer_overhead_seconds_sum", operation="chat")
    whole = balancer.value("balancer_operation_duration_seconds_sum", operation="chat")
    assert balancer.value("balancer_overhead_seconds_count", operation="chat") == 3
    assert 0 < seconds < whole / 2


async def test_times_point_at_the_traces_of_their_calls(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        await read(balancer.stub.Chat(chat()))
        await eventually(lambda: balancer.spans.named("/Chat"))
        samples = await page_of(balancer)
    trace_id = f"{balancer.spans.named('/Chat')[0].context.trace_id:032x}"
    for name in (
        "balancer_time_to_first_token_seconds",
        "balancer_request_duration_seconds",
        "balancer_operation_duration_seconds",
    ):
        (found,) = (
            each.exemplar for each in samples if each.name == f"{name}_bucket" and each.exemplar
        )
        assert found.labels["trace_id"] == trace_id


async def test_every_family_of_the_catalogue_has_samples_after_a_busy_minute(
    run_balancer, warm_standins
):
    async with warm_standins(2) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        await standins[0].order_fault(status=500, count=1)
        calls = (balancer.stub.Chat(chat(unrelated(number))) for number in range(4))
        await read_all(*calls)
        await balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"]))
        await error_of(balancer.stub.Embed(pb.EmbedRequest(model="x", texts=["a"])))
        name = "balancer_backend_model_vram_bytes"
        backend = standins[0].backend_id
        await eventually(
            lambda: balancer.value(name, backend=backend, model=CHAT_MODEL) is not None
        )
        shown = {sample.name for sample in await page_of(balancer)}
    expected = {metric.name for metric in (*COMMON_METRICS, *CATALOGUE)} - NOT_HERE
    suffixes = ("", "_count")
    missing = [name for name in expected if not any(name + each in shown for each in suffixes)]
    assert not missing


async def test_backends_are_shown_by_host_and_port_only(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(f"{standin.url}?slots=2")
        await read(balancer.stub.Chat(chat()))
        async with opened_admin(balancer.grpc_port) as admin:
            error = await error_of(
                admin.AddBackend(pb.AddBackendRequest(endpoint="http://ann:secret@127.0.0.1:9"))
            )
        samples = await page_of(balancer)
    assert error.error_reason == "INVALID_FIELD"
    shown = {sample.labels["backend"] for sample in samples if "backend" in sample.labels}
    assert shown == {standin.backend_id}
    assert "secret" not in str(samples)


async def test_how_healthy_a_backend_is_shown_goes_with_it(run_balancer):
    async with running_standins(2) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        gone, stays = (each.backend_id for each in standins)
        name = "balancer_backend_healthy"
        await standins[0].stop()
        await balancer.health(check_now=True)
        assert balancer.value(name, backend=gone) == 0
        assert balancer.value(name, backend=stays) == 1
        async with opened_admin(balancer.grpc_port) as admin:
            await admin.RemoveBackend(pb.RemoveBackendRequest(backend_id=gone, grace={}))
        await eventually(lambda: balancer.value(name, backend=gone) is None)
        await balancer.health(check_now=True)
        samples = await page_of(balancer)
    assert {each.labels["backend"] for each in samples if "backend" in each.labels} == {stays}
