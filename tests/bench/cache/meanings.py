"""Semantic look-ups."""

import asyncio
import time
from pathlib import Path

from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import StringValue

from pannier.cache.v1 import semantic_pb2 as pb
from tests.bench.cache.entries import partition, vectors, words
from tests.bench.cache.rows import Row, milliseconds
from tests.bench.cache.suite import running_suite

__all__ = ["decisions"]

_ENTRY_COUNT = 5_000
_STORES_AT_ONCE = 32


async def decisions(folder: Path, count: int) -> list[Row]:
    """Measures decisions over 5,000 entries, the vector given; most of them misses."""
    rows = []
    for dimension in (384, 768):
        async with running_suite(folder) as suite:
            stored = vectors(_ENTRY_COUNT, dimension, 1)
            places = iter(range(_ENTRY_COUNT))

            async def store(stub=suite.stub, stored=stored, places=places) -> None:
                for place in places:
                    packed = Any()
                    packed.Pack(StringValue(value=f"answer {place}"))
                    response = await stub.StoreSemantic(
                        pb.StoreSemanticRequest(
                            partition=partition(),
                            query=f"What is number {place} {words(8, place)}?",
                            vector=stored[place],
                            answer=packed,
                        ),
                        timeout=10,
                    )
                    assert response.stored, response

            async with asyncio.TaskGroup() as group:
                for _ in range(_STORES_AT_ONCE):
                    group.create_task(store())
            times = []
            for number, vector in enumerate(vectors(count, dimension, 2)):
                request = pb.LookupSemanticRequest(
                    partition=partition(), query=f"Another question {number}?", vector=vector
                )
                started = time.perf_counter()
                response = await suite.stub.LookupSemantic(request, timeout=5)
                times.append(time.perf_counter() - started)
                assert response.outcome == pb.SEMANTIC_OUTCOME_MISS, response
        p50, p99 = milliseconds(times[len(times) // 10 :])
        rows.append(
            Row(
                f"semantic decision, {_ENTRY_COUNT:,} entries of {dimension}",
                f"p50 {p50:.2f} ms, p99 {p99:.2f} ms",
                "p50 <= 4 ms, p99 <= 15 ms",
                p50 <= 4 and p99 <= 15,
            )
        )
    return rows
