"""Requests of the balancer's own, canaries and cures: they take slots like any other."""

import asyncio
from collections import Counter
from random import Random

from opentelemetry.trace import NoOpTracer

from services.balancer.check_health import HealthMonitor
from services.balancer.core.failures import AttemptFailed, FailureKind
from services.balancer.core.requests import TextDelta
from services.balancer.core.shares import SoleReplica
from services.balancer.core.snapshot import Residency
from services.balancer.core.stalls import StallLimits
from services.balancer.core.standing import Signal, needs_canary
from services.balancer.cure_stalls import StallCurer
from services.balancer.keep_running import keep_running
from tests.kit.balancer import FleetUnderTest, MemoryServer, a_chat_demand, a_chat_model
from tests.kit.virtual_time import run_virtually

CHAT = "chat:latest"


class Account(SoleReplica):
    """What replicas hold together; others may hold some of it from the start."""

    shared = True

    def __init__(self, *others):
        self.others = Counter(others)
        self.mine = Counter()

    def held_by_others(self, backend_id, model):
        return self.others[model]

    async def take(self, backend_id, model, slots):
        await asyncio.sleep(0.01)
        if self.others[model] + self.mine[model] >= slots:
            return None
        self.mine[model] += 1
        return model

    async def take_load(self, backend_id, model):
        return await self.take(backend_id, "load", 1)

    def release(self, token):
        self.mine[token] -= 1


class Server(MemoryServer):
    """A server whose answers take a second."""

    async def generate(self, *_, **__):
        await self.disturb("probe")
        yield TextDelta("1 ")
        await asyncio.sleep(1.0)
        yield TextDelta("2 ")


class Parts:
    """One backend with a chat model in memory, and who looks after it."""

    def __init__(self, account, query=""):
        self.server = Server(a_chat_model(CHAT))
        self.server.hold(CHAT)
        self.account = account
        self.kit = kit = FleetUnderTest(self.server, reservations=account, query=query)
        self.probes = []
        self.server.disturb = self._disturb
        self.answers = True
        self.monitor = HealthMonitor(
            kit.fleet,
            kit.servers,
            account,
            clock=kit.clock,
            rng=Random(1),
            metrics=kit.metrics,
            tracer=NoOpTracer(),
            interval_seconds=30.0,
            limit_seconds=2.0,
            canary_limit_seconds=10.0,
            listing_seconds=1.5,
        )
        self.curer = StallCurer(
            kit.fleet,
            kit.servers,
            account,
            clock=kit.clock,
            metrics=kit.metrics,
            tracer=NoOpTracer(),
            limits=StallLimits(),
            keep_alive="1800s",
        )

    async def _disturb(self, call):
        if call in ("probe", "unload", "load"):
            self.probes.append((call, +self.account.mine, self.busy_count))
            assert all(each <= self.kit.clock.monotonic() + 0.5 for each in self.busy_until)
            await asyncio.sleep(1.0)
        if call == "probe" and not self.answers:
            raise AttemptFailed(FailureKind.TIMEOUT, "no token")

    @property
    def busy_until(self):
        (view,) = self.kit.fleet.snapshot().backends
        return view.models[CHAT].busy_until

    @property
    def busy_count(self):
        return len(self.busy_until)

    async def doubt(self):
        """Has the backend be in doubt, and watched."""
        await self.kit.check()
        backend = self.kit.backend()
        self.kit.fleet.signal(backend, Signal.REQUEST_TIMED_OUT, "silence")
        assert needs_canary(backend.standing, self.kit.clock.monotonic())
        self.monitor.attend(backend)
        await asyncio.sleep(3.0)
        self.monitor.dismiss(backend.id)
        return backend

    async def cure(self):
        await self.kit.check()
        self.curer.suspect(self.kit.backend(), self.kit.state(CHAT))
        await asyncio.sleep(30.0)


def with_parts(account, test, **fields):
    async def main():
        await test(Parts(account, **fields))

    run_virtually(main())


def test_a_canary_holds_a_slot_which_is_given_to_nobody_else_meanwhile():
    async def test(parts):
        backend = await parts.doubt()
        assert parts.probes == [("probe", {CHAT: 1}, 1)]
        assert +parts.account.mine == {}
        assert parts.busy_count == 0
        assert not backend.standing.doubted

    with_parts(Account(), test)


def test_there_is_no_canary_where_another_replica_has_the_slot():
    async def test(parts):
        backend = await parts.doubt()
        assert parts.probes == []
        assert not backend.standing.doubted

    with_parts(Account(CHAT), test)


def test_a_cure_takes_the_slots_and_the_right_to_load_and_gives_them_back():
    async def test(parts):
        parts.answers = False
        await parts.cure()
        assert [call for call, _, _ in parts.probes] == [
            "probe",
            "unload",
            "unload",
            "load",
            "load",
        ]
        assert all(held == {CHAT: 1, "load": 1} for _, held, _ in parts.probes)
        assert +parts.account.mine == {}
        assert parts.kit.residency(CHAT) is Residency.WARM

    with_parts(Account(), test)


