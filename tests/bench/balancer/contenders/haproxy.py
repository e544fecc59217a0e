"""HAProxy with `leastconn`, as Debian ships it and as an expert would tune it."""

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
# Without it small pieces of a stream wait up to 200 ms in the kernel. That cannot be scaled: at
# ten times the speed of life it would count as two seconds. So even the default is spared it.
_NO_DELAY = "option http-no-delay"


def _milliseconds(seconds: float, fleet: Fleet) -> str:
    return f"{max(1, round(seconds * 1000 / fleet.time_scale))}ms"


def _servers(fleet: Fleet, *, limited: bool = False) -> str:
    return "\n".join(
        f"  server host-{index} 127.0.0.1:{port}" + (f" maxconn {slots}" if limited else "")
        for index, (port, slots) in enumerate(zip(fleet.ports, fleet.slot_counts, strict=True))
    )


def default_configuration(fleet: Fleet, port: int) -> str:
    """Returns Debian's defaults with a backend of checked servers; times are scaled."""
    return f"""
defaults
  mode http
  timeout connect {_milliseconds(5, fleet)}
  timeout client {_milliseconds(50, fleet)}
  timeout server {_milliseconds(50, fleet)}
  {_NO_DELAY}
frontend entrance
  bind 127.0.0.1:{port}
  default_backend fleet
backend fleet
  balance leastconn
  default-server check inter {_milliseconds(2, fleet)}
{_servers(fleet)}
"""


def tuned_configuration(fleet: Fleet, port: int, *, answer_timeout_seconds: float) -> str:
    """Returns what an expert would write for this work.

    A request per slot and the rest in HAProxy's own queue, a second try for all that can be tried
    again (which needs whole requests in the buffer), checks by HTTP, errors seen in the traffic
    counted, a slow start.
    """
    return f"""
global
  tune.bufsize 262144
defaults
  mode http
  timeout connect {_milliseconds(5, fleet)}
  timeout client {_milliseconds(600, fleet)}
  timeout server {_milliseconds(answer_timeout_seconds, fleet)}
  timeout queue {_milliseconds(600, fleet)}
  option http-keep-alive
  {_NO_DELAY}
  option httpchk GET /api/version
  http-check expect status 200
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response response-timeout 500 502 503 504
frontend entrance
  bind 127.0.0.1:{port}
  default_backend fleet
backend fleet
  balance leastconn
  http-reuse always
  default-server check inter {_milliseconds(2, fleet)} fall 2 rise 2
  default-server slowstart {_milliseconds(30, fleet)}
  default-server observe layer7 error-limit 5 on-error mark-down
{_servers(fleet, limited=True)}
"""


@asynccontextmanager
async def _start(
    fleet: Fleet, folder: Path, *, configure: Callable[[Fleet, int], str]
) -> AsyncIterator[Contending]:
    port = free_port()
    path = folder / "haproxy.cfg"
    path.write_text(configure(fleet, port))
    command = [_executable(), "-db", "-q", "-f", str(path)]
    async with processes.running("haproxy", command, log=folder / "haproxy.log") as started:
        url = f"http://127.0.0.1:{port}"
        await processes.wait_until(started, f"{url}/api/version", within_seconds=_READY_SECONDS)
        yield Contending(f"ollama={url}", started.pid)


def _executable() -> str:
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin") or ""


def _missing() -> str:
    return "" if _executable() else "apt-get install haproxy"


def _version() -> str:
    # A fixed command, found on PATH.
    done = subprocess.run([_executable(), "-v"], capture_output=True, text=True, check=True)
    return " ".join(done.stdout.split()[:3])


CONTENDERS = tuple(
    Contender(
        name=name,
        rule=rule,
        start=partial(_start, configure=configure),
        missing=_missing,
        version=_version,
    )
    for name, rule, configure in (
        ("haproxy", "leastconn, Debian's defaults, no delay", default_configuration),
        (
            "haproxy-tuned",
            "leastconn, maxconn = slots, queue, retries, checks, 600 s",
            partial(tuned_configuration, answer_timeout_seconds=600),
        ),
        (
            "haproxy-tuned-60s",
            "the same with 60 s for an answer to begin",
            partial(tuned_configuration, answer_timeout_seconds=60),
        ),
    )
)
