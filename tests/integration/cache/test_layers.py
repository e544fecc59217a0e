"""What was stored is found again, exactly, by its owner, for as long as promised."""

import asyncio

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import statistics_pb2
from pannier.common.v1 import generation_pb2 as generation
from pannier.common.v1 import vector_pb2
from services.common.identity import TENANT_HEADER

DIGEST = "0123456789abcdef" * 4
SPACE = pb.EmbeddingSpace(model_digest=DIGEST)
CHUNKS_KEY = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint="markdown 1 size=400")
MISS, LOCAL, SHARED = (
    pb.LOOKUP_OUTCOME_MISS,
    pb.LOOKUP_OUTCOME_HIT_LOCAL,
    pb.LOOKUP_OUTCOME_HIT_SHARED,
)
DAY_MS = 86_400_000


def vector(seed: int, dimension: int = 384) -> vector_pb2.EmbeddingVector:
    components = np.random.default_rng(seed).standard_normal(dimension).astype("<f4")
    return vector_pb2.EmbeddingVector(float32_le=components.tobytes(), dimension=dimension)


def entry(number: int) -> pb.EmbeddingEntry:
    return pb.EmbeddingEntry(text=f"text {number}", vector=vector(number))


def question(text: str = "why?", **sampling: object) -> pb.InferenceKey:
    return pb.InferenceKey(
        model_digest=DIGEST,
        prompt=pb.Prompt(text=text),
        sampling=generation.SamplingOptions(**sampling),
    )


ANSWER = pb.Inference(
    text="because",
    finish_reason=generation.FINISH_REASON_STOP,
    usage=generation.TokenUsage(prompt_token_count=7, completion_token_count=3),
    generation_time=Duration(seconds=2, nanos=500_000_000),
)
CHUNKS = pb.ChunkSet(
    spans=[
        pb.ChunkSpan(char_start=0, char_end=90, heading_path=["A", "B"], token_count=20),
        pb.ChunkSpan(char_start=80, char_end=200, token_count=30),
    ]
)


async def store_embeddings(cache, *numbers: int, **call) -> pb.StoreEmbeddingsResponse:
    entries = [entry(number) for number in numbers]
    request = pb.StoreEmbeddingsRequest(space=SPACE, entries=entries)
    return await cache.stub.StoreEmbeddings(request, **call)


async def look_up_embeddings(cache, *numbers: int, **call) -> pb.LookupEmbeddingsResponse:
    request = pb.LookupEmbeddingsRequest(space=SPACE, texts=[f"text {each}" for each in numbers])
    return await cache.stub.LookupEmbeddings(request, **call)


async def look_up_answer(cache, key=None, **call) -> pb.LookupInferenceResponse:
    request = pb.LookupInferenceRequest(key=key or question())
    return await cache.stub.LookupInference(request, **call)


async def store_answer(cache, key=None, inference=ANSWER) -> pb.StoreInferenceResponse:
    request = pb.StoreInferenceRequest(key=key or question(), inference=inference)
    return await cache.stub.StoreInference(request)


async def values(redis: Redis) -> list[bytes]:
    """Returns the keys of values; what else is in the store is none of these tests' business."""
    return [key for key in await redis.keys() if key.endswith(b"}:v")]


def outcomes(response: pb.LookupEmbeddingsResponse) -> list[int]:
    return [each.outcome for each in response.lookups]


