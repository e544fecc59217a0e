"""What `/metrics` shows is what happened, and what GetStats says."""

import asyncio
import time
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import control_pb2, invalidation_pb2, semantic_pb2, statistics_pb2
from services.cache.core.layers import Layer
from services.cache.core.spans import HitKind
from services.cache.metrics import CATALOGUE, MODES
from services.common.metrics import MetricKind
from services.common.tasks import in_background
from tests.kit.cache_replicas import ANSWER, answer, eventually, fill_messages, flight, question
from tests.kit.semantic import answer as semantic_answer
from tests.kit.semantic import at_similarity, partition, unit, vector

SPACE = pb.EmbeddingSpace(model_digest="0123456789abcdef" * 4)
BASE = unit(1)
ASKED = "How is a forgotten password reset?"
# The budget of the reference, for all series of a service.
MOST_SERIES = 5_000


def look_up(cache, text: str = "why?", mode: str = "rag", **call):
    request = pb.LookupInferenceRequest(key=question(text), mode=mode, flight=flight())
    return cache.stub.LookupInference(request, timeout=20.0, **call)


async def read_stream(cache, text: str = "why?") -> list[pb.StreamInferenceResponse]:
    request = pb.StreamInferenceRequest(key=question(text), mode="rag", flight=flight())
    return [event async for event in cache.stub.StreamInference(request, timeout=20.0)]


async def store(cache, text: str = "why?", token: str = "", inference: pb.Inference = ANSWER):
    request = pb.StoreInferenceRequest(key=question(text), inference=inference, lease_token=token)
    return await cache.stub.StoreInference(request)


async def look_up_embeddings(cache, *texts: str, **call):
    request = pb.LookupEmbeddingsRequest(space=SPACE, texts=texts)
    return await cache.stub.LookupEmbeddings(request, **call)


async def store_embeddings(cache, *texts: str):
    vectors = {"float32_le": b"\0\0\x80?" * 4, "dimension": 4}
    entries = [pb.EmbeddingEntry(text=text, vector=vectors) for text in texts]
    return await cache.stub.StoreEmbeddings(pb.StoreEmbeddingsRequest(space=SPACE, entries=entries))


async def ask(cache, query: str = ASKED, direction=BASE, mode: str = "rag"):
    request = semantic_pb2.LookupSemanticRequest(
        partition=partition(), query=query, vector=vector(direction), mode=mode
    )
    return await cache.stub.LookupSemantic(request)


async def tell(cache, query: str = ASKED, direction=BASE):
    request = semantic_pb2.StoreSemanticRequest(
        partition=partition(), query=query, vector=vector(direction), answer=semantic_answer()
    )
    return await cache.stub.StoreSemantic(request)


async def report(cache, entry_id: str, verdict: int, **fields):
    fields = {"similarity": 0.97, "judge": semantic_pb2.MATCH_JUDGE_RECOMPUTATION} | fields
    request = semantic_pb2.ReportOutcomeRequest(
        partition=partition(), entry_id=entry_id, verdict=verdict, **fields
    )
    return await cache.stub.ReportOutcome(request)


async def scrape(cache) -> tuple[dict[tuple[str, frozenset], float], str]:
    """Returns the samples of a scrape, and its text."""

    def fetch() -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{cache.http_port}/metrics",
            headers={"Accept": "application/openmetrics-text; version=1.0.0"},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()

    text = await asyncio.to_thread(fetch)
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return samples, text


def total(samples, name: str, **labels: str) -> float:
    """Sums the samples of a name that have the given labels."""
    wanted = labels.items()
    found = [value for (each, have), value in samples.items() if each == name and wanted <= have]
    assert found, (name, labels)
    return sum(found)


async def stats_of(cache) -> statistics_pb2.GetStatsResponse:
    return await cache.stub.GetStats(statistics_pb2.GetStatsRequest())


async def test_every_counter_and_histogram_is_there_before_the_first_call(cache) -> None:
    samples, _ = await scrape(cache)
    for metric in CATALOGUE:
        if metric.kind is MetricKind.GAUGE:
            continue
        suffix = "_count" if metric.kind is MetricKind.HISTOGRAM else ""
        series = [labels for name, labels in samples if name == metric.name + suffix]
        expected = 1
        for label in metric.labels.values():
            expected *= len(label.values) or 1
        assert len(series) == expected, metric.name
    assert len(samples) < MOST_SERIES


