"""The overhead of a call is neither its wait for a slot nor its backend's time nor its caller's.

In virtual time what the balancer itself does takes no time at all, so that any overhead would be a
wait that is taken for one.
"""

import asyncio
from random import Random

import numpy as np
import pytest
from opentelemetry.trace import NoOpTracer

from services.balancer.core.admission import QueueLimits
from services.balancer.core.budgets import RatioBudget
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.patience import Patience
from services.balancer.core.requests import (
    Completion,
    EmbeddingReply,
    EmbeddingRequest,
    FinishReason,
    GenerationRequest,
    Operation,
    TextDelta,
)
from services.balancer.core.shares import SoleReplica
from services.balancer.dispatch import Dispatcher
from services.balancer.embed import Embedder
from services.balancer.equipment import Equipment
from services.balancer.generate import generate
from services.balancer.scheduler import Scheduler
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_model, an_embedding_model
from tests.kit.rpc import make_runtime
from tests.kit.virtual_time import run_virtually

CHAT, EMBEDDING = "chat:latest", "embed:latest"


class SlowServer(MemoryServer):
    """Needs 2 s to its first token and 1 s for each of three more, and 3 s for vectors."""

    failures = 0

    async def generate(self, *_, **__):
        await asyncio.sleep(2)
        if self.failures:
            self.failures -= 1
            raise AttemptFailed(FailureKind.SERVER_ERROR, "it failed", status_code=500)
        for _ in range(3):
            yield TextDelta("x" * 40_000)
            await asyncio.sleep(1)
        yield Completion(
            finish_reason=FinishReason.STOP,
            prompt_token_count=10,
            output_token_count=3,
            load_seconds=0.0,
            prompt_seconds=2.0,
            output_seconds=3.0,
        )

    async def embed(self, texts, **_):
        await asyncio.sleep(3)
        vectors = np.eye(64, dtype=np.float32)[: len(texts)]
        return EmbeddingReply(vectors=vectors, prompt_token_count=len(texts), load_seconds=0.0)


class Parts:
    def __init__(self, *servers):
        self.kit = kit = FleetUnderTest(*servers)
        scheduler = Scheduler(
            kit.fleet,
            SoleReplica(),
            clock=kit.clock,
            rng=Random(1),
            metrics=kit.metrics,
            limits=QueueLimits(),
        )
        scheduler.begin_load = kit.loader.begin
        self.ticking = asyncio.create_task(scheduler.run())
        self.dispatcher = Dispatcher(
            equipment=Equipment(
                fleet=kit.fleet,
                scheduler=scheduler,
                servers=kit.servers,
                effects=kit.effects,
                retries=RatioBudget(ratio=0.2, burst=5),
                clock=kit.clock,
                metrics=kit.metrics,
                tracer=NoOpTracer(),
                patience=Patience(
                    first_token_seconds=300.0,
                    first_token_floor_seconds=60.0,
                    stall_seconds=60.0,
                    stall_floor_seconds=10.0,
                    unproven_seconds=60.0,
                ),
                keep_alive="1800s",
                maximum_attempts=3,
            )
        )
        self.embedder = Embedder(self.dispatcher)

    async def chat(self, *, read_seconds=0.0):
        call = self.dispatcher.arrive(Operation.CHAT)
        request = GenerationRequest(operation=Operation.CHAT, model=CHAT)
        async for _ in generate(self.dispatcher, request, call):
            await asyncio.sleep(read_seconds)

    async def embed(self, *texts):
        call = self.dispatcher.arrive(Operation.EMBED)
        await self.embedder.embed(EmbeddingRequest(model=EMBEDDING, texts=texts), call)

    def overhead(self, operation):
        value = self.kit.metrics.registry.get_sample_value
        labels = {"operation": operation}
        return (
            value("balancer_overhead_seconds_count", labels),
            value("balancer_overhead_seconds_sum", labels),
        )


def run_with(test, *servers):
    async def main():
        parts = Parts(*servers)
        await parts.kit.check()
        began_at = parts.kit.clock.monotonic()
        try:
            await test(parts)
        finally:
            parts.ticking.cancel()
        return parts.kit.clock.monotonic() - began_at

    return run_virtually(main())


