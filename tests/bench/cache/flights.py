"""Many callers who ask for the same at once."""

import asyncio
import time
from pathlib import Path

import grpc

from pannier.cache.v1 import cache_service_pb2 as pb
from tests.bench.cache.entries import answer, inference_key
from tests.bench.cache.rows import Row, milliseconds
from tests.bench.cache.suite import running_suite

__all__ = ["cold_callers"]

_CALLER_COUNT = 200
_COMPUTATION_SECONDS = 0.5
_LEASE_SECONDS = 1


async def cold_callers(folder: Path, count: int) -> list[Row]:
    """Has 200 callers ask two replicas for one answer that nobody has, again and again."""
    rows = []
    rounds = max(3, count // 200)
    async with running_suite(folder, replica_count=2) as suite:
        stubs = [replica.stub for replica in suite.replicas]
        for dies in (False, True):
            computations, errors, extra_seconds = [], 0, []
            for each in range(rounds):
                crowd = _Crowd(stubs, inference_key(1_000 * (1 + dies) + each), first_dies=dies)
                await crowd.ask()
                computations.append(crowd.computation_count)
                errors += crowd.error_count
                extra_seconds += crowd.extra_seconds
            p50, p99 = milliseconds(extra_seconds)
            # The one that dies has begun a computation as well.
            expected = 2 if dies else 1
            rows.append(
                Row(
                    f"{_CALLER_COUNT} cold callers, 2 replicas" + (", leader dies" if dies else ""),
                    f"{sorted(set(computations))} computations in {rounds} rounds, {errors} errors,"
                    f" answer after {p50:.1f} ms (p99 {p99:.1f})",
                    f"{expected} begun, 1 finished, 0 errors",
                    set(computations) == {expected} and errors == 0,
                )
            )
    return rows


class _Crowd:
    """Callers of one key; the one that is given the lease computes."""

    def __init__(self, stubs, key: pb.InferenceKey, *, first_dies: bool) -> None:
        self._stubs = stubs
        self._key = key
        self._first_dies = first_dies
        self._stored_at: float | None = None
        self.computation_count = 0
        self.error_count = 0
        self.extra_seconds: list[float] = []

    async def ask(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(_CALLER_COUNT):
                group.create_task(self._call(self._stubs[number % len(self._stubs)]))

    async def _call(self, stub) -> None:
        request = pb.LookupInferenceRequest(key=self._key)
        request.flight.wait_limit.FromSeconds(20)
        request.flight.lease_time.FromSeconds(_LEASE_SECONDS)
        try:
            response = await stub.LookupInference(request, timeout=30)
            if response.HasField("inference"):
                ended = time.perf_counter()
                self.extra_seconds.append(max(0.0, ended - (self._stored_at or ended)))
            elif response.HasField("lease"):
                await self._compute(stub, response.lease.token)
            else:
                self.error_count += 1
        except grpc.aio.AioRpcError:
            self.error_count += 1

    async def _compute(self, stub, token: str) -> None:
        self.computation_count += 1
        if self._first_dies and self.computation_count == 1:
            return
        await asyncio.sleep(_COMPUTATION_SECONDS)
        self._stored_at = time.perf_counter()
        await stub.StoreInference(
            pb.StoreInferenceRequest(key=self._key, inference=answer(1), lease_token=token),
            timeout=5,
        )
