"""Spans say what came of a call, who computed for whom, and nothing of what was asked."""

import asyncio
import logging
import time
import urllib.request

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import StatusCode

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2, invalidation_pb2, semantic_pb2, statistics_pb2
from services.cache.core import refresh
from services.cache.core.leases import (
    SECRET_BYTES,
    Origin,
    make_nonce,
    make_token,
    origin_of,
)
from services.common.identity import TENANT_HEADER
from services.common.logs import log_line
from services.common.tracing import traceparent
from tests.kit.cache_replicas import ANSWER, answer, eventually, fill_messages, flight, question
from tests.kit.rpc import error_of
from tests.kit.semantic import answer as semantic_answer
from tests.kit.semantic import at_similarity, partition, unit, vector

WORDS = ["one ", "two ", "three "]
MARKER = "zanzibar"


def caller() -> tuple[list[tuple[str, str]], trace.SpanContext]:
    """Returns the metadata of a call in a trace of its own, and the span that it is part of."""
    context = TracerProvider().get_tracer("test").start_span("caller").get_span_context()
    return [("traceparent", traceparent(context))], context


def look_up(cache, text: str = "why?", **call):
    request = pb.LookupInferenceRequest(key=question(text), mode="rag", flight=flight())
    return cache.stub.LookupInference(request, timeout=20.0, **call)


def store(cache, token: str = "", text: str = "why?", inference: pb.Inference = ANSWER, **call):
    request = pb.StoreInferenceRequest(key=question(text), inference=inference, lease_token=token)
    return cache.stub.StoreInference(request, **call)


def ask(cache, **fields):
    given = {"partition": partition(), "query": "How is a password reset?", "vector": VECTOR}
    return cache.stub.LookupSemantic(semantic_pb2.LookupSemanticRequest(**given | fields))


def tell(cache, **fields):
    given = {
        "partition": partition(),
        "query": "How is a password reset?",
        "vector": VECTOR,
        "answer": semantic_answer(),
    }
    return cache.stub.StoreSemantic(semantic_pb2.StoreSemanticRequest(**given | fields))


BASE = unit(1)
VECTOR = vector(BASE)


async def spans_of(cache, method: str, count: int = 1) -> list[ReadableSpan]:
    """Returns the server spans of a method, once there are so many."""

    def ended() -> list[ReadableSpan]:
        finished = cache.spans.get_finished_spans()
        return [span for span in finished if span.name.endswith(f"/{method}")]

    # The server ends a span after the reply has gone.
    await eventually(lambda: len(ended()) >= count)
    return ended()


async def last_span(cache, method: str, count: int = 1) -> ReadableSpan:
    return (await spans_of(cache, method, count))[-1]


def children(cache, span: ReadableSpan) -> list[ReadableSpan]:
    finished = cache.spans.get_finished_spans()
    return [
        each for each in finished if each.parent and each.parent.span_id == span.context.span_id
    ]


