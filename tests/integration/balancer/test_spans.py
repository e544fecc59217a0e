"""The trace of a call: its attempts, what they share with other calls, and what is kept out."""

import asyncio
import logging

import pytest
from aiohttp import web
from opentelemetry.trace import SpanKind, StatusCode

from pannier.balancer.v1 import balancer_service_pb2 as pb
from services.standin.core.profile import ModelSpec
from tests.kit.balancer import opened_admin
from tests.kit.embedding_backends import EmbeddingBackend
from tests.kit.generations import chat, generation, read, read_all, unrelated
from tests.kit.rpc import error_of
from tests.kit.standin import CHAT_MODEL, EMBEDDING_MODEL, eventually, running_standins

MARKER = "zebra-4711-zebra"
COLD = ModelSpec(name="cold:latest", size_bytes=1000)


def spans_named(balancer, beginning):
    return [
        span
        for span in balancer.spans.exporter.get_finished_spans()
        if span.name.startswith(beginning)
    ]


def server_spans(balancer, method):
    return [each for each in balancer.spans.named(f"/{method}") if each.kind is SpanKind.SERVER]


def linked(span, why):
    return [each.context.span_id for each in span.links if each.attributes["app.link"] == why]


async def test_an_answer_is_one_span_from_the_request_to_the_last_byte(run_balancer, warm_standins):
    async with warm_standins(1, tokens_per_second=100.0) as (standin,):
        balancer = await run_balancer(standin.url)
        request = chat(sampling={"max_output_token_count": 8})
        await read(balancer.stub.Chat(request))
        await eventually(lambda: server_spans(balancer, "Chat"))
        headers = (await standin.requests("/api/chat"))[0]
    (call,) = server_spans(balancer, "Chat")
    (span,) = spans_named(balancer, "chat ")
    assert span.name == f"chat {CHAT_MODEL}"
    assert span.kind is SpanKind.CLIENT
    assert span.parent.span_id == call.context.span_id
    assert headers["traceparent"].split("-")[1:3] == [
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
    ]
    attributes = dict(span.attributes)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "ollama",
        "gen_ai.request.model": CHAT_MODEL,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.output_tokens": 8,
        "server.address": "127.0.0.1",
        "server.port": standin.port,
        "http.response.status_code": 200,
        "app.backend": standin.backend_id,
        "app.balancer.policy": "only_candidate",
        "app.balancer.attempt": 1,
        "app.balancer.outcome": "success",
    }
    assert {name: attributes.get(name) for name in expected} == expected
    assert attributes["gen_ai.usage.input_tokens"] > 0
    assert attributes["app.balancer.load_score"] > 0
    assert attributes["app.balancer.queue_wait_s"] >= 0
    assert "http.request.resend_count" not in attributes
    first, last = attributes["gen_ai.response.time_to_first_chunk"], attributes["app.ollama.eval_s"]
    assert 0 < first < (span.end_time - span.start_time) / 1e9
    assert last > 0.05
    assert {"app.ollama.load_s", "app.ollama.prompt_eval_s"} <= attributes.keys()
    assert call.attributes["app.balancer.attempts"] == 1
    assert call.attributes["app.balancer.fallback"] is False
    assert call.attributes["app.balancer.queue_wait_s"] >= 0
    assert call.attributes["app.balancer.outcome"] == "success"
    assert call.status.is_unset
    assert span.status.is_unset
    assert call.start_time <= span.start_time <= span.end_time <= call.end_time


