"""What became of each query can be asked, without what was asked in it."""

import asyncio
import logging

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.rag.v1 import rag_service_pb2
from pannier.rag.v1 import usage_service_pb2 as pb
from services.common.errors import PeerUnavailable, StatusCode
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_usage import PostgresUsageStore
from services.rag.usage_port import Retention
from tests.integration.rag.bookkeeping import (
    ACME,
    ANN,
    DOCUMENTS,
    GOOD,
    PRICED,
    QUESTION,
    ask,
    rows,
    usage_stub,
)
from tests.integration.rag.conftest import as_tenant, store_away
from tests.kit.rpc import error_of

SECRET = "How do I stop the xyzzy?"


@pytest.fixture
async def filled(start_rag):
    rag = await start_rag(**PRICED)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    return rag


def get_profile(rag, query_id, *, metadata=ACME):
    return usage_stub(rag).GetProfile(
        pb.GetProfileRequest(query_id=query_id), metadata=metadata, timeout=20
    )


def list_profiles(rag, *, metadata=ACME, **fields):
    return usage_stub(rag).ListProfiles(
        pb.ListProfilesRequest(**fields), metadata=metadata, timeout=20
    )


async def test_the_profile_of_an_answer_is_there_at_once_and_from_the_store(filled):
    filled.balancer.answer = GOOD
    answered = await ask(filled)
    found = await get_profile(filled, answered.query_id)
    record = found.record
    assert [each.name for each in found.profile.stages] == [
        each.name for each in answered.profile.stages
    ]
    assert (record.user_id, record.call, record.mode) == ("ann", "query", "rag")
    assert (record.outcome, record.origin) == ("success", answered.origin)
    assert record.model == "talker:latest"
    assert record.quality == answered.quality.score
    assert record.trace_id == answered.trace_id
    assert record.bottleneck
    assert record.usage.cost_nanos == 100_000 + 9 * 2_000
    await list_profiles(filled)
    pool = PostgresPool(filled.database_dsn)
    try:
        kept = await PostgresUsageStore(pool).find_query("acme", answered.query_id)
    finally:
        await pool.close()
    assert rag_service_pb2.Profile.FromString(kept.profile) == found.profile
    assert kept.record.amounts.cost_nanos == record.usage.cost_nanos
    assert kept.record.cache_entry is not None


async def test_nobody_else_sees_a_query(filled):
    answered = await ask(filled)
    for tenant, query_id in (("other", answered.query_id), ("acme", "unknown")):
        error = await error_of(get_profile(filled, query_id, metadata=as_tenant(tenant)))
        assert (error.status_code, error.error_reason) == (StatusCode.NOT_FOUND, "QUERY_NOT_FOUND")
    assert not (await list_profiles(filled, metadata=as_tenant("other"))).records


async def test_searches_streams_failures_and_cancellations_are_all_there(filled):
    await filled.rag.Retrieve(
        rag_service_pb2.RetrieveRequest(collection="docs", query="fox"), metadata=ANN, timeout=20
    )
    await error_of(ask(filled, collection="none"))
    filled.balancer.hold = asyncio.Event()
    call = filled.rag.StreamQuery(
        rag_service_pb2.StreamQueryRequest(
            query=rag_service_pb2.QueryRequest(collection="docs", query=QUESTION)
        ),
        metadata=ANN,
        timeout=20,
    )
    async for event in call:
        if event.text_delta:
            call.cancel()
            break
    async with asyncio.timeout(30):
        while len(records := (await list_profiles(filled)).records) < 3:
            pass
    stream, failed, search = records
    assert (stream.call, stream.outcome, stream.error_reason) == (
        "stream",
        "cancelled",
        "CANCELLED",
    )
    assert stream.HasField("first_text")
    assert (failed.outcome, failed.error_reason) == ("error", "COLLECTION_NOT_FOUND")
    assert (search.call, search.mode, search.outcome) == ("retrieve", "retrieve", "success")
    assert [each.query_id for each in (await list_profiles(filled, failed_only=True)).records] == [
        failed.query_id
    ]


async def test_queries_are_filtered_and_paged(filled):
    for _ in range(5):
        await ask(filled, cache_policy="CACHE_POLICY_BYPASS")
    filled.balancer.fault = PeerUnavailable("fleet", "gone")
    degraded = await ask(filled, cache_policy="CACHE_POLICY_BYPASS")
    (found,) = (await list_profiles(filled, degraded_only=True)).records
    assert found.query_id == degraded.query_id
    assert rag_service_pb2.DEGRADATION_REASON_MODEL_UNAVAILABLE in found.degradations
    assert not (await list_profiles(filled, slower_than=Duration(seconds=3600))).records
    assert len((await list_profiles(filled, slower_than=Duration())).records) == 6
    assert not (await list_profiles(filled, mode="deep")).records
    seen, token = [], ""
    while True:
        page = await list_profiles(filled, page_size=2, page_token=token)
        assert len(page.records) <= 2
        seen += [each.query_id for each in page.records]
        token = page.next_page_token
        if not token:
            break
    assert len(set(seen)) == len(seen) == 6
    assert seen[0] == degraded.query_id
    since = (await list_profiles(filled, page_size=1)).records[0].start_time
    assert len((await list_profiles(filled, since=since)).records) == 1


