"""A balancer that is frozen for a while does not blame its backends when it goes on."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.balancer_process import BalancerProcess, fleet_of_processes, is_idle
from tests.kit.generations import chat, kinds, read

pytestmark = pytest.mark.slow

PROFILE = """
builtin_models = false
[[models]]
name = "talk"
load_seconds = 0.1
decode_tokens_per_second = 50
"""
# Far less than it is frozen for.
PATIENCE = {"FIRST_TOKEN_FLOOR_SECONDS": "500ms", "STALL_FLOOR_SECONDS": "500ms"}
FROZEN_SECONDS = 2.0


@pytest.mark.parametrize("frozen", ["the balancer", "its whole machine"])
async def test_who_was_frozen_goes_on_with_all_answers_where_they_were(tmp_path, frozen):
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE)
    async with AsyncExitStack() as stack:
        backends = await fleet_of_processes(stack, 3, profile, "--num-parallel=2")
        balancer = BalancerProcess(
            *(backend.url for backend in backends),
            log=tmp_path / "balancer.log",
            SLOTS_PER_MODEL="2",
            **PATIENCE,
        )
        stack.push_async_callback(balancer.kill)
        await balancer.start()

        async def answer(token_count):
            events, error = await read(
                balancer.stub.Chat(chat(f"<<tokens={token_count}>>", "talk"))
            )
            assert error is None
            assert kinds(events)[-1] == "completed"
            return events[0].started.attempt_count

        # The model is loaded everywhere, and known.
        for _ in range(3):
            await asyncio.gather(*(answer(5) for _ in range(6)))
        # Some are being answered, and others wait for a slot.
        answers = [asyncio.ensure_future(answer(150)) for _ in range(6)]
        answers += [asyncio.ensure_future(answer(20)) for _ in range(3)]
        await balancer.until(lambda stats: stats.fleet.in_flight_count == 9)
        processes = [balancer, *(backends if frozen == "its whole machine" else [])]
        for process in processes:
            process.freeze()
        await asyncio.sleep(FROZEN_SECONDS)
        for process in reversed(processes):
            process.thaw()
        assert await asyncio.gather(*answers) == [1] * 9
        await balancer.until(is_idle)
        stats = await balancer.stats()
        assert [each.state for each in stats.backends] == [pb.BACKEND_STATE_HEALTHY] * 3
        assert [each.stall_count for each in stats.backends] == [0] * 3
    assert "stalled model" not in (tmp_path / "balancer.log").read_text()
