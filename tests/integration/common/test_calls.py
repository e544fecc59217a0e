"""What surrounds every call, over a real server and a real channel."""

import asyncio
import socket
import urllib.request
from contextlib import aclosing, asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from services.common.afterwards import after_answer
from services.common.channels import cancelled_at_end, open_channel
from services.common.deadline import remaining_seconds
from services.common.errors import FieldViolation, InvalidRequest, StatusCode
from services.common.identity import current_identity
from services.common.server import CommonSettings, serve
from services.common.status import error_from_call
from tests.kit.rpc import channel_to, error_of, make_runtime

NAME = "pannier.balancer.v1.BalancerService"


class Servicer(pb_grpc.BalancerServiceServicer):
    """Behaves well or badly, as asked through the model's name."""

    def __init__(self):
        self.ended = asyncio.Queue()
        self.release = asyncio.Event()
        self.entered = asyncio.Queue()
        self.order = []

    async def Explain(self, request, context):
        after_answer(lambda: self.order.append("work"))
        after_answer(lambda: 1 / 0)
        self.order.append("answer")
        return pb.ExplainResponse()

    async def GetStats(self, request, context):
        self.order.append("next call")
        return pb.GetStatsResponse(
            backends=[pb.BackendStats(backend_id=current_identity.get().tenant_id)]
        )

    async def GetHealth(self, request, context):
        self.entered.put_nowait(remaining_seconds())
        try:
            await self.release.wait()
            return pb.GetHealthResponse(healthy_backend_count=7)
        finally:
            self.ended.put_nowait("GetHealth")

    async def Embed(self, request, context):
        if request.model == "bad":
            raise InvalidRequest(FieldViolation("texts", "Must hold at least one."))
        if request.model == "cancels itself":
            raise asyncio.CancelledError
        if request.model == "leaves work":
            after_answer(lambda: self.order.append("work"))
            raise InvalidRequest(FieldViolation("model", "Leaves work."))
        raise ValueError("password=hunter2")

    async def Generate(self, request, context):
        try:
            yield pb.GenerateResponse(text_delta="a")
            yield pb.GenerateResponse(text_delta="b")
            while request.model == "endless":
                yield pb.GenerateResponse(text_delta="x" * 50_000)
            if request.model == "bad":
                raise InvalidRequest(FieldViolation("model", "Is bad."))
            self.entered.put_nowait("Generate")
            await asyncio.Event().wait()
        finally:
            self.ended.put_nowait("Generate")


@asynccontextmanager
async def running(**overrides):
    runtime, spans = make_runtime("balancer")
    settings = CommonSettings(
        **{"default_deadline_seconds": 30.0, "drain_delay_seconds": 0.0, **overrides}
    )
    servicer = Servicer()
    register = (NAME, lambda s: pb_grpc.add_BalancerServiceServicer_to_server(servicer, s))
    async with serve("balancer", settings, runtime, registrations=[register]) as server:
        channel = open_channel(
            f"127.0.0.1:{server.grpc_port}",
            tracer=runtime.tracer_provider.get_tracer("test"),
            maximum_message_bytes=1 << 26,
        )
        stub = pb_grpc.BalancerServiceStub(channel)
        try:
            yield stub, servicer, spans, server, channel
        finally:
            await channel.close()
    runtime.tracer_provider.shutdown()


def outcome(span):
    return (
        span.kind.name,
        span.attributes["rpc.response.status_code"],
        span.status.status_code.name,
    )


async def spans_of(spans, ending, count):
    async with asyncio.timeout(5):
        while len(found := spans.named(ending)) < count:
            await asyncio.sleep(0)
    return sorted(outcome(span) for span in found)


async def test_a_good_call_makes_a_client_and_a_server_span_of_one_trace():
    async with running() as (stub, _, spans, _, _):
        await stub.GetStats(pb.GetStatsRequest())
        assert await spans_of(spans, "/GetStats", 2) == [
            ("CLIENT", "OK", "UNSET"),
            ("SERVER", "OK", "UNSET"),
        ]
        server, client = sorted(spans.named("/GetStats"), key=lambda s: s.kind.name, reverse=True)
        assert server.parent.span_id == client.context.span_id
        assert server.context.trace_id == client.context.trace_id


