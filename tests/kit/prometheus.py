"""Real Prometheus and Alertmanager on loopback, and the tools that check what they read.

The programs are those on PATH, else those that `tools/monitoring/install.sh` has put into
.venv/monitoring (`make .venv/.monitoring`).

    def test_rules():
        done = run_tool("promtool", "check", "rules", "deploy/prometheus/rules/fleet.yaml")
        assert done.returncode == 0, done.stdout + done.stderr

    async def test_scrape(tmp_path):
        # deploy/prometheus/prometheus.yaml with other addresses and a scrape each second.
        config = prometheus_config({"rag": ["127.0.0.1:9461"], "cache": [], "balancer": []})
        async with running_prometheus(config, tmp_path) as prometheus:
            samples = await prometheus.wait_for('up{job="rag"} == 1')
            assert samples[0]["metric"]["instance"] == "127.0.0.1:9461"
            everything = await prometheus.query("rag_requests_total", at=1_700_000_000)
            alerts = await prometheus.get("/api/v1/alerts")

`running_alertmanager(config, folder)` is alike; its `address` is what `prometheus_config(...,
alertmanager=...)` wants. Both wait until the server is ready, raise `RuntimeError` with its last
words if it ends instead, and stop it by its process when the context ends. Data and configuration
are below the folder given, which must be empty or hold blocks of samples in `data`.
"""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.kit.ports import free_port

__all__ = [
    "DEPLOY",
    "Server",
    "derived",
    "find_program",
    "prometheus_config",
    "run_tool",
    "running_alertmanager",
    "running_prometheus",
]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
"""Where the files are that are checked and derived from."""

_UNPACKED = ROOT / ".venv" / "monitoring"
# Debian has another name for it.
_NAMES = {"alertmanager": ("alertmanager", "prometheus-alertmanager")}
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_TOOL_SECONDS = 150.0


def find_program(name: str) -> str:
    """Returns the path of a program.

    Args:
        name: `prometheus`, `promtool`, `alertmanager` or `amtool`.

    Raises:
        FileNotFoundError: It is nowhere.
    """
    for each in _NAMES.get(name, (name,)):
        on_path = shutil.which(each)
        if on_path is not None:
            return on_path
    unpacked = _UNPACKED / "bin" / name
    if unpacked.is_file():
        return str(unpacked)
    raise FileNotFoundError(
        f"{name} is neither on PATH nor in {_UNPACKED}: tools/monitoring/install.sh"
    )


