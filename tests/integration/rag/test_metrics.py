"""What `/metrics` says is what has happened, once."""

import asyncio

import asyncpg
import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as balancer
from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable
from services.common.metrics import COMMON_METRICS, MetricKind
from services.rag.adapters.document_store import PostgresDocumentStore
from services.rag.core.prices import parse_prices
from services.rag.metrics import CATALOGUE
from tests.integration.rag.conftest import as_tenant, store_away
from tests.integration.rag.telemetry import eventually, page_of
from tests.kit.questions import ACME, ANSWER, DOCUMENTS, ask, query, stream
from tests.kit.rpc import error_of
from tests.kit.web import serving_web

PRICES = parse_prices("talker*=1000/2000, all-minilm*=1/1, tool:web_search=0.25, tool:retrieve=0.5")
PRICED = {"prices": PRICES, "currency": "EUR"}
# The fake fleet reads 100 tokens and generates one for each of the fifteen words of the answer.
ANSWER_COST = 0.1 + 0.03
PARAPHRASE = "How can I stop the machine?"
TIDES = "<html><title>Tides</title><p>The moon causes the tides of the sea twice a day.</p></html>"


async def filled_with(start_rag, documents=DOCUMENTS, **settings):
    rag = await start_rag(**settings)
    await rag.ingest(documents)
    await rag.told()
    rag.balancer.answer = ANSWER
    return rag


@pytest.fixture
async def priced(start_rag):
    return await filled_with(start_rag, **PRICED)


async def test_answers_tell_what_the_caches_had_to_do_with_them(priced):
    await ask(priced)
    await ask(priced)
    await ask(priced, query(PARAPHRASE))
    await ask(priced, query(cache_policy="CACHE_POLICY_BYPASS"))
    await ask(priced, query(cache_policy="CACHE_POLICY_REFRESH"))
    page = await page_of(priced)
    assert page.labels("rag_request_duration_seconds_count", "cache") == {
        "miss": 1,
        "hit": 1,
        "semantic_hit": 1,
        "bypass": 2,
    }
    assert page.value("rag_request_duration_seconds_bucket", le="10.0", mode="rag") == 5
    assert page.value("rag_requests_total", mode="rag", outcome="success") == 5


async def test_a_generated_and_a_cached_answer_cost_what_they_cost(priced):
    before = await page_of(priced)
    await ask(priced)
    await ask(priced)
    page = await page_of(priced)
    model = {"mode": "rag", "model": "talker:latest"}
    assert page.value("rag_llm_calls_total", **model, cached="false") == 1
    assert page.value("rag_llm_calls_total", **model, cached="true") == 1
    assert page.value("rag_llm_tokens_total", **model, direction="input") == 100
    assert page.value("rag_llm_tokens_total", **model, direction="output") == 15
    assert page.labels("rag_llm_calls_per_query_count", "mode") == {"rag": 2}
    assert page.value("rag_llm_calls_per_query_sum", mode="rag") == 1
    assert page.value("rag_llm_calls_per_query_bucket", mode="rag", le="0.0") == 1
    cost = {"currency": "EUR", "mode": "rag"}
    assert page.value("rag_cost_total", **cost, type="llm") == pytest.approx(ANSWER_COST)
    saved = page.labels("rag_cost_saved_total", "layer")
    assert saved == {"semantic": pytest.approx(ANSWER_COST)}
    assert page.value("rag_model_cost_total", currency="EUR", model="talker:latest") == (
        pytest.approx(ANSWER_COST)
    )
    spent = page.value("rag_tenant_cost_total", currency="EUR", tenant="acme")
    assert spent - before.value("rag_tenant_cost_total") == pytest.approx(ANSWER_COST)
    assert page.labels("rag_tenant_requests_total", "outcome") == {"success": 2}
    assert page.value("rag_active_tenants") == 1


async def test_what_a_prompt_finds_in_the_cache_is_saved_by_its_layer(priced):
    direct = query("Say something.", mode="QUERY_MODE_DIRECT", collection="")
    await ask(priced, direct)
    await ask(priced, direct)
    page = await page_of(priced)
    assert page.labels("rag_cost_saved_total", "layer") == {"inference": pytest.approx(ANSWER_COST)}
    assert page.labels("rag_request_duration_seconds_count", "cache") == {"miss": 1, "hit": 1}
    assert page.value("rag_llm_calls_total", mode="direct", cached="true") == 1