def test_a_server_that_stood_still_is_cured_when_it_goes_on():
    async def test(parts):
        await parts.kit.check()
        goes_on_at = parts.kit.clock.monotonic() + 90.0

        async def stand_still(call):
            if parts.kit.clock.monotonic() < goes_on_at and call != "describe":
                await asyncio.sleep(10.0)
                raise AttemptFailed(FailureKind.TIMEOUT, "silence")

        parts.server.disturb = stand_still
        parts.curer.suspect(parts.kit.backend(), parts.kit.state(CHAT))
        await asyncio.sleep(85.0)
        metrics = parts.kit.metrics.registry
        assert metrics.get_sample_value("balancer_stalls_total", {"outcome": "hung"}) == 1
        # What it was asked while it stood still is lost; nobody restarts it.
        await asyncio.sleep(45.0)
        assert metrics.get_sample_value("balancer_stalls_total", {"outcome": "cured"}) == 1
        assert parts.kit.residency(CHAT) is Residency.WARM
        assert parts.kit.backend().loading_key is None

    with_parts(Account(), test)


def test_a_cure_is_left_to_the_replica_that_has_the_slot():
    async def test(parts):
        parts.answers = False
        await parts.cure()
        assert parts.probes == []
        assert +parts.account.mine == {}
        assert parts.kit.residency(CHAT) is Residency.WARM
        assert parts.kit.backend().loading_key is None

    with_parts(Account(CHAT), test)


def test_a_cure_tries_all_slots_at_once_and_holds_them():
    async def test(parts):
        await parts.cure()
        assert parts.probes == [("probe", {CHAT: 3, "load": 1}, 0)] * 3
        assert +parts.account.mine == {}
        assert parts.kit.residency(CHAT) is Residency.WARM

    with_parts(Account(), test, query="?slots=3")


def test_a_cure_waits_for_the_slots_that_other_replicas_have():
    async def test(parts):
        await parts.kit.check()
        parts.curer.suspect(parts.kit.backend(), parts.kit.state(CHAT))
        await asyncio.sleep(5.0)
        assert parts.probes == []
        parts.account.others.clear()
        await asyncio.sleep(5.0)
        assert parts.probes == [("probe", {CHAT: 3, "load": 1}, 0)] * 3

    with_parts(Account(CHAT), test, query="?slots=3")


def test_a_cure_tries_what_slots_there_are_where_others_keep_theirs_for_long():
    async def test(parts):
        await parts.cure()
        assert parts.probes == [("probe", {CHAT: 2, "load": 1}, 0)] * 2
        assert +parts.account.mine == {}

    with_parts(Account(CHAT), test, query="?slots=3")


def test_a_model_goes_for_its_cure_when_what_it_still_does_has_ended():
    async def test(parts):
        parts.answers = False
        await parts.kit.check()
        streaming = parts.kit.occupy(CHAT)
        streaming.first_token_at = streaming.predicted_end = parts.kit.clock.monotonic()
        parts.curer.suspect(parts.kit.backend(), parts.kit.state(CHAT))
        await asyncio.sleep(60.0)
        assert [call for call, _, _ in parts.probes] == ["probe", "probe"]
        parts.kit.fleet.vacate(streaming)
        parts.answers = True
        await asyncio.sleep(30.0)
        calls = [call for call, _, _ in parts.probes[2:]]
        # Loaded again, it shows that it has all its slots.
        assert calls == ["unload", "unload", "load", "load", "probe", "probe", "probe"]
        stalls = parts.kit.metrics.registry.get_sample_value
        assert stalls("balancer_stalls_total", {"outcome": "cured"}) == 1
        assert parts.kit.residency(CHAT) is Residency.WARM

    with_parts(Account(), test, query="?slots=3")


def test_backends_are_watched_again_after_the_watching_has_failed(monkeypatch):
    async def test(parts):
        await parts.kit.check()
        load_scores, listings, failures = parts.kit.fleet.load_scores, [], []

        def fail_once():
            if len(failures) == 0 and parts.kit.clock.monotonic() > 1010:
                failures.append(parts.kit.clock.monotonic())
                raise RuntimeError("a fault of ours")
            return load_scores()

        async def disturb(call):
            if call == "loaded":
                listings.append(parts.kit.clock.monotonic())

        monkeypatch.setattr(parts.kit.fleet, "load_scores", fail_once)
        parts.server.disturb = disturb
        watching = asyncio.create_task(keep_running(parts.monitor.run, clock=parts.kit.clock))
        await asyncio.sleep(30.0)
        watching.cancel()
        await asyncio.wait([watching])
        (failed_at,) = failures
        assert any(each < failed_at for each in listings)
        assert sum(each > failed_at for each in listings) > 5

    with_parts(Account(), test)


def test_a_slot_that_is_given_back_without_an_attempt_is_not_shown_for_long():
    async def test(parts):
        await parts.kit.check()
        kit, backend = parts.kit, parts.kit.backend()
        watching = asyncio.create_task(parts.monitor.run())

        def shown():
            labels = {"backend": backend.id}
            return kit.metrics.registry.get_sample_value("balancer_backend_inflight", labels)

        slot = kit.fleet.occupy(
            backend, kit.state(CHAT), a_chat_demand(CHAT, kit.clock.monotonic()), None
        )
        await asyncio.sleep(1.5)
        assert shown() == 1
        kit.fleet.vacate(slot)
        await asyncio.sleep(1.5)
        assert shown() == 0
        watching.cancel()
        await asyncio.wait([watching])

    with_parts(Account(), test)
