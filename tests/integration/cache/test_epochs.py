"""What was invalidated is given by no replica, whatever happens meanwhile."""

import asyncio
import time

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from redis.asyncio import Redis

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import invalidation_pb2
from pannier.common.v1 import generation_pb2 as generation
from services.cache.core.keys import EntryKey
from services.cache.core.layers import Layer
from services.cache.core.model import Keeping, Level, NewValue, Scope
from services.cache.keep import keep
from services.cache.look_up import look_up as look_up_values
from services.common.identity import TENANT_HEADER
from tests.kit.cache_replicas import eventually, running_replica

DIGEST = "0123456789abcdef" * 4
EPOCHS_KEY = "pannier:2:ep:{default}"
MISS, LOCAL, SHARED = (
    pb.LOOKUP_OUTCOME_MISS,
    pb.LOOKUP_OUTCOME_HIT_LOCAL,
    pb.LOOKUP_OUTCOME_HIT_SHARED,
)
KEY = pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt(text="why?"))
# What was stored under it shows, by its absence, that an invalidation has reached a replica.
WITNESS_KEY = pb.InferenceKey(model_digest=DIGEST, prompt=pb.Prompt(text="who told?"))
ANSWER = pb.Inference(text="because", finish_reason=generation.FINISH_REASON_STOP)
DOCUMENT = {"document": {"collection": "manuals", "document_id": "a.md"}}
# A replica reads anew every five seconds; the rest is for a busy machine.
BOUND_SECONDS = 5.0
PATIENCE_SECONDS = 1.0


async def look_up(cache, *, key=KEY, **control: object) -> pb.LookupInferenceResponse:
    return await cache.stub.LookupInference(pb.LookupInferenceRequest(key=key, control=control))


async def outcome(cache, *, key=KEY, **control: object) -> int:
    return (await look_up(cache, key=key, **control)).outcome


async def store(cache, *, key=KEY, token: str = "", **control: object) -> pb.StoreInferenceResponse:
    return await cache.stub.StoreInference(
        pb.StoreInferenceRequest(key=key, inference=ANSWER, control=control, lease_token=token)
    )


async def invalidate(cache, selector: dict[str, object] | None = None) -> Timestamp:
    selectors = [selector or {"tag": DOCUMENT}]
    request = invalidation_pb2.InvalidateRequest(selectors=selectors, dry_run=False)
    response = await cache.stub.Invalidate(request)
    assert response.applied
    return response.invalidation_time


async def until_missed(cache, *, key=KEY, seconds: float) -> float:
    """Waits for a miss; returns how long that took."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while await outcome(cache, key=key) != MISS:
            await asyncio.sleep(0.005)
    return time.monotonic() - started


@pytest.fixture
async def replicas(start_cache, redis_server):
    """Two replicas that both hold one answer locally."""
    both = [await start_cache(redis_server.url) for _ in range(2)]
    assert (await store(both[0], tags=[DOCUMENT])).stored
    assert await outcome(both[1]) == SHARED
    assert [await outcome(each) for each in both] == [LOCAL, LOCAL]
    return both


async def test_it_holds_here_at_once_and_elsewhere_with_the_notice(replicas) -> None:
    one, other = replicas
    await invalidate(one)
    assert await outcome(one) == MISS
    assert await until_missed(other, seconds=PATIENCE_SECONDS) < PATIENCE_SECONDS
    assert other.metric("cache_invalidated_values_total", layer="inference") >= 1


async def test_whoever_knows_the_time_of_an_invalidation_need_not_wait(replicas) -> None:
    one, other = replicas
    since = await invalidate(one)
    assert await outcome(other, min_create_time=since) == MISS
    await store(one, tags=[DOCUMENT])
    assert await outcome(other, min_create_time=since) == SHARED


async def test_what_is_stored_afterwards_counts_everywhere(replicas) -> None:
    one, other = replicas
    for number in range(20):
        await invalidate(one)
        read_time = (await look_up(one)).read_time
        assert (await store(one, tags=[DOCUMENT], basis_time=read_time)).stored, number
        assert await outcome(one) == LOCAL
    await until_missed_or_shared(other)


async def until_missed_or_shared(cache) -> None:
    """Waits until a replica gives what was stored last."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await outcome(cache) == MISS:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "selector",
    [
        {"tag": DOCUMENT},
        {"tag": {"collection": "manuals"}},
        {"namespace": ""},
        {"model_digest": DIGEST.upper()},
    ],
)
@pytest.mark.parametrize("storing", [0, 1])
async def test_an_answer_that_was_begun_before_is_given_by_nobody(
    start_cache, redis_server, selector, storing
) -> None:
    both = [await start_cache(redis_server.url) for _ in range(2)]
    assert (await store(both[0], key=WITNESS_KEY, tags=[DOCUMENT])).stored
    read_time = (await look_up(both[0])).read_time
    # While the answer is computed, what it rests on changes; the other replica is told.
    await invalidate(both[1], selector)
    await until_missed(both[0], key=WITNESS_KEY, seconds=PATIENCE_SECONDS)
    stored = await store(both[storing], tags=[DOCUMENT], basis_time=read_time)
    assert (stored.stored, stored.degraded) == (False, False)
    for _ in range(3):
        assert [await outcome(each) for each in both] == [MISS, MISS]


