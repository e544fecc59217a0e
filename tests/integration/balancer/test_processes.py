"""The balancer and its backends as processes, one of which dies under load."""

import asyncio
import os
import signal
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from tests.kit.ports import free_port
from tests.kit.rpc import channel_to
from tests.kit.standin import EMBEDDING_MODEL, StandinProcess


@asynccontextmanager
async def balancer_process(**settings):
    """Runs `python -m services.balancer`, and yields a client once it answers."""
    port = free_port()
    environment = {f"PANNIER_BALANCER_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.balancer",
        env=os.environ | environment | {"PANNIER_BALANCER_GRPC_ADDRESS": f"127.0.0.1:{port}"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with channel_to(port) as channel:
            stub = pb_grpc.BalancerServiceStub(channel)
            await stub.GetStats(pb.GetStatsRequest(), wait_for_ready=True, timeout=30)
            yield stub
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.slow
async def test_no_embedding_fails_when_a_backend_dies_under_load_and_it_is_used_again_later():
    async with AsyncExitStack() as stack:
        backends = [StandinProcess(free_port()) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for backend in backends:
                stack.push_async_callback(backend.kill)
                group.create_task(backend.start())
        urls = ",".join(backend.url for backend in backends)
        stub = await stack.enter_async_context(balancer_process(BACKENDS=urls))
        served, stopping = Counter(), asyncio.Event()

        async def caller():
            request = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a text"] * 2)
            while not stopping.is_set():
                response = await stub.Embed(request)
                served[response.backend_id] += 1

        async def until(condition):
            async with asyncio.timeout(30):
                while not condition(await stub.GetStats(pb.GetStatsRequest())):
                    await asyncio.sleep(0.02)

        victim = backends[0]
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(caller())
            await until(lambda stats: served[victim.backend_id] >= 10)
            await victim.kill()
            await until(lambda stats: stats.fleet.healthy_backend_count == 2)
            await victim.start()
            await until(lambda stats: stats.fleet.healthy_backend_count == 3)
            # It starts slowly, but it serves when those that carried its share are gone.
            for other in backends[1:]:
                await other.kill()
            served.clear()
            await until(lambda stats: served[victim.backend_id] >= 10)
            stopping.set()
        stats = await stub.GetStats(pb.GetStatsRequest())
    # Each call was awaited, so that any failure would have ended the test before.
    assert stats.fleet.failure_count == 0
    assert stats.fleet.retry_count >= 1
    assert stats.fleet.in_flight_count == 0


async def test_settings_are_refused_before_anything_starts():
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.balancer",
        env=os.environ | {"PANNIER_BALANCER_BACKENDS": "ollama", "PANNIER_BALANCER_BACKENS": "x"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, problems = await process.communicate()
    assert process.returncode == 64
    assert b"must be http://host:port" in problems
    assert b"PANNIER_BALANCER_BACKENS is no known setting" in problems
