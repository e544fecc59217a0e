"""What Alertmanager holds back, since it follows from something that is told already."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.kit.prometheus import DEPLOY, Server, derived, running_alertmanager
from tools.monitoring.rules import ALERTS

_LABELS = {alert.name: alert.labels for alert in ALERTS}
_RAG = {"job": "rag", "instance": "rag:9461", "service": "rag"}


@pytest.fixture
async def alertmanager(tmp_path: Path) -> AsyncIterator[Server]:
    templates = DEPLOY / "alertmanager" / "templates"
    # Nobody is told within a test.
    waits = {f"group_wait: {each}": "group_wait: 1h" for each in ("0s", "10s", "30s")}
    config = derived(
        (DEPLOY / "alertmanager" / "alertmanager.yaml").read_text(),
        {"templates/*.tmpl": str(templates / "*.tmpl"), **waits},
    )
    async with running_alertmanager(config, tmp_path) as server:
        yield server


async def held_back(server: Server, *alerts: dict[str, str]) -> list[str]:
    """Fires alerts, and returns the names of those that nobody is told of."""
    firing = [{"labels": {**_LABELS[alert["alertname"]], **alert}} for alert in alerts]
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        (await client.post("/api/v2/alerts", json=firing)).raise_for_status()
    found = await server.get("/api/v2/alerts")
    assert len(found) == len(alerts)
    return sorted(
        each["labels"]["alertname"] for each in found if each["status"]["state"] == "suppressed"
    )


def alert(name: str, **labels: str) -> dict[str, str]:
    return {"alertname": name, **labels}


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        (alert("VeryHighLatency"), alert("HighLatency")),
        (alert("SuddenCostSpike", currency="EUR"), alert("HighDailyCost", currency="EUR")),
        (alert("NoHealthyBackend"), alert("BackendDown", backend="a:11434")),
        (alert("NoHealthyBackend"), alert("HealthCheckStale", backend="a:11434")),
        (alert("ErrorBudgetBurnFast"), alert("ErrorBudgetBurnSlow")),
        (alert("LatencyBudgetBurnFast"), alert("LatencyBudgetBurnSlow")),
        (alert("TargetDown", **_RAG), alert("EventLoopLag", **_RAG)),
        (alert("TargetDown", **_RAG), alert("RagMetricsAbsent")),
        (alert("RagMetricsAbsent"), alert("HighErrorRate")),
        (alert("RagMetricsAbsent"), alert("IndexInvalidationsPending")),
        (alert("BalancerMetricsAbsent"), alert("BackendDown", backend="a:11434")),
    ],
    ids=lambda each: each["alertname"],
)
async def test_what_follows_is_held_back(alertmanager, cause, consequence):
    assert await held_back(alertmanager, cause, consequence) == [consequence["alertname"]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (alert("HighErrorRate"), alert("HighLatency")),
        (alert("SuddenCostSpike", currency="EUR"), alert("HighDailyCost", currency="USD")),
        (alert("BackendDown", backend="a:11434"), alert("BackendDown", backend="b:11434")),
        # One replica is down; what users of the others see is told.
        (alert("TargetDown", **_RAG), alert("HighErrorRate")),
        (alert("TargetDown", **_RAG), alert("EventLoopLag", **_RAG | {"instance": "rag-2:9461"})),
        (alert("TargetDown", **_RAG), alert("CacheMetricsAbsent")),
        (alert("RagMetricsAbsent"), alert("BackendDown", backend="a:11434")),
        (alert("RagMetricsAbsent"), alert("Watchdog")),
        (alert("RagMetricsAbsent"), alert("TargetDown", **_RAG | {"service": "other"})),
    ],
    ids=lambda each: each["alertname"],
)
async def test_what_does_not_follow_is_told(alertmanager, one, other):
    assert await held_back(alertmanager, one, other) == []
