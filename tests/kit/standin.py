"""Stand-in Ollama servers for tests: in the test's own event loop, or as processes to be killed.

Both keep their port over a restart. Faults are ordered and requests looked up over HTTP, as a
client in another process would.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp

from services.common.clock import SystemClock
from services.standin.server import run_server
from services.standin.settings import Settings

__all__ = [
    "CHAT_MODEL",
    "EMBEDDING_MODEL",
    "Standin",
    "StandinProcess",
    "eventually",
    "running_standins",
]

EMBEDDING_MODEL = "all-minilm:latest"
CHAT_MODEL = "extractive-standin:latest"

_FAST = Settings(port=0, load_seconds=0.0, tokens_per_second=2000.0, prefill_tokens_per_second=1e6)
_START_SECONDS = 20.0
_POLL_SECONDS = 0.01


async def eventually(condition: Callable[[], bool], *, within_seconds: float = 20.0) -> None:
    """Waits until something is so that announces itself by no event.

    Raises:
        AssertionError: It is still not so after the time.
    """
    try:
        async with asyncio.timeout(within_seconds):
            while not condition():
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise AssertionError(f"not so within {within_seconds} s") from None


class _Controlled:
    """A stand-in's control API."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def backend_id(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def order_fault(self, **fault: Any) -> None:
        """Adds a fault rule; see `services.standin.faults.FaultPlan.add`."""
        await self._call("POST", "/standin/faults", fault)

    async def clear_faults(self) -> None:
        """Removes all fault rules."""
        await self._call("DELETE", "/standin/faults")

    async def requests(self, path: str = "") -> list[dict[str, Any]]:
        """Returns the requests so far, oldest first; of one path where given."""
        entries = (await self._call("GET", "/standin/requests"))["requests"]
        return [entry for entry in entries if not path or entry["path"] == path]

    async def totals(self) -> dict[str, Any]:
        """Returns what it has done so far; see `services.standin.totals.Totals`."""
        totals: dict[str, Any] = await self._call("GET", "/standin/totals")
        return totals

    async def clear_totals(self) -> None:
        """Makes it count anew."""
        await self._call("DELETE", "/standin/totals")

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body) as reply,
        ):
            assert reply.status == 200, await reply.text()
            return await reply.json()


class Standin(_Controlled):
    """A stand-in in the running event loop.

    Args:
        settings: Its settings; the port is chosen at the first start and kept.
    """

    def __init__(self, settings: Settings = _FAST) -> None:
        self._settings = settings
        self._running: AbstractAsyncContextManager[int] | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Begins to listen."""
        self._running = run_server(replace(self._settings, port=self.port), SystemClock())
        self.port = await self._running.__aenter__()

    async def stop(self) -> None:
        """Cuts all connections and stops listening."""
        running, self._running = self._running, None
        if running is not None:
            await running.__aexit__(None, None, None)


@asynccontextmanager
async def running_standins(count: int, **settings: Any) -> AsyncIterator[list[Standin]]:
    """Runs quick stand-ins in the running event loop.

    Args:
        count: How many.
        settings: Fields of `services.standin.settings.Settings` that differ from a quick server's.
    """
    async with AsyncExitStack() as stack:
        servers = [Standin(replace(_FAST, **settings)) for _ in range(count)]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop)
        yield servers


class StandinProcess(_Controlled):
    """A stand-in as a process.

    Args:
        port: Where it listens.
        options: Its command line besides `--port`.
    """

    def __init__(self, port: int, *options: str) -> None:
        self.port = port
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.standin",
            "--host=127.0.0.1",
            f"--port={self.port}",
            *self._options,
            stdout=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(_START_SECONDS), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"{self.url}/api/version"):
                        return
                except aiohttp.ClientConnectionError:
                    assert self._process.returncode is None, "it has ended"
                    await asyncio.sleep(_POLL_SECONDS)

    def freeze(self) -> None:
        """Stops it from running; its connections stay open."""
        assert self._process is not None, "not running"
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on when it was frozen."""
        assert self._process is not None, "not running"
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Ends it as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ends it as an operator would."""
        await self._end(signal.SIGTERM)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(number)
            await process.wait()