async def test_an_answer_begun_under_a_lease_before_is_given_by_nobody(
    start_cache, redis_server
) -> None:
    both = [await start_cache(redis_server.url) for _ in range(2)]
    assert (await store(both[0], key=WITNESS_KEY, tags=[DOCUMENT])).stored
    request = pb.LookupInferenceRequest(key=KEY, flight=pb.FlightOptions())
    lease = (await both[0].stub.LookupInference(request)).lease
    assert lease.token
    await invalidate(both[1])
    await until_missed(both[0], key=WITNESS_KEY, seconds=PATIENCE_SECONDS)
    await store(both[0], token=lease.token, tags=[DOCUMENT])
    for _ in range(3):
        assert [await outcome(each) for each in both] == [MISS, MISS]


async def test_a_stale_value_that_reached_the_store_is_given_by_nobody(
    start_cache, redis_server
) -> None:
    both = [await start_cache(redis_server.url) for _ in range(2)]
    read_time = (await look_up(both[0])).read_time
    assert (await store(both[0], tags=[DOCUMENT], basis_time=read_time)).stored
    await invalidate(both[1])
    async with Redis(port=redis_server.port, db=1) as redis:
        assert any(key.endswith(b":v") for key in await redis.keys())
    await until_missed(both[0], seconds=PATIENCE_SECONDS)
    third = await start_cache(redis_server.url)
    assert [await outcome(each) for each in (*both, third)] == [MISS] * 3


async def test_nobody_can_date_a_value_out_of_reach(replicas) -> None:
    one, _ = replicas
    ahead = Timestamp(seconds=int(time.time()) + 3_600)
    await store(one, tags=[DOCUMENT], basis_time=ahead)
    await invalidate(one)
    assert await outcome(one) == MISS


async def test_another_tenant_s_values_stay(start_cache, redis_server) -> None:
    cache = await start_cache(redis_server.url)
    acme, globex = ([(TENANT_HEADER, name)] for name in ("acme", "globex"))
    storing = pb.StoreInferenceRequest(key=KEY, inference=ANSWER, control={"tags": [DOCUMENT]})
    for tenant in (acme, globex):
        await cache.stub.StoreInference(storing, metadata=tenant)
    request = invalidation_pb2.InvalidateRequest(
        selectors=[{"tag": DOCUMENT}, {"everything": True}], dry_run=False, tenant_id="acme"
    )
    await cache.stub.Invalidate(request, metadata=acme)
    found = [
        await cache.stub.LookupInference(pb.LookupInferenceRequest(key=KEY), metadata=tenant)
        for tenant in (acme, globex)
    ]
    assert [each.outcome for each in found] == [MISS, LOCAL]


