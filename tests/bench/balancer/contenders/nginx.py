"""nginx with `least_conn`, as Debian ships it and as an expert would tune it."""

import getpass
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.bench import processes
from tests.bench.balancer.contenders.port import Contender, Contending
from tests.bench.balancer.fleet import Fleet
from tests.kit.ports import free_port

__all__ = ["CONTENDERS"]

_READY_SECONDS = 10.0


def _frame(folder: Path, port: int, upstream: str, location: str, server: str = "") -> str:
    return f"""
daemon off;
user {getpass.getuser()};
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/nginx-errors.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream fleet {{
    {upstream}
  }}
  server {{
    listen 127.0.0.1:{port};
    {server}
    location / {{
      proxy_pass http://fleet;
      # Ollama refuses names that it does not know, as its documentation says.
      proxy_set_header Host localhost:11434;
      {location}
    }}
  }}
}}
"""


def _milliseconds(seconds: float, fleet: Fleet) -> str:
    return f"{seconds * 1000 / fleet.time_scale:.0f}ms"


def _whole_seconds(seconds: float, fleet: Fleet) -> str:
    """Scales what nginx takes in whole seconds only."""
    return f"{max(1, round(seconds / fleet.time_scale))}s"


def default_configuration(fleet: Fleet, folder: Path, port: int) -> str:
    """Returns the least that makes nginx balance; limits of time are its defaults, scaled."""
    rest = _whole_seconds(10, fleet)
    hosts = "\n    ".join(f"server 127.0.0.1:{host} fail_timeout={rest};" for host in fleet.ports)
    limits = "\n      ".join(
        f"proxy_{name}_timeout {_milliseconds(60, fleet)};" for name in ("connect", "read", "send")
    )
    return _frame(folder, port, f"least_conn;\n    {hosts}", limits)


def tuned_configuration(
    fleet: Fleet, folder: Path, port: int, *, read_timeout_seconds: float
) -> str:
    """Returns what an expert would write for this work.

    State shared by the workers, a second and third try also for POST, patience for loads, no
    buffering of streams, connections kept. `max_conns` only caps a pile-up: without a queue, which
    the free nginx does not have, a limit of one per slot would turn every burst into 502.
    """
    rest = _whole_seconds(10, fleet)
    hosts = "\n    ".join(
        f"server 127.0.0.1:{host} max_fails=2 fail_timeout={rest} max_conns=256;"
        for host in fleet.ports
    )
    upstream = f"zone fleet 256k;\n    least_conn;\n    {hosts}\n    keepalive 64;"
    location = f"""
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_connect_timeout {_milliseconds(5, fleet)};
      proxy_read_timeout {_milliseconds(read_timeout_seconds, fleet)};
      proxy_send_timeout {_milliseconds(read_timeout_seconds, fleet)};
      proxy_next_upstream error timeout http_502 http_503 http_504 non_idempotent;
      proxy_next_upstream_tries 3;
"""
    server = "client_max_body_size 64m; client_body_buffer_size 1m;"
    return _frame(folder, port, upstream, location, server)


@asynccontextmanager
async def _start(
    fleet: Fleet, folder: Path, *, configure: Callable[[Fleet, Path, int], str]
) -> AsyncIterator[Contending]:
    port = free_port()
    path = folder / "nginx.conf"
    path.write_text(configure(fleet, folder, port))
    command = [_executable(), "-c", str(path), "-e", str(folder / "nginx-errors.log")]
    async with processes.running("nginx", command, log=folder / "nginx.log") as started:
        url = f"http://127.0.0.1:{port}"
        await processes.wait_until(started, f"{url}/api/version", within_seconds=_READY_SECONDS)
        yield Contending(f"ollama={url}", started.pid)


def _executable() -> str:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""


def _missing() -> str:
    return "" if _executable() else "apt-get install nginx"


def _version() -> str:
    # A fixed command, found on PATH; the version goes to standard error.
    done = subprocess.run([_executable(), "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().removeprefix("nginx version: ")


CONTENDERS = tuple(
    Contender(
        name=name,
        rule=rule,
        start=partial(_start, configure=configure),
        missing=_missing,
        version=_version,
    )
    for name, rule, configure in (
        ("nginx", "least_conn, defaults", default_configuration),
        (
            "nginx-tuned",
            "least_conn, zone, retries, unbuffered, 600 s",
            partial(tuned_configuration, read_timeout_seconds=600),
        ),
        (
            "nginx-tuned-60s",
            "the same with a read timeout of 60 s",
            partial(tuned_configuration, read_timeout_seconds=60),
        ),
    )
)
