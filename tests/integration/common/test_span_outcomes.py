"""How calls may end, and what both sides' spans and metrics say of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from services.common.channels import cancelled_at_end, open_channel
from services.common.metrics import RPC_CLIENT_METRICS
from services.common.server import CommonSettings, serve
from tests.kit.rpc import make_runtime

NAME = "pannier.balancer.v1.BalancerService"
SECRET = "what does my contract say"


class Servicer(pb_grpc.BalancerServiceServicer):
    """Ends as the model's name says."""

    def __init__(self):
        self.entered = asyncio.Queue()
        self.left = asyncio.Queue()

    async def Embed(self, request, context):
        self.entered.put_nowait(request.model)
        try:
            await self._end(request.model, context)
            return pb.EmbedResponse()
        finally:
            self.left.put_nowait(request.model)

    async def Generate(self, request, context):
        self.entered.put_nowait(request.model)
        try:
            yield pb.GenerateResponse(text_delta="a")
            if request.model == "parks":
                while True:
                    yield pb.GenerateResponse(text_delta="x" * 100_000)
            await self._end(request.model, context)
            yield pb.GenerateResponse(text_delta="b")
        finally:
            # As a handler that has something to give back: its cleaning up may wait.
            await asyncio.sleep(0)
            self.left.put_nowait(request.model)

    async def _end(self, model, context):
        if model == "raises":
            raise ValueError(SECRET)
        if model == "aborts":
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is none.")
        if model == "breaks":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Gone.")
        if model == "waits":
            await asyncio.Event().wait()


@dataclass(frozen=True)
class Suite:
    stub: Any
    servicer: Servicer
    spans: Any
    metrics: Any
    port: int


@asynccontextmanager
async def suite():
    runtime, spans = make_runtime("balancer", RPC_CLIENT_METRICS)
    settings = CommonSettings(drain_delay_seconds=0.0)
    servicer = Servicer()
    register = (NAME, lambda s: pb_grpc.add_BalancerServiceServicer_to_server(servicer, s))
    async with (
        serve("balancer", settings, runtime, registrations=[register]) as server,
        open_channel(
            f"127.0.0.1:{server.grpc_port}",
            tracer=runtime.tracer_provider.get_tracer("test"),
            maximum_message_bytes=1 << 26,
            metrics=runtime.metrics,
        ) as channel,
    ):
        stub = pb_grpc.BalancerServiceStub(channel)
        yield Suite(stub, servicer, spans, runtime.metrics, server.grpc_port)


async def failing(call):
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def read(call):
    return [message.text_delta async for message in call]


def embed(suite, model, **options):
    return suite.stub.Embed(pb.EmbedRequest(model=model, texts=[SECRET]), **options)


def generate(suite, model, **options):
    return suite.stub.Generate(pb.GenerateRequest(model=model, prompt=SECRET), **options)


async def unary_ok(suite):
    await embed(suite, "ends")


async def unary_raises(suite):
    await failing(embed(suite, "raises"))


async def unary_aborts(suite):
    await failing(embed(suite, "aborts"))


async def unary_cancelled(suite):
    call = asyncio.ensure_future(embed(suite, "waits"))
    await suite.servicer.entered.get()
    call.cancel()
    with suppress(asyncio.CancelledError):
        await call


async def unary_late(suite):
    await failing(embed(suite, "waits", timeout=0.5))


async def stream_ok(suite):
    assert await read(generate(suite, "ends")) == ["a", "b"]


async def stream_late(suite):
    await failing(read(generate(suite, "waits", timeout=0.5)))


async def stream_cancelled(suite):
    call = generate(suite, "waits")
    async for _ in call:
        break
    call.cancel()


async def stream_raises(suite):
    await failing(read(generate(suite, "raises")))


async def stream_breaks(suite):
    await failing(read(generate(suite, "breaks")))


async def stream_never_read(suite):
    async with aclosing(cancelled_at_end(generate(suite, "waits"))):
        await suite.servicer.entered.get()


async def stream_left(suite):
    async with aclosing(cancelled_at_end(generate(suite, "waits"))) as messages:
        await anext(messages)


@dataclass(frozen=True)
class Case:
    """One row: who does what, and what has to be said of it."""

    run: Callable[[Suite], Awaitable[None]]
    code: str
    is_server_fault: bool
    error: str = ""


CASES = (
    Case(unary_ok, "OK", False),
    Case(unary_raises, "INTERNAL", True, "INTERNAL"),
    Case(unary_aborts, "NOT_FOUND", False, "NOT_FOUND"),
    Case(unary_cancelled, "CANCELLED", False),
    Case(unary_late, "DEADLINE_EXCEEDED", True, "DEADLINE_EXCEEDED"),
    Case(stream_ok, "OK", False),
    Case(stream_late, "DEADLINE_EXCEEDED", True, "DEADLINE_EXCEEDED"),
    Case(stream_cancelled, "CANCELLED", False),
    Case(stream_raises, "INTERNAL", True, "INTERNAL"),
    Case(stream_breaks, "UNAVAILABLE", True, "UNAVAILABLE"),
    Case(stream_never_read, "CANCELLED", False),
    Case(stream_left, "CANCELLED", False),
)