@pytest.mark.slow
async def test_with_the_notice_lost_it_holds_within_five_seconds(replicas, redis_server) -> None:
    _, other = replicas
    async with Redis(port=redis_server.port, db=1) as redis:
        seconds, microseconds = await redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
        await redis.hset(EPOCHS_KEY, mapping={"n:": now_ms, "@v": now_ms})
    assert await until_missed(other, seconds=BOUND_SECONDS + PATIENCE_SECONDS) > 0.0


async def test_a_broken_subscription_is_no_excuse(replicas, redis_server) -> None:
    one, other = replicas
    async with Redis(port=redis_server.port, db=1) as redis:
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await invalidate(one)
    assert await until_missed(other, seconds=BOUND_SECONDS + PATIENCE_SECONDS) < BOUND_SECONDS


@pytest.mark.slow
async def test_with_the_notes_deleted_nothing_old_is_given(
    replicas, redis_server, start_cache
) -> None:
    async with Redis(port=redis_server.port, db=1) as redis:
        assert await redis.delete(EPOCHS_KEY) == 1
    fresh = await start_cache(redis_server.url)
    assert await outcome(fresh) == MISS
    for cache in replicas:
        await until_missed(cache, seconds=BOUND_SECONDS + PATIENCE_SECONDS)
        assert await outcome(cache) == MISS
    assert (await store(fresh)).stored
    assert await outcome(fresh) == LOCAL


async def test_a_store_that_lost_everything_brings_nothing_back(start_cache, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    both = [await start_cache(private_redis.url) for _ in range(2)]
    for cache in both:
        await store(cache, tags=[DOCUMENT])
    await invalidate(both[0])
    await asyncio.to_thread(private_redis.kill)
    await asyncio.to_thread(private_redis.start)
    for cache in both:
        async with asyncio.timeout(10):
            while (found := await look_up(cache)).degraded:
                assert found.outcome == MISS
                await asyncio.sleep(0.02)
        assert found.outcome == MISS


async def test_notes_survive_the_eviction_of_values(start_cache, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    cache = await start_cache(private_redis.url)
    await invalidate(cache)
    async with Redis(port=private_redis.port, db=1) as redis:
        before = await redis.hgetall(EPOCHS_KEY)
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory-policy", "volatile-lfu")
        await redis.config_set("maxmemory", used + (1 << 20))
        space = pb.EmbeddingSpace(model_digest=DIGEST)
        vector = {"float32_le": b"\0\0\x80\x3f" * 1_024, "dimension": 1_024}
        for batch in range(4):
            entries = [
                pb.EmbeddingEntry(text=f"{batch} {number}", vector=vector) for number in range(200)
            ]
            await cache.stub.StoreEmbeddings(
                pb.StoreEmbeddingsRequest(space=space, entries=entries)
            )
        assert (await redis.info("stats"))["evicted_keys"] > 100
        assert await redis.hgetall(EPOCHS_KEY) == before


async def test_it_works_on_one_server_behind_sentinels_and_in_a_cluster(any_redis) -> None:
    scope = Scope("acme", "manuals")
    keys = [EntryKey(f"{number:027d}".encode()) for number in range(30)]
    values = [NewValue(key, b"value") for key in keys]
    async with running_replica(any_redis.url) as one, running_replica(any_redis.url) as other:

        async def found(replica) -> set[Level | None]:
            lookup = await look_up_values(replica.levels, Layer.CHUNK, keys, scope=scope)
            return {hit and hit.level for hit in lookup.hits}

        keeping = Keeping(tags=("d:1",))
        kept = await keep(one.levels, Layer.CHUNK, values, scope=scope, keeping=keeping)
        assert kept.stored_count == len(values)
        assert await found(other) == {Level.SHARED}
        await asyncio.sleep(0.002)
        bump = await one.levels.epochs.bump("acme", ["d:1"])
        assert await found(one) == {None}
        await eventually(
            lambda: not other.levels.epochs.is_valid(scope, bump.epoch_ms, ("d:1",)),
            seconds=PATIENCE_SECONDS,
        )
        assert await found(other) == {None}