async def test_a_service_error_reaches_the_caller_in_full():
    async with running() as (stub, _, spans, _, _):
        error = await error_of(stub.Embed(pb.EmbedRequest(model="bad")))
        assert (error.status_code, error.error_reason) == (
            StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
        )
        assert error.violations == (FieldViolation("texts", "Must hold at least one."),)
        # The caller's mistake is no failure of the server.
        assert await spans_of(spans, "/Embed", 2) == [
            ("CLIENT", "INVALID_ARGUMENT", "ERROR"),
            ("SERVER", "INVALID_ARGUMENT", "UNSET"),
        ]


async def test_the_text_of_an_unexpected_error_stays_inside(caplog):
    async with running() as (stub, _, spans, _, _):
        error = await error_of(stub.Embed(pb.EmbedRequest()))
        assert error.status_code is StatusCode.INTERNAL
        assert "hunter2" not in error.message
        assert await spans_of(spans, "/Embed", 2) == [
            ("CLIENT", "INTERNAL", "ERROR"),
            ("SERVER", "INTERNAL", "ERROR"),
        ]
        trace_id = format(spans.named("/Embed")[0].context.trace_id, "032x")
        assert trace_id in error.message
        assert "hunter2" in caplog.text


async def test_a_handler_that_cancels_itself_does_not_leave_its_caller_waiting():
    async with running() as (stub, _, _, _, _), asyncio.timeout(5):
        error = await error_of(stub.Embed(pb.EmbedRequest(model="cancels itself"), timeout=20))
        assert error.status_code is StatusCode.INTERNAL


async def test_what_is_left_for_after_an_answer_is_done_before_the_next_call(caplog):
    async with running() as (stub, servicer, spans, _, _):
        await stub.Explain(pb.ExplainRequest())
        await stub.GetStats(pb.GetStatsRequest())
        assert servicer.order == ["answer", "work", "next call"]
        # What fails then is no failure of the call.
        assert await spans_of(spans, "/Explain", 2) == [
            ("CLIENT", "OK", "UNSET"),
            ("SERVER", "OK", "UNSET"),
        ]
        assert "after an answer failed" in caplog.text


async def refused(stub):
    await error_of(stub.Embed(pb.EmbedRequest(model="leaves work")))


async def answered(stub):
    await stub.Explain(pb.ExplainRequest())


async def broken_off(stub):
    async def read():
        async for _ in stub.Generate(pb.GenerateRequest(model="bad")):
            pass

    await error_of(read())


@pytest.mark.parametrize("call", [answered, refused, broken_off])
async def test_who_has_the_end_of_a_call_finds_it_counted(call):
    async with running() as (stub, servicer, spans, _, _):
        for number in range(1, 201):
            await call(stub)
            ended = [each for each in spans.named("") if each.kind.name == "SERVER"]
            assert len(ended) == number
            if call is not broken_off:
                assert servicer.order.count("work") == number


async def test_a_call_without_a_deadline_gets_the_default_and_is_told_so():
    async with running(default_deadline_seconds=0.05) as (stub, servicer, _, _, _):
        error = await error_of(stub.GetHealth(pb.GetHealthRequest()))
        assert error.status_code is StatusCode.DEADLINE_EXCEEDED
        assert error.metadata["deadline_source"] == "default"
        assert await servicer.ended.get() == "GetHealth"


async def test_the_callers_deadline_reaches_the_handler():
    async with running() as (stub, servicer, spans, _, _):
        error = await error_of(stub.GetHealth(pb.GetHealthRequest(), timeout=0.5))
        assert error.status_code is StatusCode.DEADLINE_EXCEEDED
        assert 0 < await servicer.entered.get() < 1
        assert await servicer.ended.get() == "GetHealth"
        assert await spans_of(spans, "/GetHealth", 2) == [
            ("CLIENT", "DEADLINE_EXCEEDED", "ERROR"),
            ("SERVER", "DEADLINE_EXCEEDED", "ERROR"),
        ]


async def test_a_cancelled_unary_call_ends_its_handler_and_both_spans():
    async with running() as (stub, servicer, spans, _, _):
        call = asyncio.ensure_future(stub.GetHealth(pb.GetHealthRequest()))
        await servicer.entered.get()
        call.cancel()
        assert await servicer.ended.get() == "GetHealth"
        assert await spans_of(spans, "/GetHealth", 2) == [
            ("CLIENT", "CANCELLED", "ERROR"),
            ("SERVER", "CANCELLED", "UNSET"),
        ]


