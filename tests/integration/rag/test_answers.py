"""Questions get answers whose citations check out, or a lesser answer that says so."""

import asyncio

import asyncpg
import grpc
import pytest

from pannier.common.v1 import generation_pb2
from pannier.rag.v1 import corpus_service_pb2 as corpus
from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from tests.integration.rag.conftest import as_tenant
from tests.kit.questions import ACME, DOCUMENTS, QUESTION, ask, query, reasons, stream
from tests.kit.rpc import error_of


async def test_both_arms_find_the_right_passage(filled):
    response = await filled.rag.Retrieve(
        pb.RetrieveRequest(collection="docs", query=QUESTION), metadata=ACME
    )
    best = response.passages[0]
    assert best.document_id == "button.md"
    assert best.marker == 1
    assert best.score.vector_rank == 1
    assert best.score.keyword_rank == 1
    assert 0 < best.score.fused_score <= 1
    document = await filled.corpus.GetDocument(
        corpus.GetDocumentRequest(
            collection="docs", document_id="button.md", view=corpus.DOCUMENT_VIEW_FULL
        ),
        metadata=ACME,
    )
    assert document.document.text[best.char_start : best.char_end] == best.text
    assert {"embed_question", "vector_search", "keyword_search", "fuse"} <= {
        stage.name for stage in response.profile.stages
    }
    assert not response.degradations


@pytest.mark.parametrize("fusion", [pb.FUSION_METHOD_CONVEX, pb.FUSION_METHOD_RRF])
async def test_both_fusions_work_and_k_is_kept(filled, fusion):
    response = await filled.rag.Retrieve(
        pb.RetrieveRequest(
            collection="docs",
            query=QUESTION,
            options=pb.RetrievalOptions(passage_count=2, fusion=fusion),
        ),
        metadata=ACME,
    )
    assert len(response.passages) == 2
    assert response.passages[0].document_id == "button.md"


async def test_the_searches_run_at_the_same_time(filled):
    response = await filled.rag.Retrieve(
        pb.RetrieveRequest(collection="docs", query=QUESTION), metadata=ACME
    )
    stages = {stage.name: stage for stage in response.profile.stages}
    words, meaning = stages["keyword_search"], stages["embed_question"]
    assert words.start.ToNanoseconds() < (
        meaning.start.ToNanoseconds() + meaning.duration.ToNanoseconds()
    )


async def test_a_stream_has_its_events_in_order_and_is_complete(filled):
    events = await stream(filled)
    kinds = [event.WhichOneof("event") for event in events if not event.HasField("progress")]
    assert kinds[:2] == ["started", "retrieved"]
    assert kinds[-1] == "completed"
    assert kinds.count("completed") == 1
    completed = events[-1].completed
    assert "".join(event.text_delta for event in events) == completed.answer
    assert completed.answer == filled.balancer.answer
    assert completed.origin == pb.ANSWER_ORIGIN_GENERATED
    assert (completed.model, completed.backend_id) == ("talker:latest", "fake:1")
    assert completed.usage.prompt_token_count == 100
    assert completed.finish_reason == generation_pb2.FINISH_REASON_STOP
    assert [event.citation for event in events if event.HasField("citation")] == list(
        completed.citations
    )
    assert len(events[0].started.trace_id) == 32
    assert completed.profile.first_text.ToNanoseconds() > 0
    assert completed.profile.bottleneck


async def test_passages_come_without_their_texts_where_the_caller_wants_none(filled):
    request = query(include_passage_texts=False)
    whole, short, events = (
        await ask(filled),
        await ask(filled, request),
        await stream(filled, request),
    )
    retrieved = next(event.retrieved for event in events if event.HasField("retrieved"))
    assert all(each.text for each in whole.passages)
    for passages in (short.passages, retrieved.passages, events[-1].completed.passages):
        assert [each.document_id for each in passages] == [
            each.document_id for each in whole.passages
        ]
        assert not any(each.text for each in passages)
    assert list(short.citations) == list(whole.citations)


