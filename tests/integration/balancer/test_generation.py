"""Generate and Chat over gRPC, against stand-ins with ordered faults and scripted backends."""

import asyncio
import itertools

import pytest
from aiohttp import web

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.common.v1 import generation_pb2
from services.common.errors import StatusCode
from tests.kit.generations import chat, generation, kinds, read, read_all, text_of, unrelated
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, eventually, running_standins


async def slow_final(server, count):
    """Makes a generation of a scripted server wait between its lines until released."""
    release = asyncio.Event()

    async def reply(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(count):
            await response.write(b'{"response":"x","done":false}\n')
        await release.wait()
        await response.write(b'{"response":"","done":true,"done_reason":"stop"}\n')
        return response

    server.replies["/api/generate"] = reply
    return release


async def test_a_generation_starts_once_streams_and_completes_once(run_balancer):
    async with running_standins(1, load_seconds=0.1) as (standin,):
        balancer = await run_balancer(standin.url)
        events, error = await read(balancer.stub.Generate(generation(model="Extractive-Standin")))
    assert error is None
    assert kinds(events)[0] == "started"
    assert set(kinds(events)[1:-1]) == {"text_delta"}
    assert kinds(events)[-1] == "completed"
    started, completed = events[0].started, events[-1].completed
    assert started.model == CHAT_MODEL
    assert len(started.model_digest) == 64
    assert (started.backend_id, started.attempt_count) == (standin.backend_id, 1)
    assert started.routing_reason == pb.ROUTING_REASON_ONLY_CANDIDATE
    assert completed.finish_reason == generation_pb2.FINISH_REASON_STOP
    assert completed.usage.prompt_token_count > 0
    assert completed.usage.completion_token_count > 0
    timings = completed.timings
    assert timings.total.ToSeconds() < 5
    assert 0 < timings.first_token.ToNanoseconds() <= timings.total.ToNanoseconds()
    assert timings.model_load.ToMilliseconds() >= 100
    assert "basket" in text_of(events)


async def test_a_chat_answers_the_conversation(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        events, error = await read(balancer.stub.Chat(chat()))
        assert [each["path"] for each in await standin.requests("/api/chat")] == ["/api/chat"]
    assert error is None
    assert kinds(events)[0] == "started"
    assert kinds(events)[-1] == "completed"
    assert "basket" in text_of(events)


async def test_the_token_limit_ends_an_answer_with_length(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        request = generation(sampling={"max_output_token_count": 3})
        events, _ = await read(balancer.stub.Generate(request))
    assert events[-1].completed.finish_reason == generation_pb2.FINISH_REASON_LENGTH
    assert events[-1].completed.usage.completion_token_count == 3


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503},
        {"status": 502, "message": "bad gateway"},
        {"drop_after_tokens": 0},
        {"error_line_after_tokens": 0},
    ],
)
async def test_a_failure_before_the_first_token_is_made_good_elsewhere(
    run_balancer, warm_standins, fault
):
    async with warm_standins(2) as (faulty, sound):
        await faulty.order_fault(count=1, **fault)
        balancer = await run_balancer(faulty.url, sound.url)
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        seen = []
        for events, error in await read_all(*calls):
            assert error is None
            assert kinds(events).count("started") == 1
            seen.append(events[0].started)
        stats = await balancer.stats()
    assert sorted(each.attempt_count for each in seen) == [1, 2]
    assert stats.fleet.retry_count == 1
    assert stats.fleet.failure_count == 0
    assert [(each.backend_id, each.failure_count) for each in stats.backends] == sorted(
        [(faulty.backend_id, 1), (sound.backend_id, 0)]
    )


async def test_a_silent_backend_is_given_up_after_the_first_token_limit(
    run_balancer, warm_standins
):
    async with warm_standins(2) as (silent, sound):
        await silent.order_fault(hang=True, count=1)
        balancer = await run_balancer(silent.url, sound.url, first_token_limit_seconds=0.3)
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        attempt_counts = []
        for events, error in await read_all(*calls):
            assert error is None
            attempt_counts.append(events[0].started.attempt_count)
        # The server noticed that nobody waits any more.
        entry = (await silent.requests("/api/generate"))[0]
        assert entry["faults"] == ["hang"]
        assert entry["outcome"] == "cancelled"
    assert sorted(attempt_counts) == [1, 2]
    labels = {"backend": silent.backend_id, "outcome": "timeout"}
    assert balancer.value("balancer_requests_total", **labels) == 1
    assert balancer.value("balancer_retries_total", reason="timeout") == 1