async def test_vectors_come_back_bit_for_bit_from_either_level(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    assert outcomes(await look_up_embeddings(first, 1, 2)) == [MISS, MISS]
    stored = await store_embeddings(first, 1, 2)
    assert (stored.stored_count, stored.degraded) == (2, False)
    for cache, outcome in ((first, LOCAL), (second, SHARED), (second, LOCAL)):
        found = await look_up_embeddings(cache, 2, 3, 1)
        assert outcomes(found) == [outcome, MISS, outcome]
        assert found.lookups[0].vector == vector(2)
        assert not found.lookups[1].HasField("vector")
        assert found.lookups[2].vector == vector(1)
        assert not found.degraded


async def test_a_batch_of_512_with_repetitions_keeps_its_order(cache, redis_server) -> None:
    await store_embeddings(cache, *range(100))
    numbers = [number * 37 % 128 for number in range(512)]
    found = await look_up_embeddings(cache, *numbers)
    for number, lookup in zip(numbers, found.lookups, strict=True):
        if number < 100:
            assert lookup.vector == vector(number)
        else:
            assert lookup.outcome == MISS


async def test_an_answer_comes_back_whole_with_its_age(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    assert (await look_up_answer(first)).outcome == MISS
    stored = await store_answer(first)
    assert (stored.stored, stored.degraded) == (True, False)
    for cache, outcome in ((first, LOCAL), (second, SHARED), (second, LOCAL)):
        found = await look_up_answer(cache)
        assert found.outcome == outcome
        assert found.inference == ANSWER
        assert 0 <= found.age.ToTimedelta().total_seconds() < 30
    assert (await look_up_answer(second, question(temperature=0.0))).outcome == MISS


async def test_chunks_come_back_and_none_is_an_answer_too(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    for fingerprint, chunks in (("a", CHUNKS), ("b", pb.ChunkSet())):
        key = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint=fingerprint)
        request = pb.LookupChunksRequest(key=key)
        assert (await first.stub.LookupChunks(request)).outcome == MISS
        stored = await first.stub.StoreChunks(pb.StoreChunksRequest(key=key, chunks=chunks))
        assert stored.stored
        for cache, outcome in ((first, LOCAL), (second, SHARED)):
            found = await cache.stub.LookupChunks(request)
            assert found.outcome == outcome
            assert found.HasField("chunks")
            assert found.chunks == chunks


async def test_a_restart_keeps_what_is_shared(start_cache, redis_server) -> None:
    before = await start_cache(redis_server.url)
    await store_answer(before)
    await before.stop()
    after = await start_cache(redis_server.url)
    assert (await look_up_answer(after)).outcome == SHARED


async def test_answers_live_in_database_1_and_the_rest_in_0(cache, redis_server) -> None:
    await store_embeddings(cache, 1)
    await store_answer(cache)
    await cache.stub.StoreChunks(pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=CHUNKS))
    async with (
        Redis(port=redis_server.port, db=0) as zero,
        Redis(port=redis_server.port, db=1) as one,
    ):
        assert len(await values(zero)) == 2
        assert len(await values(one)) == 1


async def test_the_databases_can_be_chosen(start_cache, redis_server) -> None:
    cache = await start_cache(
        redis_server.url, redis_embedding_database="5", redis_inference_database="5"
    )
    await store_embeddings(cache, 1)
    await store_answer(cache)
    async with Redis(port=redis_server.port, db=5) as five:
        assert len(await values(five)) == 2


async def test_times_to_live_are_between_nine_tenths_and_all_of_the_layer(
    cache, redis_server
) -> None:
    await store_embeddings(cache, *range(100))
    await asyncio.sleep(0)
    await store_answer(cache)
    await cache.stub.StoreChunks(pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=CHUNKS))
    margin_ms = 10_000
    seen: dict[int, list[int]] = {}
    for database in (0, 1):
        async with Redis(port=redis_server.port, db=database) as redis:
            for key in await values(redis):
                ttl_ms = await redis.pttl(key)
                days = min((1, 7, 30), key=lambda each: abs(each * DAY_MS - ttl_ms))
                assert 0.9 * days * DAY_MS - margin_ms <= ttl_ms <= days * DAY_MS
                seen.setdefault(days, []).append(ttl_ms)
    assert {days: len(each) for days, each in seen.items()} == {7: 100, 1: 1, 30: 1}
    assert len(set(seen[7])) > 50


