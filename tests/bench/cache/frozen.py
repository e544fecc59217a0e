"""Redis stops answering while callers go on."""

import asyncio
import os
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import grpc

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import semantic_pb2
from tests.bench.cache.entries import answer, inference_key, partition, vectors
from tests.bench.cache.rows import Row
from tests.bench.cache.suite import Suite, running_suite

__all__ = ["frozen_redis"]

_WORKER_COUNT = 20
_PAUSE_SECONDS = 0.02
_BEFORE_SECONDS, _FROZEN_SECONDS, _LIMIT_SECONDS = 1.0, 6.0, 20.0
_CALL_SECONDS = 5.0
_DIGEST = "e1" * 32
_DIMENSION = 384

Call = Callable[[], Awaitable[object]]


@dataclass
class _Watch:
    """What callers see.

    Attributes:
        frozen: Whether Redis is.
        thawed_at: When it went on; None before.
        recovered_at: When it was first used again; None before.
        seconds: How long calls took while it was frozen, by what was called.
        error_count: Calls that failed.
        done: Whether callers may stop.
    """

    frozen: bool = False
    thawed_at: float | None = None
    recovered_at: float | None = None
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    error_count: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def make(self, name: str, call: Call) -> None:
        """Makes a call and notes how it went."""
        started = time.perf_counter()
        try:
            reply = await call()
        except grpc.aio.AioRpcError:
            self.error_count += 1
            return
        ended = time.perf_counter()
        if self.frozen:
            self.seconds[name].append(ended - started)
        is_shared = getattr(reply, "outcome", None) == pb.LOOKUP_OUTCOME_HIT_SHARED
        if name == "LookupInference" and is_shared and self.thawed_at is not None:
            self.recovered_at = self.recovered_at or ended
            self.done.set()


async def frozen_redis(folder: Path, count: int) -> list[Row]:
    """Has callers look up what Redis alone has, freezes it, and lets it go on."""
    del count
    watch = _Watch()
    async with running_suite(folder, local_inference_limit_bytes="0B") as suite:
        await suite.stub.StoreInference(
            pb.StoreInferenceRequest(key=inference_key(1), inference=answer(1)),
            timeout=_CALL_SECONDS,
        )
        calls = _calls(suite)

        async def work() -> None:
            for name, call in cycle(calls.items()):
                if watch.done.is_set():
                    return
                await watch.make(name, call)
                await asyncio.sleep(_PAUSE_SECONDS)

        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKER_COUNT):
                group.create_task(work())
            await asyncio.sleep(_BEFORE_SECONDS)
            await _freeze(suite, watch)
    return _rows(watch)


def _calls(suite: Suite) -> Mapping[str, Call]:
    """Returns every kind of look-up."""
    stub = suite.stub
    vector = vectors(1, _DIMENSION, 1)[0]
    inference = pb.LookupInferenceRequest(key=inference_key(1))
    semantic = semantic_pb2.LookupSemanticRequest(
        partition=partition(), query="Who waits for what does not answer?", vector=vector
    )
    embeddings = pb.LookupEmbeddingsRequest(
        space=pb.EmbeddingSpace(model_digest=_DIGEST), texts=["one text", "and another"]
    )
    chunks = pb.LookupChunksRequest(
        key=pb.ChunksKey(content_digest=_DIGEST, chunker_fingerprint="structure")
    )
    return {
        "LookupInference": lambda: stub.LookupInference(inference, timeout=_CALL_SECONDS),
        "LookupSemantic": lambda: stub.LookupSemantic(semantic, timeout=_CALL_SECONDS),
        "LookupEmbeddings": lambda: stub.LookupEmbeddings(embeddings, timeout=_CALL_SECONDS),
        "LookupChunks": lambda: stub.LookupChunks(chunks, timeout=_CALL_SECONDS),
    }


async def _freeze(suite: Suite, watch: _Watch) -> None:
    """Freezes Redis for a while and waits until it is used again."""
    os.kill(suite.redis.pid, signal.SIGSTOP)
    try:
        watch.frozen = True
        await asyncio.sleep(_FROZEN_SECONDS)
    finally:
        os.kill(suite.redis.pid, signal.SIGCONT)
        watch.frozen = False
    watch.thawed_at = time.perf_counter()
    try:
        await asyncio.wait_for(watch.done.wait(), _LIMIT_SECONDS)
    finally:
        watch.done.set()


def _rows(watch: _Watch) -> list[Row]:
    longest_ms = {name: 1000 * max(times) for name, times in watch.seconds.items()}
    call_count = sum(map(len, watch.seconds.values()))
    assert watch.thawed_at is not None
    assert watch.recovered_at is not None
    recovery_seconds = watch.recovered_at - watch.thawed_at
    return [
        Row(
            f"Redis frozen for {_FROZEN_SECONDS:.0f} s, {_WORKER_COUNT} callers",
            f"longest of {call_count:,} calls {max(longest_ms.values()):.0f} ms, "
            f"{watch.error_count} errors",
            "no call above 150 ms, 0 errors",
            max(longest_ms.values()) <= 150 and watch.error_count == 0,
        ),
        *(Row(f"  the longest {name}", f"{each:.0f} ms") for name, each in longest_ms.items()),
        Row(
            "shared hits again after it goes on",
            f"{recovery_seconds:.2f} s",
            "< 10 s",
            recovery_seconds < 10,
        ),
    ]
