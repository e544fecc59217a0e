"""Exact look-ups: local, shared, batched."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pannier.cache.v1 import cache_service_pb2 as pb
from tests.bench import processes
from tests.bench.cache.entries import answer, inference_key, vectors
from tests.bench.cache.rows import Row, milliseconds
from tests.bench.cache.suite import Suite, running_suite
from tests.bench.empty_calls import answering_calls

__all__ = ["batches", "local_hits", "shared_hits"]

_KEY_COUNT = 500
_WORKER_COUNT = 16
_EMBEDDING_SPACE = pb.EmbeddingSpace(model_digest="e1" * 32)
_DIMENSION = 768


async def _fill(suite: Suite) -> list[pb.LookupInferenceRequest]:
    requests = []
    for number in range(_KEY_COUNT):
        key = inference_key(number)
        await suite.stub.StoreInference(
            pb.StoreInferenceRequest(key=key, inference=answer(number)), timeout=5
        )
        requests.append(pb.LookupInferenceRequest(key=key))
    return requests


async def _timed(call: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    times = []
    for number in range(count):
        started = time.perf_counter()
        await call(number)
        times.append(time.perf_counter() - started)
    return times


async def local_hits(folder: Path, count: int) -> list[Row]:
    """Measures hits in the local level, one after the other and many at a time."""
    async with running_suite(folder) as suite:
        requests = await _fill(suite)

        async def look_up(number: int) -> None:
            found = await suite.stub.LookupInference(requests[number % _KEY_COUNT], timeout=5)
            assert found.outcome == pb.LOOKUP_OUTCOME_HIT_LOCAL

        await _timed(look_up, 200)
        p50, p99 = milliseconds(await _timed(look_up, count))
        empty = await _empty_call(folder, requests[0].ByteSize(), count)
        numbers = iter(range(4 * count))

        async def work() -> None:
            for number in numbers:
                await look_up(number)

        pid = suite.replicas[0].started.pid
        cpu_before, started = processes.cpu_seconds(pid), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKER_COUNT):
                group.create_task(work())
        wall = time.perf_counter() - started
        per_core = 4 * count / (processes.cpu_seconds(pid) - cpu_before)
    return [
        Row(
            "local hit, 3 KB, one caller",
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            "p50 <= 1 ms, p99 <= 5 ms",
            p50 <= 1 and p99 <= 5,
        ),
        empty,
        Row(
            f"local hit, {_WORKER_COUNT} callers",
            f"{per_core:,.0f} lookups per core second ({4 * count / wall:,.0f}/s of wall time)",
            ">= 1,500/s per core",
            per_core >= 1500,
        ),
    ]


async def _empty_call(folder: Path, request_bytes: int, count: int) -> Row:
    """Measures what gRPC and its caller take of such a hit."""
    reply_bytes = answer(0).ByteSize()
    async with answering_calls(
        folder, request_bytes=request_bytes, reply_bytes=reply_bytes
    ) as empty_call:
        await _timed(lambda _: empty_call(), 200)
        p50, p99 = milliseconds(await _timed(lambda _: empty_call(), count))
    return Row("  a call of that size that does nothing", f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")


async def shared_hits(folder: Path, count: int) -> list[Row]:
    """Measures hits in Redis: the replica has no local level."""
    async with running_suite(folder, local_inference_limit_bytes="0B") as suite:
        requests = await _fill(suite)

        async def look_up(number: int) -> None:
            found = await suite.stub.LookupInference(requests[number % _KEY_COUNT], timeout=5)
            assert found.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED

        await _timed(look_up, 200)
        p50, p99 = milliseconds(await _timed(look_up, count))
    return [
        Row(
            "shared hit, 3 KB, one caller",
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            "p50 <= 2 ms, p99 <= 10 ms",
            p50 <= 2 and p99 <= 10,
        )
    ]


async def batches(folder: Path, count: int) -> list[Row]:
    """Measures 100 embeddings in one call, all from Redis."""
    texts = [f"text number {number}" for number in range(100)]
    async with running_suite(folder, local_embedding_limit_bytes="0B") as suite:
        entries = [
            pb.EmbeddingEntry(text=text, vector=vector)
            for text, vector in zip(texts, vectors(100, _DIMENSION, 1), strict=True)
        ]
        await suite.stub.StoreEmbeddings(
            pb.StoreEmbeddingsRequest(space=_EMBEDDING_SPACE, entries=entries), timeout=5
        )
        request = pb.LookupEmbeddingsRequest(space=_EMBEDDING_SPACE, texts=texts)

        async def look_up(_: int) -> None:
            found = await suite.stub.LookupEmbeddings(request, timeout=5)
            assert all(each.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED for each in found.lookups)

        await _timed(look_up, 20)
        p50, p99 = milliseconds(await _timed(look_up, max(100, count // 5)))
    return [
        Row(
            f"100 embeddings of {_DIMENSION} in one call, all shared hits",
            f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
            "p50 <= 8 ms",
            p50 <= 8,
        )
    ]
