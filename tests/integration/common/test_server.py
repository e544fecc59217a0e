"""What every process shows of itself from its first moment."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request

from pannier.common.v1.error_reason_pb2 import ErrorReason
from services.common.server import CommonSettings, serve
from tests.kit.rpc import make_runtime


async def test_reasons_of_errors_and_the_lag_of_the_loop_are_there_from_the_start():
    runtime, _ = make_runtime("rag")
    value = runtime.metrics.registry.get_sample_value
    settings = CommonSettings(drain_delay_seconds=0.0)
    async with serve("rag", settings, runtime, registrations=[]):
        for name in ErrorReason.keys()[1:]:
            labels = {"error_type": name.removeprefix("ERROR_REASON_")}
            assert value("service_errors_total", labels) == 0
        assert value("service_errors_total", {"error_type": "UNSPECIFIED"}) is None
        async with asyncio.timeout(5):
            while not value("service_event_loop_lag_seconds_count"):
                await asyncio.sleep(0.01)
    before = value("service_event_loop_lag_seconds_count")
    await asyncio.sleep(0.3)
    assert value("service_event_loop_lag_seconds_count") == before


def test_a_second_signal_is_logged_before_the_process_leaves():
    environment = os.environ | {
        "PANNIER_BALANCER_BACKENDS": "http://127.0.0.1:1",
        "PANNIER_BALANCER_DRAIN_DELAY_SECONDS": "30s",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.balancer"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        messages = []
        for text in process.stderr:
            messages.append(json.loads(text)["message"])
            if messages[-1] in ("serving", "stopping"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 1
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert messages[-1] == "second signal, leaving at once"


def test_a_process_logs_json_shows_its_build_and_ends_in_order_with_a_dead_receiver():
    environment = os.environ | {
        "PANNIER_BALANCER_BACKENDS": "http://127.0.0.1:1",
        "PANNIER_BALANCER_REVISION": "abc123",
        "PANNIER_BALANCER_OTLP_ENDPOINT": "127.0.0.1:1",
        "PANNIER_BALANCER_TRACE_SAMPLE_RATIO": "0.5",
        "PANNIER_BALANCER_DRAIN_DELAY_SECONDS": "0s",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services.balancer"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    try:
        for text in process.stderr:
            lines.append(json.loads(text))
            if lines[-1]["message"] == "serving":
                break
        url = f"http://127.0.0.1:{lines[-1]['http_port']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as reply:
            page = reply.read().decode()
        assert 'revision="abc123"' in page
        assert "telemetry_spans_dropped_total 0.0" in page
        process.send_signal(signal.SIGTERM)
        lines += map(json.loads, process.stderr)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert lines[-1]["message"] == "stopping"
    assert {line["service"] for line in lines} == {"balancer"}


_FREEZING = """
import asyncio, gc, os, signal, sys
from contextlib import asynccontextmanager
from services.common.server import CommonSettings, run_main

@asynccontextmanager
async def start(settings, runtime):
    def look():
        print(gc.get_freeze_count(), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
    asyncio.get_running_loop().call_later(0.05, look)
    print(gc.get_freeze_count(), flush=True)
    yield

sys.exit(run_main("rag", CommonSettings, (), start, arguments=[], environment={}))
"""


def test_what_the_start_has_made_is_no_work_for_the_garbage_collector():
    ended = subprocess.run(
        [sys.executable, "-c", _FREEZING], capture_output=True, text=True, timeout=30, check=True
    )
    before, after = map(int, ended.stdout.split())
    assert before == 0
    assert after > 10_000