@pytest.mark.parametrize("seconds", [5, 3_600])
async def test_a_caller_can_ask_for_less_time(cache, redis_server, seconds) -> None:
    request = pb.StoreEmbeddingsRequest(
        space=SPACE, entries=[entry(1)], control={"ttl": Duration(seconds=seconds)}
    )
    await cache.stub.StoreEmbeddings(request)
    async with Redis(port=redis_server.port) as redis:
        (key,) = await values(redis)
        assert 0.9 * seconds * 1000 - 1_000 <= await redis.pttl(key) <= seconds * 1000


async def test_hits_do_not_renew_the_time_to_live(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    await store_answer(first)
    async with Redis(port=redis_server.port, db=1) as redis:
        (key,) = await values(redis)
        await redis.pexpire(key, 50_000)
        assert (await look_up_answer(second)).outcome == SHARED
        assert await redis.pttl(key) <= 50_000


async def test_texts_are_compressed_in_the_store_and_vectors_are_not(cache, redis_server) -> None:
    long = pb.Inference(text="llamas carry panniers " * 200, finish_reason=1)
    await store_answer(cache, inference=long)
    await store_embeddings(cache, 1)
    async with (
        Redis(port=redis_server.port, db=0) as zero,
        Redis(port=redis_server.port, db=1) as one,
    ):
        (vector_key,), (answer_key,) = await values(zero), await values(one)
        assert vector(1).float32_le in await zero.get(vector_key)
        assert await one.strlen(answer_key) < 500
    assert (await look_up_answer(cache)).inference == long


async def test_a_namespace_keeps_to_itself(cache) -> None:
    def space(namespace: str) -> pb.EmbeddingSpace:
        return pb.EmbeddingSpace(model_digest=DIGEST, namespace=namespace)

    request = pb.StoreEmbeddingsRequest(space=space("a"), entries=[entry(1)])
    await cache.stub.StoreEmbeddings(request)
    for namespace, outcome in (("a", LOCAL), ("b", MISS), ("", MISS)):
        request = pb.LookupEmbeddingsRequest(space=space(namespace), texts=["text 1"])
        assert outcomes(await cache.stub.LookupEmbeddings(request)) == [outcome]


async def test_callers_can_look_nowhere(cache) -> None:
    await store_embeddings(cache, 1)
    control = {"bypass": True}
    request = pb.LookupEmbeddingsRequest(space=SPACE, texts=["text 1", "text 2"], control=control)
    found = await cache.stub.LookupEmbeddings(request)
    assert outcomes(found) == [pb.LOOKUP_OUTCOME_BYPASSED] * 2
    assert not any(each.HasField("vector") for each in found.lookups)
    chunks = await cache.stub.LookupChunks(pb.LookupChunksRequest(key=CHUNKS_KEY, control=control))
    assert chunks.outcome == pb.LOOKUP_OUTCOME_BYPASSED
    assert not chunks.HasField("chunks")


@pytest.mark.parametrize("level", ["local", "shared"])
async def test_callers_can_ask_for_young_values_only(start_cache, redis_server, level) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    await store_embeddings(first, 1)
    cache = first if level == "local" else second
    await asyncio.sleep(0.05)
    for max_age, hit in ((Duration(nanos=5_000_000), False), (Duration(seconds=60), True)):
        request = pb.LookupEmbeddingsRequest(
            space=SPACE, texts=["text 1"], control={"max_age": max_age}
        )
        (outcome,) = outcomes(await cache.stub.LookupEmbeddings(request))
        assert (outcome != MISS) is hit


async def test_another_tenant_sees_nothing(cache) -> None:
    acme = {"metadata": [(TENANT_HEADER, "acme")]}
    globex = {"metadata": [(TENANT_HEADER, "globex")]}
    await store_embeddings(cache, 1, **acme)
    assert outcomes(await look_up_embeddings(cache, 1, **acme)) == [LOCAL]
    assert outcomes(await look_up_embeddings(cache, 1, **globex)) == [MISS]
    assert outcomes(await look_up_embeddings(cache, 1)) == [MISS]


def truncated(value: bytes) -> bytes:
    return value[:-1]


def altered(value: bytes) -> bytes:
    return value[:60] + bytes([value[60] ^ 1]) + value[61:]


def of_another_version(value: bytes) -> bytes:
    return value[:2] + b"\x09" + value[3:]


def of_the_version_before(value: bytes) -> bytes:
    return value[:2] + b"\x01" + value[3:]


def foreign(value: bytes) -> bytes:
    return b"gASVCgAAAAAAAABYAwAAAGhpIZQu"


SPOILT = [
    truncated,
    altered,
    of_another_version,
    of_the_version_before,
    foreign,
    lambda _: b"",
]


@pytest.mark.parametrize("spoil", SPOILT)
async def test_a_spoilt_value_is_a_miss_and_can_be_replaced(
    start_cache, redis_server, spoil
) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    await store_embeddings(first, 1)
    async with Redis(port=redis_server.port) as redis:
        (key,) = await values(redis)
        await redis.set(key, spoil(await redis.get(key)))
    found = await look_up_embeddings(second, 1)
    assert outcomes(found) == [MISS]
    assert not found.degraded
    stats = await second.stub.GetStats(statistics_pb2.GetStatsRequest())
    assert stats.layers[0].rejected_value_count == 1
    await store_embeddings(first, 1)
    assert outcomes(await look_up_embeddings(second, 1)) == [SHARED]


async def test_values_swapped_between_tenants_are_misses(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    tenants = [{"metadata": [(TENANT_HEADER, name)]} for name in ("acme", "globex")]
    for tenant in tenants:
        await store_embeddings(first, 1, **tenant)
    async with Redis(port=redis_server.port) as redis:
        one, other = await values(redis)
        found = await redis.mget(one, other)
        await redis.mset({one: found[1], other: found[0]})
    for tenant in tenants:
        assert outcomes(await look_up_embeddings(second, 1, **tenant)) == [MISS]


async def test_a_value_of_another_type_is_a_miss(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    await store_embeddings(first, 1)
    async with Redis(port=redis_server.port) as redis:
        (key,) = await values(redis)
        await redis.delete(key)
        await redis.rpush(key, "a list")
    assert outcomes(await look_up_embeddings(second, 1)) == [MISS]


async def test_replicas_with_different_secrets_share_nothing(start_cache, redis_server) -> None:
    first = await start_cache(redis_server.url, key_pepper="the first secret")
    second = await start_cache(redis_server.url, key_pepper="the second secret")
    await store_embeddings(first, 1)
    assert outcomes(await look_up_embeddings(second, 1)) == [MISS]


async def test_an_answer_cut_by_a_limit_nobody_asked_for_is_not_kept(cache) -> None:
    cut = pb.Inference(text="beca", finish_reason=generation.FINISH_REASON_LENGTH)
    refused = await store_answer(cache, inference=cut)
    assert (refused.stored, refused.degraded) == (False, False)
    assert (await look_up_answer(cache)).outcome == MISS
    asked_for = question(max_output_token_count=1)
    assert (await store_answer(cache, asked_for, cut)).stored
    assert (await look_up_answer(cache, asked_for)).inference == cut
    labels = {"layer": "inference", "outcome": "not_reusable"}
    assert cache.metric("cache_writes_total", **labels) == 1


async def test_a_full_store_refuses_values_and_still_answers(start_cache, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    first = await start_cache(private_redis.url)
    await store_embeddings(first, 1)
    async with Redis(port=private_redis.port) as redis:
        await redis.config_set("maxmemory", "1")
    refused = await store_embeddings(first, 2)
    assert (refused.stored_count, refused.degraded) == (0, False)
    second = await start_cache(private_redis.url)
    assert outcomes(await look_up_embeddings(second, 1, 2)) == [SHARED, MISS]
    stats = await first.stub.GetStats(statistics_pb2.GetStatsRequest())
    assert stats.layers[0].dropped_store_count == 1
    assert not stats.degraded
