"""A call's span says what came of it, and each Redis command has a span of its own."""

import asyncio

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from pannier.cache.v1 import cache_service_pb2 as pb

DIGEST = "0123456789abcdef" * 4
SPACE = pb.EmbeddingSpace(model_digest=DIGEST)
PREFIX = "pannier.cache.v1.CacheService/"


def entries(count: int) -> list[pb.EmbeddingEntry]:
    vector = {"float32_le": b"\0\0\x80?", "dimension": 1}
    return [pb.EmbeddingEntry(text=f"text {number}", vector=vector) for number in range(count)]


async def store(cache, count: int) -> None:
    await cache.stub.StoreEmbeddings(pb.StoreEmbeddingsRequest(space=SPACE, entries=entries(count)))


async def look_up(cache, *texts: str) -> None:
    await cache.stub.LookupEmbeddings(pb.LookupEmbeddingsRequest(space=SPACE, texts=texts))


async def spans_of(cache, method: str):
    """Returns the server span of the last call of a method with its children."""
    async with asyncio.timeout(5):
        # The server ends the span after the reply has gone.
        while True:
            finished = cache.spans.get_finished_spans()
            servers = [span for span in finished if span.name == PREFIX + method]
            if servers:
                break
            await asyncio.sleep(0.01)
    server = servers[-1]
    children = [
        span for span in finished if span.parent and span.parent.span_id == server.context.span_id
    ]
    return server, children


async def test_a_lookup_is_one_server_span_with_one_mget(start_cache, redis_server) -> None:
    first, second = [await start_cache(redis_server.url) for _ in range(2)]
    await store(first, 3)
    await look_up(second, "text 0", "text 1", "text 2", "absent")
    server, (_, mget) = await spans_of(second, "LookupEmbeddings")
    assert server.attributes["app.cache.layer"] == "embedding"
    assert server.attributes["app.cache.result"] == "miss"
    assert server.attributes["app.cache.item_count"] == 4
    assert server.attributes["app.cache.shared_hit_count"] == 3
    assert server.attributes["app.cache.local_hit_count"] == 0
    assert server.attributes["app.cache.degraded"] is False
    assert (mget.name, mget.kind) == ("MGET", SpanKind.CLIENT)
    assert dict(mget.attributes) == {
        "db.system.name": "redis",
        "db.operation.name": "MGET",
        "db.namespace": "0",
        "db.operation.batch.size": 4,
        "server.address": "127.0.0.1",
        "server.port": redis_server.port,
    }
    assert mget.status.status_code is StatusCode.UNSET


async def test_a_store_is_one_server_span_with_one_set(cache) -> None:
    await store(cache, 5)
    server, (_, write) = await spans_of(cache, "StoreEmbeddings")
    assert server.attributes["app.cache.stored_count"] == 5
    assert write.name == "SET"
    assert write.attributes["db.operation.batch.size"] == 5


async def test_the_first_call_of_a_tenant_reads_its_invalidations_and_the_next_does_not(
    cache,
) -> None:
    await look_up(cache, "absent")
    _, first = await spans_of(cache, "LookupEmbeddings")
    cache.spans.clear()
    await look_up(cache, "absent")
    _, second = await spans_of(cache, "LookupEmbeddings")
    assert [span.name for span in second] == ["MGET"]
    assert [span.name for span in first] == ["EVALSHA", "MGET"]


async def test_a_local_hit_has_no_child(cache) -> None:
    await store(cache, 1)
    await look_up(cache, "text 0")
    server, children = await spans_of(cache, "LookupEmbeddings")
    assert server.attributes["app.cache.result"] == "hit"
    assert children == []


async def test_a_single_item_is_no_batch(cache) -> None:
    await store(cache, 1)
    await look_up(cache, "absent")
    _, (mget,) = await spans_of(cache, "LookupEmbeddings")
    assert "db.operation.batch.size" not in mget.attributes


async def test_the_command_fails_and_the_call_does_not(start_cache, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    cache = await start_cache(private_redis.url)
    private_redis.kill()
    await look_up(cache, "text")
    server, (command,) = await spans_of(cache, "LookupEmbeddings")
    assert command.status.status_code is StatusCode.ERROR
    assert command.attributes["error.type"] == "StoreFailure"
    assert server.status.status_code is StatusCode.UNSET
    assert server.attributes["app.cache.result"] == "error"
    assert server.attributes["app.cache.degraded"] is True


@pytest.mark.parametrize("outcome", ["hit", "miss"])
async def test_spans_hold_neither_texts_nor_keys(cache, outcome) -> None:
    await store(cache, 1)
    await look_up(cache, "text 0" if outcome == "hit" else "text 1")
    await spans_of(cache, "LookupEmbeddings")
    shown = "".join(
        f"{span.name} {dict(span.attributes)}" for span in cache.spans.get_finished_spans()
    )
    assert "text " not in shown
    assert "pannier:2:" not in shown
    assert DIGEST not in shown
