"""Whoever leaves at any moment leaves nothing behind: no query, no connection, no span."""

import asyncio
import logging
import random
from contextlib import suppress

import grpc
import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from tests.integration.rag.telemetry import eventually, finished, page_of
from tests.kit.questions import ACME, ANSWER, DOCUMENTS, QUESTION, query

CALL_COUNT = 150
QUESTIONS = (QUESTION, "How can I stop the machine?", "What is cheese made from?", "And milk?")
MODES = ("RAG", "RAG", "DEEP", "DIRECT", "AGENT")
POLICIES = ("USE", "USE", "REFRESH", "BYPASS")


@pytest.fixture
async def patient(start_rag):
    rag = await start_rag(resumable_grace_seconds=0.05, resumable_retention_seconds=0.05)
    await rag.ingest(DOCUMENTS)
    await rag.told()
    rag.balancer.answer = ANSWER
    return rag


def a_call(rag, chance):
    """Begins any call."""
    request = query(
        chance.choice(QUESTIONS),
        mode=f"QUERY_MODE_{chance.choice(MODES)}",
        cache_policy=f"CACHE_POLICY_{chance.choice(POLICIES)}",
    )
    options = {"metadata": ACME, "timeout": chance.choice((0.02, 0.2, 20, 20, 20))}
    kind = chance.random()
    if kind < 0.15:
        found = pb.RetrieveRequest(collection="docs", query=request.query)
        return rag.rag.Retrieve(found, **options)
    if kind < 0.4:
        return rag.rag.Query(request, **options)
    if kind < 0.5:
        return rag.rag.Chat(pb.ChatRequest(query=request), **options)
    streamed = pb.StreamQueryRequest(query=request, resumable=chance.random() < 0.5)
    return rag.rag.StreamQuery(streamed, **options)


async def come_and_go(rag, chance):
    call = a_call(rag, chance)
    timer = asyncio.get_running_loop().call_later(chance.uniform(0, 0.4), call.cancel)
    # Half of them stay to the end.
    if chance.random() < 0.5:
        timer.cancel()
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        if hasattr(call, "read"):
            async for event in call:
                started = getattr(event, "started", None)
                if event.HasField("started") and getattr(started, "resumable", False):
                    resumed = pb.ResumeQueryRequest(query_id=started.query_id)
                    await rag.rag.ResumeQuery(resumed, metadata=ACME, timeout=20).read()
        else:
            await call
    timer.cancel()


async def test_many_who_leave_at_any_moment_leave_nothing_behind(patient, caplog):
    chance = random.Random(7)
    slots = asyncio.Semaphore(12)

    async def one_of_many(chance):
        async with slots:
            await come_and_go(patient, chance)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for number in range(CALL_COUNT):
            group.create_task(one_of_many(random.Random(chance.random() + number)))
    async with asyncio.timeout(30):
        while any(under_way(page := await page_of(patient)).values()):
            pass
    count = page.value("rag_requests_total")
    assert count > CALL_COUNT / 3
    assert page.value("rag_query_types_total") == count
    assert page.value("rag_tenant_requests_total") == count
    assert page.value("rag_llm_calls_per_query_count") == count
    assert len(page.labels("rag_requests_total", "outcome")) == 3
    ours = [each for each in caplog.records if each.name.startswith(("services", "asyncio"))]
    assert [each.getMessage() for each in ours if each.levelno > logging.WARNING] == []
    spans = await eventually(lambda: whole(finished(patient)), seconds=20)
    ids = [each.context.span_id for each in spans]
    assert len(set(ids)) == len(ids)
    assert sum(each.name.startswith("invoke_workflow") for each in spans) == count


def under_way(page):
    """The gauges of what is under way."""
    names = (
        "rag_active_queries",
        "rpc_server_active_calls",
        "rag_resumable_answers",
        "rag_resumable_bytes",
    )
    in_use = page.value("connection_pool_connections", state="in_use")
    return {"connections": in_use} | {name: page.value(name) for name in names}


def whole(spans):
    """The spans, once all that others are parts of have ended as well."""
    known = {each.context.span_id for each in spans}
    return all(each.parent is None or each.parent.span_id in known for each in spans) and spans
