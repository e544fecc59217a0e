"""Redis stops answering while callers go on."""

import asyncio
import os
import signal
import time
from pathlib import Path

import grpc

from pannier.cache.v1 import cache_service_pb2 as pb
from tests.bench.cache.entries import answer, inference_key
from tests.bench.cache.rows import Row
from tests.bench.cache.suite import running_suite

__all__ = ["frozen_redis"]

_WORKER_COUNT = 20
_PAUSE_SECONDS = 0.02
_BEFORE_SECONDS, _FROZEN_SECONDS, _LIMIT_SECONDS = 1.0, 6.0, 20.0


async def frozen_redis(folder: Path, count: int) -> list[Row]:
    """Has callers look up what Redis alone has, freezes it, and lets it go on."""
    del count
    async with running_suite(folder, local_inference_limit_bytes="0B") as suite:
        key = inference_key(1)
        await suite.stub.StoreInference(
            pb.StoreInferenceRequest(key=key, inference=answer(1)), timeout=5
        )
        request = pb.LookupInferenceRequest(key=key)
        frozen_times: list[float] = []
        error_count = 0
        state = {"frozen_at": None, "thawed_at": None, "recovered_at": None}
        done = asyncio.Event()

        async def call() -> None:
            nonlocal error_count
            while not done.is_set():
                started = time.perf_counter()
                try:
                    found = await suite.stub.LookupInference(request, timeout=5)
                except grpc.aio.AioRpcError:
                    error_count += 1
                    continue
                ended = time.perf_counter()
                if state["frozen_at"] is not None and state["thawed_at"] is None:
                    frozen_times.append(ended - started)
                if (
                    state["thawed_at"] is not None
                    and found.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED
                    and state["recovered_at"] is None
                ):
                    state["recovered_at"] = ended
                    done.set()
                await asyncio.sleep(_PAUSE_SECONDS)

        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKER_COUNT):
                group.create_task(call())
            await asyncio.sleep(_BEFORE_SECONDS)
            os.kill(suite.redis.pid, signal.SIGSTOP)
            try:
                state["frozen_at"] = time.perf_counter()
                await asyncio.sleep(_FROZEN_SECONDS)
            finally:
                os.kill(suite.redis.pid, signal.SIGCONT)
            state["thawed_at"] = time.perf_counter()
            try:
                await asyncio.wait_for(done.wait(), _LIMIT_SECONDS)
            finally:
                done.set()
        longest_ms = max(frozen_times) * 1000
        recovery_seconds = state["recovered_at"] - state["thawed_at"]
    return [
        Row(
            f"Redis frozen for {_FROZEN_SECONDS:.0f} s, {_WORKER_COUNT} callers",
            f"longest call {longest_ms:.0f} ms of {len(frozen_times):,}, {error_count} errors",
            "no call above 150 ms, 0 errors",
            longest_ms <= 150 and error_count == 0,
        ),
        Row(
            "shared hits again after it goes on",
            f"{recovery_seconds:.2f} s",
            "< 10 s",
            recovery_seconds < 10,
        ),
    ]