async def test_citations_check_out_against_the_stored_text(filled):
    response = await ask(filled)
    assert [each.marker for each in response.citations] == [1, 1]
    citation = response.citations[0]
    document = await filled.corpus.GetDocument(
        corpus.GetDocumentRequest(
            collection="docs",
            document_id=citation.document_id,
            view=corpus.DOCUMENT_VIEW_FULL,
        ),
        metadata=ACME,
    )
    assert document.document.text[citation.char_start : citation.char_end] == citation.quote
    sentence = response.answer[citation.answer_char_start : citation.answer_char_end]
    assert sentence == "Press the blue button to stop the machine [1]."
    assert citation.document_id == response.passages[0].document_id


async def test_a_marker_without_a_passage_is_dropped_and_told(filled):
    filled.balancer.answer = "It is known [42]."
    response = await ask(filled)
    assert not response.citations
    assert "name no passage" in response.warnings[0]


async def test_the_prompt_holds_the_passages_and_the_question(filled):
    await ask(filled)
    (request,) = filled.balancer.chats
    roles = [message.role for message in request.messages]
    assert roles == [generation_pb2.CHAT_ROLE_SYSTEM, generation_pb2.CHAT_ROLE_USER]
    assert "Press the blue button" in request.messages[1].content
    assert request.messages[1].content.endswith(f"Question: {QUESTION}")
    assert request.sampling.temperature == 0
    assert request.sampling.HasField("max_output_token_count")
    assert request.sampling.HasField("context_token_count")


async def test_the_same_question_again_comes_from_the_cache(filled):
    first = await ask(filled)
    second = await ask(filled)
    assert second.origin == pb.ANSWER_ORIGIN_CACHED
    assert second.answer == first.answer
    assert second.citations == first.citations
    assert second.usage == first.usage
    assert second.backend_id == ""
    assert len(filled.balancer.chats) == 1
    stages = {stage.name: stage.cache_outcome for stage in second.profile.stages}
    assert stages == {"query_lookup": "hit_exact", "evidence_check": ""}


async def test_the_same_prompt_again_comes_from_the_cache(filled):
    first = await ask(filled)
    filled.cache.answered.clear()
    second = await ask(filled)
    assert (second.origin, second.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)
    assert second.citations == first.citations
    assert len(filled.balancer.chats) == 1
    stages = {stage.name: stage.cache_outcome for stage in second.profile.stages}
    assert stages["query_lookup"] == stages["semantic_lookup"] == "miss"
    assert stages["inference_lookup"] == "hit_shared"
    assert stages["embed_question"] == "hit_shared"


async def test_a_changed_document_is_not_answered_from_the_cache(filled):
    await ask(filled)
    await filled.ingest({"button.md": "# Machine\n\nPull the green lever to stop the machine.\n"})
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert "green lever" in filled.balancer.chats[1].messages[1].content


@pytest.mark.parametrize(
    ("policy", "chats", "origin"),
    [
        (pb.CACHE_POLICY_BYPASS, 2, pb.ANSWER_ORIGIN_GENERATED),
        (pb.CACHE_POLICY_REFRESH, 2, pb.ANSWER_ORIGIN_GENERATED),
        (pb.CACHE_POLICY_USE, 1, pb.ANSWER_ORIGIN_CACHED),
    ],
)
async def test_a_caller_may_keep_the_cache_out(filled, policy, chats, origin):
    await ask(filled)
    response = await ask(filled, query(cache_policy=policy))
    assert (len(filled.balancer.chats), response.origin) == (chats, origin)


async def test_another_tenant_gets_nothing_from_the_cache(filled):
    await ask(filled)
    await filled.ingest(DOCUMENTS, tenant="rival")
    response = await filled.rag.Query(query(), metadata=as_tenant("rival"))
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED


async def test_without_documents_a_model_alone_answers(filled):
    response = await ask(filled, query(mode=pb.QUERY_MODE_DIRECT, collection=""))
    assert response.mode == pb.QUERY_MODE_DIRECT
    assert not response.passages
    assert filled.balancer.chats[0].messages[1].content == QUESTION


async def test_a_question_that_nothing_matches_asks_no_model(rag):
    await rag.ingest({"fox.md": "Fox."})
    await rag.corpus.DeleteDocument(
        corpus.DeleteDocumentRequest(collection="docs", document_id="fox.md"), metadata=ACME
    )
    response = await ask(rag)
    assert response.origin == pb.ANSWER_ORIGIN_NO_MATCH
    assert not rag.balancer.chats