async def ended(suite, count):
    """Waits for so many spans, and for more that should not be there."""
    async with asyncio.timeout(10):
        while len(spans := suite.spans.named("")) < count:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert len(suite.spans.named("")) == len(spans) == count
    return {kind: [s for s in spans if s.kind.name == kind] for kind in ("CLIENT", "SERVER")}


def value(suite, name, **labels):
    return suite.metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.run.__name__)
async def test_both_sides_tell_the_truth_about_a_call(case):
    async with suite() as running:
        await case.run(running)
        spans = await ended(running, 2)
        (client,), (server,) = spans["CLIENT"], spans["SERVER"]
        method = f"{NAME}/{'Embed' if case.run.__name__.startswith('unary') else 'Generate'}"

        assert server.parent.span_id == client.context.span_id
        assert server.context.trace_id == client.context.trace_id
        for span in (client, server):
            assert span.name == span.attributes["rpc.method"] == method
            assert span.attributes["rpc.system.name"] == "grpc"
            assert span.attributes["rpc.response.status_code"] == case.code
            assert span.attributes["server.address"] == "127.0.0.1"
            assert span.attributes["server.port"] == running.port
            # Exceptions are logged; what they and the messages say is nobody's business.
            assert not span.events
            assert span.status.description is None
            assert SECRET not in str(span.attributes)
        assert (client.status.status_code.name == "ERROR") == (case.code != "OK")
        assert (server.status.status_code.name == "ERROR") == case.is_server_fault
        assert client.attributes.get("error.type") == (case.code if case.code != "OK" else None)
        assert server.attributes.get("error.type") == (case.code if case.is_server_fault else None)
        assert server.attributes.get("app.error_reason") == (case.error or None)

        labels = {"rpc_method": method, "rpc_response_status_code": case.code}
        for side in ("server", "client"):
            assert value(running, f"rpc_{side}_call_duration_seconds_count", **labels) == 1
        assert value(running, "rpc_server_active_calls", rpc_method=method) == 0
        errors = {
            sample.labels["error_type"]: sample.value
            for family in running.metrics.registry.collect()
            if family.name == "service_errors"
            for sample in family.samples
            if sample.value
        }
        assert errors == ({case.error: 1} if case.error else {})
        # The handler has ended, and had the time to clean up.
        assert running.servicer.left.get_nowait()


async def test_handlers_parked_at_a_yield_end_as_cancelled_and_clean_up(caplog):
    count = 40
    async with suite() as running:
        calls = [generate(running, "parks") for _ in range(count)]
        # Nobody reads on, so that all handlers stop at a message that has no room.
        for call in calls:
            await call.read()
        for call in calls:
            call.cancel()
        spans = await ended(running, 2 * count)
        for span in (*spans["CLIENT"], *spans["SERVER"]):
            assert span.attributes["rpc.response.status_code"] == "CANCELLED"
        assert {s.status.status_code.name for s in spans["SERVER"]} == {"UNSET"}
        assert running.servicer.left.qsize() == count
    assert not [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")]


async def test_a_stream_that_was_dropped_unread_ends_without_being_closed():
    async with suite() as running:
        messages = cancelled_at_end(generate(running, "waits"))
        await running.servicer.entered.get()
        del messages
        spans = await ended(running, 2)
        assert spans["SERVER"][0].attributes["rpc.response.status_code"] == "CANCELLED"


async def test_what_is_cancelled_before_it_is_sent_leaves_nothing_open():
    async with suite() as running:
        call = asyncio.ensure_future(embed(running, "ends"))
        await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            await call
        await embed(running, "ends")
        async with asyncio.timeout(5):
            while len(running.spans.named("")) < 2:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        clients = [s for s in running.spans.named("") if s.kind.name == "CLIENT"]
        servers = [s for s in running.spans.named("") if s.kind.name == "SERVER"]
        assert {s.parent.span_id for s in servers} <= {s.context.span_id for s in clients}
        assert len(clients) in (1, 2)


async def test_a_method_that_there_is_not_is_counted_under_one_name():
    async with suite() as running:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.port}")
        for number in range(3):
            call = channel.unary_unary(f"/{NAME}/Nothing{number}")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call(b"")
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await channel.close()
        spans = await ended(running, 3)
        assert {span.name for span in spans["SERVER"]} == {"_other"}
        labels = {"rpc_method": "_other", "rpc_response_status_code": "UNIMPLEMENTED"}
        assert value(running, "rpc_server_call_duration_seconds_count", **labels) == 3


async def test_health_and_reflection_are_silent_on_both_sides():
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with suite() as running:
        async with open_channel(
            f"127.0.0.1:{running.port}",
            tracer=make_runtime("test")[0].tracer_provider.get_tracer("test"),
            maximum_message_bytes=1 << 20,
            metrics=running.metrics,
        ) as channel:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
            await info(iter([request])).read()
        await ended(running, 0)
        page = {s.name for f in running.metrics.registry.collect() for s in f.samples}
        assert "rpc_client_call_duration_seconds_count" not in page
        assert "rpc_server_call_duration_seconds_count" not in page
