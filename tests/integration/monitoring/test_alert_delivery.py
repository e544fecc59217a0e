"""Alerts end to end: metrics, Prometheus, its rules as they are, Alertmanager, and who is told.

The rules want minutes and hours. So Prometheus finds the past that it would have seen: samples of
the last hours, and alerts that were pending when it was stopped, as it writes them itself.
"""

import asyncio
import base64
import email
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.kit.prometheus import (
    DEPLOY,
    Server,
    derived,
    prometheus_config,
    run_tool,
    running_alertmanager,
    running_prometheus,
)
from tools.monitoring.rules import ALERTS

pytestmark = pytest.mark.slow

HOUR = 3_600
STEP_SECONDS = 15
ERRORS_PER_SECOND, ANSWERS_PER_SECOND = 0.3, 0.7
DAILY_COST = 240


class Troubled:
    """A service in trouble: 30 % of its questions fail, and they cost 240 a day.

    Attributes:
        since: Seconds since the epoch when it began to count.
        lost_span_count: Spans it has lost.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.lost_span_count = 0

    def samples(self, now: float) -> dict[str, float]:
        """Returns its counters, without the labels of the scrape."""
        age = now - self.since
        return {
            'rag_requests_total{mode="rag",outcome="error"%s}': ERRORS_PER_SECOND * age,
            'rag_requests_total{mode="rag",outcome="success"%s}': ANSWERS_PER_SECOND * age,
            'rag_cost_total{currency="EUR",mode="rag",type="llm"%s}': DAILY_COST * age / 24 / HOUR,
        }

    async def show(self, request: web.Request) -> web.Response:
        """Answers a scrape."""
        samples = {
            **self.samples(time.time()),
            "telemetry_spans_dropped_total%s": self.lost_span_count,
        }
        return web.Response(
            text="".join(f"{name % ''} {value}\n" for name, value in samples.items())
        )


class Inbox:
    """Slack, PagerDuty and a mail server."""

    def __init__(self) -> None:
        self.slack: list[dict[str, Any]] = []
        self.pagerduty: list[dict[str, Any]] = []
        self.mails: list[EmailMessage] = []
        self.logins: list[str] = []
        self.arrived = asyncio.Condition()

    async def keep(self, box: list[Any], item: Any) -> None:
        """Puts something into a box."""
        async with self.arrived:
            box.append(item)
            self.arrived.notify_all()

    async def take(self, box: list[Any], text: str) -> Any:
        """Waits for the first that holds a text."""
        async with asyncio.timeout(30), self.arrived:
            while True:
                for item in box:
                    if text in str(item):
                        return item
                await self.arrived.wait()

    async def slack_post(self, request: web.Request) -> web.Response:
        await self.keep(self.slack, await request.json())
        return web.Response(text="ok")

    async def pagerduty_post(self, request: web.Request) -> web.Response:
        await self.keep(self.pagerduty, await request.json())
        return web.json_response({"status": "success"}, status=202)

    async def mail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speaks as much SMTP as it takes to receive mails."""

        async def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        await say("220 ready")
        while line := (await reader.readline()).decode().strip():
            match line.split()[0].upper():
                case "EHLO":
                    await say("250-inbox")
                    await say("250 AUTH PLAIN")
                case "AUTH":
                    self.logins.append(base64.b64decode(line.split()[2]).decode())
                    await say("235 welcome")
                case "DATA":
                    await say("354 go on")
                    data = await reader.readuntil(b"\r\n.\r\n")
                    await say("250 kept")
                    await self.keep(self.mails, email.message_from_bytes(data[:-5], policy=default))
                case "QUIT":
                    await say("221 bye")
                    break
                case _:
                    await say("250 ok")
        writer.close()