async def test_without_prices_there_is_no_currency_and_no_cost(filled):
    await ask(filled)
    page = await page_of(filled)
    assert 'rag_cost_total{currency="none",mode="rag",type="llm"} 0.0' in page.text
    assert page.value("rag_cost_total") == page.value("rag_tenant_cost_total") == 0
    assert page.value("rag_llm_calls_total", cached="false") == 1


async def test_what_is_prepared_with_a_cached_text_is_saved_too(start_rag):
    rag = await filled_with(start_rag, **PRICED)
    rag.balancer.reply = lambda request: (
        '{"queries": ["stop the engine"]}' if request.HasField("format") else None
    )
    expanded = pb.RetrievalOptions(expansion="EXPANSION_POLICY_MULTI_QUERY")
    for _ in range(2):
        await ask(rag, query(retrieval=expanded, cache_policy="CACHE_POLICY_BYPASS"))
    page = await page_of(rag)
    assert page.value("rag_llm_calls_total", mode="rag", cached="false") == 3
    assert page.value("rag_llm_calls_total", mode="rag", cached="true") == 1
    assert page.labels("rag_cost_saved_total", "layer").keys() == {"inference"}
    assert page.value("rag_llm_calls_per_query_sum") == 3
    assert page.value("rag_agent_invocations_total", agent="expander", outcome="success") == 2
    # Each wording is searched for: the question, and another one.
    assert page.value("rag_retriever_calls_total", retriever="words") == 4
    assert page.value("rag_retrievals_total") == 2


async def test_a_search_is_counted_by_what_each_step_has_left_over(filled):
    await ask(filled)
    page = await page_of(filled)
    assert page.value("rag_retrievals_total", mode="rag", outcome="success") == 1
    assert page.value("rag_retriever_calls_total", retriever="vector", outcome="success") == 1
    assert page.value("rag_retriever_calls_total", retriever="words", outcome="success") == 1
    assert page.value("rag_retriever_calls_total", retriever="web") == 0
    chunks = "rag_retrieved_chunks"
    assert {stage: page.value(f"{chunks}_sum", stage=stage) for stage in ("vector", "fuse")} == {
        "vector": 3,
        "fuse": 3,
    }
    assert page.value(f"{chunks}_sum", stage="words") == 1
    assert page.value(f"{chunks}_sum", stage="prompt") == 3
    assert page.value(f"{chunks}_count", stage="rerank") == 0
    assert page.value("rag_retrieval_confidence_count") == 1
    assert 0 < page.value("rag_retrieval_confidence_sum") <= 1
    assert page.value("rag_searches_total") == 1
    assert page.labels("rag_query_types_total", "type") == {"how_to": 1}
    invoked = page.labels("rag_agent_invocations_total", "agent")
    assert invoked == {"retriever": 1, "generator": 1, "ingestor": 3}


async def test_a_search_that_finds_nothing_is_empty_and_one_that_cannot_search_has_failed(filled):
    request = pb.RetrieveRequest(
        collection="docs",
        query="zebra",
        options=pb.RetrievalOptions(arms="SEARCH_ARMS_KEYWORD"),
    )
    await filled.rag.Retrieve(request, metadata=ACME)
    page = await page_of(filled)
    assert page.value("rag_retrievals_total", mode="retrieve", outcome="empty") == 1
    assert page.value("rag_retriever_calls_total", retriever="words", outcome="empty") == 1


async def test_a_store_that_is_away_fails_a_question_and_its_search_once(filled):
    async with store_away(filled):
        for mode in ("QUERY_MODE_RAG", "QUERY_MODE_AGENT"):
            await error_of(ask(filled, query(mode=mode)))
    page = await page_of(filled)
    assert page.labels("rag_retrievals_total", "mode") == {"rag": 1, "agent": 1}
    assert page.labels("rag_retrievals_total", "outcome") == {"error": 2}
    assert page.value("rag_requests_total", outcome="error") == 2
    assert page.value("rag_request_duration_seconds_count") == 0
    assert page.labels("service_errors_total", "error_type") == {"STORE_UNAVAILABLE": 2}
    assert page.value("rag_tenant_requests_total", tenant="acme", outcome="error") == 2


