"""The service as an operator runs it: a process with settings from the environment."""

import asyncio
import os
import signal
import sys
import urllib.request
from contextlib import asynccontextmanager

import pytest

from pannier.cache.v1 import cache_service_pb2 as pb
from pannier.cache.v1 import cache_service_pb2_grpc
from tests.kit.ports import free_port
from tests.kit.rpc import channel_to

pytestmark = pytest.mark.slow

DIGEST = "0123456789abcdef" * 4
CHUNKS_KEY = pb.ChunksKey(content_digest=DIGEST, chunker_fingerprint="a")


def environment(**variables: str) -> dict[str, str]:
    settings = {f"PANNIER_CACHE_{name.upper()}": value for name, value in variables.items()}
    return {"PATH": os.environ["PATH"], **settings}


@asynccontextmanager
async def running(redis_url: str):
    """Runs the process and yields its stub and its HTTP port; it must stop in order."""
    grpc_port, http_port = free_port(), free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cache",
        env=environment(
            redis_url=redis_url,
            # However late the machine may be, Redis is in order.
            redis_timeout_seconds="5s",
            redis_connect_timeout_seconds="5s",
            grpc_address=f"127.0.0.1:{grpc_port}",
            http_address=f"127.0.0.1:{http_port}",
            drain_delay_seconds="0s",
        ),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with channel_to(grpc_port) as channel:
            await asyncio.wait_for(channel.channel_ready(), 30)
            yield cache_service_pb2_grpc.CacheServiceStub(channel), http_port
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, errors.decode()
        assert b'"level": "error"' not in errors, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_new_process_finds_what_the_old_one_stored(redis_server) -> None:
    chunks = pb.ChunkSet(spans=[pb.ChunkSpan(char_start=0, char_end=9, token_count=2)])
    async with running(redis_server.url) as (stub, _):
        stored = await stub.StoreChunks(pb.StoreChunksRequest(key=CHUNKS_KEY, chunks=chunks))
        assert stored.stored
    async with running(redis_server.url) as (stub, http_port):
        found = await stub.LookupChunks(pb.LookupChunksRequest(key=CHUNKS_KEY))
        assert found.outcome == pb.LOOKUP_OUTCOME_HIT_SHARED
        assert found.chunks == chunks

        def page() -> str:
            url = f"http://127.0.0.1:{http_port}/metrics"
            with urllib.request.urlopen(url) as response:
                return response.read().decode()

        exposition = await asyncio.to_thread(page)
        assert 'cache_hits_total{layer="chunk",level="shared"} 1.0' in exposition
        assert 'cache_backend_up{backend="redis"} 1.0' in exposition


async def test_bad_settings_are_all_told_and_nothing_starts() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cache",
        env=environment(redis_url="nonsense", redis_timeout_seconds="1h", typo="x"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 64
    for name in (b"REDIS_URL", b"REDIS_TIMEOUT_SECONDS", b"TYPO"):
        assert name in errors
