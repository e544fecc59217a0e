"""A question is one tree of spans, which says what came of each part and nothing of its content."""

import asyncio
import logging

import asyncpg
import grpc
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable
from tests.integration.rag.conftest import as_tenant
from tests.integration.rag.telemetry import (
    eventually,
    failed,
    finished,
    one,
    page_of,
    short,
    told,
    trace_of,
    tree,
)
from tests.kit.questions import ACME, DOCUMENTS, ask, query, stream
from tests.kit.rpc import error_of
from tests.kit.web import serving_web

SELECT_PASSAGES = "> SELECT chunk document collection"
SEARCH = (
    "retrieval",
    [
        ("retrieve.vector", ["> SELECT collection document", "> SELECT embedding document"]),
        ("retrieve.bm25", ["> SELECT collection posting document"]),
        "> SELECT collection document embedding",
        "fuse.convex",
        SELECT_PASSAGES,
        "diversify",
    ],
)


def as_sets(found):
    """A tree without the order of what runs at the same time."""
    return [
        (each[0], frozenset(as_sets(each[1]))) if isinstance(each, tuple) else each
        for each in found
    ]


def links_of(span):
    return [link.context.span_id for link in span.links]


async def test_a_generated_answer_is_one_tree_that_follows_the_conventions(filled):
    response = await ask(filled)
    spans = await trace_of(filled, response.trace_id)
    assert set(as_sets(tree(spans))) == set(
        as_sets(
            [
                (
                    "Query",
                    [
                        (
                            "invoke_workflow rag",
                            [
                                "> SELECT collection",
                                "> LookupSemantic",
                                (
                                    "embed.question",
                                    ["> LookupEmbeddings", "> Embed", "> StoreEmbeddings"],
                                ),
                                SEARCH,
                                "> LookupInference",
                                ("generate", ["> Chat"]),
                                "> FillInference",
                                "> StoreSemantic",
                            ],
                        )
                    ],
                )
            ]
        )
    )
    assert failed(spans) == []
    call, workflow = one(spans, "Query"), one(spans, "invoke_workflow rag")
    known = {
        "app.tenant": "acme",
        "app.query_id": response.query_id,
        "app.rag.mode": "rag",
        "app.rag.stream": False,
        "app.rag.query_chars": len(query().query),
        "app.rag.cache": "miss",
        "app.rag.outcome": "success",
        "app.rag.degraded": False,
        "app.rag.quality": response.quality.score,
        "app.rag.confidence": response.confidence.score,
        "app.rag.citations": len(response.citations),
        "app.rag.cost": 0.0,
    }
    assert known.items() <= call.attributes.items()
    assert [event.name for event in call.events] == ["first_token"]
    assert dict(workflow.attributes) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "rag",
        "app.rag.profile_bottleneck": response.profile.bottleneck,
    }
    retrieval = one(spans, "retrieval").attributes
    assert retrieval["gen_ai.operation.name"] == "retrieval"
    assert (retrieval["gen_ai.data_source.id"], retrieval["gen_ai.retrieval.top_k"]) == ("docs", 8)
    assert retrieval["app.retrieval.returned"] == len(response.passages)
    arm = one(spans, "retrieve.bm25").attributes
    assert (arm["app.retrieval.k"], arm["app.retrieval.returned"]) == (100, 1)
    assert arm["app.retrieval.top_score"] > 0
    assert one(spans, "generate").attributes["gen_ai.usage.input_tokens"] == 100


async def test_statements_are_told_by_what_they_do_to_which_tables(filled):
    response = await ask(filled)
    spans = await trace_of(filled, response.trace_id)
    statements = [each for each in spans if "db.system.name" in each.attributes]
    assert len(statements) == 6
    for each in statements:
        assert each.kind is SpanKind.CLIENT
        assert each.attributes["db.system.name"] == "postgresql"
        assert each.attributes["db.operation.name"] == "SELECT"
        assert each.attributes["db.query.summary"] == each.name
        assert set(each.attributes) <= {
            "db.system.name",
            "db.namespace",
            "db.operation.name",
            "db.query.summary",
            "server.address",
            "server.port",
        }


async def test_an_answer_from_the_cache_takes_few_spans(filled):
    await ask(filled)
    response = await ask(filled)
    spans = await trace_of(filled, response.trace_id)
    assert tree(spans) == [
        (
            "Query",
            [
                (
                    "invoke_workflow rag",
                    ["> LookupSemantic", SELECT_PASSAGES],
                )
            ],
        )
    ]
    assert one(spans, "Query").attributes["app.rag.cache"] == "hit"


