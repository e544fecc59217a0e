"""Streams after their first token: gone on with once, or honestly broken off; slow callers."""

import asyncio
from functools import partial

import grpc
import pytest
from aiohttp import web
from google.protobuf.duration_pb2 import Duration

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.balancer import generate
from services.balancer.event_buffer import EventBuffer
from services.common.errors import StatusCode
from tests.kit.generations import chat, generation, kinds, read, text_of
from tests.kit.rpc import error_of
from tests.kit.standin import eventually

RESUME = pb.RoutingOptions(resume=pb.RESUME_MODE_ONCE)
LINE = b'{"response":"' + b"x" * 1000 + b'","done":false}\n'
LAST = b'{"response":"","done":true,"done_reason":"stop"}\n'


async def first_of(*queues):
    """Returns the place and the work of whichever server is asked first."""
    gets = [asyncio.create_task(queue.get()) for queue in queues]
    done, pending = await asyncio.wait(gets, return_when=asyncio.FIRST_COMPLETED)
    for get in pending:
        get.cancel()
    (get,) = done
    return gets.index(get), get.result()


@pytest.fixture
async def pair(scripted):
    """Two backends with the same model, whose answers the test gives."""
    servers = [await scripted() for _ in range(2)]
    for server in servers:
        server.has("m:latest")
    return servers


async def break_off(work, *texts, end="cut"):
    """Gives a part of an answer, each text by itself, and breaks off."""
    for text in texts:
        work.say(text)
        # What comes together is passed on together.
        await asyncio.sleep(0.02)
    getattr(work, end)()


async def test_an_answer_that_breaks_off_is_gone_on_with_once_where_the_caller_wants_it(
    run_balancer, pair
):
    works = [server.hold() for server in pair]
    balancer = await run_balancer(*(server.url for server in pair))
    sampling = {"max_output_token_count": 10, "seed": 7}
    reading = asyncio.create_task(
        read(balancer.stub.Chat(chat("q", "m", routing=RESUME, sampling=sampling)))
    )
    place, work = await first_of(*works)
    await break_off(work, "one", " two", " three")
    second = await works[1 - place].get()
    assert second.body["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "one two three"},
    ]
    assert second.body["options"]["num_predict"] == 7
    assert second.body["options"]["seed"] == 7
    second.say(" four", " five")
    second.end(prompt_eval_count=23, eval_count=2)
    events, error = await reading
    assert error is None
    assert text_of(events) == "one two three four five"
    order = kinds(events)
    assert [order.count(each) for each in ("started", "resumed", "completed")] == [1, 1, 1]
    assert (order[0], order[-1]) == ("started", "completed")
    resumed = events[order.index("resumed")].resumed
    assert text_of(events[: order.index("resumed")]) == "one two three"
    assert resumed.backend_id == pair[1 - place].backend_id
    assert resumed.emitted_character_count == len("one two three")
    assert "without its final line" in resumed.cause
    usage = events[-1].completed.usage
    # The second backend has read the three tokens of the first as part of the prompt.
    assert (usage.prompt_token_count, usage.completion_token_count) == (20, 5)
    stats = await balancer.stats()
    assert (stats.fleet.retry_count, stats.fleet.failure_count) == (1, 0)
    assert balancer.value("balancer_outcomes_total", outcome="success") == 1


async def test_a_raw_prompt_is_gone_on_with_too(run_balancer, pair):
    works = [server.hold() for server in pair]
    balancer = await run_balancer(*(server.url for server in pair))
    request = generation("once upon", "m", raw=True, routing=RESUME)
    reading = asyncio.create_task(read(balancer.stub.Generate(request)))
    place, work = await first_of(*works)
    await break_off(work, " a")
    second = await works[1 - place].get()
    assert second.body["prompt"] == "once upon a"
    second.say(" time")
    second.end()
    events, error = await reading
    assert error is None
    assert text_of(events) == " a time"


async def interrupted(run_balancer, pair, request, *, answer_second=None):
    """Has an answer break off after two texts, and returns what the caller gets."""
    works = [server.hold() for server in pair]
    balancer = await run_balancer(*(server.url for server in pair))
    method = balancer.stub.Chat if isinstance(request, pb.ChatRequest) else balancer.stub.Generate
    reading = asyncio.create_task(read(method(request)))
    place, work = await first_of(*works)
    await break_off(work, "one", " two")
    if answer_second is not None:
        await answer_second(await works[1 - place].get())
    events, error = await reading
    assert "completed" not in kinds(events)
    assert error.status_code is StatusCode.ABORTED
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert error.metadata["emitted_character_count"] == str(len(text_of(events)))
    assert balancer.value("balancer_outcomes_total", outcome="error") == 1
    assert (await balancer.stats()).fleet.in_flight_count == 0
    return place, events, error


