"""Backends that are found in a file or behind a host name."""

import asyncio
import socket

from pannier.balancer.v1 import balancer_service_pb2 as pb
from tests.kit.balancer import opened_admin
from tests.kit.standin import EMBEDDING_MODEL, Standin, running_standins

TEXT = pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"])


def write(path, *lines):
    new = path.with_suffix(".new")
    new.write_text("\n".join(lines))
    new.replace(path)


async def until_fleet_is(balancer, *standins):
    wanted = {each.backend_id for each in standins}
    async with asyncio.timeout(10):
        while {each.backend_id for each in (await balancer.health()).backends} != wanted:
            await asyncio.sleep(0.05)


async def test_the_file_is_read_before_the_first_request_and_again_when_it_changes(
    run_balancer, tmp_path
):
    path = tmp_path / "backends"
    async with running_standins(3) as (listed, first, second):
        write(path, first.url)
        balancer = await run_balancer(listed.url, backends_file=str(path))
        await until_fleet_is(balancer, listed, first)
        write(path, first.url, second.url)
        await until_fleet_is(balancer, listed, first, second)
        write(path, "# none")
        async with opened_admin(balancer.grpc_port) as admin:
            for each in (listed, first):
                await admin.DrainBackend(pb.DrainBackendRequest(backend_id=each.backend_id))
        assert (await balancer.stub.Embed(TEXT)).backend_id == second.backend_id
        write(path, second.url)
        await until_fleet_is(balancer, listed, second)


async def test_every_address_of_a_name_is_a_backend(run_balancer):
    addresses = {each[4][0] for each in socket.getaddrinfo("localhost", 80)}
    standin = Standin()
    await standin.start()
    try:
        async with running_standins(1) as (listed,):
            balancer = await run_balancer(listed.url, backends_dns_name=f"localhost:{standin.port}")
            found = {each.backend_id for each in (await balancer.health()).backends}
            expected = {f"[{each}]" if ":" in each else each for each in addresses}
            assert found == {listed.backend_id} | {f"{each}:{standin.port}" for each in expected}
            states = {each.backend_id: each.state for each in (await balancer.health()).backends}
            assert states[standin.backend_id] == pb.BACKEND_STATE_HEALTHY
    finally:
        await standin.stop()
