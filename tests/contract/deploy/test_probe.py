import asyncio

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from deploy.probe import main

STATUS = health_pb2.HealthCheckResponse


@pytest.fixture
async def service():
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_service_that_serves_is_healthy(service):
    servicer, address = service
    await servicer.set("", STATUS.SERVING)
    assert await asyncio.to_thread(main, [address]) == 0


async def test_a_service_that_drains_is_not(service, capsys):
    servicer, address = service
    await servicer.set("", STATUS.SERVING)
    await servicer.enter_graceful_shutdown()
    assert await asyncio.to_thread(main, [address]) == 1
    assert capsys.readouterr().err == f"{address}: NOT_SERVING\n"


async def test_nobody_is_not_healthy(capsys):
    # Port 9 (discard): nothing listens there.
    assert await asyncio.to_thread(main, ["127.0.0.1:9", "--timeout", "1"]) == 1
    assert capsys.readouterr().err in (
        "127.0.0.1:9: UNAVAILABLE\n",
        "127.0.0.1:9: DEADLINE_EXCEEDED\n",
    )
