"""A million inserts: what memory they take, and what Redis may evict."""

import asyncio
import time
from itertools import islice
from pathlib import Path

import numpy as np

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2, invalidation_pb2
from pannier.common.v1 import vector_pb2
from tests.bench import processes
from tests.bench.cache.rows import Row
from tests.bench.cache.suite import running_suite

__all__ = ["a_million"]

_BATCH = 512
_DIMENSION = 384
_WORKER_COUNT = 4
_WARM_UP_BATCHES = 8
_MEBIBYTE = 1024 * 1024
_LOCAL_MEBIBYTES = 32
# What the allocator and the larger maps of a busy process may take beside the values.
_TOLERANCE_MEBIBYTES = 48
_REDIS_OPTIONS = ("--maxmemory", "128mb", "--maxmemory-policy", "volatile-lfu")


async def a_million(folder: Path, count: int) -> list[Row]:
    """Stores 1,000,000 embeddings, `count` below 1,000 a tenth of them, and looks at memory."""
    total = 1_000_000 if count >= 1_000 else 100_000
    async with running_suite(
        folder,
        replica_count=2,
        redis_options=_REDIS_OPTIONS,
        local_embedding_limit_bytes=f"{_LOCAL_MEBIBYTES}MiB",
    ) as suite:
        first, second = suite.replicas
        selector = invalidation_pb2.Selector(tag=control_pb2.Tag(custom="before the flood"))
        invalidated = await first.stub.Invalidate(
            invalidation_pb2.InvalidateRequest(selectors=[selector], dry_run=False), timeout=5
        )
        space = pb.EmbeddingSpace(model_digest="e1" * 32)
        starts = iter(range(0, total, _BATCH))
        rng = np.random.default_rng(1)

        async def store(batch_limit: int | None = None) -> None:
            for start in islice(starts, batch_limit):
                matrix = rng.standard_normal((_BATCH, _DIMENSION), dtype=np.float32)
                entries = [
                    pb.EmbeddingEntry(
                        text=f"text {start + place}",
                        vector=vector_pb2.EmbeddingVector(
                            float32_le=row.tobytes(), dimension=_DIMENSION
                        ),
                    )
                    for place, row in enumerate(matrix)
                ]
                await first.stub.StoreEmbeddings(
                    pb.StoreEmbeddingsRequest(space=space, entries=entries), timeout=30
                )

        # The pools and code paths of a busy process are no part of what its values take.
        await store(_WARM_UP_BATCHES)
        before = processes.resident_bytes(first.started.pid)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(_WORKER_COUNT):
                group.create_task(store())
        seconds = time.perf_counter() - began
        grown = (processes.resident_bytes(first.started.pid) - before) / _MEBIBYTE
        seen = await second.stub.Invalidate(
            invalidation_pb2.InvalidateRequest(selectors=[selector]), timeout=5
        )
        kept = seen.effects[0].previous_invalidation_time == invalidated.invalidation_time
    limit = _LOCAL_MEBIBYTES + _TOLERANCE_MEBIBYTES
    return [
        Row(
            f"{total:,} embeddings of {_DIMENSION} stored",
            f"{total / seconds:,.0f}/s; process grew by {grown:.0f} MiB",
            f"<= {_LOCAL_MEBIBYTES} MiB of values (+{_TOLERANCE_MEBIBYTES})",
            grown <= limit,
        ),
        Row(
            "invalidation seen by another replica after Redis evicted",
            "yes" if kept else "no",
            "yes",
            kept,
        ),
    ]
