"""What fails where: whether it is tried elsewhere, and what it does to the backend."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.common.errors import StatusCode
from tests.kit.generations import generation, kinds, read, read_all, text_of, unrelated
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, eventually, running_standins

LAST = b'{"response":"","done":true,"done_reason":"stop"}\n'
CLEARED, CURED = "cleared", "cured"


@pytest.fixture
async def failing(scripted):
    server = await scripted()
    server.has("m:latest")
    return server


@pytest.fixture
async def sound(scripted):
    server = await scripted()
    server.has("m:latest")
    server.stream("/api/generate", b'{"response":"x","done":true}\n')
    return server


async def until_met(balancer, failing, sound):
    """Asks both backends at once, and returns what the caller saw who met the failing one."""
    reply = failing.replies["/api/generate"]

    async def when_both_are_busy(request):
        # Else the second request may find the failing one idle again, and be the next to meet it.
        await eventually(lambda: any(each.path == "/api/generate" for each in sound.requests))
        result = reply(request)
        return await result if asyncio.iscoroutine(result) else result

    failing.replies["/api/generate"] = when_both_are_busy
    calls = (balancer.stub.Generate(generation(unrelated(number), "m")) for number in range(2))
    outcomes = await read_all(*calls)
    assert (await balancer.backend(failing.backend_id)).request_count == 1
    return next(each for each in outcomes if each[1] or each[0][0].started.attempt_count > 1)


def reset(request):
    """Cuts the connection without a word."""
    request.transport.abort()
    return web.Response()


def in_band(request):
    return web.Response(body=b'{"error":"llama-server process has terminated"}\n')


def of_another_model(request):
    token = b'{"model":"impostor:latest","response":"lies","done":false}\n'
    return web.Response(body=token + LAST)


def of_status(status):
    return lambda request: web.json_response({"error": "it failed"}, status=status)


HEALTHY, UNHEALTHY = pb.BACKEND_STATE_HEALTHY, pb.BACKEND_STATE_UNHEALTHY


@pytest.mark.parametrize(
    ("reply", "retry_reason", "state", "blamed"),
    [
        (reset, "connection", UNHEALTHY, True),
        (of_status(500), "server_error", HEALTHY, True),
        (of_status(502), "server_error", HEALTHY, True),
        (of_status(503), "busy", HEALTHY, False),
        (of_status(429), "busy", HEALTHY, False),
        (of_status(404), "model_absent", HEALTHY, False),
        (in_band, "server_error", HEALTHY, True),
        (lambda request: web.Response(), "broken_reply", HEALTHY, True),
        (lambda request: web.Response(body=b"not json\n"), "broken_reply", HEALTHY, True),
        (lambda request: web.Response(body=b'{"response":""'), "broken_reply", HEALTHY, True),
        (of_another_model, "broken_reply", HEALTHY, True),
    ],
    ids=[
        "reset",
        "500",
        "502",
        "503",
        "429",
        "404",
        "in-band",
        "empty",
        "garbage",
        "cut",
        "another model",
    ],
)
async def test_before_the_first_token_another_backend_makes_it_good(
    run_balancer, failing, sound, reply, retry_reason, state, blamed
):
    failing.replies["/api/generate"] = reply
    balancer = await run_balancer(failing.url, sound.url)
    if reply is reset:
        # What a server is that cuts connections: nothing that could be checked.
        failing.replies["/api/version"] = reset
    events, error = await until_met(balancer, failing, sound)
    assert error is None
    assert kinds(events) == ["started", "text_delta", "completed"]
    assert events[0].started.attempt_count == 2
    assert events[0].started.backend_id == sound.backend_id
    assert balancer.value("balancer_retries_total", reason=retry_reason) == 1
    stats = await balancer.stats()
    assert (stats.fleet.retry_count, stats.fleet.failure_count) == (1, 0)
    health = {each.backend_id: each for each in (await balancer.health()).backends}
    assert health[failing.backend_id].state == state
    assert (health[failing.backend_id].consecutive_failure_count > 0) is blamed
    assert health[sound.backend_id].consecutive_failure_count == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [(400, "the input length exceeds the context length"), (501, "does not support this")],
)
async def test_what_is_the_callers_fault_is_not_tried_elsewhere_and_nobody_is_blamed(
    run_balancer, failing, sound, status, message
):
    for server in (failing, sound):
        server.replies["/api/generate"] = lambda request: web.json_response(
            {"error": message}, status=status
        )
    balancer = await run_balancer(failing.url, sound.url)
    _, error = await read(balancer.stub.Generate(generation("q", "m")))
    assert error.status_code is StatusCode.INVALID_ARGUMENT
    assert error.error_reason == "BACKEND_REJECTED_REQUEST"
    assert error.metadata["backend_message"] == message
    stats = await balancer.stats()
    assert sum(each.request_count for each in stats.backends) == 1
    assert sum(each.failure_count for each in stats.backends) == 0
    assert stats.fleet.retry_count == 0


async def costs(balancer, model="m"):
    question = pb.ExplainRequest(generate=generation("what if", model))
    decision = (await balancer.stub.Explain(question)).decision
    return {each.backend_id: each for each in decision.candidates}


async def test_a_busy_reply_makes_a_backend_dearer_for_a_while_and_only_repeated_takes_it_out(
    run_balancer, failing, sound
):
    failing.replies["/api/generate"] = of_status(503)
    balancer = await run_balancer(failing.url, sound.url)
    await until_met(balancer, failing, sound)
    found = await costs(balancer)
    # Five seconds, which fade.
    risk = found[failing.backend_id].risk_seconds - found[sound.backend_id].risk_seconds
    assert 4.0 < risk < 6.5
    sound.replies["/api/generate"] = of_status(503)
    for number in range(200, 206):
        await read(balancer.stub.Generate(generation(unrelated(number), "m")))
    assert (await balancer.backend(failing.backend_id)).failure_count >= 3
    health = {each.backend_id: each for each in (await balancer.health()).backends}
    assert health[failing.backend_id].consecutive_failure_count > 0


async def test_failing_fast_attracts_nobody(run_balancer, failing, scripted):
    slow = await scripted()
    slow.has("m:latest")
    works = slow.hold()
    failing.replies["/api/generate"] = of_status(500)
    balancer = await run_balancer(failing.url, slow.url)
    stopping = asyncio.Event()

    async def answer():
        while not stopping.is_set():
            work = await works.get()
            await asyncio.sleep(0.01)
            work.end()

    answering = asyncio.create_task(answer())
    for number in range(30):
        _, error = await read(balancer.stub.Generate(generation(unrelated(number), "m")))
        assert error is None
    answering.cancel()
    await asyncio.wait([answering])
    # Whoever fails in a millisecond is not the fast one.
    assert (await balancer.backend(failing.backend_id)).request_count <= 3


async def test_a_storm_of_failures_is_not_multiplied(run_balancer, scripted):
    servers = [await scripted() for _ in range(3)]
    for server in servers:
        server.has("m:latest")
        server.replies["/api/generate"] = of_status(500)
    balancer = await run_balancer(*(server.url for server in servers))
    remaining = iter(range(60))

    async def caller():
        for number in remaining:
            _, error = await read(balancer.stub.Generate(generation(unrelated(number), "m")))
            assert error.error_reason == "ALL_ATTEMPTS_FAILED"

    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            group.create_task(caller())
    stats = await balancer.stats()
    assert stats.fleet.failure_count == 60
    # A fifth of the requests, and a burst of five: not two for each.
    assert stats.fleet.retry_count <= 60 // 5 + 5
    assert sum(each.request_count for each in stats.backends) == 60 + stats.fleet.retry_count
    assert stats.fleet.retry_budget_ratio < 0.2


async def test_a_model_that_is_missing_is_asked_for_again_when_a_check_has_seen_it(
    run_balancer, failing
):
    replies = iter([of_status(404)(None)])
    failing.replies["/api/generate"] = lambda request: next(
        replies, web.Response(body=b'{"response":"x","done":true}\n')
    )
    balancer = await run_balancer(failing.url)
    _, error = await read(balancer.stub.Generate(generation("q", "m")))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    _, error = await read(balancer.stub.Generate(generation("q", "m")))
    assert error.error_reason == "MODEL_NOT_FOUND"
    await balancer.health(check_now=True)
    _, error = await read(balancer.stub.Generate(generation("q", "m")))
    assert error is None


async def test_a_runner_that_crashes_breaks_its_answers_and_is_loaded_again(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL) as (standin,):
        await standin.order_fault(kill_child_after_tokens=3, count=1)
        balancer = await run_balancer(standin.url)
        events, error = await read(balancer.stub.Generate(generation()))
        assert error.error_reason == "STREAM_INTERRUPTED"
        assert text_of(events)
        events, error = await read(balancer.stub.Generate(generation()))
        assert error is None
        assert (await standin.totals())["loads"] == 1
    assert (await balancer.backend(standin.backend_id)).healthy


async def test_a_model_evicted_by_somebody_else_is_loaded_again_by_the_balancer(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL) as (standin,):
        balancer = await run_balancer(standin.url, listing_interval_seconds=0.05)
        assert [each.model for each in (await balancer.stats()).backends[0].models] == [CHAT_MODEL]
        async with aiohttp.ClientSession() as session:
            body = {"model": CHAT_MODEL, "keep_alive": 0}
            async with session.post(f"{standin.url}/api/generate", json=body):
                pass
        await balancer.until(lambda stats: not stats.backends[0].models)
        events, error = await read(balancer.stub.Generate(generation()))
        assert error is None
        assert events[-1].completed.timings.HasField("model_load")
        totals = await standin.totals()
    stats = await balancer.stats()
    assert stats.fleet.model_load_count == 1
    assert totals["loads"] == 1
    assert balancer.value("balancer_model_loads_total", cause="demand") == 1


async def test_a_load_that_fails_sends_its_requests_elsewhere_and_is_not_tried_again_at_once(
    run_balancer,
):
    async with running_standins(2) as (failing, sound):
        await failing.order_fault(load_fails=True, message="out of memory")
        balancer = await run_balancer(failing.url, sound.url)
        for number in range(6):
            events, error = await read(balancer.stub.Generate(generation(unrelated(number))))
            assert error is None
            assert events[0].started.backend_id == sound.backend_id
        assert (await failing.totals())["loads"] <= 1


async def test_a_load_that_fails_everywhere_is_told_with_its_reason(run_balancer):
    async with running_standins(1) as (standin,):
        await standin.order_fault(load_fails=True, message="out of memory")
        balancer = await run_balancer(standin.url)
        _, error = await read(balancer.stub.Generate(generation()))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    assert "out of memory" in error.metadata["last_failure"]


PATIENCE = {
    "first_token_floor_seconds": 0.3,
    "stall_floor_seconds": 0.3,
    "canary_limit_seconds": 0.4,
}


# A model that is well shows it in time, however slow the machine of the tests is.
GENEROUS = PATIENCE | {"canary_limit_seconds": 5.0}


async def test_a_model_that_is_slow_once_is_tried_and_cleared(run_balancer, warm_standins):
    async with warm_standins(2, CHAT_MODEL) as (slow, sound):
        await slow.order_fault(hang=True, count=1)
        balancer = await run_balancer(slow.url, sound.url, **PATIENCE)
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        assert [error for _, error in await read_all(*calls)] == [None, None]
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CLEARED) == 1)
        stats = await balancer.backend(slow.backend_id)
        assert stats.stall_count == 0
        assert [each.residency for each in stats.models] == [pb.MODEL_RESIDENCY_WARM]
        assert (await slow.totals())["loads"] == 0


async def test_vectors_of_another_model_are_asked_for_elsewhere(run_balancer, warm_standins):
    async with warm_standins(2, EMBEDDING_MODEL) as standins:
        balancer = await run_balancer(*(each.url for each in standins))
        for standin in standins:
            await standin.order_fault(path="/api/embed", echo_model="impostor:latest", count=1)
        request = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a text"])
        error = await error_of(balancer.stub.Embed(request))
        assert error.error_reason == "ALL_ATTEMPTS_FAILED"
        assert "another model, 'impostor:latest'" in error.metadata["last_failure"]
        assert balancer.value("balancer_retries_total", reason="broken_reply") == 1
        assert len((await balancer.stub.Embed(request)).vectors) == 1


async def leak(balancer, standin):
    """Has a backend lose a slot, as it does when a client leaves a stream."""
    await standin.order_fault(leak_on_disconnect=True, count=1)
    call = balancer.stub.Generate(generation())
    await call.read()
    call.cancel()
    await balancer.until(lambda stats: stats.fleet.in_flight_count == 0)


async def test_a_lost_slot_is_found_and_freed_without_a_restart(run_balancer, warm_standins):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=50.0) as (standin,):
        balancer = await run_balancer(standin.url, **PATIENCE)
        await leak(balancer, standin)
        # Every control endpoint is green, and no answer comes.
        assert (await balancer.health(check_now=True)).healthy_backend_count == 1
        _, error = await read(balancer.stub.Generate(generation()))
        assert error.error_reason == "ALL_ATTEMPTS_FAILED"
        assert "silent" in error.metadata["last_failure"]
        # Waits for the cure in the queue.
        events, error = await read(balancer.stub.Generate(generation()))
        assert error is None
        assert kinds(events)[-1] == "completed"
        totals = await standin.totals()
    stats = await balancer.stats()
    assert stats.backends[0].stall_count == 1
    assert stats.backends[0].healthy
    assert balancer.value("balancer_stalls_total", outcome=CURED) == 1
    assert balancer.value("balancer_model_loads_total", cause="cure") == 1
    assert totals["loads"] == 1


async def test_a_lost_slot_is_found_although_no_caller_waits_for_the_first_token(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=50.0) as (standin,):
        balancer = await run_balancer(standin.url, **PATIENCE)
        await leak(balancer, standin)
        # Gone before the watchdog would bite, yet later than anybody should have had to wait.
        await read(balancer.stub.Generate(generation(), timeout=0.25))
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CURED) == 1)
        _, error = await read(balancer.stub.Generate(generation()))
    assert error is None


async def ask_in_pairs_until(balancer, outcome):
    """Keeps two requests under way until a suspicion has come to something."""

    async def ask():
        while not balancer.value("balancer_stalls_total", outcome=outcome):
            _, error = await read(balancer.stub.Generate(generation()))
            assert error is None

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask())


async def test_one_lost_slot_of_two_is_found_and_freed_while_the_other_answers(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=50.0, num_parallel=2) as (standin,):
        # Nobody is ever silent for long: the other slot answers, only one after the other.
        balancer = await run_balancer(f"{standin.url}?slots=2")
        await leak(balancer, standin)
        await ask_in_pairs_until(balancer, CURED)
        waits_before = (await standin.totals())["slot_waits"]
        assert waits_before > 0
        outcomes = await read_all(
            *(balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        )
        totals = await standin.totals()
        stats = await balancer.backend(standin.backend_id)
    assert [error for _, error in outcomes] == [None, None]
    assert totals["slot_waits"] == waits_before
    assert totals["loads"] == 1
    assert stats.stall_count == 1


async def test_one_lost_slot_of_two_is_found_where_a_request_waits_longer_than_it_may(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=5.0, num_parallel=2) as (standin,):
        balancer = await run_balancer(f"{standin.url}?slots=2", **PATIENCE)
        await leak(balancer, standin)
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        await read_all(*calls)
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CURED) == 1)
        assert (await standin.totals())["loads"] == 1


async def test_a_model_with_two_slots_that_is_merely_slow_is_cleared_and_stays(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=50.0, num_parallel=2) as (standin,):
        await standin.order_fault(delay_seconds=0.7, count=1)
        balancer = await run_balancer(f"{standin.url}?slots=2", **GENEROUS)
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        await read_all(*calls)
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CLEARED) == 1)
        assert (await standin.totals())["loads"] == 0
        stats = await balancer.backend(standin.backend_id)
    assert [each.residency for each in stats.models] == [pb.MODEL_RESIDENCY_WARM]
    assert stats.stall_count == 0


async def test_a_long_answer_beside_a_slow_one_does_not_look_like_a_lost_slot(
    run_balancer, failing
):
    works, probes = failing.hold(), []
    hold = failing.replies["/api/generate"]

    async def reply(request):
        body = await request.json()
        if "num_predict" not in body.get("options", {}):
            return await hold(request)
        probes.append(body)
        token = b'{"response":"x","done":false}\n'
        return web.Response(body=token + LAST)

    failing.replies["/api/generate"] = reply
    balancer = await run_balancer(
        f"{failing.url}?slots=2", **PATIENCE | {"stall_floor_seconds": 30.0}
    )
    long = balancer.stub.Generate(generation("long", "m"))
    answer = await works.get()
    answer.say("one")
    await long.read()
    _, error = await read(balancer.stub.Generate(generation("slow", "m")))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CLEARED) == 1)
    # The long one is proof of its own slot: only the other one is asked.
    assert len(probes) == 1
    answer.end()
    _, error = await read(long)
    assert error is None


async def test_a_server_with_fewer_slots_than_told_is_loaded_anew_once_and_never_again(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=500.0) as (standin,):
        balancer = await run_balancer(f"{standin.url}?slots=2", **GENEROUS)
        await standin.order_fault(hang=True, count=1)
        await read(balancer.stub.Generate(generation()))
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CURED) == 1)
        # Loading has brought no second slot: from now on one that answers has to do.
        await standin.order_fault(hang=True, count=1)
        await read(balancer.stub.Generate(generation()))
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CLEARED) == 1)
        assert (await standin.totals())["loads"] == 1


async def test_a_model_that_cannot_be_cured_is_not_tried_without_pause(run_balancer, failing):
    unloads = []

    async def reply(request):
        body = await request.json()
        if body.get("keep_alive") == 0:
            unloads.append(body)
            return web.json_response({"error": "no"}, status=500)
        return await asyncio.Event().wait()

    failing.replies["/api/generate"] = reply
    balancer = await run_balancer(failing.url, **PATIENCE)
    _, error = await read(balancer.stub.Generate(generation("q", "m")))
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    await eventually(lambda: len(unloads) >= 3)
    assert (await balancer.stats()).backends[0].stall_count == 1
    loop = asyncio.get_running_loop()
    began_at, before = loop.time(), len(unloads)
    await eventually(lambda: len(unloads) >= before + 3)
    assert loop.time() - began_at > 0.2
    # Nobody is kept waiting for it who has no time for that.
    error = await error_of(balancer.stub.Generate(generation("q", "m"), timeout=8.0).read())
    assert error.error_reason == "DEADLINE_UNREACHABLE"


async def test_a_backend_that_is_far_slower_than_thought_is_not_cut_off_for_ever(
    run_balancer, warm_standins
):
    # A prompt is read in half a second, where the usual host takes a tenth of that.
    settings = {"prefill_tokens_per_second": 800.0}
    async with warm_standins(1, CHAT_MODEL, **settings) as (standin,):
        balancer = await run_balancer(standin.url, first_token_floor_seconds=0.1)
        errors = []
        for number in range(6):
            prompt = f"{number} " + "and more of it " * 100
            _, error = await read(balancer.stub.Generate(generation(prompt)))
            errors.append(error)
    # Given twice the time again and again, it has shown what it needs.
    assert errors[0] is not None
    assert errors[3:] == [None] * 3


async def test_a_lost_slot_that_a_canary_meets_is_freed_before_anybody_asks(
    run_balancer, warm_standins
):
    async with warm_standins(1, CHAT_MODEL, tokens_per_second=50.0) as (standin,):
        balancer = await run_balancer(standin.url, **PATIENCE)
        await leak(balancer, standin)
        await standin.order_fault(refuse=True, for_seconds=0.2)
        assert (await balancer.health(check_now=True)).healthy_backend_count == 0
        # Back, it has to show that it can, and cannot.
        await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CURED) == 1)
        assert (await balancer.stats()).fleet.request_count == 1
        _, error = await read(balancer.stub.Generate(generation()))
    assert error is None


async def test_silence_in_the_middle_is_a_failure_of_the_backend_and_has_it_tried(
    run_balancer, failing
):
    works = failing.hold()
    balancer = await run_balancer(failing.url, **PATIENCE, stall_limit_seconds=0.3)
    reading = asyncio.create_task(read(balancer.stub.Generate(generation("q", "m"))))
    work = await works.get()
    work.say("one")
    events, error = await reading
    assert kinds(events) == ["started", "text_delta"]
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert "silent for 0.3 s" in error.message
    async with asyncio.timeout(5):
        await work.left.wait()
    await eventually(lambda: balancer.value("balancer_stalls_total", outcome=CLEARED) == 1)
    stats = await balancer.backend(failing.backend_id)
    assert stats.failure_count == 1
    labels = {"backend": failing.backend_id, "outcome": "timeout"}
    assert balancer.value("balancer_requests_total", **labels) == 1