async def test_each_item_of_a_batch_counts_once(caches) -> None:
    first, second = caches
    await store_embeddings(first, "a", "b")
    await look_up_embeddings(second, "a", "b", "x", "a")
    labels = {"layer": "embedding", "mode": "unknown"}
    assert second.metric("cache_lookups_total", result="hit", **labels) == 3
    assert second.metric("cache_lookups_total", result="miss", **labels) == 1
    assert second.metric("cache_hits_total", layer="embedding", level="shared") == 3
    assert second.metric("cache_hit_age_seconds_count", layer="embedding") == 3
    call = {"layer": "embedding", "result": "miss"}
    assert second.metric("cache_lookup_duration_seconds_count", **call) == 1


@pytest.mark.parametrize("replica", [0, 1])
async def test_followers_are_misses_that_were_coalesced(caches, replica) -> None:
    token = (await look_up(caches[0])).lease.token
    cache = caches[replica]
    before = cache.metric("cache_lookups_total", layer="inference", mode="rag", result="miss")
    followers = [look_up(cache) for _ in range(2)]
    following = asyncio.create_task(read_stream(cache))
    await eventually(lambda: cache.metric("cache_waiting_callers") == 3)
    assert cache.metric("cache_lease_wait_seconds_count") == 0
    await caches[0].stub.FillInference(fill_messages(token, ["be", "cause"]))
    for follower in followers:
        assert (await follower).outcome == pb.LOOKUP_OUTCOME_HIT_COALESCED
    assert (await following)[-1].completed.text == "because"
    labels = {"layer": "inference", "mode": "rag"}
    assert cache.metric("cache_lookups_total", result="miss", **labels) == before + 3
    assert cache.metric("cache_lookups_total", result="hit", **labels) == 0
    assert cache.metric("cache_hits_total", layer="inference", level="coalesced") == 3
    assert cache.metric("cache_singleflight_waits_total", layer="inference") == 3
    assert cache.metric("cache_lease_wait_seconds_count") == 3
    assert cache.metric("cache_coalesced_tokens_total", kind="prompt") == 3 * 7
    assert cache.metric("cache_saved_tokens_total", kind="prompt") == 0
    assert cache.metric("cache_waiting_callers") == 0
    # The time of their lookups is that without the wait.
    assert cache.metric("cache_lookup_duration_seconds_sum", layer="inference", result="miss") < 1


async def test_an_answer_sent_again_as_a_stream_counts_once(cache) -> None:
    await store(cache)
    assert (await read_stream(cache))[-1].completed == ANSWER
    labels = {"layer": "inference", "mode": "rag"}
    assert cache.metric("cache_lookups_total", result="hit", **labels) == 1
    assert cache.metric("cache_hits_total", layer="inference", level="local") == 1
    assert cache.metric("cache_saved_tokens_total", kind="completion") == 3
    assert cache.metric("cache_saved_seconds_total") == 2.5


