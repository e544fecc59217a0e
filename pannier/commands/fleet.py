"""The balancer as its users and its operators call it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from pannier.balancer.v1 import balancer_service_pb2_grpc
from pannier.commands.connection import connect

__all__ = ["BackendOption", "ModelArgument", "open_balancer", "open_balancer_admin"]

BackendOption = Annotated[
    str, typer.Option("--backend", metavar="ID", help="Host and port of the backend.")
]
ModelArgument = Annotated[str, typer.Argument(help="Name of a model, for example llama3.2:3b.")]


@asynccontextmanager
async def open_balancer(address: str, tenant: str) -> AsyncIterator[Any]:
    """Connects to the balancer; yields the stub of its service.

    Args:
        address: Where it is; empty to find it.
        tenant: Who asks.

    Raises:
        RemoteError: A call made inside failed.
        Unreachable: The balancer did not answer a call made inside.
    """
    async with connect("balancer", address=address, tenant=tenant) as connection:
        yield balancer_service_pb2_grpc.BalancerServiceStub(connection.channel)


@asynccontextmanager
async def open_balancer_admin(address: str, tenant: str) -> AsyncIterator[Any]:
    """Connects to the balancer; yields the stub of the service that changes the fleet.

    Takes and raises what open_balancer does.
    """
    async with connect("balancer", address=address, tenant=tenant) as connection:
        yield balancer_service_pb2_grpc.BalancerAdminServiceStub(connection.channel)
