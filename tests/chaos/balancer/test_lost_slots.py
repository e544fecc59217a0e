"""A fleet of which every server loses its slot when a caller leaves, as Ollama can."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.balancer import ask_ollama
from tests.kit.balancer_process import BalancerProcess, fleet_of_processes, is_idle
from tests.kit.generations import chat, kinds, read

PROFILE = """
builtin_models = false
[[models]]
name = "m"
load_seconds = 0.2
decode_tokens_per_second = 300
"""
BACKENDS = 8
LEAKS = 12
# Else each lost slot takes 8 s to show itself, and 10 s to be proven.
PATIENCE = {"FIRST_TOKEN_FLOOR_SECONDS": "500ms", "CANARY_LIMIT_SECONDS": "500ms"}


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_a_fleet_that_loses_slots_cures_itself_and_every_request_comes_to_an_end(tmp_path):
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE)
    rng, ends, served = random.Random(4), Counter(), Counter()
    async with AsyncExitStack() as stack:
        backends = await fleet_of_processes(stack, BACKENDS, profile)
        balancer = BalancerProcess(
            *(backend.url for backend in backends), log=tmp_path / "balancer.log", **PATIENCE
        )
        stack.push_async_callback(balancer.stop)
        await balancer.start()
        for backend in backends:
            await backend.order_fault(leak_on_disconnect=True)
        leaving, stopping, leavers = asyncio.Event(), asyncio.Event(), set()
        leaving.set()

        async def call_on():
            while not stopping.is_set():
                prompt = f"{rng.random()} <<tokens={rng.randint(20, 60)}>>"
                call = balancer.stub.Chat(chat(prompt, "m"), timeout=30)
                if leaving.is_set() and rng.random() < 0.05:
                    leavers.add(call)
                    await call.read()
                    await asyncio.sleep(0.02)
                    call.cancel()
                    ends["left"] += 1
                    leavers.remove(call)
                    continue
                events, error = await read(call)
                ends[error and error.error_reason] += 1
                if error is None:
                    assert kinds(events)[-1] == "completed"
                    served[events[0].started.backend_id] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(call_on())
            await balancer.until(
                lambda stats: sum(each.stall_count for each in stats.backends) >= LEAKS,
                within_seconds=60,
            )
            leaving.clear()
            # Whoever is still to be served first takes a slot along from a backend later on.
            async with asyncio.timeout(30):
                while leavers:
                    await asyncio.sleep(0.01)
            served.clear()
            # Those that were lost last come to light when they are asked next. Whoever was out has
            # shown with a token that it is well, and is spared for a while.
            await balancer.until(
                lambda stats: all(
                    served[each.backend_id] >= 5 or each.state == pb.BACKEND_STATE_RETURNING
                    for each in stats.backends
                ),
                within_seconds=30,
            )
            stopping.set()
        await balancer.until(is_idle)
        unloads = 0
        for backend in backends:
            async with asyncio.timeout(5):
                await ask_ollama(backend.url, "/api/generate", model="m", prompt="<<tokens=2>>")
            unloads += (await backend.totals())["unloads"]
    assert ends.keys() <= {None, "left", "ALL_ATTEMPTS_FAILED"}
    assert ends["ALL_ATTEMPTS_FAILED"] < 0.05 * ends.total()
    assert unloads >= LEAKS
