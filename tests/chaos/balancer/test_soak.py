"""Thousands of callers who behave badly, in front of one balancer process, which must not mind."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack

import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from services.common.status import error_from_call
from tests.kit.balancer_process import BalancerProcess, fleet_of_processes, is_idle
from tests.kit.generations import chat, kinds, read

# `quick` answers in some milliseconds; `long` would go on for minutes.
PROFILE = """
builtin_models = false
[[models]]
name = "quick"
load_seconds = 0.1
decode_tokens_per_second = 2000
prefill_tokens_per_second = 100000
[[models]]
name = "long"
load_seconds = 0.1
decode_tokens_per_second = 20000
prefill_tokens_per_second = 100000
[[models]]
name = "embed"
capability = "embedding"
load_seconds = 0.1
prefill_tokens_per_second = 10000000
"""
SLOTS = 4
MEBIBYTE = 2**20


@pytest.fixture
async def fleet(tmp_path):
    profile = tmp_path / "profile.toml"
    profile.write_text(PROFILE)
    async with AsyncExitStack() as stack:
        backends = await fleet_of_processes(
            stack, 4, profile, f"--num-parallel={SLOTS}", "--context-length=1000000"
        )
        balancer = BalancerProcess(
            *(backend.url for backend in backends),
            log=tmp_path / "balancer.log",
            SLOTS_PER_MODEL=str(SLOTS),
            QUEUE_LIMIT_INTERACTIVE="4096",
        )
        stack.push_async_callback(balancer.stop)
        await balancer.start()
        yield balancer, backends


def report(*figures):
    """Says what was measured; shown with `pytest -s`."""
    print(*figures, sep="; ")  # noqa: T201 - its purpose


async def in_parallel(count, callers, do):
    """Does something so often, by so many callers at a time; returns what it took, in seconds."""
    began_at, numbers = time.monotonic(), iter(range(count))

    async def call_on():
        for number in numbers:
            await do(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(call_on())
    return time.monotonic() - began_at


async def check_unharmed(balancer, backends, before):
    """Everything has been given back, and the next request is served at once."""
    await balancer.until(is_idle)
    began_at = time.monotonic()
    events, error = await read(balancer.stub.Chat(chat("<<tokens=2>>", "quick"), timeout=5))
    assert error is None
    assert kinds(events)[-1] == "completed"
    assert time.monotonic() - began_at < 0.5
    for backend in backends:
        # At most until it has noticed that the caller before has left.
        assert (await backend.totals())["max_slot_wait_seconds"] < 0.1
    async with asyncio.timeout(10):
        while True:
            after = balancer.footprint()
            # As many connections as there are slots may stay open.
            if after.descriptor_count <= before.descriptor_count + len(backends) * SLOTS:
                break
            await asyncio.sleep(0.1)
    return after


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_callers_who_leave_at_any_moment_leave_nothing_behind(fleet):
    balancer, backends = fleet
    rng, ends = random.Random(1), Counter()

    async def leave(number):
        call = balancer.stub.Chat(chat(f"{number} <<tokens={rng.randint(1, 60)}>>", "quick"))
        moment = rng.random()
        end = "queue"
        if moment < 0.4:
            await asyncio.sleep(rng.uniform(0.0, 0.05))
        else:
            event = await call.read()
            end = "first"
            for _ in range(rng.randint(0, 20) if moment > 0.6 else 0):
                if event is grpc.aio.EOF or event.WhichOneof("event") == "completed":
                    end = "served"
                    break
                end = "middle"
                event = await call.read()
        call.cancel()
        ends[end] += 1

    await in_parallel(1000, 64, leave)
    await balancer.until(is_idle)
    before = balancer.footprint()
    seconds = await in_parallel(5000, 64, leave)
    between = await check_unharmed(balancer, backends, before)
    seconds += await in_parallel(5000, 64, leave)
    after = await check_unharmed(balancer, backends, before)
    report(f"{10_000 / seconds:.0f} per second, {dict(ends)}", before, between, after)
    assert after.memory_bytes - between.memory_bytes < 4 * MEBIBYTE
    assert (await balancer.stats()).fleet.failure_count == 0


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_two_thousand_callers_who_never_read_and_leave_leave_nothing_behind(fleet):
    balancer, backends = fleet
    rng = random.Random(2)

    async def ignore(number):
        # Half a megabyte, far more than is held for a caller.
        call = balancer.stub.Chat(chat(f"{number} <<tokens=125000>>", "long"))
        await asyncio.sleep(rng.uniform(0.05, 0.5))
        call.cancel()

    await in_parallel(200, 100, ignore)
    await balancer.until(is_idle)
    before = balancer.footprint()
    seconds = await in_parallel(1000, 100, ignore)
    between = await check_unharmed(balancer, backends, before)
    seconds += await in_parallel(1000, 100, ignore)
    after = await check_unharmed(balancer, backends, before)
    report(f"{2000 / seconds:.0f} per second", before, between, after)
    assert after.memory_bytes - between.memory_bytes < 8 * MEBIBYTE


@pytest.mark.slow
async def test_callers_without_time_are_told_so_and_leave_nothing_behind(fleet):
    balancer, backends = fleet
    rng, ends = random.Random(3), Counter()

    async def hurry(number):
        timeout = rng.choice([0.0, 0.0001, 0.001, 0.005, 0.02])
        if number % 3:
            request = chat(f"{number} <<tokens=200>>", "quick")
            _, error = await read(balancer.stub.Chat(request, timeout=timeout))
        else:
            request, error = pb.EmbedRequest(model="embed", texts=[f"text {number}"]), None
            try:
                await balancer.stub.Embed(request, timeout=timeout)
            except grpc.aio.AioRpcError as failure:
                error = error_from_call(failure)
        ends[error and error.status_code] += 1

    before = balancer.footprint()
    await in_parallel(1000, 32, hurry)
    await check_unharmed(balancer, backends, before)
    assert ends.keys() <= {None, StatusCode.DEADLINE_EXCEEDED}
    assert ends[StatusCode.DEADLINE_EXCEEDED] > 600


@pytest.mark.slow
async def test_huge_requests_are_refused_or_served_and_memory_is_given_back(fleet):
    balancer, backends = fleet
    refusals = Counter()

    async def ask_too_much(number):
        request = chat("a" * 10_000_000 if number % 4 else "a" * 40_000_000, "quick")
        _, error = await read(balancer.stub.Chat(request, timeout=20))
        refusals[error.status_code, error.error_reason] += 1

    async def embed_much(number):
        texts = [f"{number} {index} ".ljust(100_000, "x") for index in range(100)]
        reply = await balancer.stub.Embed(pb.EmbedRequest(model="embed", texts=texts), timeout=30)
        assert len(reply.vectors) == len(texts)

    before = balancer.footprint()
    await in_parallel(24, 4, ask_too_much)
    await in_parallel(6, 2, embed_much)
    between = await check_unharmed(balancer, backends, before)
    await in_parallel(24, 4, ask_too_much)
    await in_parallel(6, 2, embed_much)
    after = await check_unharmed(balancer, backends, before)
    report(dict(refusals), before, between, after)
    # The allocator keeps some of it; of a gigabyte that has come, most must be gone.
    assert after.memory_bytes < 640 * MEBIBYTE
    assert refusals == {
        (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"): 36,
        (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"): 12,
    }


LIES = [
    {"path": "/api/chat", "garbage_after_tokens": 0},
    {"path": "/api/chat", "garbage_after_tokens": 3},
    {"path": "/api/chat", "no_done": True},
    {"path": "/api/chat", "echo_model": "another"},
    {"path": "/api/chat", "cut_chunk_after_tokens": 2},
    {"path": "/api/chat", "error_line_after_tokens": 0},
    {"path": "/api/embed", "echo_model": "another"},
    {"path": "/api/embed", "embeddings_missing": 1},
    {"path": "/api/embed", "embeddings_missing": -1},
    {"path": "/api/embed", "embedding_nan": True},
]


@pytest.mark.slow
async def test_no_lie_of_a_backend_reaches_a_caller(fleet):
    balancer, backends = fleet
    ends, truths, answered = Counter(), {}, set()
    for backend in backends:
        await balancer.admin.PreloadModel(
            pb.PreloadModelRequest(model="embed", backend_id=backend.backend_id)
        )
    for number in range(20):
        texts = [f"{number} is a text", f"{number} is another"]
        reply = await balancer.stub.Embed(pb.EmbedRequest(model="embed", texts=texts), timeout=20)
        truths[number] = [each.float32_le for each in reply.vectors]
    for index, lie in enumerate(LIES):
        for backend in backends:
            await backend.order_fault(**lie, probability=0.02, seed=index)
    # How long vectors are is what most backends say.
    await backends[0].order_fault(path="/api/embed", embedding_dimensions=100, probability=0.1)

    async def ask(number):
        if number % 2:
            request = chat(f"{number} <<tokens=10>>", "quick")
            trace_id = f"{number:032x}"
            metadata = (("traceparent", f"00-{trace_id}-{number:016x}-01"),)
            events, error = await read(balancer.stub.Chat(request, timeout=20, metadata=metadata))
            found = kinds(events)
            ends["chat", error and error.error_reason] += 1
            assert found.count("completed") == (error is None)
            if error is None:
                text = "".join(event.text_delta for event in events)
                assert len(text) == 40
                answered.add(trace_id)
            return
        which = number // 2 % 20
        texts = [f"{which} is a text", f"{which} is another"]
        try:
            reply = await balancer.stub.Embed(
                pb.EmbedRequest(model="embed", texts=texts), timeout=20
            )
        except grpc.aio.AioRpcError as failure:
            ends["embed", error_from_call(failure).error_reason] += 1
            return
        ends["embed", None] += 1
        assert [each.float32_le for each in reply.vectors] == truths[which]

    await in_parallel(1500, 16, ask)
    for backend in backends:
        await backend.clear_faults()
    await balancer.until(is_idle)
    await balancer.until(
        lambda stats: stats.fleet.healthy_backend_count == len(backends), within_seconds=40
    )
    report(dict(ends))
    entries = [each for backend in backends for each in await backend.requests("/api/chat")]
    liars = [each for each in entries if "echo_model" in each["faults"]]
    assert liars
    # Which model has answered does not show by the text; each answer is of a backend that was true.
    true = {each["traceparent"].split("-")[1] for each in entries if each not in liars}
    assert answered <= true
    assert {reason for _, reason in ends} <= {None, "STREAM_INTERRUPTED", "ALL_ATTEMPTS_FAILED"}
    assert ends["chat", None] + ends["embed", None] > 1300
