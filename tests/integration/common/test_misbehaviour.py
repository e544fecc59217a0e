"""Handlers that do what they should not, callers that send what they should not, and crowds."""

import asyncio
import random
import threading
from collections import Counter
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from services.common.baggage import current_baggage
from services.common.channels import cancelled_at_end, open_channel
from services.common.identity import current_identity
from services.common.metrics import RPC_CLIENT_METRICS
from services.common.server import CommonSettings, serve
from tests.kit.rpc import make_runtime

NAME = "pannier.balancer.v1.BalancerService"
SECRET = "what does my contract say"
TRACEPARENT = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


class Own(BaseException):
    """Is no `Exception`."""


async def abort(context, code=grpc.StatusCode.NOT_FOUND):
    with suppress(grpc.aio.AbortError):
        await context.abort(code, "There is none.")


class Servicer(pb_grpc.BalancerServiceServicer):
    """Does what the model's name says."""

    def __init__(self):
        self.seen = []
        self.random = random.Random(1)

    async def Embed(self, request, context):
        self.seen.append((current_baggage.get().query_id, current_identity.get().tenant_id))
        match request.model:
            case "returns nothing":
                return None
            case "returns something else":
                return SECRET
            case "raises its own":
                raise Own(SECRET)
            case "raises a group":
                raise ExceptionGroup(SECRET, [ValueError(SECRET)])
            case "aborts twice":
                await abort(context)
                await context.abort(grpc.StatusCode.ABORTED, "Again.")
            case "aborts and returns nothing":
                await abort(context)
                return None
            case "aborts and raises":
                await abort(context)
                raise ValueError(SECRET)
            case "waits":
                await asyncio.sleep(self.random.random() * 0.01)
        return pb.EmbedResponse()

    async def Generate(self, request, context):
        match request.model:
            case "yields nothing":
                yield None
            case "aborts and goes on":
                await abort(context)
                yield pb.GenerateResponse(text_delta="a")
            case "aborts after a message":
                yield pb.GenerateResponse(text_delta="a")
                await context.abort(grpc.StatusCode.NOT_FOUND, "There is none.")
            case _:
                for _ in range(5):
                    await asyncio.sleep(self.random.random() * 0.003)
                    size = self.random.choice([1, 100_000])
                    yield pb.GenerateResponse(text_delta="a" * size)


@dataclass(frozen=True)
class Suite:
    """A server, a channel to it, and what both say of themselves."""

    stub: Any
    plain: Any
    servicer: Servicer
    spans: Any
    metrics: Any

    def server_spans(self):
        return [span for span in self.spans.named("") if span.kind.name == "SERVER"]

    async def server_span(self):
        async with asyncio.timeout(5):
            while not self.server_spans():
                await asyncio.sleep(0.001)
        (span,) = self.server_spans()
        return span


@asynccontextmanager
async def suite():
    runtime, spans = make_runtime("balancer", RPC_CLIENT_METRICS)
    servicer = Servicer()
    register = (NAME, lambda s: pb_grpc.add_BalancerServiceServicer_to_server(servicer, s))
    settings = CommonSettings(drain_delay_seconds=0.0, drain_grace_seconds=2.0)
    async with serve("balancer", settings, runtime, registrations=[register]) as server:
        address = f"127.0.0.1:{server.grpc_port}"
        async with (
            open_channel(
                address,
                tracer=runtime.tracer_provider.get_tracer("test"),
                maximum_message_bytes=1 << 26,
                metrics=runtime.metrics,
            ) as channel,
            grpc.aio.insecure_channel(
                address, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as plain,
        ):
            stubs = [pb_grpc.BalancerServiceStub(each) for each in (channel, plain)]
            yield Suite(*stubs, servicer, spans, runtime.metrics)


def errors(running):
    return {
        sample.labels["error_type"]: sample.value
        for family in running.metrics.registry.collect()
        if family.name == "service_errors"
        for sample in family.samples
        if sample.value
    }


async def read(call):
    return [message async for message in call]


async def ask(running, model):
    if model in {"yields nothing", "aborts and goes on", "aborts after a message"}:
        await read(running.plain.Generate(pb.GenerateRequest(model=model), timeout=5))
    else:
        await running.plain.Embed(pb.EmbedRequest(model=model), timeout=5)


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("returns nothing", "INTERNAL"),
        ("returns something else", "INTERNAL"),
        ("raises its own", "INTERNAL"),
        ("raises a group", "INTERNAL"),
        ("aborts twice", "NOT_FOUND"),
        ("aborts and returns nothing", "NOT_FOUND"),
        ("aborts and raises", "NOT_FOUND"),
        ("yields nothing", "INTERNAL"),
        ("aborts and goes on", "NOT_FOUND"),
        ("aborts after a message", "NOT_FOUND"),
    ],
)
async def test_both_sides_agree_on_how_a_call_has_ended(model, code):
    async with suite() as running:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(running, model)
        span = await running.server_span()
        assert raised.value.code().name == code
        assert span.attributes["rpc.response.status_code"] == code
        # Nothing of the inside gets out, nor into spans.
        for text in (SECRET, "SerializeToString"):
            assert text not in raised.value.details()
            assert text not in str(span.attributes)
        assert span.attributes["app.error_reason"] == code
        assert errors(running) == {code: 1}


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", TRACEPARENT), ("tracestate", ",".join(f"k{n}=v" for n in range(99)))],
        [("traceparent", TRACEPARENT), ("tracestate", "no state")],
        [("traceparent", TRACEPARENT), ("tracestate", "a=b"), ("tracestate", "a=c")],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-ff")],
        [("traceparent", "x" * 5000), ("tracestate", "x" * 2000)],
        [("traceparent-bin", b"\xff\x00"), ("baggage-bin", b"\xff")],
        [("baggage", "query_id=a b;" + "x" * 5000)],
        *[[("baggage", f"query_id=q{n}") for n in range(count)] for count in (2, 50)],
        [("baggage", ",".join("mode=deep" for _ in range(600)))],
        [("baggage", "=,;,=;=,query_id,query_id=,mode=%00")],
    ],
)
async def test_hostile_headers_fail_no_call(headers, caplog):
    async with suite() as running:
        await running.plain.Embed(pb.EmbedRequest(), metadata=headers, timeout=5)
        span = await running.server_span()
    assert span.attributes["rpc.response.status_code"] == "OK"
    assert len(str(dict(span.attributes))) < 600
    assert not [r for r in caplog.records if r.name.startswith("services")]