async def test_a_caller_who_hangs_up_has_looked_once_and_found_nothing(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    calls = [look_up(caches[1], mode="deep"), look_up(caches[1], mode="deep")]
    await eventually(lambda: caches[1].metric("cache_waiting_callers") == 2)
    for call in calls:
        call.cancel()
    labels = {"layer": "inference", "mode": "deep", "result": "miss"}
    await eventually(lambda: caches[1].metric("cache_lookups_total", **labels) == 2)
    await eventually(lambda: caches[1].metric("cache_waiting_callers") == 0)
    assert caches[1].metric("cache_lease_wait_seconds_count") == 2
    await store(caches[0], token=token)


async def test_lookups_without_a_mode_count_under_that_of_their_question(cache) -> None:
    carried = [("baggage", "mode=deep,query_id=q1")]
    await look_up_embeddings(cache, "a", metadata=carried)
    await look_up(cache, mode="", metadata=carried)
    await look_up(cache, "when?", mode="agent", metadata=carried)
    await look_up(cache, "where?", mode="", metadata=[("baggage", "mode=surprising")])
    for layer, mode in (
        ("embedding", "deep"),
        ("inference", "deep"),
        ("inference", "agent"),
        ("inference", "unknown"),
    ):
        labels = {"layer": layer, "mode": mode, "result": "miss"}
        assert cache.metric("cache_lookups_total", **labels) == 1
    modes = {(each.mode, each.layer): each.lookup_count for each in (await stats_of(cache)).modes}
    assert modes["deep", statistics_pb2.LAYER_EMBEDDING] == 1


async def test_what_is_pushed_out_has_a_reason_and_an_age(start_cache, redis_server) -> None:
    cache = await start_cache(redis_server.url, local_inference_limit_bytes="64KiB")
    started = time.monotonic()
    for number in range(100):
        await store(cache, f"question {number}", inference=answer("x" * 2_000))
    elapsed = time.monotonic() - started
    labels = {"layer": "inference"}
    evicted = cache.metric("cache_evictions_total", reason="capacity", **labels)
    assert evicted > 50
    assert evicted + cache.metric("cache_entries", **labels) == 100
    assert cache.metric("cache_entry_lifetime_seconds_count", **labels) == evicted
    assert 0 < cache.metric("cache_entry_lifetime_seconds_sum", **labels) < evicted * elapsed
    limit_bytes = cache.metric("cache_memory_limit_bytes", **labels)
    assert 0.9 * limit_bytes < cache.metric("cache_memory_bytes", **labels) <= limit_bytes


async def test_what_has_expired_has_lived_for_as_long_as_it_was_to(cache) -> None:
    request = pb.StoreInferenceRequest(
        key=question(),
        inference=ANSWER,
        control=control_pb2.StoreControl(ttl={"nanos": 200_000_000}),
    )
    await cache.stub.StoreInference(request)
    await asyncio.sleep(0.3)
    assert (await look_up(cache)).outcome == pb.LOOKUP_OUTCOME_MISS
    labels = {"layer": "inference"}
    assert cache.metric("cache_evictions_total", reason="expired", **labels) == 1
    # The time to live is shortened by up to a tenth, so that not all end at once.
    assert 0.17 < cache.metric("cache_entry_lifetime_seconds_sum", **labels) <= 0.2


async def test_the_pools_show_connections_and_waits(start_cache, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    cache = await start_cache(
        private_redis.url, redis_connection_limit="2", redis_timeout_seconds="1s"
    )
    await look_up_embeddings(cache, "a")

    def connections(pool: str, state: str) -> float | None:
        return cache.metric("connection_pool_connections", pool=pool, state=state)

    # Two logical databases, each with connections of its own.
    assert cache.metric("connection_pool_max_connections", pool="redis") == 4
    assert cache.metric("connection_pool_max_connections", pool="redis_streams") == 64
    await eventually(lambda: connections("redis", "in_use") == 0)
    assert 2 <= connections("redis", "idle") <= 4
    assert connections("redis_streams", "idle") == 0
    quick = cache.metric("connection_pool_wait_seconds_count", pool="redis")
    assert quick >= 2
    private_redis.freeze()
    try:
        calls = [asyncio.ensure_future(look_up_embeddings(cache, f"b{n}")) for n in range(6)]
        await eventually(lambda: connections("redis", "in_use") >= 2)
        await asyncio.gather(*calls)
    finally:
        private_redis.thaw()
    # Some waited for those two connections, in vain.
    waited = "connection_pool_wait_seconds_bucket"
    everyone = cache.metric(waited, pool="redis", le="+Inf")
    assert cache.metric(waited, pool="redis", le="0.05") < everyone
    await eventually(lambda: connections("redis", "in_use") == 0)


async def test_a_reader_of_a_stream_holds_a_connection_of_the_other_pool(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    following = asyncio.create_task(read_stream(caches[1]))

    def in_use() -> float | None:
        return caches[1].metric("connection_pool_connections", pool="redis_streams", state="in_use")

    await eventually(lambda: in_use() == 1)
    await store(caches[0], token=token)
    await following
    await eventually(lambda: in_use() == 0)
    assert caches[1].metric("connection_pool_wait_seconds_count", pool="redis_streams") >= 1


def phases(cache) -> dict[str, float | None]:
    names = ("normal", "slow", "open", "recovering")
    return {each: cache.metric("cache_redis_breaker_state", phase=each) for each in names}


async def test_the_gauges_follow_a_redis_that_freezes_and_thaws(start_cache, private_redis) -> None:
    await asyncio.to_thread(private_redis.start)
    cache = await start_cache(private_redis.url, redis_timeout_seconds="1s")
    await store(cache)

    def in_use() -> tuple[float | None, float | None]:
        return cache.metric("cache_backend_up", backend="redis"), cache.metric("cache_degraded")

    assert in_use() == (1, 0)
    assert phases(cache) == {"normal": 1, "slow": 0, "open": 0, "recovering": 0}
    private_redis.freeze()
    try:
        await eventually(lambda: cache.metric("cache_degraded") == 1, seconds=20)
        assert in_use() == (0, 1)
        assert phases(cache) == {"normal": 0, "slow": 0, "open": 1, "recovering": 0}
        failed = cache.metric("cache_backend_failures_total", backend="redis")
        told = (await stats_of(cache)).store.failure_count
        # A probe may fail in between.
        assert 0 < failed <= told <= failed + 1
        assert (await look_up(cache)).inference == ANSWER
        await look_up(cache, "something else")
        labels = {"layer": "inference", "mode": "rag"}
        assert cache.metric("cache_lookups_total", result="hit", **labels) == 1
        assert cache.metric("cache_lookups_total", result="error", **labels) == 1
        assert not (await store(cache, "when?")).stored
        assert cache.metric("cache_writes_total", layer="inference", outcome="dropped") == 1
        assert cache.metric("cache_dropped_writes_total", layer="inference") == 1
        assert (await stats_of(cache)).store.dropped_write_count == 1
    finally:
        private_redis.thaw()
    await eventually(lambda: cache.metric("cache_degraded") == 0, seconds=15)
    assert in_use() == (1, 0)
    assert phases(cache) == {"normal": 1, "slow": 0, "open": 0, "recovering": 0}
    assert (await stats_of(cache)).store.outage_count == 1


async def test_a_redis_that_is_late_is_slow_and_not_away(
    start_cache, redis_server, redis_line
) -> None:
    """Its reads go on, its writes are dropped, until it is in time again."""
    cache, other = await start_cache(redis_line.url), await start_cache(redis_server.url)
    assert (await store_embeddings(other, "known")).stored_count == 1

    async def look() -> None:
        number = 0
        while True:
            number += 1
            await look_up_embeddings(cache, f"text {number}")

    # More than a call may take at most times, and less than it is waited for.
    redis_line.delay_seconds = 0.06
    async with in_background(look(), look(), look()):
        await eventually(lambda: phases(cache)["slow"] == 1, seconds=30)
        assert phases(cache) == {"normal": 0, "slow": 1, "open": 0, "recovering": 0}
        assert cache.metric("cache_backend_up", backend="redis") == 1
        assert cache.metric("cache_degraded") == 0
        (found,) = (await look_up_embeddings(cache, "known")).lookups
        assert found.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED
        for count in (2, 4):
            assert (await store_embeddings(cache, "a", "b")).stored_count == 0
            assert cache.metric("cache_dropped_writes_total", layer="embedding") == count
            told = (await stats_of(cache)).store
            assert told.state == statistics_pb2.STORE_STATE_SLOW
            assert (told.dropped_write_count, told.outage_count) == (count, 0)
    redis_line.delay_seconds = 0.0
    async with in_background(look()):
        await eventually(lambda: phases(cache)["normal"] == 1, seconds=30)
    told = (await stats_of(cache)).store
    assert told.state == statistics_pb2.STORE_STATE_AVAILABLE
    assert (told.dropped_write_count, told.outage_count, told.failure_count) == (4, 0, 0)
    assert (await store_embeddings(cache, "a", "b")).stored_count == 2
    (found,) = (await look_up_embeddings(other, "a")).lookups
    assert found.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED


async def test_the_bound_of_false_hits_moves_with_verdicts_only(caches) -> None:
    cache = caches[0]
    stored = await tell(cache)
    await ask(cache)
    await ask(cache, "How is a lost password reset?", at_similarity(BASE, 0.97))
    assert cache.metric("cache_false_hit_upper_bound") == 1
    await report(cache, stored.entry_id, semantic_pb2.MATCH_VERDICT_UNDECIDED)
    assert cache.metric("cache_false_hit_upper_bound") == 1
    await report(cache, stored.entry_id, semantic_pb2.MATCH_VERDICT_RIGHT)
    after_one = cache.metric("cache_false_hit_upper_bound")
    assert after_one == pytest.approx(0.7935, abs=1e-3)
    await ask(cache)
    assert cache.metric("cache_false_hit_upper_bound") == after_one
    await report(cache, stored.entry_id, semantic_pb2.MATCH_VERDICT_RIGHT)
    assert cache.metric("cache_false_hit_upper_bound") < after_one
    for verdict, count in (("right", 2), ("undecided", 1), ("wrong", 0)):
        labels = {"verdict": verdict, "judge": "recomputation"}
        assert cache.metric("cache_verifications_total", **labels) == count
    # Neither does evidence say that an answer is right, nor is an answer not given a false hit.
    for verdict in (semantic_pb2.MATCH_VERDICT_RIGHT, semantic_pb2.MATCH_VERDICT_WRONG):
        before = cache.metric("cache_false_hit_upper_bound")
        await report(cache, stored.entry_id, verdict, judge=semantic_pb2.MATCH_JUDGE_EVIDENCE)
        assert cache.metric("cache_false_hit_upper_bound") == before
    # Other replicas that work for the tenant learn of it.
    await ask(caches[1])
    bound = cache.metric("cache_false_hit_upper_bound")
    await eventually(lambda: caches[1].metric("cache_false_hit_upper_bound") == bound)


async def test_the_index_shows_its_size_its_limit_and_how_late_it_is(caches) -> None:
    first, second = caches
    await ask(second)
    assert second.metric("cache_feed_lag_seconds") == 0
    await tell(first)
    await eventually(lambda: second.metric("cache_semantic_entries") == 1)
    # What is read as a whole is no change.
    assert not (await stats_of(second)).semantic.HasField("feed_lag")
    await tell(first, "How is a password chosen?")
    await eventually(lambda: second.metric("cache_semantic_entries") == 2)
    lag = (await stats_of(second)).semantic.feed_lag
    assert 0 <= second.metric("cache_feed_lag_seconds") == lag.ToNanoseconds() / 1e9 < 2
    for cache in caches:
        assert cache.metric("cache_semantic_entries") == 2
        assert cache.metric("cache_semantic_partitions") == 1
        assert 0 < cache.metric("cache_semantic_memory_bytes") < 100_000
        assert cache.metric("cache_semantic_memory_limit_bytes") == 256 << 20


@pytest.mark.parametrize(("vector_follows", "counted"), [(False, 1), (True, 0)])
async def test_a_miss_by_words_alone_counts_unless_the_vector_follows(
    cache, vector_follows: bool, counted: int
) -> None:
    request = semantic_pb2.LookupSemanticRequest(
        partition=partition(), query=ASKED, mode="rag", vector_follows=vector_follows
    )
    found = await cache.stub.LookupSemantic(request)
    assert found.outcome == semantic_pb2.SEMANTIC_OUTCOME_MISS
    labels = {"layer": "semantic", "mode": "rag", "result": "miss"}
    assert cache.metric("cache_lookups_total", **labels) == counted
    # With the vector, or with an answer, each lookup is one.
    request.vector.CopyFrom(vector(BASE))
    await cache.stub.LookupSemantic(request)
    assert cache.metric("cache_lookups_total", **labels) == counted + 1
    await tell(cache)
    request.ClearField("vector")
    await cache.stub.LookupSemantic(request)
    assert cache.metric("cache_lookups_total", **labels) == counted + 1
    assert cache.metric("cache_lookups_total", **labels | {"result": "hit"}) == 1


async def test_what_a_replica_changes_itself_is_no_news_to_it(caches) -> None:
    first, second = caches
    await ask(first)
    await ask(second)
    # At the same time, so that the replies come in another order than the changes.
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tell(first, f"{ASKED} {number}")) for number in range(8)]
    await eventually(lambda: first.metric("cache_semantic_entries") == 8)
    entry_id = tasks[0].result().entry_id
    await report(first, entry_id, semantic_pb2.MATCH_VERDICT_WRONG)
    await eventually(lambda: second.metric("cache_semantic_entries") == 7)
    await ask(first)
    assert not (await stats_of(first)).semantic.HasField("feed_lag")
    assert (await stats_of(second)).semantic.HasField("feed_lag")


async def test_similarities_and_guards_show(cache) -> None:
    await tell(cache, "How do I turn the lamp on?")
    await ask(cache, "How do I turn the lamp off?", at_similarity(BASE, 0.985))
    assert cache.metric("cache_semantic_similarity_ratio_count") == 1
    for edge, count in (("0.98", 0), ("0.99", 1)):
        assert cache.metric("cache_semantic_similarity_ratio_bucket", le=edge) == count
    samples, _ = await scrape(cache)
    assert total(samples, "cache_guard_rejections_total") == 1


async def test_lookups_point_at_their_traces(cache) -> None:
    trace_id = f"{0xABCDEF:032x}"
    await look_up(cache, metadata=[("traceparent", f"00-{trace_id}-{7:016x}-01")])
    _, text = await scrape(cache)
    lines = [line for line in text.splitlines() if trace_id in line]
    names = {line.split("{")[0] for line in lines}
    assert "cache_lookup_duration_seconds_bucket" in names


async def use_all_layers(caches) -> None:
    """Makes calls of every kind, most of them on the second replica."""
    first, cache = caches
    await store_embeddings(first, "a", "b")
    await store_embeddings(cache, "c")
    for texts in (("a", "x"), ("a", "b", "c", "c"), ("y",)):
        await look_up_embeddings(cache, *texts)
    key = pb.ChunksKey(content_digest="ab" * 32, chunker_fingerprint="plain-1")
    await cache.stub.LookupChunks(pb.LookupChunksRequest(key=key))
    spans = [pb.ChunkSpan(char_end=9, token_count=2)]
    await cache.stub.StoreChunks(pb.StoreChunksRequest(key=key, chunks=pb.ChunkSet(spans=spans)))
    await cache.stub.LookupChunks(pb.LookupChunksRequest(key=key))
    bypass = control_pb2.LookupControl(bypass=True)
    await cache.stub.LookupChunks(pb.LookupChunksRequest(key=key, control=bypass))
    await store(first, "stored elsewhere")
    for mode in ("rag", "deep", "rag"):
        await look_up(cache, "stored elsewhere", mode)
    token = (await look_up(cache, "led")).lease.token
    waiting = look_up(cache, "led", "agent")
    await eventually(lambda: cache.metric("cache_waiting_callers") == 1)
    await store(cache, "led", token)
    await waiting
    await read_stream(cache, "led")
    token = (await look_up(cache, "failing")).lease.token
    failure = pb.Failure(kind=pb.FAILURE_KIND_REJECTED, message="no")
    await cache.stub.ReleaseLease(
        pb.ReleaseLeaseRequest(key=question("failing"), lease_token=token, failure=failure)
    )
    await look_up(cache, "failing", "direct")
    stored = await tell(cache)
    await ask(cache)
    await ask(cache, "How is a forgotten password changed?", at_similarity(BASE, 0.97))
    await ask(cache, "What is the price of cheese?", unit(7), "surprising")
    right = semantic_pb2.MATCH_VERDICT_RIGHT
    await report(cache, stored.entry_id, right, mode="rag", served=True)
    selectors = [invalidation_pb2.Selector(namespace="nobodys")]
    await cache.stub.Invalidate(
        invalidation_pb2.InvalidateRequest(selectors=selectors, dry_run=False)
    )


async def test_the_statistics_and_the_metrics_say_the_same(caches) -> None:
    await use_all_layers(caches)
    cache = caches[1]
    stats, (samples, _) = await stats_of(cache), await scrape(cache)
    assert [each.lookup_count for each in stats.layers] == [7, 8, 2, 3]
    for layer, counts in zip(Layer, stats.layers, strict=True):
        of_layer, life = {"layer": layer.value}, counts.windows[-1]
        found = {each.kind: each.count for each in life.hits}
        for kind in HitKind:
            shown = total(samples, "cache_hits_total", level=kind.value, **of_layer)
            assert shown == found.get(kind.value, 0), (layer, kind)
        lookups = {
            result: total(samples, "cache_lookups_total", result=result, **of_layer)
            for result in ("hit", "miss", "error")
        }
        assert sum(lookups.values()) == counts.lookup_count == life.lookup_count
        at_once = (HitKind.LOCAL, HitKind.SHARED, HitKind.EXACT, HitKind.SIMILAR)
        assert lookups["hit"] == sum(found.get(kind.value, 0) for kind in at_once)
        assert lookups["error"] == counts.degraded_miss_count
        later = found.get("confirmed", 0) + found.get("negative", 0)
        assert counts.miss_count == lookups["miss"] + lookups["error"] - later
        assert life.hit_ratio == pytest.approx(
            (lookups["hit"] + found.get("confirmed", 0)) / counts.lookup_count
        )
        assert life.effective_hit_ratio == pytest.approx(
            (lookups["hit"] + found.get("confirmed", 0) + found.get("coalesced", 0))
            / counts.lookup_count
        )
        assert total(samples, "cache_bypasses_total", **of_layer) == life.bypass_count
        assert total(samples, "cache_hit_age_seconds_count", **of_layer) == lookups["hit"]
        stored = total(samples, "cache_writes_total", outcome="stored", **of_layer)
        assert stored == counts.stored_count
        assert total(samples, "cache_entries", **of_layer) == counts.local_entry_count
        assert total(samples, "cache_memory_bytes", **of_layer) == counts.local_size_bytes
        limit = total(samples, "cache_memory_limit_bytes", **of_layer)
        assert limit == counts.local_limit_bytes
        evicted = total(samples, "cache_evictions_total", reason="capacity", **of_layer)
        assert evicted == counts.local_eviction_count == life.eviction_count
        for name, count in (
            ("cache_rejected_values_total", counts.rejected_value_count),
            ("cache_invalidated_values_total", life.invalidated_value_count),
        ):
            assert total(samples, name, **of_layer) == count
    for mode in MODES:
        of_mode = [each for each in stats.modes if each.mode == mode]
        shown = total(samples, "cache_lookups_total", mode=mode)
        assert shown == sum(each.lookup_count for each in of_mode), mode
    for kind in ("prompt", "completion"):
        for name, usage in (
            ("cache_saved_tokens_total", stats.savings.usage),
            ("cache_coalesced_tokens_total", stats.savings.coalesced_usage),
        ):
            assert total(samples, name, kind=kind) == getattr(usage, f"{kind}_token_count") > 0
    saved = stats.savings.gross_time.ToNanoseconds() / 1e9
    assert total(samples, "cache_saved_seconds_total") == pytest.approx(saved)
    flights, leases = stats.flight, "cache_lease_total"
    assert flights.lease_count == total(samples, leases, event="leased") == 2
    assert flights.filled_count == total(samples, leases, event="filled") == 1
    assert flights.released_count == total(samples, leases, event="released") == 1
    assert flights.coalesced_count == total(samples, leases, event="coalesced") == 1
    assert flights.wait_ended_count == total(samples, leases, event="wait_ended") == 0
    assert flights.waiting_count == total(samples, "cache_waiting_callers") == 0
    assert flights.held_count == total(samples, "cache_held_leases") == 0
    semantic = stats.semantic
    assert semantic.entry_count == total(samples, "cache_semantic_entries") == 1
    assert semantic.partition_count == total(samples, "cache_semantic_partitions")
    assert semantic.size_bytes == total(samples, "cache_semantic_memory_bytes")
    bound = total(samples, "cache_false_hit_upper_bound")
    assert bound == pytest.approx(semantic.false_hit_ratio_upper_bound)
    guards = {each.guard: each.count for each in semantic.rejections}
    assert total(samples, "cache_guard_rejections_total") == sum(guards.values())
    assert total(samples, "cache_invalidations_total", reason="namespace") == 1
    failures = total(samples, "cache_backend_failures_total")
    assert stats.store.failure_count == failures == 0
    dropped = total(samples, "cache_dropped_writes_total")
    assert stats.store.dropped_write_count == dropped == 0
