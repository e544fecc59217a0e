"""Backends and models may come and go for ever: what is shown of them goes with them."""

import asyncio
from contextlib import asynccontextmanager
from random import Random

from opentelemetry.trace import NoOpTracer

from services.balancer.check_health import HealthMonitor
from services.balancer.membership import Membership
from services.balancer.settings import parse_endpoint
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_demand, a_chat_model
from tests.kit.virtual_time import run_virtually

CHAT = "chat:latest"


class Parts:
    """A fleet without backends, watched, and whoever takes some in."""

    def __init__(self):
        self.kit = kit = FleetUnderTest()
        self.closing = asyncio.Event()
        self.closing.set()
        self.monitor = HealthMonitor(
            kit.fleet,
            kit.servers,
            kit.reservations,
            clock=kit.clock,
            rng=Random(1),
            metrics=kit.metrics,
            tracer=NoOpTracer(),
            interval_seconds=30.0,
            limit_seconds=2.0,
            canary_limit_seconds=10.0,
            listing_seconds=1.5,
        )
        self.membership = Membership(
            kit.fleet,
            kit.servers,
            open_server=self._open,
            monitor=self.monitor,
            clock=kit.clock,
            metrics=kit.metrics,
        )
        self.watching = asyncio.create_task(self.monitor.run())

    @asynccontextmanager
    async def _open(self, endpoint):
        server = MemoryServer(a_chat_model(CHAT))
        server.hold(CHAT)
        yield server
        await self.closing.wait()

    def series(self):
        """Returns all series of backends and models."""
        return {
            (sample.name, *sorted(sample.labels.items()))
            for family in self.kit.metrics.registry.collect()
            for sample in family.samples
            if "backend" in sample.labels
        }

    def value(self, name, **labels):
        return self.kit.metrics.registry.get_sample_value(name, labels)


def with_parts(test):
    async def main():
        parts = Parts()
        try:
            await test(parts)
        finally:
            parts.watching.cancel()
            await asyncio.wait([parts.watching])

    run_virtually(main())


def test_a_thousand_backends_that_came_and_went_are_not_shown_and_take_no_room():
    async def test(parts):
        fleet = parts.kit.fleet
        for number in range(1000):
            backend = await parts.membership.add(parse_endpoint(f"http://h{number}:11434"))
            await asyncio.sleep(1.1)
            slot = fleet.occupy(
                backend,
                fleet.model_of(backend, CHAT),
                a_chat_demand(CHAT, parts.kit.clock.monotonic()),
                None,
            )
            assert await parts.membership.remove(backend.id, 0.0) == 1
            fleet.vacate(slot)
        await asyncio.sleep(10)
        assert parts.series() == set()
        last = await parts.membership.add(parse_endpoint("http://last:11434"))
        await asyncio.sleep(2)
        assert {dict(labels)["backend"] for _, *labels in parts.series()} == {last.id}
        overflow = "telemetry_label_overflow_total"
        assert parts.value(overflow, label="backend") == parts.value(overflow, label="model") == 0

    with_parts(test)


def test_a_thousand_models_that_came_and_went_are_not_shown_and_take_no_room():
    async def test(parts):
        backend = await parts.membership.add(parse_endpoint("http://h:11434"))
        server = parts.kit.servers[backend.id]
        for number in range(1000):
            name = f"m{number}:latest"
            server.installed, server.memory = {name: a_chat_model(name)}, {}
            server.hold(name)
            await parts.monitor.check(backend)
            await asyncio.sleep(1.1)
        gauge = "balancer_backend_model_vram_bytes"
        shown = [dict(labels)["model"] for each, *labels in parts.series() if each == gauge]
        assert shown == ["m999:latest"]
        assert parts.value("telemetry_label_overflow_total", label="model") == 0

    with_parts(test)


def test_whoever_asked_for_a_backend_to_go_may_leave_and_its_series_go_all_the_same():
    async def test(parts):
        backend = await parts.membership.add(parse_endpoint("http://h:11434"))
        await asyncio.sleep(2)
        parts.closing.clear()
        removing = asyncio.create_task(parts.membership.remove(backend.id, 0.0))
        await asyncio.sleep(1)
        removing.cancel()
        await asyncio.wait([removing])
        await asyncio.sleep(1)
        assert parts.series() == set()

    with_parts(test)
