"""Whatever callers do, and wherever they are when they leave: in the end nothing is under way."""

import asyncio
import random

import grpc
import pytest

from pannier.cache.v1 import cache_service_pb2 as pb
from tests.kit.cache_replicas import ANSWER, eventually, fill_messages, flight, question

TEXTS = ("why?", "when?", "who?")
CALL_COUNT = 240
CALLER_COUNT = 12
UNDER_WAY = (
    ("cache_waiting_callers", {}),
    ("cache_held_leases", {}),
    ("connection_pool_connections", {"pool": "redis", "state": "in_use"}),
    ("connection_pool_connections", {"pool": "redis_streams", "state": "in_use"}),
)


async def end_of(call) -> object:
    """Returns the answer to a call, or how it has ended otherwise."""
    try:
        return await call
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return error


async def read(stream) -> object:
    try:
        return [event async for event in stream]
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        return error


class Caller:
    """Makes calls as they come to its mind, and leaves some of them at any moment."""

    def __init__(self, caches, rng: random.Random) -> None:
        self._caches = caches
        self._rng = rng

    async def call(self) -> None:
        rng, cache = self._rng, self._rng.choice(self._caches)
        text, limit = rng.choice(TEXTS), rng.choice((None, None, 0.05, 0.2))
        key = question(text)
        match rng.choice(("lookup", "lookup", "stream", "embed", "plain")):
            case "lookup":
                wish = flight(wait=0.4, lease=1.0)
                request = pb.LookupInferenceRequest(key=key, mode="rag", flight=wish)
                answer = await self._left_at_times(
                    cache.stub.LookupInference(request, timeout=limit), end_of
                )
                if isinstance(answer, pb.LookupInferenceResponse) and answer.HasField("lease"):
                    await self._use(text, answer.lease.token)
            case "stream":
                wish = flight(wait=0.4, lease=1.0)
                request = pb.StreamInferenceRequest(key=key, mode="rag", flight=wish)
                await self._left_at_times(cache.stub.StreamInference(request, timeout=limit), read)
            case "plain":
                request = pb.LookupInferenceRequest(key=key, mode="rag")
                await self._left_at_times(
                    cache.stub.LookupInference(request, timeout=limit), end_of
                )
            case _:
                space = pb.EmbeddingSpace(model_digest="0123456789abcdef" * 4)
                request = pb.LookupEmbeddingsRequest(space=space, texts=[text, "x"])
                await self._left_at_times(
                    cache.stub.LookupEmbeddings(request, timeout=limit), end_of
                )

    async def _use(self, text: str, token: str) -> None:
        """Does with a lease what callers do, also nothing at all."""
        cache, key = self._rng.choice(self._caches), question(text)
        match self._rng.choice(("store", "fill", "release", "nothing")):
            case "store":
                request = pb.StoreInferenceRequest(
                    key=key, inference=ANSWER, lease_token=token, control={"ttl": {"nanos": 10**8}}
                )
                await self._left_at_times(cache.stub.StoreInference(request), end_of)
            case "fill":
                words = [f"{number} " for number in range(self._rng.randrange(9))]
                call = cache.stub.FillInference(fill_messages(token, words, text=text))
                await self._left_at_times(call, end_of)
            case "release":
                request = pb.ReleaseLeaseRequest(key=key, lease_token=token)
                await self._left_at_times(cache.stub.ReleaseLease(request), end_of)

    async def _left_at_times(self, call, wait) -> object:
        waiting = asyncio.create_task(wait(call))
        if self._rng.random() < 0.4:
            await asyncio.sleep(self._rng.expovariate(1 / 0.01))
            call.cancel()
        await asyncio.wait([waiting])
        return waiting.result()


@pytest.mark.parametrize("seed", [1, 2])
async def test_callers_who_leave_at_any_moment_leave_nothing_behind(
    start_cache, redis_server, seed
) -> None:
    caches = [await start_cache(redis_server.url, redis_connection_limit="3") for _ in range(2)]
    rng = random.Random(seed)
    caller = Caller(caches, rng)
    remaining = iter(range(CALL_COUNT))

    async def call_again_and_again() -> None:
        for _ in remaining:
            await caller.call()

    async with asyncio.TaskGroup() as group:
        for _ in range(CALLER_COUNT):
            group.create_task(call_again_and_again())
    for cache in caches:
        for name, labels in UNDER_WAY:
            await eventually(lambda: cache.metric(name, **labels) == 0, seconds=20)  # noqa: B023
        await eventually(lambda: not active_calls(cache), seconds=20)  # noqa: B023
    # On a busy machine one of them may have done without Redis.
    assert any(
        cache.metric("cache_lease_total", event=event)
        for cache in caches
        for event in ("leased", "refresh_leased")
    )


def active_calls(cache) -> dict[str, float]:
    return {
        sample.labels["rpc_method"]: sample.value
        for family in cache.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "rpc_server_active_calls" and sample.value
    }
