"""The question that a call belongs to travels with the calls within the suite, and is checked."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from services.common.baggage import carry, current_baggage
from services.common.channels import open_channel
from services.common.server import CommonSettings, serve
from tests.kit.rpc import channel_to, make_runtime

NAME = "pannier.balancer.v1.BalancerService"


class Servicer(pb_grpc.BalancerServiceServicer):
    """Notes what a call brings along, and passes it on where there is somebody."""

    def __init__(self, onward=None, say=None):
        self.onward = onward
        self.say = say or {}
        self.metadata = {}
        self.baggage = None

    async def GetStats(self, request, context):
        self.metadata = dict(context.invocation_metadata())
        if self.say:
            carry(**self.say)
        self.baggage = current_baggage.get()
        if self.onward is not None:
            await self.onward.GetStats(request)
        return pb.GetStatsResponse()


@asynccontextmanager
async def chain(**say):
    """A client, a service that says which question it works for, and one that it calls."""
    async with AsyncExitStack() as stack:
        settings = CommonSettings(drain_delay_seconds=0.0)

        async def run(servicer):
            runtime, spans = make_runtime("balancer")
            register = (NAME, lambda s: pb_grpc.add_BalancerServiceServicer_to_server(servicer, s))
            server = await stack.enter_async_context(
                serve("balancer", settings, runtime, registrations=[register])
            )
            return server.grpc_port, spans

        inner = Servicer()
        inner_port, inner_spans = await run(inner)
        runtime, _ = make_runtime("rag")
        channel = await stack.enter_async_context(
            open_channel(
                f"127.0.0.1:{inner_port}",
                tracer=runtime.tracer_provider.get_tracer("test"),
                maximum_message_bytes=1 << 20,
            )
        )
        outer = Servicer(pb_grpc.BalancerServiceStub(channel), say)
        outer_port, outer_spans = await run(outer)
        public = await stack.enter_async_context(channel_to(outer_port))
        yield pb_grpc.BalancerServiceStub(public), outer, outer_spans, inner, inner_spans


async def server_span(spans):
    async with asyncio.timeout(5):
        while not (found := [s for s in spans.named("/GetStats") if s.kind.name == "SERVER"]):
            await asyncio.sleep(0.001)
    return found[0]


async def test_the_question_is_known_to_whoever_is_called_for_it():
    async with chain(mode="deep", query_id="q-1") as (stub, _, outer_spans, inner, inner_spans):
        await stub.GetStats(pb.GetStatsRequest())
        assert (inner.baggage.mode, inner.baggage.query_id) == ("deep", "q-1")
        for spans in (outer_spans, inner_spans):
            span = await server_span(spans)
            assert span.attributes["app.rag.mode"] == "deep"
            assert span.attributes["app.query_id"] == "q-1"


async def test_without_a_question_there_is_no_header():
    async with chain() as (stub, _, _, inner, inner_spans):
        await stub.GetStats(pb.GetStatsRequest())
        assert "baggage" not in inner.metadata
        span = await server_span(inner_spans)
        assert "app.query_id" not in span.attributes
        assert "app.rag.mode" not in span.attributes


@pytest.mark.parametrize(
    ("header", "passed_on"),
    [
        ("user=alice,email=a@b.c", None),
        ("mode=deep,email=a@b.c,query_id=q1", "mode=deep,query_id=q1"),
        ("mode=%22;drop,query_id=" + "x" * 65, None),
        ("x=" + "y" * 5000 + ",mode=rag", "mode=rag"),
    ],
)
async def test_what_strangers_send_along_is_not_passed_on(header, passed_on):
    async with chain() as (stub, _, outer_spans, inner, _):
        await stub.GetStats(pb.GetStatsRequest(), metadata=[("baggage", header)])
        assert inner.metadata.get("baggage") == passed_on
        assert "alice" not in str((await server_span(outer_spans)).attributes)


async def test_what_a_service_says_itself_counts_more_than_what_it_was_told():
    async with chain(mode="deep", query_id="q-1") as (stub, _, _, inner, _):
        await stub.GetStats(pb.GetStatsRequest(), metadata=[("baggage", "mode=rag,query_id=x")])
        assert (inner.baggage.mode, inner.baggage.query_id) == ("deep", "q-1")


async def test_one_question_is_not_taken_for_the_next():
    async with chain() as (stub, _, _, inner, _):
        await stub.GetStats(pb.GetStatsRequest(), metadata=[("baggage", "query_id=q1")])
        assert inner.baggage.query_id == "q1"
        await stub.GetStats(pb.GetStatsRequest())
        assert inner.baggage.query_id == ""