async def test_a_stream_left_early_ends_its_handler_and_both_spans():
    async with running() as (stub, servicer, spans, _, _):
        async with aclosing(cancelled_at_end(stub.Generate(pb.GenerateRequest()))) as events:
            assert (await anext(events)).text_delta == "a"
        assert await servicer.ended.get() == "Generate"
        assert await spans_of(spans, "/Generate", 2) == [
            ("CLIENT", "CANCELLED", "ERROR"),
            ("SERVER", "CANCELLED", "UNSET"),
        ]


async def test_a_caller_that_leaves_while_a_message_is_on_its_way_is_no_failure(caplog):
    async with running() as (stub, _, spans, _, _):
        for _ in range(100):
            request = pb.GenerateRequest(model="endless")
            async with aclosing(cancelled_at_end(stub.Generate(request))) as events:
                await anext(events)
        outcomes = set(await spans_of(spans, "/Generate", 200))
    assert outcomes == {("CLIENT", "CANCELLED", "ERROR"), ("SERVER", "CANCELLED", "UNSET")}
    assert "call failed" not in caplog.text


async def test_an_error_in_mid_stream_reaches_the_caller_after_what_was_sent():
    async with running() as (stub, servicer, _, _, _):
        received = []

        async def read():
            async for event in stub.Generate(pb.GenerateRequest(model="bad")):
                received.append(event.text_delta)

        error = await error_of(read())
        assert received == ["a", "b"]
        assert error.error_reason == "INVALID_FIELD"
        assert await servicer.ended.get() == "Generate"


async def test_the_tenant_travels_in_metadata():
    async with running() as (stub, _, _, _, _):
        request = pb.GetStatsRequest()
        assert (await stub.GetStats(request)).backends[0].backend_id == "default"
        token = current_identity.set(type(current_identity.get())("acme", ""))
        try:
            assert (await stub.GetStats(request)).backends[0].backend_id == "acme"
        finally:
            current_identity.reset(token)


async def test_a_malformed_tenant_is_refused():
    async with running() as (_, _, _, server, _):
        async with channel_to(server.grpc_port) as channel:
            stub = pb_grpc.BalancerServiceStub(channel)
            error = await error_of(
                stub.GetStats(pb.GetStatsRequest(), metadata=[("x-pannier-tenant-id", "A B")])
            )
        assert (error.status_code, error.error_reason) == (
            StatusCode.UNAUTHENTICATED,
            "INVALID_IDENTITY",
        )


async def test_a_message_over_the_limit_is_refused_with_both_sizes():
    async with running(maximum_request_bytes=65536) as (stub, _, _, _, _):
        error = await error_of(stub.Embed(pb.EmbedRequest(texts=["x" * 70000])))
        assert (error.status_code, error.error_reason) == (
            StatusCode.RESOURCE_EXHAUSTED,
            "MESSAGE_TOO_LARGE",
        )
        assert error.metadata["limit_bytes"] == "65536"
        assert int(error.metadata["size_bytes"]) > 70000


@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_no_message_are_refused(body):
    async with running() as (_, _, _, _, channel):
        call = channel.unary_unary(
            f"/{NAME}/Embed", request_serializer=bytes, response_deserializer=bytes
        )
        error = await error_of(call(body))
        assert (error.status_code, error.error_reason) == (
            StatusCode.INVALID_ARGUMENT,
            "MALFORMED_REQUEST",
        )


async def test_an_unknown_method_is_unimplemented():
    async with running() as (_, _, _, _, channel):
        call = channel.unary_unary(
            f"/{NAME}/Nothing", request_serializer=bytes, response_deserializer=bytes
        )
        assert (await error_of(call(b""))).status_code is StatusCode.UNIMPLEMENTED


async def test_metrics_count_each_call_with_its_final_status():
    async with running() as (stub, _, _, server, _):
        await stub.GetStats(pb.GetStatsRequest())
        await error_of(stub.Embed(pb.EmbedRequest(model="bad")))
        page = await http_get(server, "/metrics")
    labels = f'rpc_method="{NAME}/GetStats",rpc_response_status_code="OK"'
    assert f"rpc_server_call_duration_seconds_count{{{labels}}} 1.0" in page
    labels = f'rpc_method="{NAME}/Embed",rpc_response_status_code="INVALID_ARGUMENT"'
    assert f"rpc_server_call_duration_seconds_count{{{labels}}} 1.0" in page
    assert f'rpc_server_active_calls{{rpc_method="{NAME}/Embed"}} 0.0' in page


