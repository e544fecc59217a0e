"""Redis and replicas of the cache, as processes of their own."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from pannier.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from pannier.client import open_channel
from tests.bench import processes
from tests.bench.processes import Started
from tests.bench.tuned import on_own_processors
from tests.kit.ports import free_port
from tests.kit.redis import find_redis_server

__all__ = ["ONE_CORE", "Replica", "Suite", "running_suite"]

_READY_SECONDS = 30.0

ONE_CORE = (0,)
"""The processors that the servers get where a case says "per core"."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One process of the cache.

    Attributes:
        started: The process.
        address: Where it serves.
        stub: Calls it.
        channel: What the stub uses.
    """

    started: Started
    address: str
    stub: CacheServiceStub
    channel: grpc.aio.Channel


@dataclass(frozen=True, slots=True)
class Suite:
    """What a case works with.

    Attributes:
        redis: The Redis server.
        redis_port: Its port.
        replicas: Replicas of the cache that share it.
    """

    redis: Started
    redis_port: int
    replicas: Sequence[Replica]

    @property
    def stub(self) -> CacheServiceStub:
        """Calls the first replica."""
        return self.replicas[0].stub


@asynccontextmanager
async def running_suite(
    folder: Path,
    *,
    replica_count: int = 1,
    redis_options: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[Suite]:
    """Runs Redis and replicas while the context is open.

    Args:
        folder: For logs.
        replica_count: How many replicas.
        redis_options: Further arguments of the Redis server.
        settings: Settings of the replicas, without their prefix.
    """
    async with AsyncExitStack() as stack:
        port = free_port()
        redis = await stack.enter_async_context(
            processes.running(
                "redis",
                [
                    find_redis_server(),
                    *("--port", str(port), "--bind", "127.0.0.1"),
                    *("--dir", str(folder), "--save", "", "--appendonly", "no"),
                    *redis_options,
                ],
                log=folder / "redis.log",
            )
        )
        replicas = [
            await stack.enter_async_context(_replica(folder, index, port, settings))
            for index in range(replica_count)
        ]
        stack.enter_context(on_own_processors(*(each.started.pid for each in replicas)))
        yield Suite(redis, port, replicas)


@asynccontextmanager
async def _replica(
    folder: Path, index: int, redis_port: int, settings: dict[str, str]
) -> AsyncIterator[Replica]:
    grpc_port, http_port = free_port(), free_port()
    variables = {
        "redis_url": f"redis://127.0.0.1:{redis_port}",
        "grpc_address": f"127.0.0.1:{grpc_port}",
        "http_address": f"127.0.0.1:{http_port}",
        "drain_delay_seconds": "0s",
        **settings,
    }
    async with processes.running(
        f"cache {index}",
        [sys.executable, "-m", "services.cache"],
        log=folder / f"cache-{index}.log",
        environment={f"PANNIER_CACHE_{name.upper()}": each for name, each in variables.items()}
        | {"GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "ERROR")},
    ) as started:
        await processes.wait_until(
            started, f"http://127.0.0.1:{http_port}/readyz", within_seconds=_READY_SECONDS
        )
        address = f"127.0.0.1:{grpc_port}"
        async with open_channel(address) as channel:
            yield Replica(started, address, CacheServiceStub(channel), channel)
