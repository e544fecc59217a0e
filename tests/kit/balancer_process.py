"""The balancer as a process of its own, to be watched, stopped and killed."""

import asyncio
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from pannier.balancer.v1 import balancer_service_pb2 as pb
from pannier.balancer.v1 import balancer_service_pb2_grpc as pb_grpc
from tests.kit.ports import free_port
from tests.kit.rpc import channel_to
from tests.kit.standin import StandinProcess

__all__ = ["BalancerProcess", "Footprint", "fleet_of_processes", "is_idle"]

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0
# For the calls under way to end as the end of the process ends them, which is at once.
_CLOSE_SECONDS = 5.0
_POLL_SECONDS = 0.02
_LARGE_MESSAGES = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class Footprint:
    """What a process holds of the machine.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        process = psutil.Process(pid)
        with process.oneshot():
            self.memory_bytes: int = process.memory_info().rss
            self.descriptor_count: int = process.num_fds()
            self.thread_count: int = process.num_threads()
        self.connection_count = len(process.net_connections(kind="tcp"))

    def __repr__(self) -> str:
        return (
            f"{self.memory_bytes / 2**20:.1f} MiB, {self.descriptor_count} descriptors, "
            f"{self.connection_count} sockets, {self.thread_count} threads"
        )


class BalancerProcess:
    """A balancer as a process, with a client.

    Args:
        urls: The backends.
        log: Where its log goes; None for nowhere.
        settings: Its other settings, named as its variables are without their prefix.
    """

    def __init__(self, *urls: str, log: Path | None = None, **settings: str) -> None:
        self.port = free_port()
        self._environment = {
            "PANNIER_BALANCER_BACKENDS": ",".join(urls),
            "PANNIER_BALANCER_GRPC_ADDRESS": f"127.0.0.1:{self.port}",
            "PANNIER_BALANCER_DRAIN_DELAY_SECONDS": "0s",
            **{f"PANNIER_BALANCER_{name}": value for name, value in settings.items()},
        }
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._opened = AsyncExitStack()
        self.stub: pb_grpc.BalancerServiceStub
        self.admin: pb_grpc.BalancerAdminServiceStub

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None, "not running"
        return self._process.pid

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        output = self._log.open("ab") if self._log else None
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.balancer",
                env=os.environ | self._environment,
                stderr=output or asyncio.subprocess.DEVNULL,
            )
        finally:
            if output:
                output.close()
        channel = channel_to(self.port, *_LARGE_MESSAGES)
        self._opened.push_async_callback(channel.close, _CLOSE_SECONDS)
        self.stub = pb_grpc.BalancerServiceStub(channel)
        self.admin = pb_grpc.BalancerAdminServiceStub(channel)
        await self.stub.GetStats(pb.GetStatsRequest(), wait_for_ready=True, timeout=_START_SECONDS)

    async def stats(self) -> pb.GetStatsResponse:
        """Asks for its statistics."""
        return await self.stub.GetStats(pb.GetStatsRequest(), timeout=10)

    async def until(self, condition, *, within_seconds: float = 10.0) -> float:
        """Waits until its statistics are so; returns for how many seconds."""
        began_at = time.monotonic()
        stats = None
        try:
            async with asyncio.timeout(within_seconds):
                while not condition(stats := await self.stats()):
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"not so within {within_seconds} s: {stats}") from None
        return time.monotonic() - began_at

    def footprint(self) -> Footprint:
        """Measures what it holds of the machine."""
        return Footprint(self.pid)

    def freeze(self) -> None:
        """Stops it from running; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on when it was frozen."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """Ends it as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ends it as an operator would, and sees to it that it ends well."""
        code = await self._end(signal.SIGTERM)
        assert code in (None, 0), f"ended with {code}"

    async def _end(self, number: signal.Signals) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            if process.returncode is None:
                process.send_signal(number)
            async with asyncio.timeout(_STOP_SECONDS):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await self._opened.aclose()


async def fleet_of_processes(
    stack: AsyncExitStack, count: int, profile: Path, *options: str
) -> list[StandinProcess]:
    """Starts stand-ins with the models of a profile, which are killed when the stack is left.

    Args:
        stack: Ends them.
        count: How many.
        profile: What models they have.
        options: Their further command line.
    """
    backends = [StandinProcess(free_port(), f"--profile={profile}", *options) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for backend in backends:
            stack.push_async_callback(backend.kill)
            group.create_task(backend.start())
    return backends


def is_idle(stats: pb.GetStatsResponse) -> bool:
    """Tells whether nothing is under way any more, nor thought to be."""
    queued = sum(queue.waiting_count for queue in stats.fleet.queues)
    attempts = sum(backend.in_flight_count for backend in stats.backends)
    held = sum(
        model.in_flight_count + model.zombie_count
        for backend in stats.backends
        for model in backend.models
    )
    return not (stats.fleet.in_flight_count or queued or attempts or held)