async def test_the_web_is_counted_by_why_it_was_searched_and_what_it_cost(start_rag):
    async with serving_web() as fake:
        fake.add("/tides", TIDES)
        rag = await filled_with(
            start_rag,
            web_searxng_url=fake.url,
            web_private_hosts=(f"127.0.0.1:{fake.port}",),
            **PRICED,
        )
        tides = "What causes the tides of the sea?"
        rag.balancer.answer = "The moon causes the tides of the sea [1]."
        await ask(rag, query(tides, web="WEB_POLICY_ALWAYS"))
        await ask(rag, query(tides, cache_policy="CACHE_POLICY_BYPASS"))
        await ask(rag, query(web="WEB_POLICY_NEVER"))
        page = await page_of(rag)
        reasons = page.labels("rag_web_fallbacks_total", "reason")
        assert reasons == {"requested": 1, "low_confidence": 1}
        assert page.value("rag_retriever_calls_total", retriever="web", outcome="success") == 2
        assert page.value("rag_agent_invocations_total", agent="web_searcher") == 2
        # The same was looked for before: what was found then costs nothing now.
        assert len(fake.searches) == 1
        tools = page.value("rag_cost_total", currency="EUR", mode="rag", type="tool")
        assert tools == pytest.approx(0.25)
        fake.status = 500
        request = query("Why is the sky blue?", web="WEB_POLICY_ALWAYS")
        await ask(rag, request)
        page = await page_of(rag)
    assert page.value("rag_retriever_calls_total", retriever="web", outcome="error") == 1
    assert page.value("rag_degradations_total", reason="web_search_unavailable") == 1
    # What failed costs nothing.
    assert page.value("rag_cost_total", type="tool") == pytest.approx(0.25)


async def test_tenants_beyond_the_limit_count_as_one(start_rag):
    rag = await start_rag(tenant_label_count=1, **PRICED)
    for tenant in ("acme", "beta", "gamma"):
        await rag.rag.Query(
            query("Hello?", mode="QUERY_MODE_DIRECT", collection=""),
            metadata=as_tenant(tenant),
            timeout=20,
        )
    page = await page_of(rag)
    assert page.labels("rag_tenant_requests_total", "tenant") == {"acme": 1, "_other": 2}
    assert page.labels("rag_tenant_cost_total", "tenant").keys() == {"acme", "_other"}
    assert page.value("telemetry_label_overflow_total", label="tenant") >= 2
    assert page.value("rag_active_tenants") == 3