def run_tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, whatever that is, and returns what it said.

    Paths among the arguments must be absolute.
    """
    command = [find_program(name), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_TOOL_SECONDS, cwd=_folder(), check=False
    )


def derived(text: str, changes: Mapping[str, str]) -> str:
    """Returns a configuration with parts replaced.

    Raises:
        ValueError: A part is not in it, so that the configuration has changed and tests must too.
    """
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"there is no {old!r} in the configuration")
        text = text.replace(old, new)
    return text


def prometheus_config(
    targets: Mapping[str, Sequence[str]], *, alertmanager: str = "", interval_seconds: int = 1
) -> str:
    """Returns the configuration of deploy/, with its rules, for other addresses.

    Args:
        targets: `host:port` of metrics by job: rag, cache and balancer.
        alertmanager: `host:port` of an Alertmanager; empty for none.
        interval_seconds: Time between two scrapes, and between two evaluations of rules.
    """
    text = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    # The rest of the stack is not there.
    text, _, _ = text.partition("  # What watches is watched")
    return derived(
        text,
        {
            "scrape_interval: 15s": f"scrape_interval: {interval_seconds}s",
            "scrape_timeout: 10s": f"scrape_timeout: {interval_seconds}s",
            "evaluation_interval: 15s": f"evaluation_interval: {interval_seconds}s",
            "rules/*.yaml": str(DEPLOY / "prometheus" / "rules" / "*.yaml"),
            "[alertmanager:9093]": _list([alertmanager] if alertmanager else []),
            "[rag:9461]": _list(targets["rag"]),
            "[cache:9462]": _list(targets["cache"]),
            "[balancer:9463]": _list(targets["balancer"]),
        },
    )


class Server:
    """A running Prometheus or Alertmanager.

    Attributes:
        address: Its host and port.
        url: The same as a URL.
    """

    def __init__(self, address: str, client: httpx.AsyncClient) -> None:
        self.address = address
        self.url = f"http://{address}"
        self._client = client

    async def get(self, path: str, **parameters: str | float) -> Any:
        """Asks its HTTP interface, and returns the JSON of the reply.

        Raises:
            httpx.HTTPStatusError: It refused; the text of the reply is in the message's notes.
        """
        reply = await self._client.get(path, params=parameters)
        try:
            reply.raise_for_status()
        except httpx.HTTPStatusError as error:
            error.add_note(reply.text)
            raise
        return reply.json()

    async def query(self, promql: str, *, at: float | None = None) -> list[dict[str, Any]]:
        """Returns the samples of an instant query to Prometheus.

        Args:
            promql: The query.
            at: Seconds since the epoch; now where not given.
        """
        parameters: dict[str, str | float] = {"query": promql}
        if at is not None:
            parameters["time"] = at
        reply = await self.get("/api/v1/query", **parameters)
        result: list[dict[str, Any]] = reply["data"]["result"]
        return result

    async def query_range(
        self, promql: str, *, start: float, end: float, step_seconds: float
    ) -> list[dict[str, Any]]:
        """Returns the series of a query over a range to Prometheus."""
        reply = await self.get(
            "/api/v1/query_range", query=promql, start=start, end=end, step=step_seconds
        )
        result: list[dict[str, Any]] = reply["data"]["result"]
        return result

    async def wait_for(self, promql: str, *, timeout_seconds: float = 30.0) -> list[dict[str, Any]]:
        """Waits until a query has a result, and returns that.

        Raises:
            TimeoutError: It has none for so long.
        """
        async with asyncio.timeout(timeout_seconds):
            while not (samples := await self.query(promql)):
                await asyncio.sleep(_POLL_SECONDS)
            return samples


@asynccontextmanager
async def running_prometheus(
    config: str, folder: Path, *, options: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Runs a Prometheus, with exemplars, while the context is open.

    Args:
        config: The text of its configuration.
        folder: Where its files go; samples that are there already, in `data`, are used.
        options: Further options of the command line.
    """
    (folder / "prometheus.yaml").write_text(config)
    arguments = [
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--enable-feature=exemplar-storage",
        *options,
    ]
    async with _running("prometheus", arguments, folder) as server:
        yield server


@asynccontextmanager
async def running_alertmanager(
    config: str, folder: Path, *, options: Sequence[str] = ()
) -> AsyncIterator[Server]:
    """Runs an Alertmanager of its own, in no cluster, while the context is open.

    Args:
        config: The text of its configuration; paths in it must be absolute.
        folder: Where its files go.
        options: Further options of the command line.
    """
    (folder / "alertmanager.yaml").write_text(config)
    arguments = [
        f"--config.file={folder / 'alertmanager.yaml'}",
        f"--storage.path={folder / 'alerts'}",
        "--cluster.listen-address=",
        *options,
    ]
    async with _running("alertmanager", arguments, folder) as server:
        yield server


@asynccontextmanager
async def _running(name: str, arguments: Sequence[str], folder: Path) -> AsyncIterator[Server]:
    address = f"127.0.0.1:{free_port()}"
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            find_program(name),
            *arguments,
            f"--web.listen-address={address}",
            "--log.level=warn",
            stdout=output,
            stderr=output,
            cwd=_folder(),
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            await _become_ready(client, process, log)
            yield Server(address, client)
    finally:
        await _stop(process)


async def _become_ready(
    client: httpx.AsyncClient, process: asyncio.subprocess.Process, log: Path
) -> None:
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not await _is_ready(client):
                if process.returncode is not None:
                    raise RuntimeError(f"it ended with {process.returncode}: {_last_words(log)}")
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise RuntimeError(f"it does not become ready: {_last_words(log)}") from None


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/-/ready")).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _folder() -> Path:
    """Returns where the programs are started: unpacked ones read their templates below that."""
    return _UNPACKED if _UNPACKED.is_dir() else ROOT


def _list(addresses: Sequence[str]) -> str:
    return f"[{', '.join(addresses)}]"


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-2_000:]