async def test_an_answer_is_gone_on_with_once_only(run_balancer, pair):
    async def again(work):
        await break_off(work, " three")

    place, events, error = await interrupted(
        run_balancer, pair, chat("q", "m", routing=RESUME), answer_second=again
    )
    assert text_of(events) == "one two three"
    assert kinds(events).count("resumed") == 1
    assert error.metadata["backend_id"] == pair[1 - place].backend_id
    assert error.metadata["resumable"] == "false"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_rest_that_is_refused_leaves_a_broken_answer(run_balancer, pair, status):
    async def refuse(work):
        work.fail(status)

    place, events, error = await interrupted(
        run_balancer, pair, chat("q", "m", routing=RESUME), answer_second=refuse
    )
    # Not the error of the second: the caller has a part of an answer, whatever became of the rest.
    assert text_of(events) == "one two"
    assert error.metadata["backend_id"] == pair[place].backend_id


async def test_a_rest_that_would_have_to_wait_too_long_leaves_a_broken_answer(run_balancer, pair):
    for server in pair:
        # Of the usual size, so of the usual speed: an answer is thought to take seconds.
        server.has("m:latest", size_bytes=5_000_000_000)
    works = [server.hold() for server in pair]
    balancer = await run_balancer(*(server.url for server in pair))
    holding = balancer.stub.Generate(generation("holds the other", "m"))
    place, _ = await first_of(*works)
    routing = pb.RoutingOptions(
        resume=pb.RESUME_MODE_ONCE, maximum_wait=Duration(nanos=500_000_000)
    )
    reading = asyncio.create_task(read(balancer.stub.Chat(chat("q", "m", routing=routing))))
    await break_off(await works[1 - place].get(), "one")
    events, error = await reading
    holding.cancel()
    assert text_of(events) == "one"
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert error.metadata["backend_id"] == pair[1 - place].backend_id


async def test_with_nobody_left_to_go_on_an_answer_is_broken_and_says_that_it_need_not_be(
    run_balancer, pair
):
    _, events, error = await interrupted(run_balancer, pair[:1], chat("q", "m", routing=RESUME))
    assert text_of(events) == "one two"
    assert error.metadata["resumable"] == "true"


@pytest.mark.parametrize(
    "request_message",
    [
        chat("q", "m"),
        # A template would begin the answer anew.
        generation("q", "m", routing=RESUME),
        chat("q", "m", routing=RESUME, thinking=generation_pb2.THINKING_LEVEL_ON),
        chat("q", "m", routing=RESUME, sampling={"temperature": 1.5}),
    ],
)
async def test_what_cannot_be_gone_on_with_breaks_off(run_balancer, pair, request_message):
    _, events, error = await interrupted(run_balancer, pair, request_message)
    assert text_of(events) == "one two"
    assert error.metadata["resumable"] == "false"


@pytest.mark.parametrize(
    "fields",
    [{"tools": [{"name": "f", "parameters_json_schema": "{}"}]}, {"format": {"json": True}}],
)
async def test_tool_calls_and_formats_are_never_gone_on_with(run_balancer, pair, fields):
    balancer = await run_balancer(*(server.url for server in pair))
    request = chat("q", "m", routing=RESUME, **fields)
    error = await error_of(balancer.stub.Chat(request).read())
    assert error.error_reason == "INVALID_FIELD"
    assert [each.field for each in error.violations] == ["routing.resume"]


async def test_the_slot_falls_free_although_the_caller_does_not_read(run_balancer, pair):
    server, works = pair[0], pair[0].hold()
    balancer = await run_balancer(server.url)
    call = balancer.stub.Generate(generation("first", "m"))
    work = await works.get()
    work.say(*["x" * 1000] * 60)
    work.end()
    # Nothing of the first has been read when the second is served.
    second = balancer.stub.Generate(generation("second", "m"))
    (await works.get()).end()
    events, error = await read(second)
    assert error is None
    events, error = await read(call)
    assert error is None
    assert len(text_of(events)) == 60_000
    assert kinds(events)[-1] == "completed"