async def http_get(server, path):
    url = f"http://127.0.0.1:{server.http_port}{path}"
    with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as response:
        return response.read().decode()


async def test_health_is_served_over_http_and_grpc():
    async with running() as (_, _, _, server, channel):
        assert await http_get(server, "/healthz") == "ok\n"
        assert await http_get(server, "/readyz") == "ready\n"
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            response = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_watcher_sees_the_drain_before_calls_are_refused():
    statuses = asyncio.Queue()

    async def watch(channel):
        health = health_pb2_grpc.HealthStub(channel)
        try:
            async for response in health.Watch(health_pb2.HealthCheckRequest(service=NAME)):
                statuses.put_nowait(response.status)
        except grpc.aio.AioRpcError:
            pass

    async with running(drain_grace_seconds=0.1) as (_, _, _, server, _):
        channel = channel_to(server.grpc_port)
        watcher = asyncio.create_task(watch(channel))
        assert await statuses.get() == health_pb2.HealthCheckResponse.SERVING
    assert await statuses.get() == health_pb2.HealthCheckResponse.NOT_SERVING
    await watcher
    await channel.close()


async def test_a_call_under_way_finishes_during_the_drain():
    async def release_when_draining(channel, servicer):
        health = health_pb2_grpc.HealthStub(channel)
        async for response in health.Watch(health_pb2.HealthCheckRequest(service=NAME)):
            if response.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                servicer.release.set()
                return

    async with running(drain_grace_seconds=5.0) as (_, servicer, _, server, _):
        channel = channel_to(server.grpc_port)
        stub = pb_grpc.BalancerServiceStub(channel)
        call = asyncio.ensure_future(stub.GetHealth(pb.GetHealthRequest(), timeout=5))
        await servicer.entered.get()
        releasing = asyncio.create_task(release_when_draining(channel, servicer))
    assert (await call).healthy_backend_count == 7
    await releasing
    await channel.close()


async def test_a_new_call_during_the_drain_is_refused_and_may_be_retried():
    async with running(drain_grace_seconds=5.0) as (_, servicer, _, server, _):
        channel = channel_to(server.grpc_port)
        stub = pb_grpc.BalancerServiceStub(channel)
        call = asyncio.ensure_future(stub.GetHealth(pb.GetHealthRequest(), timeout=5))
        await servicer.entered.get()
        refused = asyncio.create_task(first_refusal(channel, stub, servicer))
    error = await refused
    assert (error.status_code, error.error_reason) == (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
    assert error.retry_delay_seconds == 1.0
    await call
    await channel.close()


async def first_refusal(channel, stub, servicer):
    try:
        while True:
            try:
                await stub.GetStats(pb.GetStatsRequest())
            except grpc.aio.AioRpcError as error:
                return error_from_call(error)
    finally:
        servicer.release.set()


async def test_reflection_lists_the_services():
    async with running() as (_, _, _, _, channel):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async with asyncio.timeout(5):
            call = stub.ServerReflectionInfo(iter([request]))
            response = await call.read()
        names = {each.name for each in response.list_services_response.service}
        assert {NAME, "grpc.health.v1.Health"} <= names


async def test_a_taken_port_is_an_os_error():
    async with running() as (_, _, _, server, _):
        with pytest.raises(OSError, match="cannot bind"):
            async with running(grpc_address=f"127.0.0.1:{server.grpc_port}"):
                pass


async def test_a_new_channel_does_not_wait_for_the_backoff_of_another_to_its_address():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    runtime, _ = make_runtime("test")
    tracer = runtime.tracer_provider.get_tracer("test")

    def open_one():
        return open_channel(f"127.0.0.1:{port}", tracer=tracer, maximum_message_bytes=1 << 20)

    async with open_one() as early:
        check = health_pb2_grpc.HealthStub(early).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert (await error_of(check)).status_code is StatusCode.UNAVAILABLE
    async with running(grpc_address=f"127.0.0.1:{port}") as (_, _, _, _, _), open_one() as late:
        await health_pb2_grpc.HealthStub(late).Check(health_pb2.HealthCheckRequest(), timeout=5)
    runtime.tracer_provider.shutdown()