async def test_without_a_model_the_sources_answer_with_citations(start_rag):
    rag = await start_rag(prepare=lambda balancer: balancer.models.pop())
    await rag.ingest(DOCUMENTS)
    response = await ask(rag)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert "Press the blue button to stop the machine." in response.answer
    assert reasons(response.degradations) == {"MODEL_UNAVAILABLE"}
    for citation in response.citations:
        assert citation.quote in DOCUMENTS[citation.document_id]
    assert response.citations[0].document_id == "button.md"


async def test_a_fleet_that_fails_leaves_an_extractive_answer(filled):
    await filled.rag.Retrieve(pb.RetrieveRequest(collection="docs", query=QUESTION), metadata=ACME)
    filled.balancer.fault = RelayedError(
        "all failed", code=StatusCode.UNAVAILABLE, reason="ALL_ATTEMPTS_FAILED"
    )
    events = await stream(filled)
    completed = events[-1].completed
    assert completed.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert reasons(completed.degradations) == {"MODEL_UNAVAILABLE"}
    assert "".join(event.text_delta for event in events) == completed.answer


async def test_a_frozen_balancer_keeps_no_cached_answer_out_of_reach(filled):
    first = await ask(filled)
    filled.balancer.hold_listing = asyncio.Event()
    filled.balancer.hold_embedding = asyncio.Event()
    filled.balancer.hold = asyncio.Event()
    again = await filled.rag.Query(query(), metadata=ACME, timeout=5)
    assert (again.origin, again.answer) == (pb.ANSWER_ORIGIN_CACHED, first.answer)
    assert not again.degradations


async def test_an_embedding_that_hangs_leaves_time_to_search_by_words(filled):
    filled.balancer.hold_embedding = asyncio.Event()
    response = await filled.rag.Retrieve(
        pb.RetrieveRequest(collection="docs", query="A new question about cheese"),
        metadata=ACME,
        timeout=4,
    )
    assert reasons(response.degradations) == {"EMBEDDING_UNAVAILABLE"}
    assert response.passages[0].document_id == "cheese.md"


async def test_vectors_that_cannot_be_used_are_as_good_as_none(filled):
    filled.balancer.spoilt_vectors = True
    response = await ask(filled, query("A new question about cheese"))
    assert reasons(response.degradations) == {"EMBEDDING_UNAVAILABLE"}
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED


