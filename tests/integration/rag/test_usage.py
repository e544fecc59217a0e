"""Usage is counted once, whoever counts it, and budgets hold."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import asyncpg
import grpc
import pytest

from pannier.client import ModelCall, track_model_call, tracking_model_call
from pannier.rag.v1 import rag_service_pb2
from pannier.rag.v1 import usage_service_pb2 as pb
from pannier.rag.v1.rag_service_pb2_grpc import RagServiceStub
from pannier.rag.v1.usage_service_pb2_grpc import UsageServiceStub
from services.common.errors import StatusCode
from services.rag.adapters.postgres_pool import PostgresPool
from services.rag.adapters.postgres_usage import PostgresUsageStore
from services.rag.app import start
from services.rag.core.usage import Amounts, Usage, UsageKey, UsageKind
from services.rag.metrics import CATALOGUE
from services.rag.settings import RagSettings
from services.rag.usage_port import Batch
from tests.integration.rag.bookkeeping import (
    ACME,
    ANN,
    BOB,
    DOCUMENTS,
    PRICED,
    admin_stub,
    ask,
    rows,
    usage_stub,
)
from tests.integration.rag.conftest import as_tenant
from tests.integration.rag.telemetry import finished, page_of
from tests.kit.rpc import channel_to, error_of, make_runtime

BY_ALL = [
    pb.USAGE_DIMENSION_USER,
    pb.USAGE_DIMENSION_MODE,
    pb.USAGE_DIMENSION_MODEL,
    pb.USAGE_DIMENSION_KIND,
]
# The scripted model reads 100 tokens and says ten words.
READ, SAID = 100, 10
COST = READ * 1000 + SAID * 2000


@pytest.fixture
async def filled(start_rag):
    rag = await start_rag(**PRICED)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    # Ten words that are worth keeping.
    rag.balancer.answer = "You press the blue button to stop the machine [1]."
    return rag


def get_usage(rag, *, metadata=ACME, **fields):
    return usage_stub(rag).GetUsage(pb.GetUsageRequest(**fields), metadata=metadata, timeout=20)


async def amounts(rag, kind, **fields):
    response = await get_usage(rag, group_by=BY_ALL, **fields)
    return {
        (row.user_id, row.mode, row.model): row.amounts for row in response.rows if row.kind == kind
    }


async def test_a_query_is_counted_with_its_tokens_and_cost(filled):
    answered = await ask(filled)
    assert answered.origin == rag_service_pb2.ANSWER_ORIGIN_GENERATED
    queries = await amounts(filled, "query")
    assert queries["ann", "rag", "talker:latest"].query_count == 1
    generated = (await amounts(filled, "generation"))["ann", "rag", "talker:latest"]
    assert (generated.prompt_token_count, generated.completion_token_count) == (READ, SAID)
    assert (generated.call_count, generated.cost_nanos) == (1, COST)
    response = await get_usage(filled)
    assert response.currency == "EUR"
    assert response.total.cost_nanos == COST
    assert [row.amounts for row in response.rows] == [response.total]


async def test_a_cached_answer_costs_nothing_and_says_what_it_saved(filled):
    await ask(filled)
    again = await ask(filled, metadata=BOB)
    assert again.origin == rag_service_pb2.ANSWER_ORIGIN_CACHED
    bob = (await amounts(filled, "query"))["bob", "rag", "talker:latest"]
    assert (bob.cached_query_count, bob.saved_token_count) == (1, READ + SAID)
    assert (bob.saved_cost_nanos, bob.cost_nanos) == (COST, 0)
    assert (await get_usage(filled)).total.cost_nanos == COST


async def test_ingestion_is_counted_for_its_tenant(filled):
    await ask(filled)
    embedded = await amounts(filled, "embedding")
    assert embedded["", "", "all-minilm:latest"].call_count >= 1
    assert not (await get_usage(filled, metadata=as_tenant("other"))).rows


async def test_what_breaks_off_is_estimated(filled):
    filled.balancer.hold = asyncio.Event()
    call = filled.rag.StreamQuery(
        rag_service_pb2.StreamQueryRequest(
            query=rag_service_pb2.QueryRequest(query="Tell me.", mode="QUERY_MODE_DIRECT")
        ),
        metadata=ANN,
        timeout=20,
    )
    async for event in call:
        if event.text_delta:
            call.cancel()
            break
    async with asyncio.timeout(30):
        await filled.balancer.chat_ended.get()
        while ("ann", "direct", "") not in await amounts(filled, "query"):
            pass
    generated = (await amounts(filled, "generation"))["ann", "direct", "talker:latest"]
    assert (generated.estimated_call_count, generated.completion_token_count) == (1, 1)
    assert generated.prompt_token_count > 0
    assert (await amounts(filled, "query"))["ann", "direct", ""].failed_query_count == 1


async def test_two_replicas_count_everything_once(filled):
    users = [[*ACME, ("x-pannier-user-id", f"user-{number}")] for number in range(3)]
    async with AsyncExitStack() as stack:
        second = await other_replica(stack, filled)
        stubs = [filled.rag, RagServiceStub(second)]
        questions = itertools.count()

        async def one(stub, user):
            request = rag_service_pb2.QueryRequest(
                query=f"What is {next(questions)}?", mode="QUERY_MODE_DIRECT"
            )
            await stub.Query(request, metadata=user, timeout=20)

        for _ in range(4):
            async with asyncio.TaskGroup() as group:
                for stub, user in itertools.product(stubs, users * 4):
                    group.create_task(one(stub, user))
        count = next(questions)
        await UsageServiceStub(second).GetUsage(pb.GetUsageRequest(), metadata=ACME, timeout=20)
    response = await get_usage(filled, group_by=[pb.USAGE_DIMENSION_USER])
    assert response.total.query_count == count == 96
    assert response.total.cost_nanos == count * COST
    by_user = {row.user_id: row.amounts.query_count for row in response.rows if row.user_id}
    assert by_user == {f"user-{number}": 32 for number in range(3)}
    logged = await rows(filled, "SELECT count(*), sum(cost_nanos) FROM rag.query_log")
    assert tuple(logged[0]) == (count, count * COST)


async def other_replica(stack, rag):
    """Starts another replica on the same database and peers."""
    runtime, _ = make_runtime("rag", CATALOGUE)
    stack.callback(runtime.tracer_provider.shutdown)
    settings = RagSettings(
        database_url=rag.database_dsn,
        balancer_address=rag.balancer_address,
        cache_address=rag.cache_address,
        drain_delay_seconds=0.0,
        drain_grace_seconds=2.0,
        **PRICED,
    )
    running = await stack.enter_async_context(start(settings, runtime))
    return await stack.enter_async_context(channel_to(running.grpc_port))


async def test_a_batch_of_which_nobody_knows_whether_it_was_written_counts_once(database_dsn):
    key = UsageKey(
        hour_seconds=7200,
        tenant_id="acme",
        user_id="",
        mode="rag",
        model="m",
        kind=UsageKind.GENERATION,
    )
    batch = Batch("5f0c7d0e-0000-4000-8000-000000000001", (), (Usage(key, Amounts(cost_nanos=5)),))
    pool = PostgresPool(database_dsn)
    try:
        store = PostgresUsageStore(pool)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(store.apply(batch))
        async with pool.reading("acme") as connection:
            assert await connection.fetchval("SELECT sum(cost_nanos) FROM rag.usage_hour") == 5
            assert await connection.fetchval("SELECT sum(cost_nanos) FROM rag.usage_day") == 5
    finally:
        await pool.close()


async def test_sums_stop_where_numbers_end(database_dsn):
    key = UsageKey(
        hour_seconds=7200, tenant_id="acme", user_id="", mode="", model="", kind=UsageKind.TRACKED
    )
    pool = PostgresPool(database_dsn)
    try:
        store = PostgresUsageStore(pool)
        for _ in range(3):
            assert await store.track(
                Usage(key, Amounts(cost_nanos=2**63, prompt_token_count=2**62)), idempotency_key=""
            )
        async with pool.reading("acme") as connection:
            assert await connection.fetchval("SELECT cost_nanos FROM rag.usage_hour") == 9 * 10**18
    finally:
        await pool.close()


async def test_a_page_goes_on_where_the_one_before_ended(filled):
    for user in ("ann", "bob", "eve"):
        await ask(filled, metadata=[*ACME, ("x-pannier-user-id", user)])
    whole = await get_usage(filled, group_by=BY_ALL, bucket=pb.USAGE_BUCKET_DAY)
    assert len(whole.rows) > 3
    assert all(row.start_time.seconds % 86_400 == 0 for row in whole.rows)
    found, token = [], ""
    while True:
        page = await get_usage(
            filled, group_by=BY_ALL, bucket=pb.USAGE_BUCKET_DAY, page_size=2, page_token=token
        )
        found += page.rows
        token = page.next_page_token
        assert page.total == whole.total
        if not token:
            break
    assert found == list(whole.rows)


def track(rag, *, metadata=ANN, **fields):
    request = pb.TrackModelCallRequest(**({"model": "talker:7b"} | fields))
    return usage_stub(rag).TrackModelCall(request, metadata=metadata, timeout=20)


async def test_a_call_of_the_callers_own_counts_once_by_its_key(filled):
    given = {"prompt_token_count": 10, "completion_token_count": 5, "idempotency_key": "k1"}
    replies = await asyncio.gather(*(track(filled, **given) for _ in range(8)))
    assert sorted(each.counted for each in replies) == [False] * 7 + [True]
    assert {each.cost_nanos for each in replies} == {20_000}
    assert (await track(filled, metadata=as_tenant("other"), **given)).counted
    tracked = (await amounts(filled, "tracked"))["ann", "tracked", "talker:7b"]
    assert (tracked.call_count, tracked.cost_nanos) == (1, 20_000)


async def test_without_a_key_each_call_counts_and_a_cost_given_counts(filled):
    for _ in range(2):
        await track(filled, cost_nanos=7, mode="summary")
    await track(filled, cached=True, prompt_token_count=10, mode="summary")
    tracked = (await amounts(filled, "tracked"))["ann", "summary", "talker:7b"]
    assert (tracked.call_count, tracked.cost_nanos, tracked.saved_token_count) == (2, 14, 10)


async def test_the_client_counts_what_happens_inside_and_never_fails(filled):
    stub = usage_stub(filled)

    async def fail():
        async with tracking_model_call(stub, model="own", mode="summary") as call:
            calls.append(call)
            call.prompt_token_count = 3
            raise RuntimeError("mine")

    calls = []
    with pytest.raises(RuntimeError, match="mine"):
        await fail()
    assert calls[0].counted
    refused = ModelCall(model="own", mode="NOT")
    await track_model_call(stub, refused)
    assert (refused.counted, refused.error.reason) == (False, "INVALID_FIELD")
    async with channel_to(1) as nowhere:
        lost = ModelCall(model="own")
        await track_model_call(UsageServiceStub(nowhere), lost)
    assert lost.error.code is grpc.StatusCode.UNAVAILABLE
    response = await get_usage(
        filled, metadata=as_tenant("default"), group_by=[pb.USAGE_DIMENSION_MODEL]
    )
    assert {row.model: row.amounts.prompt_token_count for row in response.rows} == {"own": 3}


def set_budget(rag, **limits):
    request = pb.SetBudgetRequest(budget=pb.Budget(**limits))
    return admin_stub(rag).SetBudget(request, metadata=ACME, timeout=20)


async def test_a_spent_budget_leaves_cached_answers_and_words_of_the_sources(filled):
    await set_budget(filled, daily_token_count=10)
    first = await ask(filled)
    assert first.origin == rag_service_pb2.ANSWER_ORIGIN_GENERATED
    again = await ask(filled)
    assert again.origin == rag_service_pb2.ANSWER_ORIGIN_CACHED
    other = await ask(filled, "Which animal is quick?")
    assert other.origin == rag_service_pb2.ANSWER_ORIGIN_EXTRACTIVE
    assert [each.reason for each in other.degradations] == [
        rag_service_pb2.DEGRADATION_REASON_BUDGET_EXCEEDED
    ]
    assert other.quality.score <= 0.45
    error = await error_of(ask(filled, mode="QUERY_MODE_DIRECT"))
    assert (error.status_code, error.error_reason) == (
        StatusCode.RESOURCE_EXHAUSTED,
        "BUDGET_EXCEEDED",
    )
    assert 0 < error.retry_delay_seconds <= 86_400
    assert error.metadata["limit"] == "daily_token_count"
    (violation,) = error.quota_violations
    assert violation.subject == "tenant:acme"
    assert violation.description == (
        f"Of the day, daily_token_count is {error.metadata['spent']} of 10."
    )
    assert len(filled.balancer.chats) == 1
    budget = await usage_stub(filled).GetBudget(pb.GetBudgetRequest(), metadata=ACME, timeout=20)
    assert budget.exceeded
    assert budget.spent.daily_token_count >= READ + SAID


async def test_another_tenant_is_not_concerned_and_a_budget_can_be_taken_away(filled):
    await set_budget(filled, daily_cost_nanos=0)
    assert (await error_of(ask(filled, mode="QUERY_MODE_DIRECT"))).error_reason == "BUDGET_EXCEEDED"
    await ask(filled, mode="QUERY_MODE_DIRECT", metadata=as_tenant("other"))
    await set_budget(filled)
    await ask(filled, mode="QUERY_MODE_DIRECT")


async def test_what_a_budget_forbids_is_no_failure_of_the_service(filled):
    await set_budget(filled, daily_cost_nanos=0)
    assert (await error_of(ask(filled, mode="QUERY_MODE_DIRECT"))).error_reason == "BUDGET_EXCEEDED"
    page = await page_of(filled)
    assert page.labels("rag_requests_total", "outcome") == {"refused": 1}
    assert page.labels("rag_tenant_requests_total", "outcome") == {"refused": 1}
    # Who looks for the reason finds it all the same.
    assert page.value("service_errors_total", error_type="BUDGET_EXCEEDED") == 1
    (workflow,) = [each for each in finished(filled) if each.name.startswith("invoke_workflow")]
    assert workflow.status.status_code.name == "UNSET"
    await get_usage(filled)
    (logged,) = await rows(filled, "SELECT outcome, error_reason FROM rag.query_log")
    assert tuple(logged) == ("error", "BUDGET_EXCEEDED")


async def test_a_budget_that_is_nearly_spent_is_warned_of_and_the_warning_not_kept(filled):
    # Taking in the documents and asking once takes some of it.
    await ask(filled, "What is quick?")
    spent = (await get_usage(filled)).total
    tokens = spent.prompt_token_count + spent.completion_token_count
    await set_budget(filled, monthly_token_count=int((tokens + READ + SAID) / 0.85))
    warned = await ask(filled)
    assert any("month's budget" in each for each in warned.warnings)
    await set_budget(filled)
    assert not any("budget" in each for each in (await ask(filled)).warnings)


async def test_replicas_go_by_a_budget_that_another_has_set_and_spent(filled):
    async with AsyncExitStack() as stack:
        channel = await other_replica(stack, filled)
        await set_budget(filled, daily_token_count=50)
        await ask(filled, mode="QUERY_MODE_DIRECT")
        await get_usage(filled)
        # What it reads every two seconds by itself.
        budget = await UsageServiceStub(channel).GetBudget(
            pb.GetBudgetRequest(), metadata=ACME, timeout=20
        )
        assert budget.exceeded
        request = rag_service_pb2.QueryRequest(query="What now?", mode="QUERY_MODE_DIRECT")
        call = RagServiceStub(channel).Query(request, metadata=ANN, timeout=20)
        assert (await error_of(call)).error_reason == "BUDGET_EXCEEDED"


async def test_usage_counts_although_the_queries_cannot_be_written(filled):
    await ask(filled, mode="QUERY_MODE_DIRECT")
    connection = await asyncpg.connect(filled.database_dsn)
    try:
        await connection.execute("ALTER TABLE rag.query_log RENAME TO hidden")
        await ask(filled, "What now?", mode="QUERY_MODE_DIRECT")
        # Refused for a reason of its own, the queries are given up, and their usage is not.
        assert (await get_usage(filled)).total.query_count == 2
    finally:
        await connection.execute("ALTER TABLE rag.hidden RENAME TO query_log")
        await connection.close()


async def test_what_breaks_a_rule_is_refused(rag):
    for call, field in (
        (get_usage(rag, bucket=99), "bucket"),
        (get_usage(rag, page_token="nonsense"), "page_token"),
        (track(rag, model=" "), "model"),
        (set_budget(rag, daily_token_count=-1), "budget.daily_token_count"),
        (admin_stub(rag).SetBudget(pb.SetBudgetRequest(), metadata=ACME, timeout=20), "budget"),
    ):
        error = await error_of(call)
        assert error.status_code is StatusCode.INVALID_ARGUMENT
        assert error.violations[0].field == field