def targets(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


async def test_a_lookup_tells_level_age_and_size(caches) -> None:
    first, second = caches
    await store(first)
    for level in ("shared", "local"):
        await look_up(second)
        span = await last_span(second, "LookupInference", 1 + (level == "local"))
        assert span.attributes["app.cache.outcome"] == level
        assert span.attributes["app.cache.result"] == "hit"
        assert span.attributes["app.cache.l1"] is (level == "local")
        assert 0 <= span.attributes["app.cache.age_s"] < 60
        assert span.attributes["app.cache.bytes"] == ANSWER.ByteSize()
        assert span.attributes["app.cache.degraded"] is False
        assert "app.cache.singleflight" not in span.attributes
        assert [each.name for each in children(second, span)].count("EVALSHA") == (
            # The times of invalidations, and the value.
            2 if level == "shared" else 0
        )
    written = await last_span(first, "StoreInference")
    assert written.attributes["app.cache.bytes"] == ANSWER.ByteSize()
    assert written.attributes["app.cache.stored_count"] == 1


async def test_a_batch_is_local_only_where_all_of_it_is(caches) -> None:
    space = pb.EmbeddingSpace(model_digest="0123456789abcdef" * 4)
    entries = [
        pb.EmbeddingEntry(text=text, vector={"float32_le": b"\0\0\x80?", "dimension": 1})
        for text in "abc"
    ]
    await caches[0].stub.StoreEmbeddings(pb.StoreEmbeddingsRequest(space=space, entries=entries))
    for count, (texts, is_local, size_bytes) in enumerate(
        [("abc", True, 12), ("abx", False, 8), ("xyz", False, 0)], start=1
    ):
        request = pb.LookupEmbeddingsRequest(space=space, texts=list(texts))
        await caches[0].stub.LookupEmbeddings(request)
        span = await last_span(caches[0], "LookupEmbeddings", count)
        assert span.attributes["app.cache.l1"] is is_local
        assert span.attributes["app.cache.bytes"] == size_bytes
        assert ("app.cache.age_s" in span.attributes) is (size_bytes > 0)
    written = await last_span(caches[0], "StoreEmbeddings")
    assert written.attributes["app.cache.bytes"] == 12


@pytest.mark.parametrize("replica", [0, 1])
async def test_a_follower_is_linked_to_its_leader(caches, replica) -> None:
    leading, led = caller()
    following, _ = caller()
    token = (await look_up(caches[0], metadata=leading)).lease.token
    waiting = look_up(caches[replica], metadata=following)
    await eventually(lambda: caches[replica].metric("cache_waiting_callers") == 1)
    await store(caches[0], token, metadata=leading)
    await waiting
    leader = (await spans_of(caches[0], "LookupInference"))[0]
    follower = await last_span(caches[replica], "LookupInference", 2 if replica == 0 else 1)
    assert leader.attributes["app.cache.singleflight"] == "leader"
    assert leader.attributes["app.cache.refresh"] is False
    assert follower.attributes["app.cache.singleflight"] == "follower"
    assert targets(follower) == [leader.context.span_id]
    assert follower.links[0].context.trace_id == leader.context.trace_id == led.trace_id
    assert leader.links == ()


async def _all_of(stream) -> list[pb.StreamInferenceResponse]:
    return [event async for event in stream]


async def test_followers_of_a_text_are_linked_to_its_leader(caches) -> None:
    leading, _ = caller()
    token = (await look_up(caches[0], metadata=leading)).lease.token
    streams = [
        cache.stub.StreamInference(
            pb.StreamInferenceRequest(key=question(), flight=flight()),
            timeout=20.0,
            metadata=caller()[0],
        )
        for cache in caches
    ]
    reading = [asyncio.create_task(_all_of(stream)) for stream in streams]
    await eventually(lambda: all(each.metric("cache_waiting_callers") == 1 for each in caches))
    await caches[0].stub.FillInference(fill_messages(token, WORDS), metadata=leading)
    for task in reading:
        assert (await task)[-1].completed.text == "".join(WORDS)
    leader = await last_span(caches[0], "LookupInference")
    for cache in caches:
        follower = await last_span(cache, "StreamInference")
        assert follower.attributes["app.cache.singleflight"] == "follower"
        assert follower.attributes["app.cache.outcome"] == "coalesced"
        assert follower.attributes["app.cache.bytes"] > 0
        assert targets(follower) == [leader.context.span_id]
    # One of them read along in Redis; that it stopped in the end is no failure of Redis.
    follower = await last_span(caches[1], "StreamInference")
    await eventually(lambda: any(each.name == "XREAD" for each in children(caches[1], follower)))
    for each in children(caches[1], follower):
        assert each.status.status_code is StatusCode.UNSET


async def test_a_successor_is_a_leader_linked_to_the_one_before(caches) -> None:
    token = (await look_up(caches[0], metadata=caller()[0])).lease.token
    waiting = look_up(caches[1], metadata=caller()[0])
    await eventually(lambda: caches[1].metric("cache_waiting_callers") == 1)
    await caches[0].stub.ReleaseLease(
        pb.ReleaseLeaseRequest(key=question(), lease_token=token), metadata=caller()[0]
    )
    lease = (await waiting).lease
    first = await last_span(caches[0], "LookupInference")
    second = await last_span(caches[1], "LookupInference")
    assert second.attributes["app.cache.singleflight"] == "leader"
    assert targets(second) == [first.context.span_id]
    released = await last_span(caches[0], "ReleaseLease")
    assert targets(released) == [first.context.span_id]
    await store(caches[1], lease.token)


async def test_what_is_handed_over_in_another_trace_is_linked_to_who_was_to_compute_it(
    caches,
) -> None:
    token = (await look_up(caches[0], metadata=caller()[0])).lease.token
    assert (await store(caches[1], token, metadata=caller()[0])).stored
    cause = await last_span(caches[0], "LookupInference")
    assert targets(await last_span(caches[1], "StoreInference")) == [cause.context.span_id]
    # Within one trace, nothing need be said.
    same, _ = caller()
    token = (await look_up(caches[0], "when?", metadata=same)).lease.token
    await store(caches[1], token, "when?", metadata=same)
    assert (await last_span(caches[1], "StoreInference", 2)).links == ()


def forged() -> str:
    """Returns a token that names a span of somebody else's trace, and a lease that nobody has."""
    nonce = make_nonce(bytes(SECRET_BYTES), Origin(0xBAD << 64, 0xBAD))
    return make_token(int(time.time() * 1e6), nonce)


async def test_a_token_that_is_made_up_links_to_nothing(caches) -> None:
    cache = caches[0]
    for given in ("", (await look_up(cache, "held")).lease.token):
        text = "held" if given else "free"
        assert (await error_of(store(cache, forged(), text))).error_reason == "LEASE_LOST"
        fill = cache.stub.FillInference(fill_messages(forged(), WORDS, text=text))
        assert (await error_of(fill)).error_reason == "LEASE_LOST"
        release = pb.ReleaseLeaseRequest(key=question(text), lease_token=forged())
        assert (await error_of(cache.stub.ReleaseLease(release))).error_reason == "LEASE_LOST"
        extend = pb.ExtendLeaseRequest(key=question(text), lease_token=forged())
        assert (await error_of(cache.stub.ExtendLease(extend))).error_reason == "LEASE_LOST"
    for method in ("StoreInference", "FillInference", "ReleaseLease", "ExtendLease"):
        for span in await spans_of(cache, method, 2):
            assert span.links == ()


async def test_a_token_links_to_nothing_while_nobody_can_tell_whether_it_holds(
    start_cache, private_redis
) -> None:
    await asyncio.to_thread(private_redis.start)
    cache = await start_cache(private_redis.url)
    private_redis.kill()
    await store(cache, forged())
    release = pb.ReleaseLeaseRequest(key=question(), lease_token=forged())
    await cache.stub.ReleaseLease(release)
    # One that this replica has given by itself holds.
    lease = (await look_up(cache, metadata=caller()[0])).lease
    await store(cache, lease.token, metadata=caller()[0])
    leader = await last_span(cache, "LookupInference")
    first, second = await spans_of(cache, "StoreInference", 2)
    assert first.links == (await last_span(cache, "ReleaseLease")).links == ()
    assert targets(second) == [leader.context.span_id]


async def test_who_asks_the_same_for_another_tenant_neither_waits_nor_is_linked(caches) -> None:
    def of(tenant: str) -> list[tuple[str, str]]:
        return [*caller()[0], (TENANT_HEADER, tenant)]

    acme = (await look_up(caches[0], metadata=of("acme"))).lease.token
    other = (await look_up(caches[0], metadata=of("other"))).lease.token
    assert origin_of(acme) != origin_of(other) is not None
    # Nor does the token of one do for the other.
    assert (
        await error_of(store(caches[0], acme, metadata=of("other")))
    ).error_reason == "LEASE_LOST"
    await store(caches[0], other, metadata=of("other"))
    for span in await spans_of(caches[0], "LookupInference", 2):
        assert span.links == ()
        assert span.attributes["app.cache.singleflight"] == "leader"
    refused = (await spans_of(caches[0], "StoreInference", 2))[0]
    assert refused.links == ()


async def test_a_refresh_is_led_by_the_hit_that_asked_for_it(
    start_cache, redis_server, monkeypatch
) -> None:
    # As if the last tenth of the answer's life had begun.
    monkeypatch.setattr(refresh, "_WINDOW_RATIO", 1.0)
    cache = await start_cache(redis_server.url)
    inference = answer("because")
    inference.generation_time.seconds = 3600
    request = pb.StoreInferenceRequest(
        key=question(),
        inference=inference,
        control=control_pb2.StoreControl(ttl={"seconds": 60}),
    )
    await cache.stub.StoreInference(request)

    async def refreshed() -> pb.LookupInferenceResponse:
        while not (found := await look_up(cache, metadata=caller()[0])).HasField("lease"):
            await asyncio.sleep(0.02)
        return found

    found = await asyncio.wait_for(refreshed(), 5)
    assert found.HasField("inference")
    spans = await spans_of(cache, "LookupInference")
    (cause,) = [span for span in spans if "app.cache.singleflight" in span.attributes]
    assert cause.attributes["app.cache.singleflight"] == "leader"
    assert cause.attributes["app.cache.refresh"] is True
    assert [each.name for each in children(cache, cause)][-1] == "EVALSHA"
    await store(cache, found.lease.token, metadata=caller()[0])
    assert targets(await last_span(cache, "StoreInference", 2)) == [cause.context.span_id]


async def test_callers_that_are_not_recorded_lead_and_follow_without_links(caches) -> None:
    unsampled = [("traceparent", f"00-{7:032x}-{7:016x}-00")]
    token = (await look_up(caches[0], metadata=unsampled)).lease.token
    assert len(token) < 40
    waiting = look_up(caches[1], metadata=caller()[0])
    await eventually(lambda: caches[1].metric("cache_waiting_callers") == 1)
    await store(caches[0], token, metadata=unsampled)
    await waiting
    assert (await last_span(caches[1], "LookupInference")).links == ()
    assert caches[0].spans.get_finished_spans() == ()


async def test_the_store_is_asked_in_the_trace_of_whoever_it_is_asked_for(caches) -> None:
    """Not in that of the caller who came first and has gone."""
    token = (await look_up(caches[0], metadata=caller()[0])).lease.token
    gone, waiting = (look_up(caches[1], metadata=caller()[0]) for _ in range(2))
    await eventually(lambda: caches[1].metric("cache_waiting_callers") == 2)
    gone.cancel()
    await eventually(lambda: caches[1].metric("cache_waiting_callers") == 1)
    caches[1].spans.clear()
    await store(caches[0], token)
    await waiting
    spans = await spans_of(caches[1], "LookupInference")
    served = next(span for span in spans if span.attributes.get("app.cache.result") == "hit")
    assert [each.name for each in children(caches[1], served)] == ["EVALSHA"]


async def test_a_question_tells_similarity_and_threshold(caches) -> None:
    await tell(caches[0])
    await ask(caches[0])
    await ask(
        caches[0], query="How do I reset a password?", vector=vector(at_similarity(BASE, 0.97))
    )
    await ask(caches[0], vector=vector(unit(5)), query="What is the price of cheese?")
    exact, candidate, miss = await spans_of(caches[0], "LookupSemantic", 3)
    for span in (exact, candidate, miss):
        assert span.attributes["app.cache.layer"] == "semantic"
        assert span.attributes["app.cache.threshold"] == 0.95
    assert exact.attributes["app.cache.result"] == "hit"
    assert exact.attributes["app.cache.outcome"] == "exact"
    assert exact.attributes["app.cache.similarity"] == 1.0
    assert exact.attributes["app.cache.l1"] is True
    assert candidate.attributes["app.cache.result"] == "miss"
    assert candidate.attributes["app.cache.outcome"] == "candidate"
    assert candidate.attributes["app.cache.similarity"] == pytest.approx(0.97, abs=1e-3)
    assert candidate.attributes["app.cache.candidate_reason"] == "unproven"
    assert miss.attributes["app.cache.result"] == "miss"
    assert (await last_span(caches[0], "StoreSemantic")).attributes["app.cache.bytes"] > 0


async def test_a_partition_is_read_in_the_trace_of_who_needs_it(caches) -> None:
    await tell(caches[0])
    await ask(caches[1])
    span = await last_span(caches[1], "LookupSemantic")
    names = [each.name for each in children(caches[1], span)]
    assert {"EVALSHA", "HSCAN", "MGET"} <= set(names)


async def test_scripts_go_by_their_names(caches) -> None:
    await look_up(caches[0])
    span = await last_span(caches[0], "LookupInference")
    scripts = [each for each in children(caches[0], span) if each.name == "EVALSHA"]
    names = [each.attributes["db.stored_procedure.name"] for each in scripts]
    assert names[-1] == "take_lease"
    for each in scripts:
        assert each.attributes["db.system.name"] == "redis"
        assert each.attributes["db.operation.name"] == "EVALSHA"
        assert each.attributes["db.namespace"] == "1"
        assert each.attributes["server.address"] == "127.0.0.1"


def shown(span: ReadableSpan) -> str:
    """Returns all that a span says."""
    events = [(event.name, event.attributes) for event in span.events]
    links = [link.attributes for link in span.links]
    return f"{span.name} {dict(span.attributes)} {events} {links} {span.status.description}\n"


async def use_everything(cache, word: str) -> None:
    """Makes every call with a word in each text that it takes."""
    metadata = [(TENANT_HEADER, "acme"), ("x-pannier-user-id", "someone")]
    stub, space = cache.stub, pb.EmbeddingSpace(model_digest="0123456789abcdef" * 4, namespace=word)
    entry = pb.EmbeddingEntry(text=word, vector={"float32_le": b"\0\0\x80?", "dimension": 1})
    control = control_pb2.StoreControl(
        tags=[control_pb2.Tag(collection=word), control_pb2.Tag(custom=word)]
    )
    await stub.StoreEmbeddings(
        pb.StoreEmbeddingsRequest(space=space, entries=[entry], control=control), metadata=metadata
    )
    for text in (word, f"other {word}"):
        await stub.LookupEmbeddings(
            pb.LookupEmbeddingsRequest(space=space, texts=[text]), metadata=metadata
        )
    key = pb.ChunksKey(content_digest="ab" * 32, chunker_fingerprint=word, namespace=word)
    chunks = pb.ChunkSet(spans=[pb.ChunkSpan(char_end=9, heading_path=[word], token_count=1)])
    await stub.StoreChunks(pb.StoreChunksRequest(key=key, chunks=chunks), metadata=metadata)
    await stub.LookupChunks(pb.LookupChunksRequest(key=key), metadata=metadata)
    for text in (word, f"more {word}"):
        request = pb.LookupInferenceRequest(key=question(text), mode=word, flight=flight())
        token = (await stub.LookupInference(request, metadata=metadata)).lease.token
        await stub.FillInference(fill_messages(token, [word, word], text=text), metadata=metadata)
        await stub.LookupInference(request, metadata=metadata)
    stream = pb.StreamInferenceRequest(key=question(word), mode=word, flight=flight())
    async for _ in stub.StreamInference(stream, metadata=metadata):
        pass
    failure = pb.Failure(kind=pb.FAILURE_KIND_REJECTED, message=word)
    request = pb.LookupInferenceRequest(key=question(f"no {word}"), flight=flight())
    token = (await stub.LookupInference(request, metadata=metadata)).lease.token
    await stub.ReleaseLease(
        pb.ReleaseLeaseRequest(key=request.key, lease_token=token, failure=failure),
        metadata=metadata,
    )
    await stub.LookupInference(request, metadata=metadata)
    # A mistake in each kind of request is told to the caller only.
    await error_of(stub.StoreInference(pb.StoreInferenceRequest(lease_token=word * 20)))
    where = partition(namespace=word)
    stored = await tell(cache, query=word, answer=semantic_answer(word), partition=where)
    for query in (word, f"How is {word} made?"):
        await ask(cache, query=query, mode=word, partition=where)
    await stub.ReportOutcome(
        semantic_pb2.ReportOutcomeRequest(
            partition=where,
            entry_id=stored.entry_id,
            similarity=0.97,
            verdict=semantic_pb2.MATCH_VERDICT_WRONG,
            judge=semantic_pb2.MATCH_JUDGE_PERSON,
            mode=word,
            served=True,
        )
    )
    selectors = [invalidation_pb2.Selector(namespace=word), invalidation_pb2.Selector()]
    selectors[1].tag.document.CopyFrom(control_pb2.DocumentTag(collection=word, document_id=word))
    await stub.Invalidate(invalidation_pb2.InvalidateRequest(selectors=selectors, dry_run=False))
    await stub.GetStats(statistics_pb2.GetStatsRequest())


def scraped(cache) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{cache.http_port}/metrics",
        headers={"Accept": "application/openmetrics-text; version=1.0.0"},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return response.read().decode()


class Lines(logging.Handler):
    """Keeps what would be logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(str(log_line(record, "cache")))


async def test_nothing_that_was_asked_shows_in_spans_logs_or_labels(
    start_cache, private_redis
) -> None:
    await asyncio.to_thread(private_redis.start)
    logs = Lines()
    ours = logging.getLogger("services")
    level = ours.level
    ours.addHandler(logs)
    ours.setLevel(logging.DEBUG)
    try:
        cache = await start_cache(private_redis.url)
        await use_everything(cache, MARKER)
        # Failures tell no more.
        private_redis.kill()
        await look_up(cache, MARKER)
        await store(cache, text=MARKER)
        await spans_of(cache, "StoreInference", 2)
        page = await asyncio.to_thread(scraped, cache)
    finally:
        ours.removeHandler(logs)
        ours.setLevel(level)
    logged = "\n".join(logs.lines)
    spans = "".join(shown(span) for span in cache.spans.get_finished_spans())
    assert "call ended" in logged
    assert spans.count("app.cache.layer") > 10
    assert 'mode="unknown"' in page
    for text in (spans, logged, page):
        assert MARKER not in text.lower()
        assert "pannier:2:" not in text