async def test_what_could_not_be_searched_is_not_said_to_be_absent(start_rag, database_dsn):
    rag = await start_rag(database_time_limit_seconds=1.0)
    await rag.ingest(DOCUMENTS)
    rag.balancer.embed_fault = PeerUnavailable("ollama", "away")
    connection = await asyncpg.connect(database_dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE rag.posting")
            error = await error_of(ask(rag))
    finally:
        await connection.close()
    assert (error.status_code, error.error_reason) == (
        StatusCode.UNAVAILABLE,
        "STORE_UNAVAILABLE",
    )


async def test_words_that_cannot_be_searched_leave_the_search_by_meaning(start_rag, database_dsn):
    rag = await start_rag(database_time_limit_seconds=1.0)
    await rag.ingest(DOCUMENTS)
    connection = await asyncpg.connect(database_dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE rag.posting")
            response = await ask(rag)
    finally:
        await connection.close()
    assert reasons(response.degradations) == {"SEARCH_ARM_FAILED"}
    assert response.passages[0].document_id == "button.md"


async def test_a_call_that_fails_for_want_of_a_backend_is_not_repeated(filled):
    filled.balancer.fault = RelayedError(
        "all failed", code=StatusCode.UNAVAILABLE, reason="ALL_ATTEMPTS_FAILED"
    )
    before = filled.balancer.tenants["acme"]
    await ask(filled, query("A new question about cheese"))
    assert filled.balancer.tenants["acme"] - before == 2, "one Embed and one Chat"


async def test_bypass_leaves_the_cache_alone(filled):
    filled.cache.calls.clear()
    response = await ask(filled, query("New?", cache_policy=pb.CACHE_POLICY_BYPASS))
    assert not filled.cache.calls
    stages = {stage.name: stage.cache_outcome for stage in response.profile.stages}
    assert stages["embed_question"] == "bypassed"


async def test_an_empty_answer_is_replaced_by_the_sources(filled):
    filled.balancer.answer = " "
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE


async def test_a_chance_answer_without_sources_is_not_kept(filled):
    sampling = generation_pb2.SamplingOptions(temperature=1.0)
    request = query(mode=pb.QUERY_MODE_DIRECT, sampling=sampling)
    await ask(filled, request)
    assert (await ask(filled, request)).origin == pb.ANSWER_ORIGIN_GENERATED


async def test_a_frozen_cache_is_waited_for_no_more_than_it_must(start_rag):
    rag = await start_rag(cache_time_limit_seconds=0.1)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.cache.hold = asyncio.Event()
    rag.cache.calls.clear()
    response = await ask(rag)
    assert reasons(response.degradations) == {"CACHE_UNAVAILABLE"}
    assert rag.cache.calls.total() == 1, "one lookup of the question"


async def test_a_question_that_cannot_be_embedded_is_searched_by_words(filled):
    filled.balancer.embed_fault = PeerUnavailable("ollama", "away")
    response = await ask(filled)
    assert reasons(response.degradations) == {"EMBEDDING_UNAVAILABLE"}
    assert response.passages[0].document_id == "button.md"
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert response.passages[0].score.fused_score == pytest.approx(1.0)


async def test_without_a_cache_everything_is_computed_and_said_so(filled):
    filled.cache.fault = PeerUnavailable("cache", "away")
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    assert reasons(response.degradations) == {"CACHE_UNAVAILABLE"}


async def test_a_cache_without_its_store_is_said_to_be_degraded(filled):
    filled.cache.degraded = True
    assert reasons((await ask(filled)).degradations) == {"CACHE_UNAVAILABLE"}


def interruption():
    return RelayedError(
        "The backend went away.",
        code=StatusCode.ABORTED,
        reason="STREAM_INTERRUPTED",
        metadata={"backend_id": "fake:1", "emitted_character_count": "10"},
    )


async def test_a_stream_that_breaks_off_never_looks_complete(filled):
    filled.balancer.break_after, filled.balancer.break_error = 3, interruption()
    events = []

    async def read():
        request = pb.StreamQueryRequest(query=query())
        async for event in filled.rag.StreamQuery(request, metadata=ACME, timeout=20):
            events.append(event)

    error = await error_of(read())
    assert (error.status_code, error.error_reason) == (StatusCode.ABORTED, "STREAM_INTERRUPTED")
    text = "".join(event.text_delta for event in events)
    assert error.metadata == {"backend_id": "fake:1", "emitted_character_count": str(len(text))}
    assert text == "Press the blue "
    assert not any(event.HasField("completed") for event in events)
    filled.balancer.break_after = None
    assert (await ask(filled)).origin == pb.ANSWER_ORIGIN_GENERATED, "a partial answer was kept"


async def test_a_unary_answer_that_breaks_off_falls_back_to_the_sources(filled):
    filled.balancer.break_after, filled.balancer.break_error = 3, interruption()
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert reasons(response.degradations) == {"GENERATION_INTERRUPTED"}


async def test_a_caller_that_leaves_ends_the_generation(filled):
    filled.balancer.hold = asyncio.Event()
    call = filled.rag.StreamQuery(pb.StreamQueryRequest(query=query()), metadata=ACME)
    async for event in call:
        if event.text_delta:
            break
    call.cancel()
    async with asyncio.timeout(30):
        assert await filled.balancer.chat_ended.get() == "chat"
        while (await filled.rag.GetStats(pb.GetStatsRequest())).in_flight_count:
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "  \n"}, "query"),
        ({"query": "x" * 1_000_000}, "query"),
        ({"query": "a\x00b"}, "query"),
        ({"collection": ""}, "collection"),
        ({"retrieval": pb.RetrievalOptions(passage_count=-1)}, "retrieval.passage_count"),
        ({"retrieval": pb.RetrievalOptions(passage_count=0)}, "retrieval.passage_count"),
        ({"retrieval": pb.RetrievalOptions(candidate_count=501)}, "retrieval.candidate_count"),
        (
            {"retrieval": pb.RetrievalOptions(vector_weight_ratio=float("nan"))},
            "retrieval.vector_weight_ratio",
        ),
        ({"mode": 99}, "mode"),
        ({"cache_policy": 99}, "cache_policy"),
        ({"sampling": generation_pb2.SamplingOptions(temperature=3)}, "sampling.temperature"),
        (
            {"sampling": generation_pb2.SamplingOptions(stop_sequences=["x"] * 9)},
            "sampling.stop_sequences",
        ),
    ],
)
async def test_a_bad_field_is_named(filled, request_fields, field):
    error = await error_of(
        ask(
            filled,
            query(**{"text": QUESTION, **request_fields})
            if "query" not in request_fields
            else query(request_fields["query"]),
        )
    )
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
    )
    assert [each.field for each in error.violations] == [field]