def a_server(**fields):
    server = SlowServer(a_chat_model(CHAT), an_embedding_model(EMBEDDING))
    for name, value in fields.items():
        setattr(server, name, value)
    return server


def test_queue_load_and_backend_are_no_overhead():
    async def test(parts):
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(parts.chat())
        assert parts.overhead("chat") == (3, pytest.approx(0, abs=1e-6))

    # The load and three answers, one after the other.
    assert run_with(test, a_server()) >= 5 + 3 * 5


def test_a_caller_that_reads_slowly_is_no_overhead():
    async def test(parts):
        await parts.chat(read_seconds=20)
        assert parts.overhead("chat") == (1, pytest.approx(0, abs=1e-6))

    run_with(test, a_server())


def test_an_attempt_that_fails_and_the_next_one_are_no_overhead():
    async def test(parts):
        await parts.chat()
        assert parts.overhead("chat") == (1, pytest.approx(0, abs=1e-6))

    run_with(test, a_server(failures=1), a_server(failures=0))


def test_pieces_and_batches_of_several_calls_are_no_overhead():
    async def test(parts):
        await parts.embed("warm up")
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(parts.embed(*(f"text {number} {each}" for each in range(4))))
        assert parts.overhead("embed") == (7, pytest.approx(0, abs=1e-6))

    run_with(test, a_server(), a_server())


def test_a_caller_that_leaves_the_queue_has_had_no_overhead():
    async def test(parts):
        first, second = (asyncio.create_task(parts.chat()) for _ in range(2))
        await asyncio.sleep(6)
        second.cancel()
        await asyncio.wait([second])
        await first
        assert parts.overhead("chat") == (2, pytest.approx(0, abs=1e-6))

    run_with(test, a_server())


def test_what_the_balancer_does_itself_is_overhead(monkeypatch):
    prepare = generate.__globals__["generation_demand"]

    def slowly(*arguments):
        asyncio.get_running_loop()._virtual_time += 0.25
        return prepare(*arguments)

    monkeypatch.setitem(generate.__globals__, "generation_demand", slowly)

    async def test(parts):
        await parts.chat()
        assert parts.overhead("chat") == (1, pytest.approx(0.25))

    run_with(test, a_server())


def test_a_span_that_cannot_begin_costs_the_call_and_no_slot(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("a fault of ours")

    async def test(parts):
        await parts.chat()
        with monkeypatch.context() as patch:
            patch.setattr("services.balancer.attempt.AttemptSpan", fail)
            with pytest.raises(RuntimeError):
                await parts.chat()
        assert parts.kit.backend().in_flight_count == 0
        await parts.chat()
        assert parts.kit.backend().in_flight_count == 0

    run_with(test, a_server())


def test_those_taken_along_have_not_queued_while_the_model_was_loaded():
    runtime, spans = make_runtime("balancer")
    tracer = runtime.tracer_provider.get_tracer("test")

    async def test(parts):
        async def ask(number):
            with tracer.start_as_current_span("call"):
                await parts.embed(f"text {number}")

        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(ask(number))

    server = a_server()
    run_with(test, server)
    calls = spans.named("call")
    waits = [each.attributes["app.balancer.queue_wait_s"] for each in calls]
    assert len(waits) == 6
    assert max(waits) < server.load_seconds


def test_the_last_attempts_of_a_backend_do_not_show_on_its_successor_of_the_same_id():
    async def test(parts):
        await parts.chat()
        kit, backend = parts.kit, parts.kit.backend()
        chatting = asyncio.create_task(parts.chat())
        await asyncio.sleep(1)
        assert backend.in_flight_count == 1
        kit.fleet.remove(backend.id)
        assert kit.fleet.add(backend.endpoint) is not backend
        kit.metrics.set_gauge("balancer_backend_inflight", 3, backend.id)
        await asyncio.wait([chatting])
        assert backend.in_flight_count == 0
        shown = kit.metrics.registry.get_sample_value
        assert shown("balancer_backend_inflight", {"backend": backend.id}) == 3

    run_with(test, a_server())
