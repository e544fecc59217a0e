"""Ways to find out whether a component answers. Each makes one attempt."""

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.local.component import NotReady
from deploy.local.state import ProcessRecord

__all__ = [
    "check_grpc",
    "check_http",
    "check_postgres",
    "check_process",
    "check_redis",
    "ollama_version",
]

_ATTEMPT_SECONDS = 2.0


async def check_redis(host: str, port: int) -> None:
    """Sends PING to a Redis."""
    async with asyncio.timeout(_ATTEMPT_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(b"PING\r\n")
            await writer.drain()
            answer = await reader.readline()
        finally:
            writer.close()
    if answer != b"+PONG\r\n":
        raise NotReady(f"PING was answered with {answer!r}")


async def check_postgres(url: str) -> None:
    """Connects to a PostgreSQL and runs a statement."""
    try:
        connection = await asyncpg.connect(url, timeout=_ATTEMPT_SECONDS)
    except asyncpg.PostgresError as error:
        raise NotReady(str(error)) from error
    try:
        await connection.fetchval("SELECT 1", timeout=_ATTEMPT_SECONDS)
    finally:
        await connection.close(timeout=_ATTEMPT_SECONDS)


async def check_http(url: str) -> None:
    """Gets a page, which must be answered with 200."""
    timeout = aiohttp.ClientTimeout(total=_ATTEMPT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            if response.status != HTTPStatus.OK:
                raise NotReady(f"{url} was answered with {response.status}")
    except aiohttp.ClientError as error:
        raise NotReady(str(error)) from error


async def check_grpc(address: str) -> None:
    """Asks the standard health service, which must say SERVING."""
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), timeout=_ATTEMPT_SECONDS, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            raise NotReady(f"{error.code().name} {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise NotReady(f"its health is {name}")


async def check_process(record: ProcessRecord) -> None:
    """Asks a process of the stack in the way its address calls for.

    Raises:
        NotReady: It answers that it is not well.
        OSError: It does not answer.
    """
    parts = urlsplit(record.address)
    if record.grpc_address:
        await check_grpc(record.grpc_address)
    elif parts.scheme == "postgresql":
        await check_postgres(record.address)
    elif parts.scheme == "redis":
        await check_redis(parts.hostname or "", parts.port or 0)
    elif record.name == "traces":
        await check_http(f"{record.address}/ready")
    else:
        await check_http(f"{record.address}/api/version")


async def ollama_version(url: str) -> str | None:
    """Returns the version of the Ollama server at an address; None where there is none."""
    timeout = aiohttp.ClientTimeout(total=_ATTEMPT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/api/version") as response,
        ):
            document = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    version = document.get("version") if isinstance(document, dict) else None
    return version if isinstance(version, str) and version else None
