"""How long Prometheus waits for a service that shows all it may ever show."""

import asyncio
import importlib
import time
from pathlib import Path
from statistics import median

import aiohttp

from services.common.metrics import MetricKind, Metrics
from services.common.operations import OperationsServer
from tests.bench.cache.rows import Row

__all__ = ["scrapes"]

_SERVICES = ("rag", "cache", "balancer")
_SCRAPE_COUNT = 20
_METHOD_COUNT = 20
# What a label takes in use; its limit is the most it may take.
_IN_USE = {"rpc_method": _METHOD_COUNT, "rpc_response_status_code": 4, "error_type": 80, "label": 1}


async def scrapes(_folder: Path, quick: bool) -> list[Row]:
    """Measures scrapes of each service with every label at its limit."""
    return [await _measure(service, 5 if quick else _SCRAPE_COUNT) for service in _SERVICES]


async def _measure(service: str, count: int) -> Row:
    catalogue = importlib.import_module(f"services.{service}.metrics").CATALOGUE
    metrics = Metrics(catalogue, version="1")
    _fill(metrics)
    operations = OperationsServer("127.0.0.1", 0, metrics=metrics, ready=lambda: True)
    operations.start()
    times, lines = [], 0
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            for _ in range(count):
                started = time.perf_counter()
                async with session.get(f"http://127.0.0.1:{operations.port}/metrics") as reply:
                    page = await reply.text()
                times.append((time.perf_counter() - started) * 1000)
                lines = page.count("\n")
    finally:
        await asyncio.to_thread(operations.stop)
    return Row(
        f"scrape of {service} with every label at its limit, {lines:,} lines",
        f"p50 {median(times):.0f} ms, longest {max(times):.0f} ms",
        "< 50 ms",
        median(times) < 50,
    )


def _fill(metrics: Metrics) -> None:
    for metric in metrics.catalogue:
        open_labels = {
            name: _IN_USE.get(name, label.limit)
            for name, label in metric.labels.items()
            if not label.values
        }
        if metric.kind is MetricKind.GAUGE and not open_labels:
            continue
        for number in range(max(open_labels.values(), default=1)):
            given = {name: f"{name}-{number % limit}" for name, limit in open_labels.items()}
            for values in metric.known_series(**given):
                if metric.kind is MetricKind.HISTOGRAM:
                    metrics.observe(metric.name, 0.1, *values)
                elif metric.kind is MetricKind.COUNTER:
                    metrics.count(metric.name, *values)
                else:
                    metrics.set_gauge(metric.name, 1, *values)
