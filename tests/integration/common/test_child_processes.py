"""Processes that a service starts, beside calls that are under way."""

import subprocess
import sys

import pytest

# As `python -m services.rag` is started: the package first, then gRPC.
PROGRAM = """
import services.common.server
import asyncio
import grpc
import uvloop


async def main():
    server = grpc.aio.server()

    async def echo(request, context):
        return request

    methods = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Test", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/Test/Echo")

        async def talk():
            while True:
                await call(b"", timeout=10)

        callers = [asyncio.create_task(talk()) for _ in range(8)]
        for _ in range(200):
            process = await asyncio.create_subprocess_exec("true", stdin=-1, start_new_session=True)
            print(await process.wait())
        assert not any(each.done() for each in callers)
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
    await server.stop(0)


uvloop.run(main())
"""


@pytest.mark.timeout(120)
def test_none_dies_before_it_has_begun():
    """uvloop forks; what gRPC does in a forked process ended one in nine of them."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=True
    )
    assert result.stdout.split() == ["0"] * 200
