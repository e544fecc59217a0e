"""Finds the services and calls them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import grpc
import typer

from deploy.local.state import StateFile, home_folder
from pannier.client import RemoteError, TraceContext, open_channel
from pannier.commands.output import Output

__all__ = [
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_UNREACHABLE",
    "AddressOption",
    "CollectionOption",
    "Connection",
    "JsonOption",
    "TenantOption",
    "TimeoutOption",
    "Unreachable",
    "connect",
    "find_address",
    "find_trace_url",
    "run",
]

EXIT_FAILED = 1
EXIT_UNREACHABLE = 2
EXIT_INTERRUPTED = 130

_DEFAULT_ADDRESSES = {
    "rag": "127.0.0.1:50051",
    "cache": "127.0.0.1:50052",
    "balancer": "127.0.0.1:50053",
}
_DEFAULT_TRACE_URL = "http://127.0.0.1:3417"

TenantOption = Annotated[
    str, typer.Option(envvar="PANNIER_TENANT", help="Owner of what is read and written.")
]
AddressOption = Annotated[
    str,
    typer.Option(
        help="Address of the service, host:port. Default: PANNIER_CLIENT_<SERVICE>_ADDRESS, "
        "else that of the stack in the state folder."
    ),
]
CollectionOption = Annotated[str, typer.Option("--collection", "-c", help="Name of a collection.")]
TimeoutOption = Annotated[float, typer.Option(min=0.1, help="Seconds the call may take.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]


class Unreachable(Exception):
    """A service does not answer.

    Args:
        service: Its name.
        address: Where it was looked for.
    """

    def __init__(self, service: str, address: str) -> None:
        super().__init__(f"{service} is not reachable at {address}; start it with `pannier up`")
        self.service = service
        self.address = address


@dataclass(frozen=True, slots=True)
class Connection:
    """A way to a service.

    Attributes:
        channel: Carries tenant and trace.
        trace: The trace that all calls belong to.
    """

    channel: grpc.aio.Channel
    trace: TraceContext


def find_address(service: str, option: str, environment: Mapping[str, str]) -> str:
    """Returns where a service is: as asked for, as the environment says, as the stack runs.

    Args:
        service: `rag`, `cache` or `balancer`.
        option: What the command line says; empty for nothing.
        environment: The user's variables.
    """
    given = option or environment.get(f"PANNIER_CLIENT_{service.upper()}_ADDRESS")
    if given:
        return given
    state = StateFile(home_folder(environment)).read()
    if state is None:
        return _DEFAULT_ADDRESSES[service]
    return str(getattr(state.addresses, service))


def find_trace_url(environment: Mapping[str, str]) -> str:
    """Returns where traces are read: as the environment says, else as the stack runs."""
    given = environment.get("PANNIER_TRACE_URL")
    if given:
        return given.rstrip("/")
    state = StateFile(home_folder(environment)).read()
    return _DEFAULT_TRACE_URL if state is None else state.addresses.trace_url


@asynccontextmanager
async def connect(service: str, *, address: str, tenant: str) -> AsyncIterator[Connection]:
    """Opens a channel to a service, with a trace of its own.

    Args:
        service: `rag`, `cache` or `balancer`.
        address: Where it is; empty to find it.
        tenant: Owner of what is read and written.

    Raises:
        RemoteError: A call made inside failed.
        Unreachable: The service did not answer a call made inside.
    """
    target = find_address(service, address, os.environ)
    trace = TraceContext.new()
    try:
        async with open_channel(target, tenant=tenant, traceparent=trace.traceparent) as channel:
            yield Connection(channel, trace)
    except grpc.aio.AioRpcError as error:
        remote = RemoteError.from_call(error)
        if remote.code is grpc.StatusCode.UNAVAILABLE and not remote.reason:
            raise Unreachable(service, target) from error
        raise remote from error


def run(main: Callable[[Output], Coroutine[Any, Any, int]]) -> None:
    """Runs a command and ends the process with its exit status.

    Args:
        main: The command; returns the exit status.

    Raises:
        typer.Exit: Always.
    """
    output = Output()
    try:
        status = asyncio.run(_cancelled_by_interrupt(main, output))
    except (KeyboardInterrupt, asyncio.CancelledError):
        # Ctrl-C, or another signal, has cancelled the command and with it the call.
        output.problem("interrupted")
        status = EXIT_INTERRUPTED
    except Unreachable as error:
        output.problem(str(error))
        status = EXIT_UNREACHABLE
    except RemoteError as error:
        output.remote_error(error)
        status = EXIT_FAILED
    raise typer.Exit(status)


async def _cancelled_by_interrupt(
    main: Callable[[Output], Coroutine[Any, Any, int]], output: Output
) -> int:
    """Runs a command, which the first Ctrl-C cancels and the second ends where it is.

    asyncio's own handler does not wake the loop: a signal that comes just before it waits, or to
    another thread, would be noticed at the next event only, if there is one.
    """
    loop = asyncio.get_running_loop()
    command = loop.create_task(main(output))

    def interrupt() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        command.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    return await command
