"""When alerts came and went is told as a Prometheus has shown it."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.monitoring import alert_log
from tests.monitoring.alert_log import AlertLog, AlertTimes


class Script:
    """A Prometheus that has so many alerts, one report after the other."""

    def __init__(self, *reports):
        self.left = list(reports)
        self.exhausted = asyncio.Event()

    async def get(self, path):
        assert path == "/api/v1/alerts"
        if not self.left:
            self.exhausted.set()
            await asyncio.Event().wait()
        report = self.left.pop(0)
        if isinstance(report, Exception):
            raise report
        alerts = [
            {"labels": {"alertname": name, "backend": backend}, "state": state}
            for name, backend, state in report
        ]
        return {"data": {"alerts": alerts}}


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(alert_log, "_POLL_SECONDS", 0.0)


@asynccontextmanager
async def watched(*reports):
    script = Script(*reports)
    log = AlertLog(script)
    watching = asyncio.create_task(log.run())
    try:
        yield log, script
    finally:
        watching.cancel()


async def seen(*reports):
    async with watched(*reports) as (log, script):
        await script.exhausted.wait()
        return log.alerts


async def test_an_alert_is_pending_then_firing_then_over():
    alerts = await seen([], [("Down", "a", "pending")], [("Down", "a", "firing")], [])
    times = alerts["Down"]
    assert 0 <= times.pending <= times.firing <= times.ended
    assert times.labels == {"alertname": "Down", "backend": "a"}


async def test_what_never_fired_is_never_over():
    times = (await seen([("Down", "a", "pending")], []))["Down"]
    assert times.pending is not None
    assert (times.firing, times.ended) == (None, None)


async def test_it_is_over_once_it_fires_for_nothing_any_more():
    both = [("Down", "a", "firing"), ("Down", "b", "firing")]
    assert (await seen(both, both[:1]))["Down"].ended is None
    assert (await seen(both, [], both[1:]))["Down"].ended is None
    assert (await seen(both, [("Down", "a", "pending")]))["Down"].ended is not None


async def test_a_prometheus_that_does_not_answer_once_is_asked_again():
    alerts = await seen(httpx.ReadError("busy"), [("Down", "a", "firing")])
    assert alerts["Down"].firing is not None


async def test_waits_end_when_all_alerts_have_come_and_gone_and_say_when_they_have_not():
    reports = ([("A", "", "firing")], [("A", "", "firing"), ("B", "", "firing")], [])
    async with watched(*reports) as (log, _):
        assert await log.wait_until_fired(["A", "B"], timeout_seconds=5)
        assert await log.wait_until_over(["A", "B"], timeout_seconds=5)
        assert not await log.wait_until_fired(["A", "C"], timeout_seconds=0.05)
        assert "C" not in log.alerts
        assert log.alerts["B"] != AlertTimes()