@asynccontextmanager
async def serving(routes: list[web.RouteDef]) -> AsyncIterator[str]:
    """Serves HTTP, and yields where."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running_inbox() -> AsyncIterator[tuple[Inbox, str, str]]:
    """Runs all that is told of alerts, and yields the addresses of HTTP and SMTP."""
    inbox = Inbox()
    mails = await asyncio.start_server(inbox.mail, "127.0.0.1", 0)
    routes = [
        web.post("/slack", inbox.slack_post),
        web.post("/v2/enqueue", inbox.pagerduty_post),
    ]
    async with mails, serving(routes) as http:
        yield inbox, http, f"127.0.0.1:{mails.sockets[0].getsockname()[1]}"


def alertmanager_config(folder: Path, http: str, smtp: str) -> str:
    """Returns the configuration of deploy/ for the inbox, without its waits."""
    for name, secret in (
        ("slack_api_url", f"http://{http}/slack"),
        ("pagerduty_routing_key", "routing-key"),
        ("smtp_password", "correct horse"),
    ):
        (folder / name).write_text(secret)
    return derived(
        (DEPLOY / "alertmanager" / "alertmanager.yaml").read_text(),
        {
            "global:": f"global:\n  pagerduty_url: http://{http}/v2/enqueue\n"
            "  smtp_require_tls: false",
            "/run/secrets": str(folder),
            "templates/*.tmpl": str(DEPLOY / "alertmanager" / "templates" / "*.tmpl"),
            "smtp.example.org:587": smtp,
            "group_wait: 30s": "group_wait: 1s",
            "group_wait: 10s": "group_wait: 1s",
            "group_interval: 5m": "group_interval: 1s",
        },
    )


def write_past(folder: Path, service: Troubled, address: str, now: float) -> None:
    """Writes what Prometheus would have seen of a service, and have thought of it, until now."""
    labels = f',job="rag",instance="{address}"'
    families: dict[str, list[str]] = {}
    for at in moments(service.since, now):
        for name, value in service.samples(at).items():
            family = name.split("{")[0].removesuffix("_total")
            families.setdefault(f"# TYPE {family} counter", []).append(
                f"{name % labels} {value} {at}"
            )
        for alert in ALERTS:
            if alert.name in ("HighErrorRate", "HighDailyCost"):
                known = {"alertname": alert.name, **alert.labels}
                if alert.name == "HighDailyCost":
                    known["currency"] = "EUR"
                shown = ",".join(f'{name}="{value}"' for name, value in known.items())
                families.setdefault("# TYPE ALERTS_FOR_STATE gauge", []).append(
                    f"ALERTS_FOR_STATE{{{shown}}} {service.since} {at}"
                )
    lines = [line for header, samples in families.items() for line in (header, *samples)]
    page = folder / "past.txt"
    page.write_text("\n".join([*lines, "# EOF", ""]))
    done = run_tool("promtool", "tsdb", "create-blocks-from", "openmetrics", page, folder / "data")
    assert done.returncode == 0, done.stdout + done.stderr


def moments(start: float, end: float) -> Iterator[float]:
    while start < end:
        yield start
        start += STEP_SECONDS


async def test_trouble_in_the_metrics_reaches_slack_pagerduty_and_the_mailbox(tmp_path):
    now = time.time()
    service = Troubled(since=now - 3 * HOUR)
    ours, theirs = tmp_path / "prometheus", tmp_path / "alertmanager"
    ours.mkdir()
    theirs.mkdir()
    # What fires before Prometheus has found Alertmanager is told again soon.
    options = ["--rules.alert.for-grace-period=0s", "--rules.alert.resend-delay=1s"]
    async with (
        running_inbox() as (inbox, http, smtp),
        serving([web.get("/metrics", service.show)]) as address,
        running_alertmanager(alertmanager_config(theirs, http, smtp), theirs) as alertmanager,
    ):
        write_past(ours, service, address, now)
        config = prometheus_config(
            {"rag": [address], "cache": [], "balancer": []}, alertmanager=alertmanager.address
        )
        async with running_prometheus(config, ours, options=options) as prometheus:
            await _everybody_is_told(inbox, prometheus, service, address)


async def _everybody_is_told(
    inbox: Inbox, prometheus: Server, service: Troubled, address: str
) -> None:
    slack = await inbox.take(inbox.slack, "HighErrorRate")
    message = slack["attachments"][0]
    assert message["title"] == "HighErrorRate: Many questions fail"
    assert message["color"] == "warning"
    assert "30% of questions of the last 5 minutes failed." in message["text"]
    assert "Runbook: docs/runbook.md#higherrorrate" in message["text"]
    assert message["title_link"].endswith("/d/performance-overview?viewPanel=5")

    page = await inbox.take(inbox.pagerduty, "HighErrorRate")
    assert page["routing_key"] == "routing-key"
    assert page["event_action"] == "trigger"
    assert page["payload"]["severity"] == "warning"
    assert page["payload"]["component"] == "rag"
    assert "30% of questions" in json.dumps(page["payload"]["custom_details"])

    mail = await inbox.take(inbox.mails, "HighDailyCost")
    assert mail["Subject"] == "HighDailyCost: Questions cost much"
    assert mail["To"] == "operators@example.org"
    body = mail.get_body(("plain",)).get_content()
    # The last seconds before the start were not seen.
    assert re.search(r"a day costs 2(39|40)\.\d\d EUR", body), body
    assert inbox.logins[0].endswith("\0correct horse")

    heartbeat = await inbox.take(inbox.mails, "Watchdog")
    assert heartbeat["To"] == "watchdog@example.org"

    # What was healthy a moment ago: seen by a scrape, told at once.
    assert not [each for each in inbox.slack if "SpansDropped" in str(each)]
    service.lost_span_count = 7
    slack = await inbox.take(inbox.slack, "SpansDropped")
    assert f"{address} has lost" in slack["attachments"][0]["text"]

    # Each went where it was meant to go, and nowhere else.
    assert "HighDailyCost" not in str(inbox.slack) + str(inbox.pagerduty)
    assert "HighErrorRate" not in str(inbox.mails)
    assert "SpansDropped" not in str(inbox.pagerduty) + str(inbox.mails)
    firing = await prometheus.query('ALERTS{alertstate="firing"}')
    assert {"HighErrorRate", "HighDailyCost", "SpansDropped", "Watchdog"} <= {
        sample["metric"]["alertname"] for sample in firing
    }