async def test_who_leaves_is_cancelled_and_who_has_no_time_left_has_failed(filled):
    filled.balancer.hold = asyncio.Event()
    request = pb.StreamQueryRequest(query=query(cache_policy="CACHE_POLICY_BYPASS"))
    call = filled.rag.StreamQuery(request, metadata=ACME, timeout=20)
    async for event in call:
        if event.text_delta:
            call.cancel()
            break
    async with asyncio.timeout(60):
        while not (await page_of(filled)).value("rag_requests_total", outcome="cancelled"):
            pass
    connection = await asyncpg.connect(filled.database_dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE rag.collection")
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in filled.rag.StreamQuery(request, metadata=ACME, timeout=1):
                    pass
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(filled, request.query, seconds=1)
    finally:
        await connection.close()
    async with asyncio.timeout(60):
        while (await page_of(filled)).value("rag_active_queries"):
            pass
    page = await page_of(filled)
    assert page.labels("rag_requests_total", "outcome") == {"cancelled": 1, "error": 2}
    assert page.labels("rag_tenant_requests_total", "outcome") == {"cancelled": 1, "error": 2}
    # What was being generated has neither succeeded nor failed, and has cost something.
    assert page.value("rag_agent_invocations_total", agent="generator") == 0
    assert page.value("rag_llm_calls_total", cached="false") == 1


async def test_an_answer_that_is_taken_up_again_counts_once(filled):
    call = filled.rag.StreamQuery(
        pb.StreamQueryRequest(query=query(), resumable=True), metadata=ACME, timeout=20
    )
    events = [event async for event in call]
    resumed = filled.rag.ResumeQuery(
        pb.ResumeQueryRequest(query_id=events[0].started.query_id, after_sequence=1),
        metadata=ACME,
        timeout=20,
    )
    assert [each async for each in resumed]
    page = await page_of(filled)
    assert page.value("rag_requests_total") == 1
    assert page.value("rag_time_to_first_token_seconds_count") == 1
    assert page.value("rag_llm_calls_total") == 1
    assert page.value("rag_query_types_total") == 1
    assert page.value("rag_resumes_total", outcome="ended") == 1


async def test_many_who_ask_the_same_at_once_cost_one_call(priced):
    priced.balancer.hold = asyncio.Event()
    calls = [asyncio.ensure_future(ask(priced)) for _ in range(4)]
    await eventually(lambda: priced.balancer.chats)
    while priced.cache.calls["LookupInference"] < 4:
        await asyncio.sleep(0)
    priced.balancer.hold.set()
    for each in calls:
        await each
    page = await page_of(priced)
    assert page.value("rag_llm_calls_total", cached="false") == 1
    assert page.value("rag_llm_calls_total", cached="true") == 3
    assert page.value("rag_cost_total", type="llm") == pytest.approx(ANSWER_COST)
    assert page.value("rag_cost_saved_total", layer="inference") == pytest.approx(3 * ANSWER_COST)
    assert page.value("rag_requests_total", outcome="success") == 4


async def test_a_verification_behind_an_answer_is_none_of_its_figures(priced):
    await ask(priced)
    priced.cache.wants_verification = True
    await ask(priced)
    async with asyncio.timeout(60):
        while not (await page_of(priced)).value(
            "rag_background_work_total", kind="verification", outcome="success"
        ):
            pass
    page = await page_of(priced)
    assert page.labels("rag_retrievals_total", "mode") == {"rag": 1, "other": 1}
    assert page.labels("rag_llm_calls_total", "mode") == {"rag": 2, "other": 1}
    assert page.value("rag_retrieval_confidence_count") == page.value("rag_searches_total") == 1
    assert page.value("rag_retriever_calls_total", retriever="words") == 1
    assert page.value("rag_llm_calls_per_query_sum") == 1


async def test_warnings_are_counted_by_what_they_are_about(filled):
    filled.balancer.answer = "It is known [42]."
    response = await ask(filled)
    assert response.warnings
    page = await page_of(filled)
    assert page.labels("rag_warnings_total", "type") == {"citation": 1}


async def test_a_model_that_fails_is_a_failure_of_the_generator_and_not_of_the_question(filled):
    filled.balancer.fault = PeerUnavailable("fleet", "gone")
    assert (await ask(filled)).degradations
    page = await page_of(filled)
    assert page.value("rag_agent_invocations_total", agent="generator", outcome="error") == 1
    assert page.labels("rag_requests_total", "outcome") == {"success": 1}
    assert page.value("rag_degraded_responses_total", mode="rag") == 1
    assert page.value("rag_llm_calls_total") == 0


async def test_tools_that_a_model_asks_for_cost_by_their_kind(priced):
    asked = []

    def reply(request):
        if not request.tools:
            return ANSWER
        asked.append(request)
        if len(asked) > 1:
            return "DONE"
        arguments = '{"query": "stop the machine"}'
        call = generation_pb2.ToolCall(id="1", name="retrieve", arguments_json=arguments)
        return balancer.ToolCalls(calls=[call])

    priced.balancer.reply = reply
    before = await page_of(priced)
    await ask(priced, query(mode="QUERY_MODE_AGENT"))
    page = await page_of(priced)
    assert page.value("rag_tool_executions_total", tool="retrieve", outcome="success") == 1
    assert page.value("rag_cost_total", mode="agent", type="retrieval") == pytest.approx(0.5)
    assert page.value("rag_cost_total", mode="agent", type="tool") == 0
    assert page.value("rag_llm_calls_per_query_sum", mode="agent") == 3
    assert page.value("rag_llm_calls_total", mode="agent", cached="false") == 3
    assert page.value("rag_retrievals_total", mode="agent", outcome="success") == 1
    spent = page.value("rag_tenant_cost_total") - before.value("rag_tenant_cost_total")
    told = page.value("rag_cost_total", mode="agent")
    assert spent == pytest.approx(told)


async def test_each_stage_of_a_new_document_is_measured_and_none_of_a_known_one(
    start_rag, monkeypatch
):
    # Nothing is counted here: the first count may come before or after the first document.
    monkeypatch.setattr(PostgresDocumentStore, "count_all", lambda _: asyncio.Event().wait())
    filled = await filled_with(start_rag)
    page = await page_of(filled)
    stages = "rag_ingest_stage_duration_seconds_count"
    assert page.labels(stages, "stage") == {"parse": 3, "chunk": 3, "embed": 3, "store": 3}
    await filled.ingest(DOCUMENTS)
    await filled.ingest({"broken.pdf": b"%PDF-1.7 broken"})
    page = await page_of(filled)
    assert page.labels(stages, "stage") == {"parse": 3, "chunk": 3, "embed": 3, "store": 3}
    assert page.labels("rag_agent_invocations_total", "outcome") == {"success": 6, "error": 1}
    assert page.value("rag_index_documents") == page.value("rag_index_chunks") == 0


async def test_what_is_stored_is_counted_over_all_tenants(start_rag):
    rag = await start_rag(index_count_interval_seconds=0.05)
    await rag.ingest(DOCUMENTS)
    await rag.ingest({"one.md": "# One\n\nOnly this.\n"}, tenant="rival", collection="other")

    async def shown():
        page = await page_of(rag)
        return page.value("rag_index_documents"), page.value("rag_index_chunks")

    connection = await asyncpg.connect(rag.database_dsn)
    try:
        chunk_count = await connection.fetchval("SELECT count(*) FROM rag.chunk")
    finally:
        await connection.close()
    assert chunk_count >= 4
    async with asyncio.timeout(30):
        while await shown() != (4, chunk_count):
            pass
        request = corpus.DeleteCollectionRequest(collection="docs", confirm="docs")
        await rag.corpus.DeleteCollection(request, metadata=ACME)
        while await shown() != (1, 1):
            pass


async def test_the_pool_shows_how_full_it_is_and_how_long_is_waited(filled):
    page = await page_of(filled)
    pool = {"pool": "postgres"}
    assert page.value("connection_pool_max_connections", **pool) == 16
    assert page.value("connection_pool_wait_seconds_count", **pool) > 3
    assert page.value("connection_pool_connections", **pool, state="idle") >= 1
    assert page.value("connection_pool_connections", **pool, state="in_use") >= 0


async def test_slow_answers_point_at_their_traces(filled):
    events = await stream(filled)
    trace_id = events[0].started.trace_id
    page = await page_of(filled)
    assert page.exemplars("rag_request_duration_seconds") == [trace_id]
    assert page.exemplars("rag_time_to_first_token_seconds") == [trace_id]


async def test_every_family_of_the_catalogue_is_there_after_a_few_calls(start_rag):
    """No panel can stay empty for want of a series that was only ever declared."""
    rag = await filled_with(start_rag, tenant_label_count=1, **PRICED)
    await ask(rag)
    await error_of(ask(rag, query(collection="none")))
    await error_of(
        rag.rag.Query(query(collection="none"), metadata=as_tenant("second"), timeout=20)
    )
    page = await page_of(rag)
    missing = [
        metric.name
        for metric in (*COMMON_METRICS, *CATALOGUE)
        if not any(
            line.startswith((f"{metric.name}{{", f"{metric.name} ", f"{metric.name}_count"))
            for line in page.text.splitlines()
        )
    ]
    assert missing == []


def test_latency_edges_hold_the_thresholds_of_the_alerts():
    edges = {
        metric.name: metric.buckets for metric in CATALOGUE if metric.kind.value == "histogram"
    }
    assert {0.1, 0.13, 0.2, 10.0, 30.0} <= set(edges["rag_request_duration_seconds"])
    assert 0.8 in edges["rag_quality_score"]
    assert {metric.name for metric in CATALOGUE if metric.has_exemplars} == {
        "rag_request_duration_seconds",
        "rag_time_to_first_token_seconds",
        "rpc_client_call_duration_seconds",
    }
    assert all(metric.kind is MetricKind.HISTOGRAM for metric in CATALOGUE if metric.has_exemplars)
