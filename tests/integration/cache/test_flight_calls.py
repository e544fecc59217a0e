"""Single-flight and streams as clients see them, over gRPC, on two replicas."""

import asyncio
import time
from collections import Counter

import pytest
from google.protobuf.duration_pb2 import Duration

from pannier.cache.v1 import cache_service_pb2 as pb
from services.common.errors import StatusCode
from services.common.identity import TENANT_HEADER
from tests.kit.cache_replicas import ANSWER, answer, eventually, fill_messages, flight, question
from tests.kit.lateness import measured_lateness
from tests.kit.rpc import error_of, in_time

MISS, COALESCED = pb.LOOKUP_OUTCOME_MISS, pb.LOOKUP_OUTCOME_HIT_COALESCED
WORDS = [f"word{number} " for number in range(30)]


@pytest.fixture
async def caches(start_cache, redis_server):
    return [await start_cache(redis_server.url) for _ in range(2)]


def look_up(cache, text: str = "why?", **wish):
    return cache.stub.LookupInference(
        pb.LookupInferenceRequest(key=question(text), mode="rag", flight=flight(**wish)),
        timeout=20.0,
    )


def store(cache, token: str, inference: pb.Inference = ANSWER, text: str = "why?"):
    return cache.stub.StoreInference(
        pb.StoreInferenceRequest(key=question(text), inference=inference, lease_token=token)
    )


def follow(cache, text: str = "why?"):
    return cache.stub.StreamInference(
        pb.StreamInferenceRequest(key=question(text), flight=flight()), timeout=20.0
    )


def lease_events(caches, event: str) -> float:
    return sum(cache.metric("cache_lease_total", event=event) or 0 for cache in caches)


def waiting(caches) -> float:
    return sum(cache.metric("cache_waiting_callers") or 0 for cache in caches)


async def test_of_200_callers_on_two_replicas_one_computes(caches) -> None:
    async def compute_or_wait(number: int) -> int:
        found = await look_up(caches[number % 2])
        if found.HasField("lease"):
            await asyncio.sleep(0.2)
            assert (await store(caches[number % 2], found.lease.token)).stored
        else:
            assert found.inference == ANSWER
        return found.outcome

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(compute_or_wait(number)) for number in range(200)]
    assert Counter(caller.result() for caller in callers)[MISS] == 1
    assert lease_events(caches, "leased") == lease_events(caches, "filled") == 1


async def test_followers_take_over_from_a_leader_who_was_killed(caches) -> None:
    first = await look_up(caches[0], lease=1.0)
    async with measured_lateness() as lateness:
        started = time.monotonic()
        second = await look_up(caches[1])
        assert second.outcome == MISS
        assert 0.7 < time.monotonic() - started < 1.5 + lateness.seconds
    error = await error_of(store(caches[0], first.lease.token, answer("too late")))
    assert (error.status_code, error.error_reason) == (
        StatusCode.FAILED_PRECONDITION,
        "LEASE_LOST",
    )
    assert (await store(caches[1], second.lease.token)).stored
    assert (await look_up(caches[0])).inference == ANSWER


async def test_a_running_generation_is_followed_on_the_other_replica(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    streams = [follow(cache) for cache in caches]
    gate = asyncio.get_running_loop().create_future()
    fill = caches[0].stub.FillInference(
        fill_messages(token, WORDS, before=lambda index: gate if index == len(WORDS) else None)
    )
    texts = []
    for stream in streams:
        started = await anext(aiter(stream))
        assert started.started.outcome == COALESCED
        texts.append("")
        while texts[-1] != "".join(WORDS):
            texts[-1] += (await anext(aiter(stream))).text_delta
    assert not fill.done()
    gate.set_result(None)
    assert (await fill).stored
    for stream in streams:
        (last,) = [event async for event in stream]
        assert last.completed.text == "".join(WORDS)
    for cache in caches:
        assert (await look_up(cache)).inference.text == "".join(WORDS)


async def test_a_fill_whose_client_dies_is_void_and_a_follower_takes_over(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    never = asyncio.get_running_loop().create_future()
    fill = caches[0].stub.FillInference(
        fill_messages(token, WORDS, before=lambda index: never if index == 20 else None)
    )
    stream = follow(caches[1])
    events = aiter(stream)
    text = ""
    while text != "".join(WORDS[:20]):
        text += (await anext(events)).text_delta
    fill.cancel()
    (last,) = [event async for event in events]
    assert last.interrupted.lease.token > token
    assert (await store(caches[0], last.interrupted.lease.token)).stored
    assert lease_events(caches, "leased") == 2


async def test_callers_who_hang_up_leave_nothing_behind(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    calls = [look_up(caches[number % 2]) for number in range(20)]
    streams = [follow(caches[number % 2]) for number in range(20)]
    reading = [asyncio.create_task(anext(aiter(stream))) for stream in streams]
    await eventually(lambda: waiting(caches) == 40)
    for call in calls + streams:
        call.cancel()
    await eventually(lambda: waiting(caches) == 0)
    await asyncio.wait(reading)
    assert (await store(caches[1], token)).stored
    await eventually(lambda: caches[0].metric("cache_held_leases") == 0)


async def test_another_tenants_lease_is_none(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    request = pb.StoreInferenceRequest(key=question(), inference=ANSWER, lease_token=token)
    call = caches[0].stub.StoreInference(request, metadata=[(TENANT_HEADER, "globex")])
    assert (await error_of(call)).error_reason == "LEASE_LOST"
    assert (await store(caches[0], token)).stored


@pytest.mark.parametrize(
    ("messages", "expected", "actual"),
    [([], "open", "the end"), ([pb.FillInferenceRequest(text_delta="x")], "open", "text_delta")],
)
async def test_a_fill_out_of_order_is_refused(caches, messages, expected, actual) -> None:
    error = await error_of(caches[0].stub.FillInference(iter(messages)))
    assert (error.status_code, error.error_reason) == (
        StatusCode.INVALID_ARGUMENT,
        "STREAM_PROTOCOL",
    )
    assert error.metadata == {"expected": expected, "actual": actual}


async def test_the_span_of_a_lookup_tells_what_came_of_it(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    follower = look_up(caches[1])
    await eventually(lambda: waiting(caches) == 1)
    await store(caches[0], token)
    assert (await follower).outcome == COALESCED
    for cache, outcome, result in ((caches[0], "miss", "miss"), (caches[1], "coalesced", "hit")):
        await eventually(
            lambda cache=cache: any(
                span.name.endswith("LookupInference") for span in cache.spans.get_finished_spans()
            )
        )
        (span,) = [
            span
            for span in cache.spans.get_finished_spans()
            if span.name.endswith("LookupInference")
        ]
        assert span.attributes["app.cache.outcome"] == outcome
        assert span.attributes["app.cache.result"] == result
        assert span.attributes["app.cache.layer"] == "inference"


async def test_the_deadline_of_a_waiting_caller_is_met(caches) -> None:
    token = (await look_up(caches[0])).lease.token
    request = pb.LookupInferenceRequest(
        key=question(), flight=pb.FlightOptions(wait_limit=Duration(seconds=60))
    )
    found = None
    async with asyncio.timeout(20):
        while found is None:
            # A busy machine may take longer than is kept back, but not each time.
            found = await in_time(caches[1].stub.LookupInference(request, timeout=0.5))
    assert found.outcome == pb.LOOKUP_OUTCOME_MISS_WAITED
    await store(caches[0], token)
