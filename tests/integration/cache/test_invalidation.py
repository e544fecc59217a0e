"""Invalidations and thresholds over real gRPC: told before, done once, refused clearly."""

import asyncio
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pannier.cache.v1 import cache_admin_service_pb2, invalidation_pb2
from pannier.cache.v1 import cache_service_pb2 as pb
from services.common.errors import StatusCode
from services.common.identity import TENANT_HEADER
from services.common.status import error_from_call

DIGEST, OTHER_DIGEST = "0123456789abcdef" * 4, "f" * 64
DOCUMENT = {"document": {"collection": "manuals", "document_id": "a.md"}}
CHUNKS = pb.ChunkSet(spans=[pb.ChunkSpan(char_end=5, token_count=1)])
VECTOR = {"float32_le": b"\0\0\x80\x3f", "dimension": 1}


@pytest.fixture
async def cache(start_cache, redis_server):
    return await start_cache(redis_server.url)


async def fill(cache, *, tenant: str = "default") -> None:
    """Stores three vectors and two sets of chunks."""
    metadata = [(TENANT_HEADER, tenant)]
    for namespace, digest, texts in (("", DIGEST, "ab"), ("faq", OTHER_DIGEST, "c")):
        space = pb.EmbeddingSpace(model_digest=digest, namespace=namespace)
        entries = [pb.EmbeddingEntry(text=text, vector=VECTOR) for text in texts]
        request = pb.StoreEmbeddingsRequest(space=space, entries=entries)
        await cache.stub.StoreEmbeddings(request, metadata=metadata)
    for number, tags in enumerate(([DOCUMENT], [{"custom": "parser 2"}])):
        key = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint=str(number))
        request = pb.StoreChunksRequest(key=key, chunks=CHUNKS, control={"tags": tags})
        await cache.stub.StoreChunks(request, metadata=metadata)


async def call(cache, *selectors: dict[str, object], metadata=None, **fields: object):
    request = invalidation_pb2.InvalidateRequest(selectors=selectors, **fields)
    return await cache.stub.Invalidate(request, metadata=metadata)


COUNTS = [
    ({"everything": True}, 5),
    ({"namespace": ""}, 4),
    ({"namespace": "faq"}, 1),
    ({"namespace": "unheard-of"}, 0),
    ({"model_digest": DIGEST}, 2),
    ({"model_digest": OTHER_DIGEST.upper()}, 1),
    ({"tag": DOCUMENT}, 1),
    ({"tag": {"collection": "manuals"}}, 1),
    ({"tag": {"custom": "parser 2"}}, 1),
    ({"grown_collection": "manuals"}, 0),
]


async def test_unless_told_otherwise_it_only_says_what_would_happen(cache) -> None:
    await fill(cache)
    for fields in ({}, {"dry_run": True}):
        selectors = [selector for selector, _ in COUNTS]
        response = await call(cache, *selectors, tenant_id="default", **fields)
        assert not response.applied
        assert [effect.local_entry_count for effect in response.effects] == [
            count for _, count in COUNTS
        ]
        assert not any(effect.HasField("previous_invalidation_time") for effect in response.effects)
        for effect, selector in zip(response.effects, selectors, strict=True):
            assert effect.selector == invalidation_pb2.Selector(**selector)
        now = response.invalidation_time.ToNanoseconds() / 1e9
        assert abs(now - time.time()) < 30
    assert cache.metric("cache_invalidations_total", reason="everything") == 0


async def test_what_is_done_is_remembered_with_its_time(cache) -> None:
    await fill(cache)
    first = await call(cache, {"tag": DOCUMENT}, {"namespace": "faq"}, dry_run=False)
    assert first.applied
    foretold = await call(cache, {"tag": DOCUMENT}, {"namespace": ""})
    known, unknown = foretold.effects
    assert known.previous_invalidation_time == first.invalidation_time
    assert known.local_entry_count == 0
    assert not unknown.HasField("previous_invalidation_time")
    second = await call(cache, {"tag": DOCUMENT}, dry_run=False)
    assert second.effects[0].previous_invalidation_time == first.invalidation_time
    assert second.invalidation_time.ToNanoseconds() > first.invalidation_time.ToNanoseconds()
    assert cache.metric("cache_invalidations_total", reason="document") == 2


async def test_it_is_one_operation_for_all_that_is_named(start_cache, redis_server) -> None:
    one, other = [await start_cache(redis_server.url) for _ in range(2)]
    await fill(one)
    await call(one, *({"tag": {"custom": str(number)}} for number in range(64)), dry_run=False)
    seen = await call(other, *({"tag": {"custom": str(number)}} for number in range(64)))
    times = {effect.previous_invalidation_time.ToNanoseconds() for effect in seen.effects}
    assert len(times) == 1