def endless(server):
    """Lets a server write as long as it is read, and returns how much it has written."""
    written = [0]

    async def reply(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(LINE)
            written[0] += 1

    server.replies["/api/generate"] = reply
    return written


async def test_a_caller_who_never_reads_costs_little_memory_and_no_slot_for_ever(
    run_balancer, pair, monkeypatch
):
    monkeypatch.setattr(generate, "EventBuffer", partial(EventBuffer, patience_seconds=0.5))
    server = pair[0]
    written = endless(server)
    balancer = await run_balancer(server.url)
    call = balancer.stub.Generate(generation("never read", "m"))
    await eventually(lambda: written[0] > 100)
    # The others are answered meanwhile.
    assert (await balancer.stats()).fleet.in_flight_count == 1
    stats = await balancer.until(lambda stats: stats.fleet.in_flight_count == 0)
    # Ours hold 64 Ki characters; the rest is in the buffers of five sockets and of two HTTP/2 ends.
    assert written[0] < 20_000
    assert stats.backends[0].in_flight_count == 0
    assert stats.backends[0].failure_count == 0
    server.stream("/api/generate", LAST)
    _, error = await read(balancer.stub.Generate(generation("read", "m")))
    assert error is None
    events, error = await read(call)
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert "does not read" in error.message
    assert error.metadata["emitted_character_count"] != "0"
    assert kinds(events)[0] == "started"


async def test_what_has_gathered_leaves_together(run_balancer, pair):
    server = pair[0]
    tokens = [f" {number}" for number in range(5000)]
    lines = [b'{"response":"%b","done":false}\n' % token.encode() for token in tokens]
    server.stream("/api/generate", b"".join(lines), LAST)
    balancer = await run_balancer(server.url)
    events, error = await read(balancer.stub.Generate(generation("q", "m")))
    assert error is None
    assert text_of(events) == "".join(tokens)
    assert len(events) < 500


async def test_a_token_that_comes_alone_is_passed_on_at_once(run_balancer, pair):
    works = pair[0].hold()
    balancer = await run_balancer(pair[0].url)
    call = balancer.stub.Generate(generation("q", "m"))
    work = await works.get()
    seen = []
    for text in ("one", " two", " three"):
        work.say(text)
        while text_of(seen) != text_of(seen).removesuffix(text) + text:
            async with asyncio.timeout(5):
                seen.append(await call.read())
    work.end()
    events, error = await read(call)
    assert error is None
    assert kinds([*seen, *events]) == ["started", *["text_delta"] * 3, "completed"]


async def test_a_caller_that_leaves_in_the_middle_stops_the_backend_and_frees_its_slot(
    run_balancer, pair
):
    server, works = pair[0], pair[0].hold()
    balancer = await run_balancer(server.url)
    call = balancer.stub.Generate(generation("left", "m"))
    work = await works.get()
    work.say("one")
    assert (await call.read()).HasField("started")
    call.cancel()
    async with asyncio.timeout(5):
        await work.left.wait()
    following = asyncio.create_task(read(balancer.stub.Generate(generation("next", "m"))))
    (await works.get()).end()
    assert (await following)[1] is None
    stats = await balancer.stats()
    assert (stats.fleet.cancelled_count, stats.fleet.failure_count) == (1, 0)
    assert stats.backends[0].failure_count == 0


async def test_a_slot_whose_caller_left_while_the_prompt_was_read_is_given_out_when_it_must_be_free(
    run_balancer, scripted
):
    server = await scripted()
    server.has("m:latest", size_bytes=5_000_000_000)
    works = server.hold()
    balancer = await run_balancer(server.url)
    # Long enough to be read for about a second.
    prompt = "A word. " * 1250
    call = balancer.stub.Generate(generation(prompt, "m"))
    work = await works.get()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    call.cancel()
    async with asyncio.timeout(5):
        await work.left.wait()
    stats = await balancer.until(lambda stats: stats.backends[0].models[0].zombie_count == 1)
    assert stats.fleet.in_flight_count == 0
    assert stats.backends[0].in_flight_count == 0
    assert stats.backends[0].models[0].in_flight_count == 0
    # A server notices that its client has left when it has read the prompt, no earlier.
    following = asyncio.create_task(read(balancer.stub.Generate(generation("next", "m"))))
    (await works.get()).end()
    assert 0.5 < loop.time() - began_at < 4.0
    assert (await following)[1] is None
    assert (await balancer.stats()).backends[0].models[0].zombie_count == 0


async def test_a_call_cancelled_before_it_is_read_is_no_failure(run_balancer, pair):
    works = pair[0].hold()
    balancer = await run_balancer(pair[0].url)
    call = balancer.stub.Generate(generation("q", "m"))
    await works.get()
    call.cancel()
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await call.read()
    stats = await balancer.until(lambda stats: stats.fleet.in_flight_count == 0)
    assert (stats.fleet.cancelled_count, stats.fleet.failure_count) == (1, 0)