async def test_crowded_calls_do_not_mix_up_whose_they_are():
    async with suite() as running:

        async def call(number):
            headers = [("baggage", f"query_id=q{number}"), ("x-pannier-tenant-id", f"t{number}")]
            await running.plain.Embed(pb.EmbedRequest(model="waits"), metadata=headers)
            await running.plain.Embed(pb.EmbedRequest(model="waits"))

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(call(number))
        known = Counter((f"q{number}", f"t{number}") for number in range(100))
        assert Counter(running.servicer.seen) == known + Counter({("", "default"): 100})


async def test_a_stream_that_is_dropped_in_another_thread_is_cancelled_in_its_own():
    async with suite() as running:
        loop = asyncio.get_running_loop()
        call = running.stub.Generate(pb.GenerateRequest(model="goes on"))
        threads, cancel = [], call.cancel
        call.cancel = lambda: threads.append(threading.current_thread()) or cancel()
        held = [cancelled_at_end(call)]
        await anext(held[0])
        await loop.run_in_executor(None, held.clear)
        async with asyncio.timeout(5):
            while not threads:
                await asyncio.sleep(0.001)
        assert threads == [threading.current_thread()]


class Reader:
    """Reads all that its callers send, and says when it believes to have everything."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.complete = []

    async def collect(self, requests, context):
        received = []
        async for request in requests:
            self.begun.set()
            received.append(request)
        self.complete.append(received)
        return b"".join(received)

    async def echo(self, requests, context):
        async for request in requests:
            self.begun.set()
            yield request
        self.complete.append(request)

    def register(self, server):
        handlers = {
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Echo": grpc.stream_stream_rpc_method_handler(self.echo),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", handlers),))


async def first_and_no_more():
    yield b"a"
    await asyncio.Event().wait()


async def two():
    yield b"a"
    yield b"b"


@pytest.mark.parametrize("method", ["Collect", "Echo"])
@pytest.mark.parametrize(
    ("leaves", "code"),
    [("never", "OK"), ("cancels", "CANCELLED"), ("is late", "DEADLINE_EXCEEDED")],
)
async def test_a_caller_that_leaves_has_not_sent_everything(method, leaves, code):
    reader = Reader()
    runtime, spans = make_runtime("rag")
    settings = CommonSettings(drain_delay_seconds=0.0)
    async with (
        serve("rag", settings, runtime, registrations=[("a.B", reader.register)]) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        make = channel.stream_unary if method == "Collect" else channel.stream_stream
        requests = two() if leaves == "never" else first_and_no_more()
        call = make(f"/a.B/{method}")(requests, timeout=0.5 if leaves == "is late" else 10)
        if leaves == "cancels":
            await reader.begun.wait()
            call.cancel()
        if leaves == "never":
            await (call if method == "Collect" else read(call))
        assert (await call.code()).name == code
        async with asyncio.timeout(5):
            while not spans.named(method):
                await asyncio.sleep(0.001)
        (span,) = spans.named(method)
        assert span.attributes["rpc.response.status_code"] == code
        assert len(reader.complete) == (1 if leaves == "never" else 0)


class Late:
    """Handlers that do not end when they are interrupted."""

    def __init__(self):
        self.entered = asyncio.Event()

    async def _wait(self, ending):
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ending == b"swallows":
                return
            await asyncio.sleep(0.3)
            raise

    async def answer(self, request, context):
        if request == b"raises":
            raise GeneratorExit
        await self._wait(request)
        return b"answer"

    async def stream(self, request, context):
        if request == b"raises":
            raise GeneratorExit
        await self._wait(request)
        yield b"answer"

    def register(self, server):
        handlers = {
            "Answer": grpc.unary_unary_rpc_method_handler(self.answer),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", handlers),))


@asynccontextmanager
async def late_handlers(**settings):
    late = Late()
    runtime, spans = make_runtime("rag")
    settings = CommonSettings(drain_delay_seconds=0.0, **settings)
    async with (
        serve("rag", settings, runtime, registrations=[("a.B", late.register)]) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):

        def call(method, ending, seconds):
            if method == "Answer":
                return channel.unary_unary("/a.B/Answer")(ending, timeout=seconds)
            return channel.unary_stream("/a.B/Stream")(ending, timeout=seconds)

        yield late, call, spans


async def code_of(spans, method):
    async with asyncio.timeout(5):
        while not spans.named(method):
            await asyncio.sleep(0.001)
    (span,) = spans.named(method)
    return span.attributes["rpc.response.status_code"]


@pytest.mark.parametrize("method", ["Answer", "Stream"])
@pytest.mark.parametrize("ending", [b"cleans up", b"swallows"])
@pytest.mark.parametrize("seconds", [0.25, None])
async def test_who_leaves_in_time_has_cancelled_however_late_the_handler_ends(
    method, ending, seconds
):
    async with late_handlers(default_deadline_seconds=0.25) as (late, make, spans):
        call = make(method, ending, seconds)
        await late.entered.wait()
        call.cancel()
        assert await code_of(spans, method) == "CANCELLED"


@pytest.mark.parametrize("method", ["Answer", "Stream"])
@pytest.mark.parametrize("ending", [b"cleans up", b"swallows"])
async def test_whose_time_is_up_is_late_however_the_handler_ends(method, ending):
    async with late_handlers() as (_, make, spans):
        call = make(method, ending, 0.5)
        assert (await call.code()).name == "DEADLINE_EXCEEDED"
        assert await code_of(spans, method) == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("method", ["Answer", "Stream"])
async def test_a_handler_that_raises_what_ends_generators_leaves_nobody_waiting(method):
    async with late_handlers() as (_, make, spans):
        call = make(method, b"raises", None)
        async with asyncio.timeout(5):
            assert (await call.code()).name == "INTERNAL"
        assert await code_of(spans, method) == "INTERNAL"


async def soak(running, count):
    """Makes calls of all kinds and leaves many of them, early, late, or just as they end."""
    chance = random.Random(2)
    crowd = asyncio.Semaphore(200)

    async def unary():
        timeout = chance.choice([None, 0.005, 5.0])
        call = asyncio.ensure_future(
            running.stub.Embed(pb.EmbedRequest(model="waits"), timeout=timeout)
        )
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.01)
            call.cancel()
        await call

    async def stream():
        timeout = chance.choice([None, 0.008, 5.0])
        call = running.stub.Generate(pb.GenerateRequest(model="goes on"), timeout=timeout)
        async with aclosing(cancelled_at_end(call)) as messages:
            for _ in range(chance.choice([0, 1, 2, 9])):
                await anext(messages)

    async def one():
        with suppress(asyncio.CancelledError, StopAsyncIteration, grpc.aio.AioRpcError):
            await chance.choice([unary, stream])()

    async def bounded():
        async with crowd:
            await one()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(bounded())


async def settled(running):
    """Waits until no more spans come, and returns them."""
    count = -1
    async with asyncio.timeout(20):
        while count != (count := len(running.spans.named(""))):
            await asyncio.sleep(0.5)
    return running.spans.named("")


@pytest.mark.slow
async def test_five_thousand_calls_that_are_left_at_any_moment_leave_nothing_behind(caplog):
    count = 5000
    async with suite() as running:
        # As many more tasks as the suite needs by itself.
        await soak(running, 50)
        await settled(running)
        tasks = len(asyncio.all_tasks())
        running.spans.exporter.clear()
        await soak(running, count)
        spans = await settled(running)

        assert max(Counter(span.context.span_id for span in spans).values()) == 1
        kinds = {
            kind: [span for span in spans if span.kind.name == kind]
            for kind in ("CLIENT", "SERVER")
        }
        clients = {span.context.span_id for span in kinds["CLIENT"]}
        assert {span.parent.span_id for span in kinds["SERVER"]} <= clients
        codes = Counter(span.attributes["rpc.response.status_code"] for span in spans)
        assert set(codes) == {"OK", "CANCELLED", "DEADLINE_EXCEEDED"}
        assert codes["CANCELLED"] > count / 10
        gauges = {
            sample.value
            for family in running.metrics.registry.collect()
            if family.name == "rpc_server_active_calls"
            for sample in family.samples
        }
        assert gauges == {0.0}
        # Every span is measured, and every measure has its span (those of the first calls aside).
        for side in ("server", "client"):
            measured = sum(
                sample.value
                for family in running.metrics.registry.collect()
                for sample in family.samples
                if sample.name == f"rpc_{side}_call_duration_seconds_count"
            )
            assert 0 <= measured - len(kinds[side.upper()]) <= 50
        assert len(asyncio.all_tasks()) <= tasks
    assert not [r for r in caplog.records if r.levelname == "ERROR"]
