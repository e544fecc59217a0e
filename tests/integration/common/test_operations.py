"""What a service shows over HTTP."""

import http.client
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from services.common.metrics import Metric, MetricKind, Metrics
from services.common.operations import OperationsServer, _Handler
from services.common.pools import PoolGauge
from tests.kit.rpc import make_runtime

CATALOGUE = (
    Metric("jobs_total", MetricKind.COUNTER, "Jobs.", {}),
    Metric("job_seconds", MetricKind.HISTOGRAM, "Time.", {}, (0.1, 1.0), has_exemplars=True),
)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@contextmanager
def serving(metrics):
    server = OperationsServer("127.0.0.1", 0, metrics=metrics, ready=lambda: True)
    server.start()
    try:
        yield server.port
    finally:
        server.stop()


def ask(port, path, *, method="GET", accept=""):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, headers={"Accept": accept} if accept else {})
    reply = connection.getresponse()
    body = reply.read().decode()
    connection.close()
    return reply.status, dict(reply.headers), body


def test_metrics_are_text_unless_openmetrics_is_asked_for():
    runtime, _ = make_runtime("rag", CATALOGUE)
    with runtime.tracer_provider.get_tracer("x").start_as_current_span("a") as span:
        runtime.metrics.observe("job_seconds", 0.5)
    context = span.get_span_context()
    with serving(runtime.metrics) as port:
        status, headers, text = ask(port, "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=")
        assert "trace_id" not in text
        assert {"jobs", "job_seconds", "service_build_info"} <= {f.name for f in parse_text(text)}

        status, headers, page = ask(port, "/metrics", accept=f"{OPENMETRICS},text/plain;q=0.5")
        assert status == 200
        assert headers["Content-Type"].startswith("application/openmetrics-text; version=")
        assert page.endswith("# EOF\n")
        families = {family.name: family for family in parse_openmetrics(page)}
        (exemplar,) = (s.exemplar for s in families["job_seconds"].samples if s.exemplar)
        assert exemplar.value == 0.5
        assert exemplar.labels == {
            "trace_id": format(context.trace_id, "032x"),
            "span_id": format(context.span_id, "016x"),
        }


def test_what_is_known_only_on_request_is_shown():
    metrics = Metrics((), version="1")
    pool = PoolGauge(metrics, "redis", 8)
    pool.watch(lambda: (3, 1))
    with serving(metrics) as port:
        page = ask(port, "/metrics")[2]
    assert 'connection_pool_connections{pool="redis",state="in_use"} 3.0' in page


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/other"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_nothing_but_get_is_allowed(path, method):
    with serving(Metrics((), version="1")) as port:
        status, headers, _ = ask(port, path, method=method)
    assert status == 405
    assert headers["Allow"] == "GET"


def test_other_paths_are_told_what_there_is():
    with serving(Metrics((), version="1")) as port:
        assert ask(port, "/")[::2] == (404, "try /metrics, /healthz or /readyz\n")


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4", True),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
            "encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,"
            "text/plain;version=0.0.4;q=0.4,*/*;q=0.3",
            True,
        ),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(accept, is_openmetrics):
    with serving(Metrics((), version="1")) as port:
        assert ask(port, "/metrics", accept=accept)[2].endswith("# EOF\n") == is_openmetrics


def test_a_failure_is_told_and_logged_but_not_printed(monkeypatch, caplog, capsys):
    with serving(Metrics((), version="1")) as port:
        monkeypatch.setattr("services.common.exposition.Page.render", lambda *_, **__: 1 // 0)
        assert ask(port, "/metrics")[::2] == (500, "failed\n")
    assert "ZeroDivisionError" in caplog.text
    assert capsys.readouterr().err == ""


def test_a_client_that_goes_away_is_not_printed(capsys):
    with serving(Metrics((), version="1")) as port:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(b"GET /metr")
        assert ask(port, "/healthz")[0] == 200
    assert capsys.readouterr().err == ""


def test_a_client_that_says_nothing_keeps_no_thread(monkeypatch):
    assert 0 < _Handler.timeout < 60
    monkeypatch.setattr(_Handler, "timeout", 0.1)
    with (
        serving(Metrics((), version="1")) as port,
        socket.create_connection(("127.0.0.1", port), timeout=5) as client,
    ):
        # The other side hangs up.
        assert client.recv(1) == b""


def test_two_scrapes_at_once_both_get_everything():
    metrics = Metrics(CATALOGUE, version="1")
    inside, most = [], []

    def read():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return 1, 2

    PoolGauge(metrics, "postgres", 4).watch(read)
    with serving(metrics) as port, ThreadPoolExecutor(4) as threads:
        pages = list(threads.map(lambda _: ask(port, "/metrics")[2], range(8)))
    assert all('connection_pool_connections{pool="postgres",state="idle"} 2.0' in p for p in pages)
    # What is read for a scrape need not be safe for several threads.
    assert set(most) == {1}