async def test_a_streamed_answer_is_the_same_tree_and_tells_of_its_first_token(filled):
    events = await stream(filled)
    spans = await trace_of(filled, events[0].started.trace_id, "/StreamQuery")
    (root,) = tree(spans)
    assert root[0] == "StreamQuery"
    assert [each[0] for each in root[1]] == ["invoke_workflow rag"]
    call = one(spans, "StreamQuery")
    assert call.attributes["app.rag.stream"] is True
    (first,) = call.events
    assert call.start_time < first.timestamp < call.end_time
    assert failed(spans) == []


async def test_a_model_that_fails_does_not_fail_what_was_done_without_it(filled):
    filled.balancer.fault = PeerUnavailable("fleet", "gone")
    response = await ask(filled)
    spans = await trace_of(filled, response.trace_id)
    assert set(failed(spans)) == {"embed.question", "> Embed", "generate", "> Chat"}
    assert one(spans, "generate").attributes["error.type"] == "PEER_UNAVAILABLE"
    call = one(spans, "Query")
    assert call.status.status_code is StatusCode.UNSET
    assert call.attributes["app.rag.degraded"] is True
    assert call.attributes["app.rag.degradations"] == (
        "embedding_unavailable",
        "model_unavailable",
    )
    assert call.attributes["app.rag.origin"] == "extractive"


async def test_a_second_attempt_that_succeeds_leaves_all_above_it_whole(filled):
    attempts = []

    def reply(_request):
        attempts.append(1)
        filled.balancer.break_after = 3 if len(attempts) == 1 else None
        filled.balancer.break_error = PeerUnavailable("backend", "gone")

    filled.balancer.reply = reply
    response = await ask(filled)
    assert response.origin == pb.ANSWER_ORIGIN_GENERATED
    spans = await trace_of(filled, response.trace_id)
    assert failed(spans) == ["generate", "> Chat"]
    assert [short(each) for each in spans].count("generate") == 2


async def test_a_question_that_fails_says_why(filled):
    error = await error_of(ask(filled, query(collection="none")))
    assert error.error_reason == "COLLECTION_NOT_FOUND"
    (call,) = await eventually(lambda: filled.spans.named("RagService/Query"))
    spans = await trace_of(filled, format(call.context.trace_id, "032x"))
    assert tree(spans) == [("Query", [("invoke_workflow rag", ["> SELECT collection"])])]
    workflow = one(spans, "invoke_workflow rag")
    assert workflow.attributes["error.type"] == "COLLECTION_NOT_FOUND"
    # The caller is at fault, and the statement has done what it should.
    assert failed(spans) == ["invoke_workflow rag"]
    assert call.attributes["app.rag.outcome"] == "error"