async def test_attempts_are_limited_and_never_repeated_on_one_backend(run_balancer, warm_standins):
    async with warm_standins(4) as standins:
        for standin in standins:
            await standin.order_fault(status=500, message="out of memory")
        balancer = await run_balancer(*(standin.url for standin in standins))
        _, error = await read(balancer.stub.Generate(generation()))
        counts = [len(await standin.requests("/api/generate")) for standin in standins]
    assert error.status_code is StatusCode.UNAVAILABLE
    assert error.error_reason == "ALL_ATTEMPTS_FAILED"
    assert error.metadata["attempt_count"] == "3"
    assert error.metadata["model"] == CHAT_MODEL
    assert "out of memory" in error.metadata["last_failure"]
    assert error.retry_delay_seconds is not None
    assert sorted(counts) == [0, 1, 1, 1]


async def test_with_a_single_backend_there_is_a_single_attempt(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        await standin.order_fault(fail_next=1)
        balancer = await run_balancer(standin.url)
        _, error = await read(balancer.stub.Generate(generation()))
        assert error.metadata["attempt_count"] == "1"
        # One failure does not take it out.
        _, error = await read(balancer.stub.Generate(generation()))
        assert error is None


@pytest.mark.parametrize(
    "fault", [{"drop_after_tokens": 5}, {"error_line_after_tokens": 5}, {"no_done": True}]
)
async def test_a_failure_after_the_first_token_never_looks_complete(
    run_balancer, warm_standins, fault
):
    async with warm_standins(2) as standins:
        for standin in standins:
            await standin.order_fault(**fault)
        balancer = await run_balancer(*(standin.url for standin in standins))
        events, error = await read(balancer.stub.Generate(generation()))
        stats = await balancer.stats()
    assert kinds(events)[0] == "started"
    assert "completed" not in kinds(events)
    assert error.status_code is StatusCode.ABORTED
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert error.metadata["backend_id"] == events[0].started.backend_id
    assert error.metadata["emitted_character_count"] == str(len(text_of(events)))
    assert stats.fleet.failure_count == 1
    assert stats.fleet.retry_count == 0


async def test_a_stall_after_the_first_token_ends_the_stream(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    await slow_final(server, 2)
    balancer = await run_balancer(server.url, stall_limit_seconds=0.2)
    events, error = await read(balancer.stub.Generate(generation(model="m")))
    assert kinds(events) == ["started", "text_delta"]
    assert error.error_reason == "STREAM_INTERRUPTED"
    assert "silent for 0.2 s" in error.message


async def test_a_slow_caller_is_no_stall(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    line = b'{"response":"' + b"x" * 1000 + b'","done":false}\n'

    async def reply(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(2000):
            await response.write(line)
        await response.write(b'{"response":"","done":true}\n')
        return response

    server.replies["/api/generate"] = reply
    balancer = await run_balancer(server.url, stall_limit_seconds=0.2)
    call = balancer.stub.Generate(generation(model="m"))
    await call.read()
    await asyncio.sleep(0.5)
    events, error = await read(call)
    assert error is None
    assert len(text_of(events)) == 2_000_000


@pytest.mark.parametrize(
    "lines",
    [
        [b'{"response":"x","done":false}\n', b"not json\n"],
        [b'{"response":"x","done":false}\n', b'{"response":"","do'],
        [b'{"response":"x","done":false}\n', b'{"response":"","done":false}\n'],
    ],
)
async def test_a_reply_that_makes_no_sense_is_a_failure(run_balancer, scripted, lines):
    server = await scripted()
    server.has("m:latest")
    server.stream("/api/generate", *lines)
    balancer = await run_balancer(server.url)
    events, error = await read(balancer.stub.Generate(generation(model="m")))
    assert text_of(events) == "x"
    assert error.error_reason == "STREAM_INTERRUPTED"


async def test_an_empty_reply_is_tried_elsewhere(run_balancer, scripted):
    empty, good = await scripted(), await scripted()
    for server in (empty, good):
        server.has("m:latest")
    empty.replies["/api/generate"] = lambda request: web.Response()
    good.replies["/api/generate"] = lambda request: web.Response(
        body=b'{"response":"","done":true,"done_reason":"stop"}\n'
    )
    balancer = await run_balancer(empty.url, good.url)
    async with asyncio.timeout(20):
        # Either of two that are idle may be asked first.
        for number in itertools.count():
            events, error = await read(balancer.stub.Generate(generation(unrelated(number), "m")))
            assert error is None
            assert kinds(events) == ["started", "completed"]
            assert events[0].started.backend_id == good.backend_id
            if (retry_count := (await balancer.stats()).fleet.retry_count) > 0:
                break
    assert retry_count == 1


async def test_a_faulty_request_is_refused_with_the_backends_words_and_not_repeated(
    run_balancer, scripted
):
    first, second = await scripted(), await scripted()
    for server in (first, second):
        server.has("m:latest")
        server.replies["/api/generate"] = lambda request: web.json_response(
            {"error": "the input length exceeds the context length"}, status=400
        )
    balancer = await run_balancer(first.url, second.url)
    for _ in range(4):
        _, error = await read(balancer.stub.Generate(generation(model="m")))
        assert error.status_code is StatusCode.INVALID_ARGUMENT
        assert error.error_reason == "BACKEND_REJECTED_REQUEST"
        assert error.metadata["backend_message"] == "the input length exceeds the context length"
    stats = await balancer.stats()
    assert [each.request_count for each in stats.backends] == [2, 2]
    assert [each.failure_count for each in stats.backends] == [0, 0]
    assert stats.fleet.healthy_backend_count == 2


async def test_a_model_that_is_gone_is_looked_for_elsewhere_without_blame(run_balancer, scripted):
    gone, good = await scripted(), await scripted()
    for server in (gone, good):
        server.has("m:latest")
    gone.replies["/api/generate"] = lambda request: web.json_response(
        {"error": "model 'm' not found"}, status=404
    )
    good.replies["/api/generate"] = lambda request: web.Response(
        body=b'{"response":"y","done":true}\n'
    )
    balancer = await run_balancer(gone.url, good.url)
    for _ in range(2):
        calls = (balancer.stub.Generate(generation(unrelated(number), "m")) for number in range(2))
        for events, error in await read_all(*calls):
            assert error is None
            assert events[0].started.backend_id == good.backend_id
    stats = await balancer.stats()
    # After the first 404 it is not asked again.
    assert (await balancer.backend(gone.backend_id)).request_count == 1
    assert stats.fleet.healthy_backend_count == 2
    models = await balancer.stub.ListModels(pb.ListModelsRequest())
    assert list(models.models[0].backend_ids) == [good.backend_id]


async def test_unknown_models_and_missing_capabilities_are_told_apart(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        _, error = await read(balancer.stub.Generate(generation(model="llama9")))
        assert error.status_code is StatusCode.NOT_FOUND
        assert error.error_reason == "MODEL_NOT_FOUND"
        assert error.metadata["model"] == "llama9"
        assert CHAT_MODEL in error.metadata["known_models"]
        _, error = await read(balancer.stub.Generate(generation(model=EMBEDDING_MODEL)))
        assert error.status_code is StatusCode.FAILED_PRECONDITION
        assert error.error_reason == "MODEL_CAPABILITY_MISSING"
        assert error.metadata == {"model": EMBEDDING_MODEL, "capability": "completion"}
        assert await standin.requests("/api/generate") == []


async def test_all_faults_of_a_request_are_named(run_balancer, scripted):
    server = await scripted()
    balancer = await run_balancer(server.url)
    request = pb.GenerateRequest(sampling={"temperature": 3, "top_k": 0})
    _, error = await read(balancer.stub.Generate(request))
    assert error.error_reason == "INVALID_FIELD"
    assert [violation.field for violation in error.violations] == [
        "model",
        "prompt",
        "sampling.temperature",
        "sampling.top_k",
    ]


async def test_a_caller_that_goes_away_stops_the_backend(run_balancer, warm_standins):
    async with warm_standins(1, tokens_per_second=50.0) as (standin,):
        balancer = await run_balancer(standin.url)
        call = balancer.stub.Generate(generation())
        await call.read()
        assert (await balancer.backend(standin.backend_id)).in_flight_count == 1
        call.cancel()

        async def ended():
            stats = await balancer.stats()
            return stats.fleet.in_flight_count == 0 and stats.fleet.cancelled_count == 1

        async with asyncio.timeout(2):
            while not await ended():
                await asyncio.sleep(0.01)
        (entry,) = await standin.requests("/api/generate")
        assert entry["outcome"] == "cancelled"
        assert entry["tokens_after_disconnect"] <= 1
        stats = await balancer.backend(standin.backend_id)
    assert stats.in_flight_count == 0
    assert stats.failure_count == 0
    labels = {"backend": standin.backend_id, "outcome": "cancelled"}
    assert balancer.value("balancer_requests_total", **labels) == 1


async def test_a_deadline_stops_the_backend_before_the_first_token(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        await standin.order_fault(hang=True)
        balancer = await run_balancer(standin.url)
        error = await error_of(balancer.stub.Generate(generation(), timeout=0.3).read())
        assert error.status_code is StatusCode.DEADLINE_EXCEEDED
        entries = []
        async with asyncio.timeout(2):
            while not entries or entries[0]["outcome"] == "active":
                entries = await standin.requests("/api/generate")
        assert entries[0]["outcome"] == "cancelled"
        await eventually(
            lambda: balancer.value("balancer_backend_inflight", backend=standin.backend_id) == 0
        )
        stats = await balancer.stats()
    assert stats.fleet.in_flight_count == 0
    assert stats.fleet.failure_count + stats.fleet.cancelled_count == 1
    assert stats.backends[0].failure_count == 0
    assert stats.fleet.healthy_backend_count == 1


async def test_the_backend_is_free_when_its_work_is_done_however_slow_the_caller(
    run_balancer, scripted
):
    server = await scripted()
    server.has("m:latest")
    release = await slow_final(server, 1)
    balancer = await run_balancer(server.url)
    call = balancer.stub.Generate(generation(model="m"))
    await call.read()
    assert (await balancer.backend(server.backend_id)).in_flight_count == 1
    release.set()
    await eventually(
        lambda: balancer.value("balancer_backend_inflight", backend=server.backend_id) == 0
    )
    events, error = await read(call)
    assert error is None
    assert kinds(events)[-1] == "completed"


async def test_options_and_trace_context_reach_the_backend_and_baggage_does_not(
    run_balancer, scripted
):
    server = await scripted()
    server.has("m:latest")
    server.replies["/api/generate"] = lambda request: web.Response(
        body=b'{"response":"","done":true}\n'
    )
    balancer = await run_balancer(server.url)
    request = generation(
        prompt="p", model="m", system="s", sampling={"temperature": 0, "max_output_token_count": 7}
    )
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metadata = (
        ("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),
        ("baggage", "tenant=acme"),
        ("x-pannier-tenant-id", "acme"),
    )
    _, error = await read(balancer.stub.Generate(request, metadata=metadata))
    assert error is None
    assert server.bodies == [
        {
            "model": "m:latest",
            "stream": True,
            "prompt": "p",
            "system": "s",
            # These two are the balancer's own: callers may cause no loading anew.
            "keep_alive": "1800s",
            "options": {"temperature": 0.0, "num_predict": 7, "num_ctx": 8192},
        }
    ]
    sent = next(each for each in server.requests if each.path == "/api/generate").headers
    assert sent["traceparent"].split("-")[1] == trace_id
    assert sent["Host"] == server.backend_id
    assert "acme" not in str(sent)


async def test_a_retry_shows_as_a_failed_and_a_good_span_below_an_unfailed_call(
    run_balancer, warm_standins
):
    async with warm_standins(2) as standins:
        await standins[0].order_fault(status=500)
        balancer = await run_balancer(*(standin.url for standin in standins))
        calls = (balancer.stub.Generate(generation(unrelated(number))) for number in range(2))
        await read_all(*calls)
        await eventually(lambda: len(balancer.spans.named("/Generate")) == 2)
    calls = balancer.spans.named("/Generate")
    retried = next(each for each in calls if each.attributes["app.balancer.attempts"] == 2)
    assert retried.status.is_unset
    attempts = sorted(
        (
            each
            for each in balancer.spans.named(f"text_completion {CHAT_MODEL}")
            if each.parent.span_id == retried.context.span_id
        ),
        key=lambda each: each.attributes["app.balancer.attempt"],
    )
    failed, good = attempts
    assert not failed.status.is_ok
    assert not failed.status.is_unset
    assert failed.attributes["error.type"] == "server_error"
    assert failed.attributes["http.response.status_code"] == 500
    assert failed.attributes["app.balancer.outcome"] == "error"
    assert good.status.is_unset
    expected = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": CHAT_MODEL,
        "gen_ai.request.stream": True,
        "server.address": "127.0.0.1",
        "server.port": standins[1].port,
        "app.backend": standins[1].backend_id,
        "app.balancer.attempt": 2,
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
        "app.balancer.outcome": "success",
        "gen_ai.response.finish_reasons": ("stop",),
    }
    assert {name: good.attributes[name] for name in expected} == expected
    assert good.attributes["gen_ai.usage.output_tokens"] > 0
    assert good.attributes["gen_ai.response.time_to_first_chunk"] > 0
    everything = str([(each.name, dict(each.attributes)) for each in (*calls, *attempts)])
    assert "llama" not in everything.replace("ollama", "")