async def test_all_bad_fields_are_named_at_once(filled):
    request = query("", collection="", retrieval=pb.RetrievalOptions(passage_count=-1))
    error = await error_of(ask(filled, request))
    assert {each.field for each in error.violations} == {
        "query",
        "collection",
        "retrieval.passage_count",
    }


async def test_an_unknown_collection_is_not_found(filled):
    error = await error_of(ask(filled, query(collection="nothing")))
    assert (error.status_code, error.error_reason) == (
        StatusCode.NOT_FOUND,
        "COLLECTION_NOT_FOUND",
    )
    assert error.metadata == {"collection": "nothing"}


async def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(filled):
    error = await error_of(ask(filled, query(model="llama9")))
    assert (error.status_code, error.error_reason) == (StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert "talker:latest" in error.message


async def test_a_model_that_only_embeds_cannot_answer(filled):
    error = await error_of(ask(filled, query(model="all-minilm")))
    assert error.error_reason == "MODEL_NOT_FOUND"


async def test_a_model_that_is_too_slow_leaves_time_for_the_sources(filled):
    filled.balancer.hold = asyncio.Event()
    response = await filled.rag.Query(query(), metadata=ACME, timeout=2)
    assert response.origin == pb.ANSWER_ORIGIN_EXTRACTIVE
    assert reasons(response.degradations) == {"GENERATION_INTERRUPTED"}
    assert await filled.balancer.chat_ended.get() == "chat"


async def test_without_sources_a_model_that_is_too_slow_is_an_expired_deadline(filled):
    filled.balancer.hold = asyncio.Event()
    request = query(mode=pb.QUERY_MODE_DIRECT)
    error = await error_of(filled.rag.Query(request, metadata=ACME, timeout=1))
    assert error.status_code is StatusCode.DEADLINE_EXCEEDED


async def test_statistics_count_what_happened(filled):
    await ask(filled)
    await ask(filled)
    await error_of(ask(filled, query(collection="nothing")))
    stats = await filled.rag.GetStats(pb.GetStatsRequest())
    (mode,) = stats.modes
    assert mode.mode == pb.QUERY_MODE_RAG
    assert (mode.query_count, mode.failure_count, mode.cached_count) == (3, 1, 1)
    assert mode.usage.prompt_token_count == 100
    assert mode.answer_time_p50.ToNanoseconds() > 0
    assert stats.ingest.created_count == len(DOCUMENTS)
    assert stats.in_flight_count == 0
    assert {"vector_search", "generate"} <= {stage.name for stage in stats.stages}


async def test_the_spans_of_an_answer_are_one_trace(filled):
    response = await ask(filled)
    spans = [
        span
        for span in filled.spans.exporter.get_finished_spans()
        if format(span.context.trace_id, "032x") == response.trace_id
    ]
    names = {span.name for span in spans}
    assert {
        "pannier.rag.v1.RagService/Query",
        "pannier.cache.v1.CacheService/LookupInference",
        "pannier.balancer.v1.BalancerService/Chat",
        "retrieve.vector",
        "retrieve.bm25",
    } <= names
    for span in spans:
        for value in span.attributes.values():
            assert "machine" not in str(value), "content stands in a span"


async def test_a_lost_database_is_told_with_a_retry_delay(filled, database_dsn):
    name = database_dsn.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(database_dsn.replace(f"/{name}", "/postgres", 1))
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        error = await error_of(ask(filled))
        assert (error.status_code, error.error_reason) == (
            StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
        assert error.retry_delay_seconds == 1.0
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with asyncio.timeout(10):
            while True:
                try:
                    await ask(filled)
                    break
                except grpc.aio.AioRpcError:
                    continue
    finally:
        await connection.close()
