"""The whole suite as real processes, started as a user starts it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.local.trace_store import TraceStore, serve_traces
from tests.kit.ports import free_port
from tests.kit.redis import find_redis_server

COMMAND = [sys.executable, "-m", "pannier.commands.main"]


class TraceReceiver:
    """An OTLP receiver in this process, on an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._running = self._run(self._stack.enter_async_context(serve_traces(TraceStore())))
        self.otlp_endpoint = self._running.otlp_endpoint
        self.url = self._running.url

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def wait_for(self, trace_id, predicate, timeout_seconds=15.0):
        """Waits until the spans of a trace satisfy a predicate, and returns them."""
        return self._run(self._running.store.wait_for(trace_id, predicate, timeout_seconds))

    def close(self) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Suite:
    """The running suite."""

    home: Path
    environment: dict[str, str]
    traces: TraceReceiver

    def state(self) -> dict:
        return json.loads((self.home / "stack.json").read_text())

    def address(self, service: str) -> str:
        return self.state()["addresses"][service]

    def process(self, name: str) -> dict:
        return next(each for each in self.state()["processes"] if each["name"] == name)

    def log(self, name: str) -> str:
        return Path(self.process(name)["log"]).read_text()

    @contextmanager
    def redis_again(self) -> Iterator[None]:
        """Runs a Redis in place of the one that was killed."""
        port = self.process("redis")["address"].rpartition(":")[2]
        process = subprocess.Popen(
            [find_redis_server(), "--port", port, "--bind", "127.0.0.1", "--save", ""],
            cwd=self.home,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)

    def pannier(self, *arguments: str, timeout: float = 240, status: int | None = 0) -> str:
        """Runs the command as a user does and returns what it prints."""
        result = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if status is not None:
            assert result.returncode == status, f"{arguments}: {result.stdout}{result.stderr}"
        return result.stdout + (result.stderr if status else "")

    def pannier_json(self, *arguments: str) -> dict:
        return json.loads(self.pannier(*arguments, "--json"))


def pids_with(marker: str) -> list[int]:
    """Finds processes whose command line holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def suite() -> Iterator[Suite]:
    home = Path(tempfile.mkdtemp(prefix="pannier-e2e-"))
    traces = TraceReceiver()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PANNIER_", "COV"))
    }
    environment = {
        **kept,
        "PANNIER_HOME": str(home),
        "PANNIER_TRACE_URL": traces.url,
        "PANNIER_RAG_OTLP_ENDPOINT": traces.otlp_endpoint,
        "PANNIER_CACHE_OTLP_ENDPOINT": traces.otlp_endpoint,
        "PANNIER_BALANCER_OTLP_ENDPOINT": traces.otlp_endpoint,
        "GRPC_VERBOSITY": "ERROR",
        # On a machine that is late only what is gone counts as away.
        "PANNIER_RAG_CACHE_TIME_LIMIT_SECONDS": "10s",
        "PANNIER_CACHE_REDIS_TIMEOUT_SECONDS": "2s",
        "PANNIER_CACHE_REDIS_CONNECT_TIMEOUT_SECONDS": "2s",
        # The usual ports are among those that connections take.
        **{
            f"PANNIER_{service}_GRPC_ADDRESS": f"127.0.0.1:{free_port()}"
            for service in ("RAG", "CACHE", "BALANCER")
        },
    }
    running = Suite(home, environment, traces)
    try:
        running.pannier("up")
        yield running
    finally:
        running.pannier("down", status=None)
        traces.close()
        shutil.rmtree(home, ignore_errors=True)


def wait_until(condition, timeout_seconds: float = 30.0):
    """Waits for another process to do something; returns what the condition gave."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_seconds:g} s")


def kill(process: dict) -> None:
    os.kill(process["identity"]["pid"], signal.SIGKILL)