async def test_a_wait_in_the_queue_shows_on_the_call(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    works = server.hold()
    balancer = await run_balancer(server.url)
    readers = [
        asyncio.create_task(read(balancer.stub.Generate(generation(unrelated(n), "m"))))
        for n in range(2)
    ]
    first = await works.get()
    await asyncio.sleep(0.2)
    first.end()
    (await works.get()).end()
    await asyncio.wait(readers)
    await eventually(lambda: len(server_spans(balancer, "Generate")) == 2)
    waits = sorted(
        each.attributes["app.balancer.queue_wait_s"] for each in server_spans(balancer, "Generate")
    )
    assert waits[0] < 0.15 < waits[1]


async def test_a_caller_that_leaves_ends_the_attempt_as_cancelled_and_not_as_failed(
    run_balancer, scripted
):
    server = await scripted()
    server.has("m:latest")
    works = server.hold()
    balancer = await run_balancer(server.url)
    call = balancer.stub.Generate(generation("a", "m"))
    work = await works.get()
    work.say("x")
    await call.read()
    call.cancel()
    await work.left.wait()
    await eventually(lambda: server_spans(balancer, "Generate"))
    (span,) = spans_named(balancer, "text_completion ")
    (server_span,) = server_spans(balancer, "Generate")
    assert span.attributes["app.balancer.outcome"] == "cancelled"
    assert server_span.attributes["app.balancer.outcome"] == "cancelled"
    assert span.status.is_unset
    assert server_span.status.is_unset
    assert "error.type" not in span.attributes


async def test_a_deadline_that_passes_is_a_failure_of_the_attempt(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    works = server.hold()
    # By one clock: that of the caller would be ahead by what the call was under way.
    balancer = await run_balancer(server.url, default_deadline_seconds=0.5)
    reading = asyncio.create_task(read(balancer.stub.Generate(generation("a", "m"))))
    (await works.get()).say("x")
    await reading
    await eventually(lambda: server_spans(balancer, "Generate"))
    (span,) = spans_named(balancer, "text_completion ")
    assert span.attributes["app.balancer.outcome"] == "timeout"
    assert span.attributes["error.type"] == "deadline"
    assert span.status.status_code is StatusCode.ERROR
    assert balancer.value("balancer_outcomes_total", outcome="deadline") == 1


async def test_refused_calls_have_no_attempts(run_balancer):
    async with running_standins(1) as (standin,):
        balancer = await run_balancer(standin.url)
        await error_of(balancer.stub.Embed(pb.EmbedRequest(model="nobody-has-it", texts=["a"])))
        await eventually(lambda: server_spans(balancer, "Embed"))
    (call,) = server_spans(balancer, "Embed")
    assert call.attributes["app.balancer.attempts"] == 0
    assert call.attributes["app.balancer.outcome"] == "rejected"
    assert not spans_named(balancer, "embeddings ")


async def test_a_batch_is_linked_to_the_calls_that_it_serves_and_they_to_it(run_balancer, scripted):
    backend = EmbeddingBackend(await scripted())
    may_go = asyncio.Event()

    async def wait(texts):
        await may_go.wait()

    backend.before = wait
    balancer = await run_balancer(backend.url)

    def embed(number):
        request = pb.EmbedRequest(model="m", texts=[f"text number {number}"])
        return asyncio.ensure_future(balancer.stub.Embed(request))

    calls = [embed(0)]
    await eventually(lambda: backend.active_count == 1)
    calls += [embed(number) for number in (1, 2, 3)]
    await eventually(lambda: balancer.value("balancer_queue_depth", priority="interactive") == 3)
    may_go.set()
    await asyncio.wait(calls)
    await eventually(lambda: len(server_spans(balancer, "Embed")) == 4)
    alone, batch = spans_named(balancer, "embeddings ")
    servers = {each.context.span_id: each for each in server_spans(balancer, "Embed")}
    assert not alone.links
    assert batch.attributes["app.balancer.texts"] == 3
    served = linked(batch, "served_call")
    assert len(served) == 2
    assert {batch.parent.span_id, alone.parent.span_id, *served} == set(servers)
    for span_id in served:
        assert linked(servers[span_id], "shared_attempt") == [batch.context.span_id]
        assert servers[span_id].attributes["app.balancer.attempts"] == 1
        assert servers[span_id].attributes["app.balancer.queue_wait_s"] > 0
    assert not servers[batch.parent.span_id].links
    assert balancer.value("balancer_queue_wait_seconds_count", priority="interactive") == 4


async def test_a_second_attempt_beside_a_late_one_is_linked_to_it(run_balancer, scripted):
    backends = [EmbeddingBackend(await scripted()) for _ in range(2)]
    balancer = await run_balancer(*(each.url for each in backends))
    for number in range(60):
        request = pb.EmbedRequest(model="m", texts=[f"text number {number}"])
        await balancer.stub.Embed(request)
    hanging = []

    def before(backend):
        async def wait(texts):
            if not hanging:
                hanging.append(backend)
                await asyncio.Event().wait()

        return wait

    for backend in backends:
        backend.before = before(backend)
    balancer.spans.exporter.clear()
    await balancer.stub.Embed(pb.EmbedRequest(model="m", texts=["text number 555"]))
    await eventually(lambda: len(balancer.spans.exporter.get_finished_spans()) == 3)
    (call,) = server_spans(balancer, "Embed")
    late, second = sorted(spans_named(balancer, "embeddings "), key=lambda each: each.start_time)
    assert late.attributes["app.backend"] == hanging[0].backend_id
    assert late.attributes["app.balancer.outcome"] == "cancelled"
    assert late.status.is_unset
    assert linked(second, "late_attempt") == [late.context.span_id]
    assert second.attributes["app.balancer.outcome"] == "success"
    assert late.parent.span_id == second.parent.span_id == call.context.span_id
    assert call.attributes["app.balancer.attempts"] == 1


async def test_a_load_is_a_trace_of_its_own_linked_to_those_who_wait_for_it(run_balancer):
    async with running_standins(1, models=(COLD,), load_seconds=0.3) as (standin,):
        balancer = await run_balancer(standin.url)
        calls = (balancer.stub.Generate(generation(unrelated(n), COLD.name)) for n in range(2))
        await read_all(*calls)
        await eventually(lambda: len(server_spans(balancer, "Generate")) == 2)
        loads = await standin.requests("/api/generate")
        async with opened_admin(balancer.grpc_port) as admin:
            await admin.UnloadModel(pb.UnloadModelRequest(model=COLD.name))
            await admin.PreloadModel(pb.PreloadModelRequest(model=COLD.name))
        await eventually(lambda: len(spans_named(balancer, "load ")) == 2)
    first, second = spans_named(balancer, "load ")
    waiting = {each.context.span_id for each in server_spans(balancer, "Generate")}
    assert first.name == f"load {COLD.name}"
    assert first.parent is None
    assert first.context.trace_id not in {
        each.context.trace_id for each in server_spans(balancer, "Generate")
    }
    assert set(linked(first, "cause")) & waiting
    assert first.attributes["app.model_load.cause"] == "demand"
    assert first.attributes["app.model_load.outcome"] == "success"
    assert first.attributes["app.backend"] == standin.backend_id
    assert 0.3 <= (first.end_time - first.start_time) / 1e9 < 3
    (order,) = server_spans(balancer, "PreloadModel")
    assert linked(second, "cause") == [order.context.span_id]
    assert second.attributes["app.model_load.cause"] == "operator"
    # The balancer's own requests belong to nobody's trace.
    assert [bool(each["traceparent"]) for each in loads] == [False, True, True]


async def test_a_load_that_fails_is_a_failed_span(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest", loaded=False)
    server.replies["/api/generate"] = lambda request: web.json_response(
        {"error": "out of memory"}, status=500
    )
    balancer = await run_balancer(server.url)
    await read(balancer.stub.Generate(generation("a", "m"), timeout=2.0))
    await eventually(lambda: spans_named(balancer, "load "))
    span = spans_named(balancer, "load ")[0]
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "server_error"
    assert span.attributes["app.model_load.outcome"] == "error"


async def test_health_checks_and_listings_are_silent(run_balancer, warm_standins):
    async with warm_standins(1) as (standin,):
        balancer = await run_balancer(
            standin.url, health_interval_seconds=0.05, listing_interval_seconds=0.05
        )
        async with asyncio.timeout(10):
            while len(asked := await standin.requests("/api/ps")) <= 4:
                await asyncio.sleep(0.02)
    assert not any(each["traceparent"] for each in asked)
    assert balancer.spans.exporter.get_finished_spans() == ()


async def test_a_canary_and_a_cure_are_traces_of_their_own(run_balancer, scripted):
    server = await scripted()
    server.has("m:latest")
    silent = asyncio.Event()

    async def reply(request):
        body = await request.json()
        if body.get("stream", True) and not silent.is_set():
            await silent.wait()
        return web.json_response({"response": "", "done": True, "done_reason": "stop"})

    server.replies["/api/generate"] = reply
    balancer = await run_balancer(
        server.url, first_token_floor_seconds=0.1, first_token_limit_seconds=0.2
    )
    await read(balancer.stub.Generate(generation("a", "m")))
    silent.set()
    await eventually(lambda: spans_named(balancer, "cure ") and server_spans(balancer, "Generate"))
    cure = spans_named(balancer, "cure ")[0]
    (call,) = server_spans(balancer, "Generate")
    assert cure.parent is None
    assert linked(cure, "cause") == [call.context.span_id]
    assert [each.name for each in cure.events] == ["cleared"]
    assert cure.attributes["app.cure.step"] == "cleared"
    # What has been out has to show with a token that it is back.
    server.replies["/api/version"] = lambda request: web.Response(status=500)
    for _ in range(2):
        await balancer.health(check_now=True)
    server.replies["/api/version"] = lambda request: web.json_response({"version": "0.33.0"})
    await eventually(lambda: spans_named(balancer, "canary "), within_seconds=10)
    canary = spans_named(balancer, "canary ")[0]
    assert canary.parent is None
    assert canary.attributes["app.backend"] == server.backend_id
    assert canary.status.is_unset


@pytest.mark.parametrize("status", [400, 500, 503, None])
async def test_neither_spans_nor_logs_nor_reports_hold_a_prompt_that_a_backend_repeats(
    run_balancer, scripted, caplog, status
):
    server = await scripted()
    server.has("m:latest")

    async def echo(request):
        body = await request.json()
        text = str(body.get("prompt") or body.get("messages") or body.get("input"))
        error = {"error": f"cannot work on {text}"}
        if status is None:
            first = b'{"response":"x","message":{"role":"assistant","content":"x"}}\n'
            return web.Response(body=first + web.json_response(error).body + b"\n")
        return web.json_response(error, status=status)

    for path in ("/api/generate", "/api/chat", "/api/embed"):
        server.replies[path] = echo
    with caplog.at_level(logging.DEBUG):
        balancer = await run_balancer(server.url)
        seen = []
        for _ in range(3):
            seen.append((await read(balancer.stub.Generate(generation(MARKER, "m"))))[1])
            seen.append((await read(balancer.stub.Chat(chat(MARKER, "m"))))[1])
            seen.append(
                await error_of(balancer.stub.Embed(pb.EmbedRequest(model="m", texts=[MARKER])))
            )
        health = await balancer.health()
        await eventually(lambda: len(server_spans(balancer, "Embed")) == 3)
    # The caller hears what the backend said.
    assert any(MARKER in f"{error} {error.metadata}" for error in seen)
    assert MARKER not in str(health)
    assert caplog.records
    logged = "\n".join(
        f"{vars(record)} {record.getMessage()} {record.exc_text}" for record in caplog.records
    )
    assert MARKER not in logged
    spans = balancer.spans.exporter.get_finished_spans()
    assert len(spans) >= 9
    for span in spans:
        told = f"{span.name} {dict(span.attributes)} {span.status.description} {span.events}"
        assert MARKER not in told + str([each.attributes for each in span.links])


async def test_the_words_of_an_answer_stay_out_of_spans_and_logs(run_balancer, scripted, caplog):
    server = await scripted()
    server.has("m:latest")
    server.stream("/api/chat", b'{"message":{"role":"assistant","content":"' + MARKER.encode()
                  + b'"},"done":false}\n', b'{"done":true,"done_reason":"stop"}\n')  # fmt: skip
    with caplog.at_level(logging.DEBUG):
        balancer = await run_balancer(server.url)
        events, _ = await read(balancer.stub.Chat(chat(MARKER, "m")))
        await eventually(lambda: server_spans(balancer, "Chat"))
    assert MARKER in str(events)
    assert MARKER not in str([vars(record) for record in caplog.records])
    for span in balancer.spans.exporter.get_finished_spans():
        assert MARKER not in f"{span.name} {dict(span.attributes)} {span.events}"


async def test_an_unnamed_embedding_model_is_one_span_per_attempt(run_balancer, warm_standins):
    async with warm_standins(2) as standins:
        await standins[0].order_fault(status=500, count=1)
        await standins[1].order_fault(status=500, count=1)
        balancer = await run_balancer(*(each.url for each in standins))
        await error_of(balancer.stub.Embed(pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"])))
        await eventually(lambda: server_spans(balancer, "Embed"))
    spans = spans_named(balancer, "embeddings ")
    assert [each.attributes["app.balancer.attempt"] for each in spans] == [1, 2]
    assert all(each.status.status_code is StatusCode.ERROR for each in spans)
    (call,) = server_spans(balancer, "Embed")
    assert call.status.status_code is StatusCode.ERROR
    assert call.attributes["app.balancer.attempts"] == 2
