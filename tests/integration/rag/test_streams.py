"""Streams tell what happens, never end in silence, and can be gone on with."""

import asyncio
import itertools
from collections import Counter

import asyncpg
import grpc
import pytest

from pannier.rag.v1 import rag_service_pb2 as pb
from services.common.errors import PeerUnavailable, RelayedError, StatusCode
from services.common.status import error_from_call
from tests.integration.rag.conftest import as_tenant

DOCUMENTS = {
    "fox.md": "# Animals\n\nThe red fox jumps over the lazy dog. Foxes are quick.\n",
    "button.md": "# Machine\n\nPress the blue button to stop the machine. It stops in 5 seconds.\n",
}
QUESTION = "How do I stop the machine?"
ACME = as_tenant("acme")
ANN = [*ACME, ("x-pannier-user-id", "ann")]


@pytest.fixture
async def filled(rag):
    await rag.ingest(DOCUMENTS)
    await rag.told()
    return rag


def query(**fields):
    return pb.QueryRequest(**({"collection": "docs", "query": QUESTION} | fields))


def open_stream(rag, request=None, *, resumable=False, metadata=ACME, timeout=20):
    return rag.rag.StreamQuery(
        pb.StreamQueryRequest(query=request or query(), resumable=resumable),
        metadata=metadata,
        timeout=timeout,
    )


async def resumed(rag, query_id, after=0, *, metadata=ACME):
    call = rag.rag.ResumeQuery(
        pb.ResumeQueryRequest(query_id=query_id, after_sequence=after),
        metadata=metadata,
        timeout=20,
    )
    async for response in call:
        yield response.event


async def read(events):
    """Reads to the end; returns the events and what they ended in."""
    seen = []
    try:
        async for event in events:
            seen.append(event)
    except grpc.aio.AioRpcError as error:
        return seen, error_from_call(error)
    return seen, None


async def leave_after(call, kind):
    """Reads up to the first event of a kind, then cancels the call."""
    seen = []
    async for event in call:
        seen.append(event)
        if event.WhichOneof("event") == kind:
            call.cancel()
            return seen
    raise AssertionError(f"there was no {kind}")


def kinds(events):
    return [event.WhichOneof("event") for event in events]


async def in_flight(rag):
    return (await rag.rag.GetStats(pb.GetStatsRequest())).in_flight_count


def answers_under_way():
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("answer ")]


async def test_events_are_numbered_and_tell_of_each_stage_of_the_profile(filled):
    events, error = await read(open_stream(filled))
    assert error is None
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events)[:2] == ["started", "progress"]
    assert (kinds(events)[-1], kinds(events).count("completed")) == ("completed", 1)
    completed = events[-1].completed
    assert completed.query_id == events[0].started.query_id
    told = Counter(
        (event.progress.stage, event.progress.state)
        for event in events
        if event.HasField("progress")
    )
    for state in (pb.PROGRESS_STATE_STARTED, pb.PROGRESS_STATE_FINISHED):
        ended = Counter({stage: count for (stage, each), count in told.items() if each == state})
        assert ended == Counter(stage.name for stage in completed.profile.stages)


async def test_progress_is_told_while_the_first_stages_hang(filled):
    filled.balancer.hold_embedding = asyncio.Event()
    request = query(query="Which animal is quick?")
    seen = []
    async with asyncio.timeout(30):
        call = open_stream(filled, request)
        async for event in call:
            seen.append(event)
            if event.progress.stage == "embed_question":
                break
    call.cancel()
    filled.balancer.hold_embedding.set()
    assert set(kinds(seen)) == {"started", "progress"}
    assert seen[-1].progress.state == pb.PROGRESS_STATE_STARTED


async def test_an_answer_that_breaks_off_ends_in_failed_and_the_same_status(filled):
    filled.balancer.break_after = 3
    filled.balancer.break_error = RelayedError(
        "Backend gone.",
        code=StatusCode.ABORTED,
        reason="STREAM_INTERRUPTED",
        metadata={"backend_id": "fake:1", "emitted_character_count": "17"},
    )
    events, error = await read(open_stream(filled))
    failed = events[-1].failed
    assert failed.reason == error.error_reason == "STREAM_INTERRUPTED"
    assert failed.partial_answer == "".join(event.text_delta for event in events) != ""
    assert failed.retryable
    assert kinds(events).count("failed") == 1
    assert "completed" not in kinds(events)


async def test_a_question_that_cannot_be_answered_fails_in_the_same_way(filled):
    events, error = await read(open_stream(filled, query(collection="none")))
    assert kinds(events)[0] == "started"
    assert events[-1].failed.reason == error.error_reason == "COLLECTION_NOT_FOUND"
    assert not events[-1].failed.retryable
    states = [event.progress.state for event in events if event.HasField("progress")]
    assert states[-1] == pb.PROGRESS_STATE_FAILED


async def test_a_request_that_breaks_a_rule_has_no_events(filled):
    events, error = await read(open_stream(filled, query(query="")))
    assert events == []
    assert error.error_reason == "INVALID_FIELD"


async def test_silence_is_broken_by_heartbeats(start_rag):
    rag = await start_rag(stream_heartbeat_seconds=0.05)
    await rag.ingest(DOCUMENTS)
    rag.balancer.hold = asyncio.Event()
    seen = []
    async with asyncio.timeout(10):
        async for event in open_stream(rag):
            seen.append(event)
            if event.HasField("heartbeat"):
                rag.balancer.hold.set()
    assert "heartbeat" in kinds(seen)
    assert kinds(seen)[-1] == "completed"
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))