async def test_a_tenant_can_name_itself_and_nobody_else(cache) -> None:
    for tenant in ("acme", "globex"):
        await fill(cache, tenant=tenant)
    acme = [(TENANT_HEADER, "acme")]
    for dry_run in (True, False):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(
                cache, {"everything": True}, tenant_id="globex", dry_run=dry_run, metadata=acme
            )
        error = error_from_call(caught.value)
        assert (error.status_code, error.error_reason) == (
            StatusCode.PERMISSION_DENIED,
            "TENANT_MISMATCH",
        )
        assert error.metadata["tenant_id"] == "globex"
    await call(cache, {"everything": True}, tenant_id="acme", dry_run=False, metadata=acme)
    gone = await call(cache, {"everything": True}, tenant_id="acme", metadata=acme)
    assert gone.effects[0].local_entry_count == 0
    foretold = await call(
        cache, {"everything": True}, tenant_id="globex", metadata=[(TENANT_HEADER, "globex")]
    )
    assert foretold.effects[0].local_entry_count == 5
    assert not foretold.effects[0].HasField("previous_invalidation_time")


@pytest.mark.parametrize("dry_run", [True, False])
async def test_without_the_store_nothing_is_acknowledged(
    start_cache, private_redis, dry_run
) -> None:
    await asyncio.to_thread(private_redis.start)
    cache = await start_cache(private_redis.url)
    await fill(cache)
    await asyncio.to_thread(private_redis.kill)
    for _ in range(8):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(cache, {"tag": DOCUMENT}, dry_run=dry_run)
        assert_unavailable(caught.value)


async def test_without_the_store_no_threshold_is_set(start_cache, private_redis) -> None:
    cache = await start_cache(private_redis.url)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await set_threshold(cache, 0.97)
    assert_unavailable(caught.value)


def assert_unavailable(error: grpc.aio.AioRpcError) -> None:
    told = error_from_call(error)
    assert (told.status_code, told.error_reason) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert told.metadata["cause"]
    status = rpc_status.from_call(error)
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert 0 < retry.retry_delay.ToNanoseconds() < 30e9


async def set_threshold(cache, threshold: float, namespace: str = "", metadata=None) -> float:
    request = cache_admin_service_pb2.SetSimilarityThresholdRequest(
        namespace=namespace, threshold=threshold
    )
    response = await cache.admin_stub.SetSimilarityThreshold(request, metadata=metadata)
    return response.previous_threshold


async def test_a_threshold_is_raised_per_namespace_and_tenant_and_set_back(
    start_cache, redis_server
) -> None:
    one, other = [await start_cache(redis_server.url) for _ in range(2)]
    assert await set_threshold(one, 0.97) == 0.95
    assert await set_threshold(one, 0.99, "faq") == 0.95
    assert await set_threshold(one, 0.96, metadata=[(TENANT_HEADER, "acme")]) == 0.95
    assert await set_threshold(other, 0.98) == 0.97
    assert await set_threshold(other, 0.95) == 0.98
    assert await set_threshold(one, 1.0) == 0.95
    assert await set_threshold(one, 0.95, "faq") == 0.99


@pytest.mark.parametrize("path", ["99", "selectors[0].99", "selectors[0].tag.document.99"])
async def test_what_a_newer_client_says_and_nobody_knows_here_voids_nothing(cache, path) -> None:
    await fill(cache)
    request = invalidation_pb2.InvalidateRequest(selectors=[{"tag": DOCUMENT}], dry_run=False)
    message = request
    for name in path.replace("[0]", "").split(".")[:-1]:
        message = getattr(message, name)
        message = message[0] if name == "selectors" else message
    # Field 99, holding 1.
    message.MergeFromString(b"\x98\x06\x01")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cache.stub.Invalidate(request)
    error = error_from_call(caught.value)
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    assert [each.field for each in error.violations] == [path]
    foretold = await call(cache, {"everything": True}, tenant_id="default")
    assert foretold.effects[0].local_entry_count == 5


async def test_a_threshold_is_not_set_where_not_all_that_is_said_is_known(cache) -> None:
    request = cache_admin_service_pb2.SetSimilarityThresholdRequest(threshold=1.0)
    request.MergeFromString(b"\x98\x06\x01")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cache.admin_stub.SetSimilarityThreshold(request)
    assert [each.field for each in error_from_call(caught.value).violations] == ["99"]