async def test_nothing_that_was_asked_or_answered_is_kept(filled, caplog):
    await ask(filled, SECRET)
    await list_profiles(filled)
    (row,) = await rows(filled, "SELECT query_log::text AS text FROM rag.query_log")
    assert "xyzzy" not in row["text"]
    assert "first source" not in row["text"]


async def test_texts_are_kept_where_that_is_set(start_rag):
    rag = await start_rag(query_log_text=True)
    answered = await ask(rag, "What is\u00a0it?", mode="QUERY_MODE_DIRECT")
    (record,) = (await list_profiles(rag)).records
    assert (record.question, record.answer) == ("What is\u00a0it?", answered.answer)


async def test_while_the_store_is_away_memory_answers(filled):
    answered = await ask(filled)
    await list_profiles(filled)
    async with store_away(filled):
        direct = await ask(filled, mode="QUERY_MODE_DIRECT")
        page = await list_profiles(filled)
        assert page.partial
        assert [each.query_id for each in page.records] == [direct.query_id, answered.query_id]
        assert (await get_profile(filled, answered.query_id)).profile.stages
        usage = usage_stub(filled).GetUsage(pb.GetUsageRequest(), metadata=ACME, timeout=20)
        assert (await error_of(usage)).error_reason == "STORE_UNAVAILABLE"
    page = await list_profiles(filled)
    assert not page.partial
    assert len(page.records) == 2
    usage = await usage_stub(filled).GetUsage(pb.GetUsageRequest(), metadata=ACME, timeout=20)
    assert usage.total.query_count == 2


async def test_a_full_buffer_drops_queries_and_counts_them(start_rag):
    rag = await start_rag(query_log_waiting_count=1, **PRICED)
    connection = await asyncpg.connect(rag.database_dsn)
    try:
        async with connection.transaction():
            # Whoever writes waits for this.
            await connection.execute("LOCK TABLE rag.usage_batch IN ACCESS EXCLUSIVE MODE")
            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    group.create_task(ask(rag, f"What is {number}?", mode="QUERY_MODE_DIRECT"))
    finally:
        await connection.close()
    kept = (await list_profiles(rag)).records
    assert 1 <= len(kept) < 6
    usage = await usage_stub(rag).GetUsage(pb.GetUsageRequest(), metadata=ACME, timeout=20)
    assert usage.total.query_count == 6


async def test_what_was_noted_is_written_at_the_end(filled):
    answered = await ask(filled)
    await filled.stop()
    found = await rows(filled, "SELECT query_id FROM rag.query_log")
    assert [row["query_id"] for row in found] == [answered.query_id]


async def test_slow_queries_are_told_once_without_their_content(start_rag, caplog):
    rag = await start_rag(slow_query_seconds=0.0001)
    with caplog.at_level(logging.WARNING, logger="services.rag.books"):
        await ask(rag, SECRET, mode="QUERY_MODE_DIRECT")
    (record,) = [each for each in caplog.records if each.name == "services.rag.books"]
    assert "generate" in record.stages
    assert "xyzzy" not in str(vars(record))


async def test_old_queries_are_swept(filled):
    await ask(filled)
    await list_profiles(filled)
    await rows(filled, "UPDATE rag.query_log SET started_at = started_at - interval '40 days'")
    young = await ask(filled, "Which animal is quick?")
    await list_profiles(filled)
    pool = PostgresPool(filled.database_dsn)
    try:
        await PostgresUsageStore(pool).sweep(Retention(queries=30 * 86_400, usage=400 * 86_400))
    finally:
        await pool.close()
    found = await rows(filled, "SELECT query_id FROM rag.query_log")
    assert [row["query_id"] for row in found] == [young.query_id]


async def test_what_breaks_a_rule_is_refused(rag):
    for call, field in (
        (list_profiles(rag, mode="'; DROP TABLE"), "mode"),
        (list_profiles(rag, page_token="x" * 20_000), "page_token"),
        (get_profile(rag, "a\x00b"), "query_id"),
    ):
        error = await error_of(call)
        assert error.status_code is StatusCode.INVALID_ARGUMENT
        assert error.violations[0].field == field
