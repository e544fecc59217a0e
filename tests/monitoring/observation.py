"""What a Prometheus sees of a suite under traffic."""

import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.kit.prometheus import Server, prometheus_config, running_prometheus
from tests.monitoring.suite import WatchedSuite, running_suite
from tests.monitoring.traffic import send_traffic
from tools.monitoring.dashboards import ALL
from tools.monitoring.dashboards.queries import PanelQuery, panel_queries, resolve

__all__ = ["Observation", "observe", "watched_suite"]

_OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
_PLAIN = {"Accept": "text/plain"}
_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """All that was seen.

    Attributes:
        answers: What each query of each dashboard returned, at the end.
        pages: `/metrics` of each service, in the form that Prometheus asks for.
        plain_pages: The same in the older text format.
        rules: Every rule as Prometheus judges it.
        exemplars: Traces that requests' durations point at.
        stored: Names of all series that Prometheus has.
    """

    answers: Mapping[PanelQuery, list[dict[str, Any]]]
    pages: Mapping[str, str]
    plain_pages: Mapping[str, str]
    rules: list[dict[str, Any]]
    exemplars: list[dict[str, Any]]
    stored: frozenset[str]

    def values(self, query: PanelQuery) -> list[float]:
        """Returns the values that a query returned, those that are no numbers left out."""
        values = [float(each["value"][1]) for each in self.answers[query]]
        return [each for each in values if not math.isnan(each)]


@asynccontextmanager
async def watched_suite(
    folder: Path, environment: Mapping[str, str], *, otlp_endpoint: str = ""
) -> AsyncIterator[tuple[WatchedSuite, Server]]:
    """Runs a suite and a Prometheus that scrapes it each second while the context is open.

    Args:
        folder: An empty folder.
        environment: Variables that processes need to run at all.
        otlp_endpoint: Receiver of traces; empty for the stack's own.
    """
    home, data = folder / "stack", folder / "prometheus"
    for each in (home, data):
        each.mkdir()
    async with running_suite(home, dict(environment), otlp_endpoint=otlp_endpoint) as suite:
        config = prometheus_config({name: [each] for name, each in suite.metrics.items()})
        async with running_prometheus(config, data) as prometheus:
            for job in suite.metrics:
                await prometheus.wait_for(f'up{{job="{job}"}} == 1')
            yield suite, prometheus


async def observe(
    folder: Path, environment: Mapping[str, str], *, otlp_endpoint: str = ""
) -> Observation:
    """Sends traffic through a suite and looks at everything it shows of itself."""
    async with watched_suite(folder, environment, otlp_endpoint=otlp_endpoint) as (
        suite,
        prometheus,
    ):
        started = time.time()
        for _ in range(_ROUNDS):
            await send_traffic(suite)
            moment = await _scraped(prometheus, suite)
        exemplars = await prometheus.get(
            "/api/v1/query_exemplars",
            query="rag_request_duration_seconds_bucket",
            start=started,
            end=time.time() + 1,
        )
        rules = await prometheus.get("/api/v1/rules")
        stored = await prometheus.get("/api/v1/label/__name__/values")
        return Observation(
            answers={query: await _answer(prometheus, query, moment) for query in _queries()},
            pages={job: await _page(each, _OPENMETRICS) for job, each in suite.metrics.items()},
            plain_pages={job: await _page(each, _PLAIN) for job, each in suite.metrics.items()},
            rules=[rule for group in rules["data"]["groups"] for rule in group["rules"]],
            exemplars=[each for series in exemplars["data"] for each in series["exemplars"]],
            stored=frozenset(stored["data"]),
        )


def _queries() -> list[PanelQuery]:
    return [
        query
        for dashboard in ALL
        for query in panel_queries(json.loads(json.dumps(dashboard.json())))
        if query.datasource_type == "prometheus"
    ]


async def _answer(prometheus: Server, query: PanelQuery, moment: float) -> list[dict[str, Any]]:
    # However long the traffic has taken, all of it is within five minutes.
    return await prometheus.query(resolve(query.expr, rate_interval="5m"), at=moment)


async def _scraped(prometheus: Server, suite: WatchedSuite) -> float:
    """Waits until every service has been scraped once more, and returns when that was so."""
    scraped = f"count(timestamp(service_build_info) > {time.time()}) == {len(suite.metrics)}"
    [sample] = await prometheus.wait_for(scraped)
    return float(sample["value"][0])


async def _page(address: str, headers: Mapping[str, str]) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(f"http://{address}/metrics", headers=headers)
        return reply.raise_for_status().text