async def test_a_lost_connection_loses_nothing_of_a_resumable_answer(filled):
    filled.balancer.hold = asyncio.Event()
    seen = await leave_after(open_stream(filled, resumable=True, metadata=ANN), "text_delta")
    started = seen[0].started
    assert started.resumable
    filled.balancer.hold.set()
    rest, error = await read(resumed(filled, started.query_id, seen[-1].sequence, metadata=ANN))
    assert error is None
    events = [*seen, *rest]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert "".join(event.text_delta for event in events) == filled.balancer.answer
    assert events[-1].completed.answer == filled.balancer.answer
    again, _ = await read(resumed(filled, started.query_id, metadata=ANN))
    assert again == events
    assert len(filled.balancer.chats) == 1
    assert (await filled.rag.GetStats(pb.GetStatsRequest())).resumable_count == 1


@pytest.mark.parametrize("metadata", [ACME, [*as_tenant("other"), ("x-pannier-user-id", "ann")]])
async def test_nobody_else_goes_on_with_an_answer(filled, metadata):
    events, _ = await read(open_stream(filled, resumable=True, metadata=ANN))
    found, error = await read(resumed(filled, events[0].started.query_id, metadata=metadata))
    assert found == []
    assert (error.status_code, error.error_reason) == (StatusCode.NOT_FOUND, "QUERY_NOT_FOUND")
    assert "another replica" in error.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query_id": ""}, "query_id"),
        ({"query_id": "x" * 65}, "query_id"),
        ({"query_id": "x", "after_sequence": -1}, "after_sequence"),
    ],
)
async def test_a_bad_field_is_named(rag, fields, field):
    _, error = await read(rag.rag.ResumeQuery(pb.ResumeQueryRequest(**fields), timeout=20))
    assert error.error_reason == "INVALID_FIELD"
    assert error.violations[0].field == field


async def test_a_caller_that_leaves_cancels_all_that_works_for_it(filled):
    filled.balancer.hold = asyncio.Event()
    await leave_after(open_stream(filled), "text_delta")
    async with asyncio.timeout(30):
        assert await filled.balancer.chat_ended.get() == "chat"
        while await in_flight(filled):
            await asyncio.sleep(0)
    assert answers_under_way() == []


async def test_a_caller_that_leaves_cancels_the_statement_in_the_store(filled):
    connection = await asyncpg.connect(filled.database_dsn)
    try:
        async with connection.transaction(), asyncio.timeout(10):
            await connection.execute("LOCK TABLE rag.chunk IN ACCESS EXCLUSIVE MODE")
            call = open_stream(filled)
            waiting = asyncio.ensure_future(read(call))
            while not await _waiting_statements(connection):
                await asyncio.sleep(0.005)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            while await _waiting_statements(connection) or await in_flight(filled):
                await asyncio.sleep(0.005)
    finally:
        await connection.close()
    assert answers_under_way() == []


async def _waiting_statements(connection):
    return await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )


async def test_many_who_leave_at_any_moment_leave_nothing_behind(filled):
    lengths = itertools.cycle(range(1, 15))

    async def come_and_go():
        call = open_stream(filled, query(cache_policy=pb.CACHE_POLICY_BYPASS))
        for _ in range(next(lengths)):
            if await call.read() is grpc.aio.EOF:
                return
        call.cancel()

    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(12):
                group.create_task(come_and_go())
    async with asyncio.timeout(10):
        while await in_flight(filled) or answers_under_way():
            await asyncio.sleep(0.005)
    assert (await filled.rag.GetStats(pb.GetStatsRequest())).resumable_count == 0
    assert (await read(open_stream(filled)))[1] is None


async def test_a_shutdown_ends_streams_with_a_word(start_rag):
    rag = await start_rag(drain_grace_seconds=0.4)
    await rag.ingest(DOCUMENTS)
    rag.balancer.hold = asyncio.Event()
    call = open_stream(rag)
    seen = []
    async for event in call:
        seen.append(event)
        if event.text_delta:
            break
    reading = asyncio.ensure_future(read(call))
    await rag.stop()
    rest, error = await reading
    assert error.error_reason == rest[-1].failed.reason == "SHUTTING_DOWN"
    assert rest[-1].failed.partial_answer.startswith("The ")
    assert answers_under_way() == []


async def test_every_answer_has_a_name_of_its_own(filled):
    response = await filled.rag.Query(query(), metadata=ACME, timeout=20)
    found = await filled.rag.Retrieve(
        pb.RetrieveRequest(collection="docs", query=QUESTION), metadata=ACME
    )
    assert len({response.query_id, found.query_id, ""}) == 3


async def test_the_profile_names_who_answered_and_the_critical_path(filled):
    profile = (await filled.rag.Query(query(), metadata=ACME, timeout=20)).profile
    stages = {stage.name: stage for stage in profile.stages}
    generate = stages["generate"]
    assert (generate.model, generate.backend_id) == ("talker:latest", "fake:1")
    assert generate.usage.prompt_token_count == 100
    assert generate.on_critical_path
    assert profile.critical_path.ToNanoseconds() <= profile.total.ToNanoseconds()
    assert profile.generation == generate.duration
    assert profile.retrieval.ToNanoseconds() > 0


async def test_a_failed_stage_says_why(filled):
    filled.balancer.embed_fault = PeerUnavailable("ollama", "gone")
    response = await filled.rag.Query(query(query="What is quick?"), metadata=ACME, timeout=20)
    (embedding,) = [each for each in response.profile.stages if each.name == "embed_question"]
    assert (embedding.failed, embedding.error_reason) == (True, "PEER_UNAVAILABLE")
    stats = await filled.rag.GetStats(pb.GetStatsRequest())
    counted = {each.reason: each.count for each in stats.degradations}
    assert counted[pb.DEGRADATION_REASON_EMBEDDING_UNAVAILABLE] == 1