async def test_a_store_that_fails_fails_the_call(start_rag):
    # A quarter of the service's own deadline is what a collection is waited for.
    filled = await start_rag(default_deadline_seconds=2.0)
    await filled.ingest(DOCUMENTS)
    await filled.told()
    connection = await asyncpg.connect(filled.database_dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE rag.collection")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(filled, seconds=None)
            (call,) = await eventually(lambda: filled.spans.named("RagService/Query"))
    finally:
        await connection.close()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    spans = await trace_of(filled, format(call.context.trace_id, "032x"))
    assert failed(spans) == ["Query", "invoke_workflow rag"]
    assert call.attributes["error.type"] == "UNAVAILABLE"
    assert one(spans, "SELECT collection").attributes["app.cancelled"] is True


async def test_who_leaves_in_mid_stream_fails_nothing(filled):
    filled.balancer.hold = asyncio.Event()
    call = filled.rag.StreamQuery(pb.StreamQueryRequest(query=query()), metadata=ACME, timeout=20)
    async for event in call:
        if event.HasField("started"):
            trace_id = event.started.trace_id
        if event.text_delta:
            call.cancel()
            break
    spans = await trace_of(filled, trace_id, "/StreamQuery")
    await filled.stop()
    spans = await trace_of(filled, trace_id, "/StreamQuery")
    # A call that was cancelled has failed for its caller, by the conventions for RPC.
    assert failed(spans) == ["> Chat"]
    assert one(spans, "generate").attributes["app.cancelled"] is True
    assert one(spans, "StreamQuery").attributes["rpc.response.status_code"] == "CANCELLED"
    assert one(spans, "StreamQuery").attributes["app.rag.outcome"] == "cancelled"
    assert all(each.end_time is not None for each in spans)


async def test_who_waits_for_the_work_of_another_call_is_linked_to_it(filled):
    filled.balancer.hold_embedding = asyncio.Event()
    before = filled.balancer.tenants["acme"]
    request = pb.RetrieveRequest(collection="docs", query="A new question about cheese?")
    calls = [
        asyncio.ensure_future(filled.rag.Retrieve(request, metadata=ACME, timeout=20))
        for _ in range(2)
    ]
    while len(filled.spans.named("SELECT collection posting document")) < len(calls):
        await asyncio.sleep(0)
    while filled.balancer.tenants["acme"] == before:
        await asyncio.sleep(0)
    filled.balancer.hold_embedding.set()
    for each in calls:
        await each
    embeddings = await eventually(
        lambda: found if len(found := filled.spans.named("embed.question")) == 2 else None
    )
    (leader,) = [each for each in embeddings if not each.links]
    (follower,) = [each for each in embeddings if each.links]
    assert links_of(follower) == [leader.context.span_id]
    assert follower.attributes["app.coalesced"] is True
    assert follower.context.trace_id != leader.context.trace_id


async def test_work_behind_an_answer_is_a_trace_of_its_own_linked_to_it(filled):
    await ask(filled)
    filled.cache.wants_verification = True
    response = await ask(filled)
    (work,) = await eventually(lambda: filled.spans.named("background.verification"))
    spans = await trace_of(filled, response.trace_id)
    assert links_of(work) == [one(spans, "invoke_workflow rag").context.span_id]
    assert work.parent is None
    assert format(work.context.trace_id, "032x") != response.trace_id
    below = [each for each in finished(filled) if each.context.trace_id == work.context.trace_id]
    assert {"retrieval", "Chat"} <= {short(each).removeprefix("> ") for each in below}
    assert failed(below) == []


async def test_each_document_is_a_trace_of_its_own_linked_to_the_call(rag):
    await rag.ingest(DOCUMENTS)
    await rag.told()
    (call,) = await eventually(lambda: rag.spans.named("/IngestDocuments"))
    documents = rag.spans.named("ingest.document")
    assert {each.attributes["app.doc.id"] for each in documents} == set(DOCUMENTS)
    assert len({each.context.trace_id for each in (*documents, call)}) == 4
    for root in documents:
        assert root.parent is None
        assert links_of(root) == [call.context.span_id]
        assert root.attributes["app.ingest.outcome"] == "created"
        assert root.attributes["app.doc.format"] == "text/markdown"
        size = len(DOCUMENTS[root.attributes["app.doc.id"]].encode())
        assert root.attributes["app.doc.bytes"] == size
        spans = [each for each in finished(rag) if each.context.trace_id == root.context.trace_id]
        names = [short(each) for each in spans]
        assert {"ingest.parse", "ingest.chunk", "ingest.embed", "> Embed", "index.write"} <= {
            *names
        }
        assert one(spans, "ingest.chunk").attributes["app.chunk.count"] == 1
        parse, chunk = one(spans, "ingest.parse"), one(spans, "ingest.chunk")
        assert parse.end_time == chunk.start_time <= chunk.end_time
        assert "> COMMIT" in names
        assert failed(spans) == []
    told_cache = await eventually(lambda: rag.spans.named("invalidate"))
    assert {link for each in told_cache for link in links_of(each)} == {call.context.span_id}
    for each in told_cache:
        below = [span for span in finished(rag) if span.context.trace_id == each.context.trace_id]
        assert "> Invalidate" in [short(span) for span in below]


async def test_a_known_document_and_a_broken_one_say_so(rag):
    await rag.ingest({"a.md": "# A\n\nSome text.\n"})
    await rag.ingest({"a.md": "# A\n\nSome text.\n", "broken.pdf": b"%PDF-1.7 broken"})
    roots = {
        (each.attributes["app.doc.id"], each.attributes["app.ingest.outcome"]): each
        for each in rag.spans.named("ingest.document")
    }
    assert roots.keys() == {("a.md", "created"), ("a.md", "unchanged"), ("broken.pdf", "failed")}
    broken = roots["broken.pdf", "failed"]
    spans = [each for each in finished(rag) if each.context.trace_id == broken.context.trace_id]
    assert failed(spans) == ["ingest.parse", "ingest.document"]
    assert broken.attributes["error.type"] == "DOCUMENT_UNREADABLE"


async def test_the_web_is_asked_in_spans_that_do_not_say_what_for(start_rag):
    async with serving_web() as fake:
        fake.add("/tides", "<p>The moon causes the tides of the sea.</p>")
        fake.results.append("/gone?of=sea")
        rag = await start_rag(
            web_searxng_url=fake.url, web_private_hosts=(f"127.0.0.1:{fake.port}",)
        )
        await rag.ingest(DOCUMENTS)
        rag.balancer.answer = "The moon causes the tides of the sea [1]."
        response = await ask(rag, query("What causes the tides?", web="WEB_POLICY_ALWAYS"))
        spans = await trace_of(rag, response.trace_id)
        sent = [headers for _, headers in (*fake.searches, *fake.fetched)]
        assert not any("traceparent" in {name.lower() for name in each} for each in sent)
        assert not any("baggage" in {name.lower() for name in each} for each in sent)
    searched = one(spans, "execute_tool web_search")
    assert searched.attributes["app.web.reason"] == "requested"
    assert searched.attributes["gen_ai.tool.name"] == "web_search"
    requests = {each.attributes["url.full"]: each for each in spans if each.name == "GET"}
    assert requests.keys() == {f"{fake.url}/{path}" for path in ("search", "tides", "gone")}
    assert {each.kind for each in requests.values()} == {SpanKind.CLIENT}
    assert requests[f"{fake.url}/tides"].attributes["http.response.status_code"] == 200
    assert failed(spans) == ["> GET"]
    assert requests[f"{fake.url}/gone"].attributes["error.type"] == "404"


async def test_who_calls_begins_the_trace(filled):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = await filled.rag.Query(
        query(), metadata=[*ACME, ("traceparent", parent)], timeout=20
    )
    assert response.trace_id == "0af7651916cd43dd8448eb211c80319c"
    spans = await trace_of(filled, response.trace_id)
    assert format(one(spans, "Query").parent.span_id, "016x") == "b7ad6b7169203331"


async def test_nothing_of_a_question_or_its_answer_is_in_spans_logs_or_metrics(start_rag, caplog):
    marker = "xylophonist"
    with caplog.at_level(logging.DEBUG):
        async with serving_web() as fake:
            fake.add("/page", f"<p>The {marker} of the web plays.</p>")
            rag = await start_rag(
                web_searxng_url=fake.url,
                web_private_hosts=(f"127.0.0.1:{fake.port}",),
                slow_query_seconds=0.001,
            )
            await rag.ingest({"music.md": f"# Music\n\nThe {marker} plays at seven.\n"})
            await rag.told()
            rag.balancer.answer = f"The {marker} plays at seven [1]."
            question = f"When does the {marker} play?"
            response = await ask(rag, query(question))
            assert marker in response.answer
            await ask(rag, query(question))
            await stream(rag, query(question, cache_policy="CACHE_POLICY_BYPASS"))
            await ask(rag, query(f"What does the {marker} eat?", web="WEB_POLICY_ALWAYS"))
            await ask(rag, query(f"Who is the {marker}?", mode="QUERY_MODE_DEEP"))
            await ask(rag, query(f"Who is the {marker}?", mode="QUERY_MODE_AGENT"))
            rag.balancer.fault = PeerUnavailable("fleet", f"cannot say {marker}")
            await ask(rag, query(f"Where is the {marker}?"))
            await error_of(ask(rag, query(f"A {marker}?", mode="QUERY_MODE_DIRECT", collection="")))
            await rag.rag.Retrieve(
                pb.RetrieveRequest(collection="docs", query=marker), metadata=ACME
            )
            await error_of(
                rag.rag.Query(query(f"{marker} " * 20_000), metadata=as_tenant("acme"), timeout=20)
            )
            page = await page_of(rag)
            await rag.stop()
    spans = told(finished(rag))
    assert "execute_tool web_search" in spans
    assert marker not in spans
    assert marker not in page.text
    lines = [f"{each.getMessage()} {vars(each)}" for each in caplog.records]
    ours = [line for line in lines if "slow query" in line]
    assert ours, "what is searched must not be empty"
    assert [line for line in lines if marker in line] == []
